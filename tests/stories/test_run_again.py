"""A finished migration that is run again says what is not carried, and how it is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.texts import sentence, vector_of


def test_a_job_is_told_what_its_source_has_by_now_and_the_command_carries_it(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{n}", "text": sentence(n)} for n in range(110)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with chroma(tmp_path / "db"):
        pass
    path = write_manifest(
        tmp_path,
        "jsonl:./corpus.jsonl",
        source__collection="corpus",
        source__model=None,
        target={"url": "chroma:./db", "collection": "docs"},
    )
    assert command("run", path, "--swap", "--if-changed").code == 0
    again = command("run", path, "--swap", "--if-changed", "--json").json
    assert (again["unchanged"], again["differs"]["added"]) == (True, 0)
    assert again["messages"] == ["already swapped; nothing to do"]

    rows[3]["text"] = sentence(903)
    del rows[9]
    rows += [{"id": "new", "text": sentence(904)}, {"id": "newer", "text": sentence(905)}]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = command("run", path, "--swap", "--if-changed", "--json").json
    assert not told["unchanged"] and told["messages"][0] == "already swapped"
    assert told["differs"] == {"added": 2, "changed": 1, "deleted": 1}
    assert "2 added, 1 changed, 1 deleted" in told["messages"][1]
    assert "mode: follow" in told["messages"][2]
    found = re.search(r"`reembed ([^`]+)`", told["messages"][1])
    assert found is not None
    assert command(*shlex.split(found[1])).code == 0
    done = command("run", path, "--swap", "--if-changed", "--json").json
    assert done["messages"] == ["already swapped; nothing to do"] and done["unchanged"]
    with chroma(tmp_path / "db") as client:
        live = records_of(client.get_collection("docs", embedding_function=None))
    assert {id: row[0] for id, row in live.items()} == {row["id"]: row["text"] for row in rows}


def test_late_writes_to_the_old_collection_are_told_apart_from_those_to_the_live_one(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=110)
    path = write_manifest(tmp_path, "chroma:./db")
    assert command("run", path, "--swap").code == 0
    (parked,) = [name for name in names_in(f"chroma:{tmp_path / 'db'}") if "__parked-" in name]
    with chroma(tmp_path / "db") as client:
        live = client.get_collection("docs", embedding_function=None)
        live.add(ids=["mine"], documents=["m"], embeddings=[vector_of("new", "m")])
        live.delete(ids=["r1"])
        old = client.get_collection(parked, embedding_function=None)
        old.add(ids=["late"], documents=["a late one"], embeddings=[vector_of("old", "late")])
    told = command("run", path, "--swap", "--if-changed", "--json").json
    assert told["differs"] == {"added": 1, "changed": 0, "deleted": 0}
    assert "`reembed sweep m.yaml`" in told["messages"][1]
    assert "1 added, 0 changed, 1 deleted; these are live already" in told["messages"][2]
