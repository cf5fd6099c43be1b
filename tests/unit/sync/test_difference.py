"""What a collection holds otherwise than the ledger says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.sync.difference import (
    Difference,
    find_difference,
    find_late,
    without_conflicts,
)
from tests.support.chroma_data import chroma, names_in
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import vector_of

SHADOW = "docs__counting_model-new-64"


class Loaded:
    """A run that was loaded, with its store and ledger open."""

    def __init__(self, folder: Path, database: Path) -> None:
        path = write_manifest(folder, f"chroma:{database}")
        migration(path).run(until="load")
        names = names_in(f"chroma:{database}")
        self.source, self.shadow = names["docs"], names[SHADOW]
        self.run: RunDir = run_dir(path)
        self.store: Store = open_store(f"chroma:{database}")
        self.ledger = Ledger(self.run)
        self.database = database

    def write(self, name: str = "docs") -> None:
        with chroma(self.database) as client:
            docs = client.get_collection(name, embedding_function=None)
            model = "old" if name == "docs" else "new"
            docs.add(ids=["new"], documents=["new"], embeddings=[vector_of(model, "new")])
            docs.update(ids=["r1"], documents=["x"], embeddings=[vector_of(model, "x")])
            docs.update(ids=["r2"], metadatas=[{"title": "x"}])
            docs.update(ids=["r4"], uris=["file:///x"])
            docs.delete(ids=["r3"])

    def difference(self, since: str | None = None) -> Difference:
        return find_difference(Collection(self.store, self.source), self.ledger, since=since)


@pytest.fixture
def loaded(tmp_path: Path, database: Path) -> Iterator[Loaded]:
    opened = Loaded(tmp_path, database)
    yield opened
    opened.ledger.close()
    opened.store.close()


def test_nothing_differs_after_a_load(loaded: Loaded) -> None:
    found = loaded.difference()
    assert len(found) == 0
    assert found.compared == 40
    assert len(find_difference(Collection(loaded.store, loaded.shadow), loaded.ledger)) == 0


def test_texts_metadata_uris_and_deletions_all_count(loaded: Loaded) -> None:
    loaded.write()
    found = loaded.difference()
    assert sorted(found.changed) == ["new", "r1", "r2", "r4"]
    assert found.deleted == ["r3"]


def test_an_unmoved_watermark_spares_the_comparison(loaded: Loaded) -> None:
    since = loaded.run.history.compared_until
    assert since is not None
    assert loaded.difference(since).compared == 0
    loaded.write()
    assert len(loaded.difference(since)) == 5


def test_a_vector_alone_is_no_difference(loaded: Loaded) -> None:
    """The old vector is not what is moved."""
    with chroma(loaded.database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r1"], embeddings=[vector_of("old", "elsewhere")])
    assert len(loaded.difference()) == 0


def test_conflicts_are_what_the_receiver_changed_itself(loaded: Loaded) -> None:
    loaded.write()
    with chroma(loaded.database) as client:
        shadow = client.get_collection(SHADOW, embedding_function=None)
        shadow.update(ids=["r1"], documents=["y"], embeddings=[vector_of("new", "y")])
        shadow.add(ids=["new"], documents=["y"], embeddings=[vector_of("new", "y")])
        shadow.update(ids=["r3"], metadatas=[{"title": "y"}])
    receiver = Collection(loaded.store, loaded.shadow)
    kept, conflicts = without_conflicts(receiver, loaded.difference(), loaded.ledger)
    assert sorted(kept.changed) == ["r2", "r4"]
    assert kept.deleted == []
    assert conflicts == ["new", "r1", "r3"]


def test_late_writes_are_those_of_the_parked_collection(loaded: Loaded) -> None:
    loaded.write()
    found = find_late(Collection(loaded.store, loaded.source), loaded.run, loaded.ledger)
    assert len(found) == 5
