"""reembed.live: the right collection and the right query model at every call."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from chromadb.errors import InvalidArgumentError

from reembed import live
from reembed.commands.discover import discover
from reembed.errors import (
    CollectionNotFoundError,
    ManifestError,
    PreflightError,
    SourceChangedError,
)
from reembed.manifest import Model
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec, Exchange
from tests.stores.contract.records import simple
from tests.support.chroma_cases import new_chroma_folder, points
from tests.support.chroma_data import chroma
from tests.support.following import follows_hint
from tests.support.stores import database_of

AXES = {"old": 4, "new": 6}


def embed_old(texts: list[str]) -> list[list[float]]:
    return [np.eye(AXES["old"])[_axis(text)].tolist() for text in texts]


def embed_new(texts: list[str]) -> list[list[float]]:
    return [np.eye(AXES["new"])[-1 - _axis(text)].tolist() for text in texts]


def _axis(text: str) -> int:
    """2 for "number 2"; the embedder also sends a sentence of its own."""
    last = text.split()[-1]
    return int(last) if last.isdigit() else 0


OLD = Model(provider="python", name="tests.stores.chroma.test_live:embed_old", dimensions=4)
NEW = Model(provider="python", name="tests.stores.chroma.test_live:embed_new", dimensions=6)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    yield opened
    opened.close()


@pytest.fixture
def sides(store):
    """Ids of `docs` (4 axes) and `docs-new` (6 axes, in reverse), and the swap between them."""
    ids = {}
    for name, version, model in (("docs", "old", OLD), ("docs-new", "new", NEW)):
        axes = AXES[version]
        ids[version] = (
            store.to_write()
            .create(
                CollectionSpec(
                    name, dimensions=axes, metric="cosine", index={}, metadata=None, model=model
                )
            )
            .id
        )
        vectors = np.eye(axes, dtype=np.float32)
        store.to_write().write(
            ids[version],
            simple(4, version=version),
            vectors[:4] if version == "old" else vectors[::-1][:4].copy(),
            "add",
        )
    return ids


@pytest.fixture
def docs(store):
    with live.open(store.url, "docs") as opened:
        yield opened


def swap(store, sides, kind, back=False) -> None:
    incoming, outgoing = (sides["old"], sides["new"]) if back else (sides["new"], sides["old"])
    model = (OLD if back else NEW).settings()
    store.to_move().exchange(kind, Exchange("docs", incoming, outgoing, "docs__parked-r1", model))


def versions(answer: Any) -> set[str]:
    metadatas = answer["metadatas"]
    if metadatas and isinstance(metadatas[0], list):
        [metadatas] = metadatas
    return {metadata["version"] for metadata in metadatas}


@pytest.mark.parametrize("kind", ["pointer", "transaction", "rename"])
def test_every_call_follows_a_swap_there_and_back(store, sides, docs, kind):
    for number, side in enumerate(["old", "new", "old", "new"]):
        if number:
            swap(store, sides, kind, back=side == "old")
        assert str(docs.collection.id) == sides[side]
        assert versions(docs.get()) == {side}
        assert versions(docs.peek(2)) == {side}
        assert docs.count() == 4
        found = docs.query(query_texts=["number 2"], n_results=1)
        assert found["ids"] == [["r00002"]]
        assert versions(found) == {side}


def test_documents_are_embedded_with_the_model_that_fits(store, sides, docs):
    docs.add(["added"], documents=["number 1"], metadatas=[{"version": "app"}])
    swap(store, sides, "pointer")
    docs.upsert(["upserted"], documents=["number 1"], metadatas=[{"version": "app"}])
    docs.add(["given"], embeddings=[[0, 0, 0, 0, 0, 1]], documents=["number 9"])
    docs.update(["given"], documents="number 1")
    for side, id in (("old", "added"), ("new", "upserted"), ("new", "given")):
        read = store.reader.fetch(sides[side], [id, "r00001"], vectors=True)
        one, other = read.column("embedding").to_pylist()
        assert one == other
    docs.delete(ids=["upserted", "given"])
    assert docs.count() == 4


def test_a_swap_while_texts_are_embedded_embeds_them_again_for_the_other_side(
    store, sides, docs, monkeypatch
):
    embedded = []
    real = docs._embed

    def slow(collection, model, texts, query):
        vectors = real(collection, model, texts, query)
        embedded.append(collection.name)
        if len(embedded) == 1:
            swap(store, sides, "pointer")
        return vectors

    monkeypatch.setattr(docs, "_embed", slow)
    found = docs.query(query_texts=["number 3"], n_results=1)
    assert versions(found) == {"new"}
    assert found["ids"] == [["r00003"]]
    assert embedded == ["docs", "docs-new"]


def test_vectors_that_the_application_brings_are_passed_on_with_chromas_own_error(sides, docs):
    found = docs.query(query_embeddings=[[0, 1, 0, 0]], n_results=1, include=["metadatas"])
    assert found["ids"] == [["r00001"]]
    with pytest.raises(InvalidArgumentError, match="dimension"):
        docs.query(query_embeddings=[[0, 1]])
    with pytest.raises(ValueError, match="not both"):
        docs.query(query_embeddings=[[0, 1, 0, 0]], query_texts=["number 1"])


def test_filters_and_metadata_come_through(store, sides, docs):
    assert docs.get(where={"i": 3})["ids"] == ["r00003"]
    assert docs.query(query_texts="number 1", where={"i": 3}, n_results=4)["ids"] == [["r00003"]]
    assert docs.metadata is None


def test_a_name_in_the_gap_of_a_rename_is_waited_for(store, sides, docs):
    collection = database_of(store).handle(sides["old"])
    collection.modify(name="docs-for-a-moment")
    threading.Timer(0.3, lambda: collection.modify(name="docs")).start()
    began = time.monotonic()
    assert docs.count() == 4
    assert time.monotonic() - began > 0.2


@follows_hint("Check the name; `reembed init URL` lists the collections.")
def test_a_name_that_stays_away_is_an_error_after_a_bounded_time(store, sides, monkeypatch):
    monkeypatch.setattr("reembed.stores.chroma.live.PATIENCE_SECONDS", 0.1)
    with (
        live.open(store.url, "never") as never,
        pytest.raises(CollectionNotFoundError, match="never"),
    ):
        never.count()
    listed = [one.name for one in discover(store.url, "docs").collections]
    assert "docs" in listed and "never" not in listed
    with live.open(store.url, "docs") as docs:
        assert docs.count() == 4


@follows_hint("Roll back; or, for a plain name again, delete the collection ")
def test_a_pointer_whose_target_is_gone_is_an_error_after_a_bounded_time(
    store, sides, docs, monkeypatch
):
    monkeypatch.setattr("reembed.stores.chroma.live.PATIENCE_SECONDS", 0.1)
    swap(store, sides, "pointer")
    store.to_write().drop(sides["new"])
    with pytest.raises(SourceChangedError, match="gone"):
        docs.count()
    with chroma(database_of(store).path) as client:
        client.delete_collection("docs__pointer")
    database_of(store).handle(sides["old"]).modify(name="docs")
    assert docs.count() == 4, "the plain name leads to the old collection again"


@follows_hint("Pass query_embeddings, or model= to reembed.live.open.")
def test_without_any_model_on_record_texts_need_one(store):
    with chroma(database_of(store).path) as client:
        made = client.create_collection("bare", embedding_function=None)
        made.add(ids=["a", "b"], embeddings=points([1, 0, 0, 0], [0, 1, 0, 0]))
        bare = live.LiveCollection.from_client(client, "bare")
        with pytest.raises(PreflightError, match="model"):
            bare.query(query_texts=["number 1"])
        told = live.LiveCollection.from_client(client, "bare", model=OLD)
        assert told.query(query_texts=["number 1"], n_results=1)["ids"] == [["b"]]


def test_a_client_of_the_application_stays_open(store, sides):
    with chroma(database_of(store).path) as client:
        with live.LiveCollection.from_client(client, "docs") as docs:
            assert docs.count() == 4
        assert client.get_collection("docs", embedding_function=None).count() == 4


def test_it_works_over_http(chroma_server):
    store = open_store(chroma_server.url)
    made = store.to_write().create(
        CollectionSpec(
            "live-docs", dimensions=4, metric="cosine", index={}, metadata=None, model=OLD
        )
    )
    store.to_write().write(made.id, simple(4, version="old"), np.eye(4, dtype=np.float32), "add")
    with live.open(chroma_server.url, "live-docs") as docs:
        assert docs.query(query_texts=["number 3"], n_results=1)["ids"] == [["r00003"]]
    store.to_write().drop(made.id)
    store.close()


def test_an_in_memory_store_is_refused():
    with pytest.raises(ManifestError, match="in-memory"):
        live.open("chroma::memory:", "docs")
