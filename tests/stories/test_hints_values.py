"""A value of a manifest that a store, a disk or a verification could not use is refused by `plan`,
which says what can be written in its place; and that is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings

from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import write_manifest

PART = {"swap__kind": "config"}
ONE = PART | {"source__where": {"n": {"$eq": 9}}}
TWO = PART | {"source__where": {"$and": [{"n": {"$gte": 9}}, {"n": {"$lt": 20}}]}}
WHERE = follows_hint("One condition is {KEY: VALUE} or {KEY: {OPERATOR: VALUE}}")
NAME = follows_hint("target.collection and swap.live may both be left out.")
NEIGHBOURS = follows_hint("Set it to 16, which is Chroma's default, up to 64, or remove it.")
NUMBER = follows_hint("which is Chroma's default, or remove it.", where="stores/chroma/metric.py")
FILES = follows_hint("without them reembed makes queries of its own.")
DATABASE = follows_hint("Name one that is there by ?database= and ?tenant= in the URL")
STATE = follows_hint("Point `state` at a folder that can be written.")
QUERIES = {"verify__queries": "{folder}/q.jsonl"}
JUDGED = QUERIES | {"verify__qrels": "{folder}/q.tsv"}
ROWS: list[tuple[str, dict[str, Any], pytest.MarkDecorator, dict[str, Any]]] = [
    ("an operator in place of a key", PART | {"source__where": {"$foo": 1}}, WHERE, ONE),
    ("such a one within", PART | {"source__where": {"$or": [{"n": 1}, {"$foo": 2}]}}, WHERE, TWO),
    ("an unknown operator", PART | {"source__where": {"n": {"$near": 1}}}, WHERE, ONE),
    ("none of a list", PART | {"source__where": {"n": {"$in": []}}}, WHERE,
     PART | {"source__where": {"n": {"$in": [1, 2]}}}),
    ("two conditions", PART | {"source__where": {"n": 1, "title": "x"}}, WHERE, TWO),
    ("a short name", {"target__collection": "x"}, NAME, {"target__collection": "docs-x"}),
    ("a name with blanks", {"target__collection": "my docs"}, NAME, {}),
    ("a million neighbours", {"target__index": {"max_neighbors": 10**6}}, NEIGHBOURS,
     {"target__index": {"max_neighbors": 64}}),
    ("one neighbour", {"target__index": {"max_neighbors": 1}}, NEIGHBOURS, {}),
    ("a number as a text", {"target__index": {"ef_search": "200"}}, NUMBER,
     {"target__index": {"ef_search": 100}}),
    ("a threshold of none", {"target__index": {"sync_threshold": 0}}, NUMBER,
     {"target__index": {"sync_threshold": 1000}}),
    ("queries that are not there", JUDGED | {"verify__queries": "{folder}/none.jsonl"}, FILES,
     JUDGED),
    ("queries that are no text", {"verify__queries": "{folder}/binary"}, FILES, {}),
    ("judgements of nothing", {"verify__qrels": "{folder}/q.tsv"},
     follows_hint("Give verify.queries, the file of the queries that it judges"), JUDGED),
    ("judgements of nothing, left out", {"verify__qrels": "{folder}/q.tsv"},
     follows_hint("Give verify.queries, the file of the queries that it judges"), {}),
    ("a database that is not there", {"source__url": "{url}?database=none"}, DATABASE,
     {"source__url": "{url}?database=other"}),
    ("a tenant that is not there", {"source__url": "{url}?tenant=none"}, DATABASE, {}),
    ("a state that is a file", {"state": "{folder}/binary"}, STATE, {"state": "{folder}/runs"}),
    ("a state within a file", {"state": "{folder}/binary/runs"}, STATE, {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Chroma database that has a second database, and with files of queries."""
    folder = tmp_path_factory.mktemp("values")
    with chroma(folder / "db") as client:
        plain_collection(client, count=40)
    settings = Settings(is_persistent=True, persist_directory=str(folder / "db"))
    chromadb.AdminClient(settings).create_database("other")
    other = chromadb.PersistentClient(folder / "db", database="other")
    plain_collection(other, count=40)
    other.close()  # type: ignore[attr-defined]
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "q.jsonl").write_text(json.dumps({"_id": "q1", "text": "a question"}))
    (folder / "q.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tdocs-1\t1\n")
    return folder


@wrong_and_right(ROWS)
def test_a_value_that_cannot_be_used_is_refused_with_one_that_can(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], shop: Path, command: Command
) -> None:
    url = f"chroma:{shop}/db"

    def plan(changes: dict[str, Any]) -> Any:
        given = filled(changes, {"url": url, "folder": str(shop)})
        return command("plan", write_manifest(shop, url, **given), "--json")

    refused = plan(wrong)
    assert (refused.code, hint in refused.json["error"]["hint"]) == (5, True), refused.out
    led = plan(right)
    assert led.code == 0, led.out
