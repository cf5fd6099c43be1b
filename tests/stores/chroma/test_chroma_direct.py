"""Records read from Chroma's files are what Chroma itself answers, to the last bit."""

from __future__ import annotations

import math
import pickle
import random
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import chromadb
import numpy as np
import pyarrow as pa
import pytest

from reembed.progress import Progress, telling
from reembed.stores.chroma import direct as chroma_direct
from reembed.stores.chroma import index_files
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.formats import FORMATS
from reembed.stores.chroma.index_files import ChangedError, IndexFiles, labels_of
from reembed.stores.registry import open_store

DIMENSIONS = 5
TEXTS = ("", "a", "ü\u4e2d🙂", "nul\0inside", "line\nbreak", '"quoted" \\ back', "x" * 200_000)


def scalar(chance: random.Random) -> Any:
    """A value of metadata of any type that Chroma keeps."""
    return chance.choice(
        [
            chance.choice(TEXTS[:6]),
            chance.randint(-(2**63), 2**63 - 1),
            chance.choice([0, 1, -1]),
            chance.uniform(-1, 1) * 10 ** chance.randint(-300, 300),
            chance.choice([0.0, 1.0, -0.0, 1e22, 5e-324, math.pi]),
            chance.choice([True, False]),
        ]
    )


def metadata(chance: random.Random) -> dict[str, Any] | None:
    """Metadata of some keys, or none."""
    found: dict[str, Any] = {
        chance.choice(["a", "b", "ключ", "with space", "Z"]): scalar(chance)
        for _ in range(chance.randint(0, 4))
    }
    if chance.random() < 0.3:
        one = scalar(chance)
        found["list"] = [one, *(type(one)(one) for _ in range(chance.randint(0, 3)))]
    return found or None


class Scene:
    """A collection that was written to and deleted from at random.

    Attributes:
        ids: those that it holds now, and some that it does not.
    """

    def __init__(self, folder: Any, seed: int, records: int) -> None:
        self.chance = chance = random.Random(seed)
        self.client = chromadb.PersistentClient(str(folder))
        self.collection = self.client.create_collection(
            "docs",
            embedding_function=None,
            configuration={
                "hnsw": {
                    "space": ("cosine", "l2", "ip")[seed % 3],
                    "sync_threshold": chance.choice([20, 50, 1000]),
                    "batch_size": 10,
                }
            },
        )
        self.ids = [f"{chance.choice(['id', 'Ä', '🙂', ''])}{n}" for n in range(records)]
        for start in range(0, records, 40):
            self.write("add", self.ids[start : start + 40])
            some = chance.sample(self.ids[: start + 40], 5)
            self.collection.delete(ids=some[:3])
            self.write("upsert", some[1:])
            self.collection.update(ids=some[3:], metadatas=[{"a": None, "new": 1}] * 2)

    def write(self, verb: str, ids: list[str]) -> None:
        chance = self.chance
        vectors = np.array([[chance.gauss(0, 3) for _ in range(DIMENSIONS)] for _ in ids], "f4")
        documents = [chance.choice([None, *TEXTS]) for _ in ids]
        getattr(self.collection, verb)(
            ids=ids,
            embeddings=vectors,
            documents=[text if text is not None else "none" for text in documents],
            metadatas=[metadata(chance) for _ in ids],
            uris=[chance.choice(["", "file:///ä", "https://x/y?z=1"]) for _ in ids],
        )
        bare = [f"bare-{id}" for id in ids[:2]]
        getattr(self.collection, verb)(ids=bare, embeddings=vectors[: len(bare)])
        self.ids += [id for id in bare if id not in self.ids]


@pytest.fixture
def every_size(monkeypatch):
    """Pages of any size are read from the files."""
    monkeypatch.setattr(chroma_direct, "FEW", 1)


def asked_and_read(folder: Any, ids: list[str], vectors: bool = True) -> tuple[Any, Any, list[str]]:
    """What Chroma answers, what is read from its files, and the notes that were told."""
    notes: list[str] = []

    class Told(Progress):
        def note(self, message: str) -> None:
            notes.append(message)

    store = open_store(f"chroma:{folder}")
    assert store.many is not None
    id = store.catalog.describe("docs").id
    with telling(Told):
        read = store.many(id, ids, vectors=vectors)
        again = store.many(id, ids, vectors=vectors)
    asked = store.reader.fetch(id, ids, vectors=vectors)
    store.close()
    assert again.equals(read)
    return asked, read, notes


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 60))]
)
def test_random_records_come_from_the_files_as_chroma_answers_them(tmp_path, every_size, seed):
    scene = Scene(tmp_path, seed, 120)
    ids = [*scene.ids, "not there"]
    scene.chance.shuffle(ids)
    for vectors in (True, False):
        asked, read, notes = asked_and_read(tmp_path, ids, vectors)
        assert read.schema.equals(asked.schema)
        assert read.equals(asked)
        assert not notes


def plain(folder: Any, records: int, threshold: int = 100) -> Any:
    """A collection of plain records, the index's files up to every `threshold` of them."""
    client = chromadb.PersistentClient(str(folder))
    collection = client.create_collection(
        "docs",
        embedding_function=None,
        configuration={"hnsw": {"sync_threshold": threshold, "batch_size": 10}},
    )
    vectors = np.random.default_rng(0).normal(size=(records, DIMENSIONS)).astype("f4")
    for start in range(0, records, 50):
        rows = range(start, min(start + 50, records))
        collection.add(
            ids=[f"id{n}" for n in rows],
            documents=[f"text {n}" for n in rows],
            embeddings=vectors[start : start + len(rows)],
        )
    return collection


class Opened:
    """The store of a folder, what was asked of its API, and what was told."""

    def __init__(self, folder: Any, monkeypatch: Any) -> None:
        self.folder = folder
        self.asked: list[list[str]] = []
        self.notes: list[str] = []
        real = chroma_direct.Direct.__init__

        def counting(direct: Any, where: Any, api: Any) -> None:
            def asking(id: str, ids: Any, *, vectors: bool) -> Any:
                self.asked.append(list(ids))
                return self.altered(api.fetch(id, ids, vectors=vectors))

            real(direct, where, SimpleNamespace(fetch=asking))

        monkeypatch.setattr(chroma_direct.Direct, "__init__", counting)
        self.store = open_store(f"chroma:{folder}")
        self.id = self.store.catalog.describe("docs").id

    def altered(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """What the API is made to answer."""
        return rows

    def read(self, ids: list[str]) -> pa.RecordBatch:
        class Told(Progress):
            def note(progress, message: str) -> None:
                self.notes.append(message)

        assert self.store.many is not None
        with telling(Told):
            return self.store.many(self.id, ids, vectors=True)


@pytest.fixture
def opened(tmp_path, every_size, monkeypatch):
    """120 records, of which the index's files have 100."""
    plain(tmp_path, 120)
    found = Opened(tmp_path, monkeypatch)
    yield found
    found.store.close()


IDS = [f"id{n}" for n in range(120)]


def test_chroma_is_asked_for_a_sample_and_for_what_the_index_has_not_got(opened):
    assert len(opened.read(IDS)) == 120
    sample, late = opened.asked[-2:]
    assert len(sample) == chroma_direct.SAMPLE
    assert sorted(late) == sorted(IDS[100:])


def test_where_chroma_answers_otherwise_it_is_asked_for_everything_and_that_is_told_once(opened):
    other = pa.array([b"x" * 32], pa.binary(32))

    def altered(rows: pa.RecordBatch) -> pa.RecordBatch:
        if not 0 < len(rows) <= chroma_direct.SAMPLE:
            return rows
        hashes = pa.concat_arrays([other, rows.column("row_sha256").slice(1)])
        return rows.set_column(5, rows.schema.field(5), hashes)

    opened.altered = altered
    for _ in range(3):
        assert opened.read(IDS).equals(opened.store.reader.fetch(opened.id, IDS, vectors=True))
        assert opened.asked[-1] == IDS
    assert len(opened.notes) == 1
    assert "Chroma answers otherwise" in opened.notes[0]


@pytest.mark.parametrize("damage", ["vector", "label", "short", "pickle", "gone"])
def test_files_that_are_not_what_they_are_taken_for_are_not_relied_on(opened, damage):
    """Chroma has the index open, so it answers what the files held."""
    expected = opened.store.reader.fetch(opened.id, IDS, vectors=True)
    (folder,) = (path.parent for path in opened.folder.glob("*/header.bin"))
    elements = folder / index_files.ELEMENTS
    data = bytearray(elements.read_bytes())
    size = len(data) // 100
    if damage == "vector":
        for place in range(100):
            data[place * size + 132] ^= 1
        elements.write_bytes(data)
    elif damage == "label":
        data[size - 8] = 255
        data[size - 2] = 255
        elements.write_bytes(data)
    elif damage == "short":
        elements.write_bytes(data[:-1])
    elif damage == "pickle":
        (folder / index_files.LABELS).write_bytes(pickle.dumps({"id_to_label": {}}))
    else:
        elements.unlink()
    assert opened.read(IDS).equals(expected)
    assert opened.asked[-1] == IDS


def test_files_that_are_written_while_they_are_read_do_not_count(opened, monkeypatch):
    expected = opened.store.reader.fetch(opened.id, IDS, vectors=True)
    real = index_files.IndexFiles._read
    written: list[int] = []

    def meanwhile(files: IndexFiles, places: Any) -> Any:
        found, deleted = real(files, places)
        if len(written) < 1:
            path = files._folder / index_files.LENGTHS
            written.append(path.write_bytes(path.read_bytes()))
            found = np.zeros_like(found)
        return found, deleted

    monkeypatch.setattr(index_files.IndexFiles, "_read", meanwhile)
    assert opened.read(IDS).equals(expected)
    assert written
    assert IDS not in opened.asked
    assert not opened.notes


def test_what_is_written_between_two_pages_is_read_as_chroma_has_it(opened):
    collection = chromadb.PersistentClient(str(opened.folder)).get_collection(
        "docs", embedding_function=None
    )
    opened.read(IDS)
    new = np.ones((90, DIMENSIONS), "f4")
    collection.update(ids=IDS[:90], embeddings=new, documents=["new"] * 90)
    collection.delete(ids=IDS[95:100])
    read = opened.read(IDS)
    assert read.equals(opened.store.reader.fetch(opened.id, IDS, vectors=True))
    assert read.column("document")[:90].to_pylist() == ["new"] * 90
    assert len(read) == 115


def test_a_page_that_was_begun_ahead_is_the_one_that_is_asked_for_or_none(opened):
    first, second = IDS[:60], IDS[60:]
    for ids, then in ((first, second), (second, first), (IDS, IDS), (IDS, [])):
        read = opened.store.many(opened.id, ids, vectors=True, then=then)
        assert read.equals(opened.store.reader.fetch(opened.id, ids, vectors=True))


def test_a_database_of_a_form_that_is_not_known_is_read_through_chroma(opened, monkeypatch):
    monkeypatch.setattr(chroma_direct, "is_known", lambda found: False)
    opened.store.close()
    again = Opened(opened.folder, monkeypatch)
    assert len(again.read(IDS)) == 120
    assert again.asked == [IDS]
    again.store.close()


def test_the_forms_in_the_table_are_those_of_chroma():
    assert FORMATS[version("chromadb")] == chroma_sqlite.asked_migrations()


def test_a_pickle_is_read_as_it_stands_and_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("ran").touch, ())

    for value in (Evil(), {"id_to_label": {"a": 1}}, {}, {"dimensionality": Evil()}):
        for protocol in range(6):
            with pytest.raises(ValueError, match="another form"):
                labels_of(pickle.dumps(value, protocol))
    assert not (tmp_path / "ran").exists()


def test_an_index_that_is_not_there_is_no_index(tmp_path):
    with pytest.raises(ChangedError, match=r"header\.bin"):
        IndexFiles(tmp_path, 1)


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("unit", [False, True])
def test_a_first_page_is_mostly_put_together_once(tmp_path, monkeypatch, space, unit):
    """What the index keeps tells whether it scaled its vectors, but for those of length one."""
    made = chromadb.PersistentClient(str(tmp_path)).create_collection(
        "docs",
        embedding_function=None,
        configuration={"hnsw": {"space": space, "sync_threshold": 50, "batch_size": 50}},
    )
    ids = [f"id{n}" for n in range(150)]
    vectors = np.random.default_rng(1).normal(size=(150, DIMENSIONS)).astype("f4")
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made.add(ids=ids, embeddings=vectors)
    built: list[int] = []
    real = chroma_direct._Way._batch

    def counted(way: Any, page: Any, *how: bool) -> pa.RecordBatch:
        built.append(len(page.ids))
        return real(way, page, *how)

    monkeypatch.setattr(chroma_direct._Way, "_batch", counted)
    asked, read, notes = asked_and_read(tmp_path, ids)
    assert read.equals(asked) and notes == []
    if space == "cosine" or not unit:
        assert built == [150, 150], "each of the two calls made one"
