"""What a collection's schema says of its keys is carried, and compared."""

from __future__ import annotations

from typing import Any

import pytest
from chromadb.api.types import IntInvertedIndexConfig, Schema, StringInvertedIndexConfig
from chromadb.errors import InvalidArgumentError

from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.stores.chroma import recording
from reembed.stores.chroma.schema import key_indexes, refuse_sparse, with_indexes
from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import sentence, vector_of

INDEXES = {
    "keys.a.secret.string.string_inverted_index": False,
    "defaults.int.int_inverted_index": False,
    "keys.#document.string.fts_index": False,
}


def test_indexes_of_keys_are_carried_told_and_compared(tmp_path, command):
    folder = tmp_path / "db"
    with chroma(folder) as client:
        made = client.create_collection(
            "docs",
            schema=with_indexes({"hnsw": {"space": "cosine", "ef_search": 33}}, INDEXES, None),
            embedding_function=None,
        )
        texts = [sentence(number) for number in range(30)]
        made.add(
            ids=[f"r{n}" for n in range(30)], documents=texts,
            metadatas=[{"a.secret": "x", "n": n, "open": "y"} for n in range(30)],
            embeddings=[vector_of("old", text) for text in texts],
        )  # fmt: skip
        assert key_indexes(made) == INDEXES
    path = write_manifest(tmp_path, f"chroma:{folder}")
    planned = command("plan", path)
    assert "keys.a.secret.string.string_inverted_index off" in " ".join(planned.out.split())
    done = command("run", path, "--swap", "--json")
    assert done.code == 0, done.out
    with chroma(folder) as client:
        moved = client.get_collection("docs")
        assert key_indexes(moved) == INDEXES
        assert moved.configuration_json["hnsw"]["ef_search"] == 33
        assert moved.configuration_json["hnsw"]["space"] == "cosine"
        assert len(moved.get(where={"open": "y"})["ids"]) == 30
        forbidden: tuple[Any, ...] = ({"a.secret": "x"}, {"n": 3})
        for where in forbidden:
            with pytest.raises(InvalidArgumentError, match="indexing is disabled"):
                moved.get(where=where)
    run = run_dir(path)
    journal = (run.path / "journal.jsonl").read_text()
    assert "int_inverted_index" in journal


def test_a_shadow_with_other_indexes_fails_integrity(tmp_path, database, monkeypatch):
    path = write_manifest(tmp_path, f"chroma:{database}")
    monkeypatch.setattr("reembed.stores.chroma.catalog.chroma_schema.key_indexes", _lying)
    verdict = migration(path).run().verdict
    assert verdict is not None
    assert verdict.gates[0].status == "fail"
    assert "other indexes of keys (keys.x.string.string_inverted_index)" in verdict.gates[0].message


def _lying(collection):
    """As if a shadow had lost, after it was made and filled, what the source has not either."""
    lost = {"keys.x.string.string_inverted_index": False}
    return lost if collection.name != "docs" and collection.count() else {}


def test_a_plain_collection_has_none_and_a_function_is_kept_with_the_rest(tmp_path):
    with chroma(tmp_path / "db") as client, recording.recording():
        assert key_indexes(plain_collection(client, count=0)) == {}
        theirs = Schema()
        theirs.delete_index(config=IntInvertedIndexConfig())
        theirs.delete_index(config=StringInvertedIndexConfig(), key="k")
        made = client.create_collection("theirs", schema=theirs)
        assert key_indexes(made) == {
            "defaults.int.int_inverted_index": False,
            "keys.k.string.string_inverted_index": False,
        }
        function = recording.to_record(Model(provider="ollama", name="all-minilm"))
        schema = with_indexes({"hnsw": {"space": "ip"}}, key_indexes(made), function)
        copy = client.create_collection("copy", schema=schema, embedding_function=None)
        assert key_indexes(copy) == key_indexes(made)
        kept = copy.configuration_json
        assert kept["embedding_function"]["name"] == "ollama"
        assert kept["hnsw"]["space"] == "ip"


def test_a_sparse_index_is_refused_by_its_key():
    refuse_sparse(INDEXES)
    with pytest.raises(PreflightError, match=r"key my\.sparse, which"):
        refuse_sparse({"keys.my.sparse.sparse_vector.sparse_vector_index": True})
