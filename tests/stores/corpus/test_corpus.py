"""Parquet and JSON lines as a source: which columns hold what, and what cannot be a record."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reembed.errors import (
    CollectionNotFoundError,
    ManifestError,
    PreflightError,
    SourceChangedError,
)
from reembed.records import SHARD_ROWS
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions
from tests.support.chroma_data import chroma, names_in, records_of
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.texts import sentence


def lines(path: Path, *rows: Any) -> Store:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return open_store(f"jsonl:{path}")


def parquet(path: Path, columns: dict[str, Any], **settings: Any) -> Store:
    pq.write_table(pa.table(columns), path, **settings)
    return open_store(f"parquet:{path}")


def read(store: Store, *ids: str, vectors: bool = False) -> list[dict[str, Any]]:
    (name,) = store.catalog.collections()
    rows = store.reader.fetch(store.catalog.describe(name).id, ids, vectors=vectors).to_pylist()
    return [row | {"metadata": json.loads(row["metadata"])} for row in rows]


def refusal(store: Store) -> str:
    (name,) = store.catalog.collections()
    with pytest.raises(PreflightError) as caught:
        store.catalog.describe(name)
    return caught.value.message


def test_row_hashes_and_single_rows_are_those_of_the_whole(tmp_path: Path) -> None:
    """What is compared without reading it again, and what is picked out of the middle of a file,
    are the records that reading all of it gives: with empty lines, and in a file of two slices."""
    odd = (
        "\ufeff\n \n"
        + json.dumps({"id": "first", "text": "a", "vector": [1.0, 2.0]})
        + "\n\u00a0\n"
    )
    rows = [{"id": f"r{n}", "text": f"text {n}", "n": n} for n in range(SHARD_ROWS + 20)]
    store = lines(tmp_path / "corpus.jsonl", odd, *rows)
    found = store.catalog.describe("corpus")
    ids = [id for page in store.reader.list_ids(found.id) for id in page.to_pylist()]
    whole = store.reader.fetch(found.id, ids, vectors=False)
    assert store.row_hashes is not None
    known = [row for page in store.row_hashes(found.id) for row in page.to_pylist()]
    assert known == whole.select(["id", "row_sha256"]).to_pylist()
    few = [f"r{SHARD_ROWS + 7}", "first", "r3"]
    picked = store.reader.fetch(found.id, few, vectors=False).to_pylist()
    assert picked == whole.take([ids.index(id) for id in few]).to_pylist()
    assert found.dimensions == 2


def test_other_columns_are_metadata(tmp_path: Path) -> None:
    day = datetime.date(2026, 11, 29)
    store = parquet(
        tmp_path / "corpus.parquet",
        {"id": [7, 8], "text": ["a", None], "lang": ["en", None], "day": [day, day],
         "tags": [["x"], []]},
    )  # fmt: skip
    first, second = read(store, "7", "8")
    assert (first["id"], first["document"], first["metadata"]) == (
        "7", "a", {"day": "2026-11-29", "lang": "en", "tags": ["x"]},
    )  # fmt: skip
    assert (second["document"], second["metadata"]) == (None, {"day": "2026-11-29", "tags": []})
    assert store.catalog.collections() == ["corpus"]


def test_columns_are_named_by_the_manifest(tmp_path: Path) -> None:
    lines(tmp_path / "c.jsonl", {"key": "k", "body": "b", "about": {"n": 1}, "id": 3})
    named = StoreOptions(columns={"id": "key", "text": "body", "metadata": "about"})
    (row,) = read(open_store(f"jsonl:{tmp_path / 'c.jsonl'}", named), "k")
    assert (row["id"], row["document"], row["metadata"]) == ("k", "b", {"n": 1})
    wrong = open_store(f"jsonl:{tmp_path / 'c.jsonl'}", StoreOptions(columns={"id": "kee"}))
    assert "no column 'kee'" in refusal(wrong) and "key, body, about, id" in refusal(wrong)
    with pytest.raises(ManifestError, match=r"source\.columns is for"):
        open_store("chroma:./x", StoreOptions(columns={"id": "key"}))


def test_a_folder_is_read_as_one_or_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    lines(folder / "a.jsonl", {"id": "a1", "text": "x"}, {"id": "a2", "text": "y"})
    lines(folder / "more" / "b.jsonl", {"id": "b1", "text": "z"})
    store = open_store(f"jsonl:{folder}")
    assert store.catalog.collections() == ["a", "more"]
    counts = {name: store.catalog.describe(name).count for name in ("a", "more", "corpus")}
    assert counts == {"a": 2, "more": 1, "corpus": 3}
    found = store.reader.fetch(str(folder), ["b1", "a1"], vectors=False)
    assert found.column("id").to_pylist() == ["b1", "a1"]
    with pytest.raises(CollectionNotFoundError) as caught:
        store.catalog.describe("../corpus")
    assert "'corpus', the folder's own name" in caught.value.hint


BAD: list[tuple[str, str]] = [
    ('{"id": "x", "text": \n', "line 2: no JSON"),
    ('["x"]\n', "line 2: no JSON object, but list"),
    ('{"text": "x"}\n', "line 2: 'id' is no id"),
    ('{"id": true}\n', "line 2: 'id' is no id"),
    ('{"id": ""}\n', "line 2: 'id' is no id"),
    ('{"id": "x", "text": 5}\n', "line 2: 'text' is no text"),
    ('{"id": "x", "text": "\\ud800"}\n', "line 2: no valid Unicode"),
    ('{"id": "x", "n": NaN}\n', "line 2: no JSON: NaN"),
    ('\n\n{"id": "first"}\n', "line 4: id 'first' is there already, in corpus.jsonl"),
]


@pytest.mark.parametrize(("line", "told"), BAD)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    store = lines(tmp_path / "corpus.jsonl", {"id": "first", "text": "t"}, line)
    message = refusal(store)
    assert told in message and str(tmp_path / "corpus.jsonl") in message


def test_bytes_that_are_no_text_and_many_bad_lines_are_counted(tmp_path: Path) -> None:
    store = lines(tmp_path / "corpus.jsonl", *['{"id"\n'] * 7)
    assert "7 lines cannot be read" in refusal(store) and "(and 2 more)" in refusal(store)
    (tmp_path / "corpus.jsonl").write_bytes(b'{"id": "\xff"}\n')
    assert "line 1: no JSON" in refusal(open_store(f"jsonl:{tmp_path / 'corpus.jsonl'}"))


def test_rows_of_parquet_are_named_and_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    store = parquet(path, {"id": ["a", None, "a"], "text": ["x", "y", "z"]})
    assert "row 2: 'id' is no id" in refusal(store)
    assert "row 2: a value of metadata that JSON does not have" in refusal(
        parquet(path, {"id": ["a", "b"], "text": ["x", "y"], "raw": [None, b"z"]})
    )
    path.write_bytes(path.read_bytes()[:-9])
    assert "no whole Parquet file" in refusal(open_store(f"parquet:{path}"))


@pytest.mark.parametrize("scheme", ["parquet", "jsonl"])
def test_any_record_is_found_wherever_it_is(tmp_path: Path, scheme: str) -> None:
    count = 2 * SHARD_ROWS + 7
    ids, texts = [f"r{n}" for n in range(count)], [f"text {n}" for n in range(count)]
    vectors = [[float(n), 1.0] for n in range(count)]
    if scheme == "parquet":
        columns = {"id": ids, "text": texts, "embedding": vectors}
        store = parquet(tmp_path / "c.parquet", columns, row_group_size=SHARD_ROWS + 3)
    else:
        rows = zip(ids, texts, vectors, strict=True)
        store = lines(tmp_path / "c.jsonl", *[dict(zip(("id", "text", "embedding"), row,
                                                       strict=True)) for row in rows])  # fmt: skip
    info = store.catalog.describe("c")
    assert (info.count, info.dimensions) == (count, 2)
    for wanted in ([count - 1, 0, SHARD_ROWS], [SHARD_ROWS + 4, 3], [2 * SHARD_ROWS, 1]):
        found = store.reader.fetch(info.id, [ids[n] for n in wanted], vectors=True).to_pylist()
        assert [(row["document"], row["embedding"]) for row in found] == [
            (texts[n], vectors[n]) for n in wanted
        ]


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    store = lines(path, {"id": "a", "text": "x"})
    id = store.catalog.describe("c").id
    assert store.reader.count(id) == 1
    path.write_text("")
    with pytest.raises(SourceChangedError, match="written to while it was read"):
        store.reader.fetch(id, ["a"], vectors=False)


def test_a_corpus_without_vectors_becomes_a_collection(tmp_path: Path, command: Command) -> None:
    rows = [{"id": f"r{n}", "text": sentence(n), "n": n} for n in range(120)]
    lines(tmp_path / "corpus.jsonl", *rows)
    with chroma(tmp_path / "db"):
        pass
    path = write_manifest(
        tmp_path, "jsonl:./corpus.jsonl", source__collection="corpus", source__model=None,
        target={"url": "chroma:./db", "collection": "docs"},
    )  # fmt: skip
    done = command("run", path, "--swap", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["loaded"] == 120
    assert "docs" in names_in(f"chroma:{tmp_path / 'db'}")
    with chroma(tmp_path / "db") as client:
        found = records_of(client.get_collection("docs", embedding_function=None))
    assert found["r5"] == (sentence(5), '{"n": 5}', None)
