"""Stage 3: shards become the shadow, once and for all, however often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import Model
from reembed.progress import Progress
from reembed.records import Vectors
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stages.load import ensure_shadow, load
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec, WriteMode
from reembed.sync.mend import resync
from tests.support.chroma_data import chroma, records_of, vectors_of
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import sentence, vector_of

MODEL = Model(provider="python", name="counting_model:new", dimensions=64)


class Embedded:
    """A run that was embedded, with its store and ledger open and a shadow made."""

    def __init__(self, folder: Path, database: Path) -> None:
        path = write_manifest(folder, f"chroma:{database}")
        migration(path).run(until="embed")
        self.database = database
        self.run: RunDir = run_dir(path)
        self.store: Store = open_store(f"chroma:{database}")
        self.ledger = Ledger(self.run)
        self.shadow = self.ensure().id

    def ensure(self, name: str = "shadow") -> Any:
        spec = CollectionSpec(name, 64, "cosine", index={}, metadata=None, model=MODEL)
        return ensure_shadow(self.store, self.run, spec)

    @property
    def shards(self) -> tuple[Any, Any]:
        return self.run.shards("export"), self.run.shards("embed")

    def load(self) -> None:
        load(Collection(self.store, self.shadow), self.run, self.ledger, Progress())

    def records(self, name: str = "shadow") -> dict[str, Any]:
        with chroma(self.database) as client:
            return records_of(client.get_collection(name, embedding_function=None))


@pytest.fixture
def embedded(tmp_path: Path, database: Path) -> Iterator[Embedded]:
    opened = Embedded(tmp_path, database)
    yield opened
    opened.ledger.close()
    opened.store.close()


def test_every_record_with_the_vector_of_its_text(embedded: Embedded) -> None:
    embedded.load()
    assert embedded.records() == embedded.records("docs")
    with chroma(embedded.database) as client:
        shadow = client.get_collection("shadow", embedding_function=None)
        np.testing.assert_allclose(
            vectors_of(shadow, ["r0", "r39"]),
            [vector_of("new", sentence(0)), vector_of("new", sentence(39))], rtol=1e-5,
        )  # fmt: skip
    assert embedded.run.history.not_loaded(embedded.shards[1]) == []


def test_loading_twice_writes_once(embedded: Embedded) -> None:
    embedded.load()
    journal = embedded.run.journal.path.read_bytes()
    embedded.load()
    assert embedded.run.journal.path.read_bytes() == journal


def test_a_load_cut_off_in_the_middle_goes_on(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = embedded.store.to_write()

    def dying(id: str, records: Any, vectors: Vectors, mode: WriteMode) -> None:
        write(id, records.slice(0, 17), vectors[:17], mode)
        raise ConnectionError

    write = writer.write
    monkeypatch.setattr(writer, "write", dying)
    with pytest.raises(ConnectionError):
        embedded.load()
    monkeypatch.undo()
    assert len(embedded.records()) == 17
    embedded.load()
    assert embedded.records() == embedded.records("docs")


def test_a_shadow_is_made_once(embedded: Embedded) -> None:
    assert embedded.ensure().id == embedded.shadow
    assert len(embedded.run.history.all(events.ShadowCreated)) == 1


def test_an_empty_shadow_left_by_a_crash_is_ours(embedded: Embedded) -> None:
    journal = embedded.run.journal.path
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "shadow-created" not in line))
    assert embedded.ensure().id == embedded.shadow


def test_a_collection_that_was_there_before_is_not(embedded: Embedded, database: Path) -> None:
    journal = embedded.run.journal.path
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "shadow" not in line))
    with pytest.raises(PreflightError, match="'shadow' exists and was not made by this run"):
        embedded.ensure()
    with pytest.raises(PreflightError, match="'docs' exists"):
        embedded.ensure("docs")


def test_an_empty_collection_that_somebody_filled_is_not_ours(embedded: Embedded) -> None:
    journal = embedded.run.journal.path
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "shadow-created" not in line))
    with chroma(embedded.database) as client:
        client.get_collection("shadow", embedding_function=None).add(
            ids=["theirs"], embeddings=[vector_of("new", "x")]
        )
    with pytest.raises(PreflightError, match="exists"):
        embedded.ensure()


def test_a_shadow_that_was_renamed_is_still_ours(embedded: Embedded) -> None:
    with chroma(embedded.database) as client:
        client.get_collection("shadow", embedding_function=None).modify(name="renamed")
    assert embedded.ensure().name == "renamed"


def test_a_shadow_that_is_gone_is_an_error(embedded: Embedded) -> None:
    embedded.store.to_write().drop(embedded.shadow)
    with pytest.raises(SourceChangedError, match="is gone"):
        embedded.ensure()


def test_resync_puts_the_shadow_back(embedded: Embedded) -> None:
    embedded.load()
    with chroma(embedded.database) as client:
        shadow = client.get_collection("shadow", embedding_function=None)
        shadow.add(ids=["stray"], documents=["x"], embeddings=[vector_of("new", "x")])
        shadow.update(ids=["r1"], documents=["x"], embeddings=[vector_of("new", "x")])
        shadow.delete(ids=["r2"])
    handle = Collection(embedded.store, embedded.shadow)
    assert resync(handle, embedded.run, embedded.ledger) == 3
    assert embedded.records() == embedded.records("docs")
    with chroma(embedded.database) as client:
        shadow = client.get_collection("shadow", embedding_function=None)
        np.testing.assert_allclose(
            vectors_of(shadow, ["r1"])[0], vector_of("new", sentence(1)), rtol=1e-5
        )
