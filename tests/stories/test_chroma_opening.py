"""After a swap applications open the name as before, in processes that never import reembed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.types import EmbeddingFunction

from reembed import live
from reembed.manifest import Model
from reembed.stores.chroma import keeping, recording
from reembed.stores.chroma.keeping import MODEL_KEY, keeps, told
from tests.support.chroma_cases import PYTHON
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, write_manifest
from tests.support.texts import sentence, vector_of

NEW = Model(provider="python", name="counting_model:new")
OPENAI = Model(provider="openai", name="text-embedding-3-small")
PREFIXED = Model(provider="ollama", name="nomic-embed-text", query_prefix="search_query: ")
PLAIN_OLLAMA = Model(provider="ollama", name="all-minilm")

APPLICATION = """
import json, os, sys, warnings
import chromadb
from chromadb.api.types import EmbeddingFunction

class Mine(EmbeddingFunction):
    def __init__(self): pass
    def __call__(self, input): return [json.loads(text) for text in input]
    @staticmethod
    def name(): return "mine"
    def get_config(self): return {}
    @staticmethod
    def build_from_config(config): return Mine()

folder, vector = sys.argv[1], sys.argv[2]
docs = chromadb.PersistentClient(folder)
answers = {}
def tried(way, opened, **asked):
    try:
        answers[way] = opened().query(n_results=1, **asked)["ids"][0]
    except Exception as error:
        answers[way] = str(error)
get, make, own = docs.get_collection, docs.get_or_create_collection, {"embedding_function": Mine()}
tried("plain", lambda: get("docs"), query_embeddings=[json.loads(vector)])
tried("create", lambda: make("docs"), query_embeddings=[json.loads(vector)])
tried("mine", lambda: get("docs", **own), query_texts=[vector])
tried("mine too", lambda: make("docs", **own), query_texts=[vector])
try:  # LangChain's relevance scores
    answers["space"] = get("docs", embedding_function=None).configuration["hnsw"]["space"]
except Exception as error:
    answers["space"] = str(error)
answers["reembed"] = "reembed" in sys.modules
print(json.dumps(answers))
"""


class Mine(EmbeddingFunction[Any]):
    """As that of the application, for what it records."""

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        raise AssertionError("it embeds nothing here")

    @staticmethod
    def name() -> str:
        return "mine"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Mine:
        return Mine()


def application(folder: Path, vector: Any) -> dict[str, Any]:
    done = subprocess.run(
        [PYTHON, "-P", "-W", "ignore", "-c", APPLICATION, str(folder), json.dumps(vector.tolist())],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answers.pop("reembed") is False
    return answers


@pytest.mark.parametrize("kept", ["none", "mine"])
def test_an_application_with_a_function_of_its_own_goes_on(tmp_path, command, kept):
    folder = tmp_path / "db"
    with chroma(folder) as client, recording.recording():
        made = client.create_collection(
            "docs", configuration={"hnsw": {"space": "cosine"}}, metadata={"of": "theirs"},
            embedding_function=Mine() if kept == "mine" else None,
        )  # fmt: skip
        texts = [sentence(number) for number in range(40)]
        made.add(
            ids=[f"r{n}" for n in range(40)],
            documents=texts,
            embeddings=[vector_of("old", text) for text in texts],
        )
    before = application(folder, vector_of("old", sentence(7)))
    assert before["plain"] == before["mine"] == ["r7"]
    path = write_manifest(tmp_path, f"chroma:{folder}")
    planned = command("plan", path)
    assert "none is kept with the new collection" in " ".join(planned.out.split())
    moved = command("run", path, "--swap", "--json")
    assert moved.code == 0, moved.out + moved.err
    verdict = json.loads(
        (next((tmp_path / ".reembed/move").glob("2*")) / "verdict.json").read_text()
    )
    opening = {gate["name"]: gate for gate in verdict["gates"]}["opening"]
    assert opening["status"] == "pass"
    after = application(folder, vector_of("new", sentence(7)))
    good = {
        "plain": ["r7"],
        "create": ["r7"],
        "mine": ["r7"],
        "mine too": ["r7"],
        "space": "cosine",
    }
    assert after == good
    assert {way for way, answer in before.items() if answer == good[way]} >= {"plain", "mine"}
    with live.open(f"chroma:{folder}", "docs", model=NEW) as docs:
        assert docs.metadata == {"of": "theirs"}
    assert command("rollback", path, "--yes").code == 0
    assert application(folder, vector_of("old", sentence(7))) == before


def test_live_finds_the_model_of_a_collection_that_keeps_no_function(tmp_path, database):
    path = write_manifest(
        tmp_path, f"chroma:{database}", model={"provider": "static", "name": "wordllama"}
    )
    live.trust(path)
    assert migration(path).run(swap=True).state == "swapped"
    with chroma(database) as client:
        found = client.get_collection("docs", embedding_function=None)
        assert (found.configuration_json["embedding_function"] or {}).get("name") is None
        assert found.metadata is not None
        assert json.loads(found.metadata[MODEL_KEY])["name"] == "wordllama"
    with live.open(f"chroma:{database}", "docs") as docs:
        assert docs.query(query_texts=[sentence(9)], n_results=1)["ids"] == [["r9"]]


def test_none_leaves_no_trace_and_record_is_gated_by_nobody(tmp_path, command):
    folder = tmp_path / "db"
    with chroma(folder) as client:
        plain_collection(client)
    for choice in ("none", "record"):
        path = write_manifest(
            tmp_path, f"chroma:{folder}", f"{choice}.yaml", name=choice,
            target__embedding_function=choice, target__collection=f"new-{choice}",
        )  # fmt: skip
        done = command("run", path, "--json")
        assert done.code == 0, done.out
        gates = {gate["name"]: gate for gate in done.json["verdict"]["gates"]}
        assert gates["opening"]["status"] == "pass"
        assert ("these ways fail" in gates["opening"]["message"]) == (choice == "record")
        with chroma(folder) as client:
            made = client.get_collection(f"new-{choice}", embedding_function=None)
            assert not made.metadata
            kept = made.configuration_json.get("embedding_function") or {}
            assert kept.get("name") == (None if choice == "none" else "reembed")


def test_a_shadow_that_opens_no_more_as_the_old_one_does_fails_the_gate(
    tmp_path, database, monkeypatch
):
    path = write_manifest(tmp_path, f"chroma:{database}")
    monkeypatch.setattr(keeping, "keeps", lambda choice, before, model: "reembed")
    verdict = migration(path).run().verdict
    assert verdict is not None
    (gate,) = [gate for gate in verdict.gates if gate.name == "opening"]
    assert gate.status == "fail"
    assert "conflict" in gate.message
    assert not verdict.passed


@pytest.mark.parametrize(
    ("choice", "before", "model", "kept"),
    [
        ("auto", "", OPENAI, ""),
        ("auto", "of-the-application", OPENAI, ""),
        ("auto", "default", OPENAI, "openai"),
        ("auto", "default", PLAIN_OLLAMA, "ollama"),
        ("auto", "openai", PREFIXED, ""),
        ("auto", "reembed", PREFIXED, "reembed"),
        ("none", "default", OPENAI, ""),
        ("record", "", OPENAI, "openai"),
        ("record", "", PREFIXED, "reembed"),
    ],
)
def test_what_is_kept_follows_what_the_source_keeps(choice, before, model, kept):
    assert keeps(choice, before, model) == kept
    said = told(choice, before, model)
    assert ("none is kept" in said) == (kept == "")
    assert kept in said
    assert ("will not any more" in said) == (kept == "" and before in ("default", "openai"))
    assert ("OPENAI_API_KEY" in said) == (kept == "openai" and before == "default")
