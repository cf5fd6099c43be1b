"""What a row holds besides text and vector: byte-identical through swap, rollback and swap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reembed.errors import PreflightError
from tests.support.commands import Command
from tests.support.crossing import crossed
from tests.support.following import follows_hint
from tests.support.manifests import run_dir
from tests.support.pg_scene import Scene

TYPES = {
    "at": ("timestamptz", "2026-02-03 04:05:06.789012+05:30", "infinity", "0044-03-15 BC"),
    "plain_at": ("timestamp(3)", "2026-02-03 04:05:06.789", "-infinity", "epoch"),
    "day": ("date", "2026-02-28", "infinity", "0001-01-01 BC"),
    "hour": ("timetz", "23:59:59.999999-08", "24:00:00+00", "00:00+00"),
    "span": ("interval", "1 year -2 mons +3 days 04:05:06.7", "-00:00:00.000001", "-17 years"),
    "price": ("numeric", "1.10", "NaN", "123456789012345678901234567890.1234567890000"),
    "fixed": ("numeric(10,4)", "1.1000", "0.0000", "-5.0000"),
    "wide": ("float8", "NaN", "-Infinity", "1.7976931348623157e308"),
    "small": ("float8", "5e-324", "-0", "0.1"),
    "single": ("float4", "0.1", "Infinity", "1.17549435e-38"),
    "big": ("int8", "9223372036854775807", "-9223372036854775808", "0"),
    "yes": ("boolean", "true", "false", "true"),
    "raw": ("bytea", r"\x00ff", r"\x", r"\x5c5c27"),
    "letters": ("char(5)", "ab", "", "abcde"),
    "short": ("varchar(9)", "a'b\"c\\d", "", "ünïcödé"),
    "words": ("text[]", r'{"a b",NULL,"NULL","",",{}\"\\"}', "{}", "{{a,b},{c,d}}"),
    "numbers": ("int[]", "[2:4]={1,2,3}", "{1,NULL}", "[0:1][-1:0]={{1,2},{3,4}}"),
    "prices": ("numeric[]", "{1.10,NaN}", "{}", "{0.000}"),
    "spans": ("interval[]", '{"1 day","-01:00:00"}', "{}", "{NULL}"),
    "blobs": ("jsonb[]", r'{"{\"a\": 1.10}","null"}', "{}", "{NULL}"),
    "more": ("jsonb", '{"b": 1.10, "a": [1, null]}', "null", '"text"'),
    "mood": ("mood", "so so", "good", "so so"),
    "place": ("inet", "10.0.0.1/8", "::1", "192.168.0.1"),
    "net": ("cidr", "10.0.0.0/8", "::/0", "192.168.0.0/24"),
    "mac": ("macaddr", "08:00:2b:01:02:03", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"),
    "bits": ("varbit", "10101", "", "0"),
    "three": ("bit(3)", "101", "000", "111"),
    "spot": ("point", "(1.5,-0)", "(NaN,Infinity)", "(0,1e-300)"),
    "span_of": ("int4range", "[1,5)", "empty", "(,)"),
    "spans_of": ("tstzmultirange", '{[2026-01-01,2026-02-01)}', "{}", "{(,)}"),
    "found": ("tsvector", "'cat':1A,3 'it''s':2", "", "'a b':7"),
    "wanted": ("tsquery", "'cat' & !'dog':*", "'a' <-> 'b'", "'x'"),
    "pair": ("pair", '(1,"a,""b""")', "(,)", '(-1,"")'),
    "pairs": ("pair[]", r'{"(1,a)","(,\"x y\")"}', "{}", "{NULL}"),
    "even": ("even", "2", "0", "-4"),
    "second": ("vector(3)", "[1,2.5,-0.1]", "[0,0,0]", "[1e-38,3.4e38,1]"),
    "halves": ("halfvec(2)", "[0.5,65504]", "[0,0]", "[6e-08,1]"),
    "sparse": ("sparsevec(5)", "{1:1,5:0.5}/5", "{}/5", "{2:-1}/5"),
    "kind": ("regtype", "integer", "text", "vector"),
    "one": ('"char"', "a", "b", "c"),
}  # fmt: skip
"""Column to type and values, as Postgres writes them."""


def test_every_type_of_column_comes_through(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path, key="key", text="body")
    columns = ", ".join(f'"{name}" {type}' for name, (type, *_) in TYPES.items())
    scene.execute(
        "CREATE TYPE mood AS ENUM ('good', 'so so')",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE DOMAIN even AS int NOT NULL CHECK (VALUE % 2 = 0)",
        f"CREATE TABLE docs (n int GENERATED ALWAYS AS IDENTITY, {columns}, body text, "
        "key even PRIMARY KEY, length int GENERATED ALWAYS AS (length(body)) STORED, "
        "shout text GENERATED ALWAYS AS (upper(body)), embedding vector(48))",
        "ALTER TABLE docs DROP COLUMN halves",
    )
    types = {name: values for name, (_, *values) in TYPES.items() if name != "halves"}
    values_of: dict[str, Callable[[int], Any]] = {
        name: partial(value_of, name, values) for name, values in types.items()
    }
    values_of["key"] = lambda row: 2 * row
    scene.fill(12, columns=values_of)
    scene.there_and_back()


def value_of(name: str, values: list[str], row: int) -> str | None:
    """Each value in turn, and then null where the type allows it."""
    return values[row % 4] if row % 4 < 3 else "6" if name == "even" else None


JSONS = (
    '{"b": 1, "a": 2}',
    '  {"title" : "x",\n\t"price":1.10, "long": 123456789012345678901234567890 }  ',
    '{"twice": 1, "twice": 2, "twice": 1}',
    '{"nested": { "a" : [ 1 , 2.50e3 ] , "a": null }}',
    '{"unicode": "\\u00e9\\ud83d\\ude00 é😀", "slash": "\\/"}',
    "null",
    " null\n",
    None,
    '"text"',
    '  "text with {braces} and \\"quotes\\""',
    "1.10",
    "true",
    "[]",
    "{}",
    " [1,  2] ",
    '"null"',
)
"""Texts of the type json that a parser would change; None is SQL's null."""


@pytest.mark.parametrize(
    ("type", "more", "key"),
    crossed(
        ["json", "jsonb"],
        ["other json, author text, ", "", "author text, "],
        ["bigserial", "varchar(40) DEFAULT gen_random_uuid()::text"],
    ),
)
def test_json_keeps_every_byte(
    postgres_url: str, tmp_path: Path, type: str, more: str, key: str
) -> None:
    scene = Scene(postgres_url, tmp_path)
    scene.execute(
        f"CREATE TABLE docs (id {key} PRIMARY KEY, metadata {type}, content text, {more}"
        "embedding vector(48))"
    )
    jsons: dict[str, Callable[[int], Any]] = {"metadata": lambda row: JSONS[row % len(JSONS)]}
    if "other" in more:
        jsons["other"] = lambda row: JSONS[(row + 1) % len(JSONS)]
    scene.fill(len(JSONS), columns=jsons)
    scene.there_and_back()


def test_the_export_holds_json_as_it_stands(postgres_url: str, tmp_path: Path) -> None:
    scene = Scene(postgres_url, tmp_path)
    scene.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, content text, metadata json, embedding vector(48))"
    )
    kept = [text for text in JSONS if text is not None and "null" not in text]
    scene.fill(len(kept), columns={"id": int, "metadata": lambda row: kept[row]})
    scene.run()
    (shard,) = (run_dir(scene.path).path / "export").glob("*.parquet")
    exported = pq.read_table(shard).sort_by("id").to_pydict()
    rows = dict(zip(exported["id"], exported["metadata"], strict=True))
    assert [rows[str(number)] for number in range(len(kept))] == kept


@follows_hint("Postgres holds neither NUL characters nor non-finite or over-long vectors: correct")
def test_a_text_of_json_with_nul_is_refused_by_name(
    postgres_url: str, tmp_path: Path, command: Command
) -> None:
    """The type json holds what no text of Postgres can; a table with more columns says so."""
    scene = Scene(postgres_url, tmp_path)
    scene.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, content text, metadata json, author text, "
        "embedding vector(48))"
    )
    scene.fill(3, columns={"id": int, "metadata": lambda row: '{"a": "\\u0000"}' if row else None})
    with pytest.raises(PreflightError, match=r"refuses the record '1'"):
        scene.migration.run()
    scene.execute("UPDATE docs SET metadata = NULL WHERE id > 0")
    assert command("run", scene.path, "--restart").code == 0


def test_without_more_columns_json_with_nul_comes_through(
    postgres_url: str, tmp_path: Path
) -> None:
    scene = Scene(postgres_url, tmp_path)
    scene.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, content text, metadata json, embedding vector(48))"
    )
    scene.fill(3, columns={"id": int, "metadata": lambda row: '{"a": "\\u0000"}'})
    scene.there_and_back()
