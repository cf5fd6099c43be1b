"""`reembed audit` in a Chroma folder: what belongs to no record is found, deleted and kept, and the
application's next records are its own."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.commands.audit.soundness import lost_memories
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.texts import CASES, sentence, vector_of

MODEL = "python:counting_model:old"
INDEXED = 1_000
"""Records from which Chroma writes an index to its files."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(CASES / "counting_model.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def add(name: str, numbers: range, metadata: dict[str, Any]) -> None:
    with chroma(Path("db")) as client:
        client.get_or_create_collection(name, embedding_function=None).add(
            ids=[f"r{number}" for number in numbers],
            documents=[sentence(number) for number in numbers],
            metadatas=[metadata] * len(numbers),
            embeddings=[vector_of("old", sentence(number)) for number in numbers],
        )


def delete(name: str) -> None:
    with chroma(Path("db")) as client:
        client.delete_collection(name)


def found(command: Command) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and what does harm and belongs to no record."""
    outcome = command("audit", "chroma:db", "--collection", "docs", "--model", MODEL, "--json")
    return outcome.code, [one for one in outcome.json["findings"] if one["bad"]]


def test_lists_of_a_deleted_collection_do_not_reach_new_records(command: Command) -> None:
    add("docs", range(20), {"own": 1, "tags": ["a"]})
    add("gone", range(30), {"tags": ["x", "y"]})
    assert found(command) == (0, [])
    delete("gone")
    code, (orphan,) = found(command)
    assert (code, orphan["records"], orphan["bad"]) == (4, 60, True)
    assert "tags" in orphan["message"]

    shown = command("audit", "chroma:db", "--collection", "docs", "--model", MODEL)
    step = shown.out.partition("next: reembed ")[2].partition("  #")[0]
    assert "--fix --yes" in step
    mended = command("audit", "chroma:db", "--collection", "docs", "--model", MODEL, "--fix",
                     "--yes", "--json")  # fmt: skip
    assert (mended.code, mended.json["removed"], mended.json["written"]) == (0, 60, 0)
    kept = (Path(mended.json["path"]) / "orphans.jsonl").read_text().splitlines()
    assert [json.loads(line)["string_value"] for line in kept] == ["x", "y"] * 30
    assert found(command) == (0, [])
    add("docs", range(20, 40), {"own": 2})
    with chroma(Path("db")) as client:
        read = client.get_collection("docs", embedding_function=None).get()["metadatas"] or []
    assert [dict(one) for one in read] == [{"own": 1, "tags": ["a"]}] * 20 + [{"own": 2}] * 20


def test_vectors_of_a_deleted_collection_are_told(command: Command) -> None:
    add("docs", range(20), {"own": 1})
    add("gone", range(INDEXED), {"own": 1})
    delete("gone")
    told = command("audit", "chroma:db", "--collection", "docs", "--model", MODEL)
    assert told.code == 0
    assert "1 folder holds vectors of collections that are gone" in " ".join(told.out.split())


def test_an_index_ahead_of_its_records_is_built_anew(command: Command) -> None:
    """chroma.sqlite3 alone was put back from a copy."""
    add("docs", range(INDEXED), {"own": 1})
    shutil.copy("db/chroma.sqlite3", "copy")
    add("docs", range(INDEXED, 2 * INDEXED), {"own": 1})
    assert found(command) == (0, [])
    shutil.copy("copy", "db/chroma.sqlite3")
    code, (ghost,) = found(command)
    assert (code, ghost["kind"], ghost["records"]) == (4, "ghost", INDEXED)
    assert "`model: keep`" in ghost["hint"]

    Path("keep.yaml").write_text("name: anew\nsource: {url: 'chroma:db', collection: docs}\n"
                                 "model: keep\n")  # fmt: skip
    assert command("run", "keep.yaml", "--swap").code == 0
    assert found(command) == (0, [])


def test_what_waits_in_the_log_is_no_ghost(command: Command) -> None:
    add("docs", range(INDEXED), {"own": 1})
    with chroma(Path("db")) as client:
        client.get_collection("docs", embedding_function=None).delete(ids=["r7", "r8"])
    assert found(command) == (0, [])


@follows_hint("Name the model that made the vectors with --model.")
def test_no_model_mends_no_vector(command: Command) -> None:
    add("docs", range(20), {"own": 1})
    with chroma(Path("db")) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r3"], embeddings=np.zeros((1, 48), np.float32))
    fix = ("audit", "chroma:db", "--collection", "docs", "--fix", "--yes")
    refused = command(*fix)
    assert (refused.code, "1 record is to be embedded again" in refused.err) == (2, True)
    assert command(*fix, "--model", MODEL).code == 0
    assert found(command) == (0, [])


def test_memories_that_the_history_alone_knows(tmp_path: Path) -> None:
    """As mem0 writes its history."""
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE history (id TEXT, memory_id TEXT, event TEXT)")
        db.executemany(
            "INSERT INTO history VALUES (?, ?, ?)",
            [("1", "m1", "ADD"), ("2", "m2", "ADD"), ("3", "m3", "ADD"), ("4", "m3", "DELETE")],
        )
    (lost,) = lost_memories(path, ["m1"])
    assert (lost.kind, lost.bad, lost.ids) == ("lost", True, ["m2"])
    assert not list(lost_memories(path, ["m1", "m2"]))
