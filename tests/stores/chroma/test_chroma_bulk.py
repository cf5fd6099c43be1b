"""A collection that was filled past Chroma's `add` is the one that `add` makes: row for row, in
other processes, and whatever is done to it later."""

from __future__ import annotations

import json
import pickle
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from chromadb.errors import ChromaError

from reembed.errors import PreflightError, SourceChangedError
from reembed.records import Vectors, export_batch
from reembed.stores.canonical import metadata_text
from reembed.stores.chroma import bulk as chroma_bulk
from reembed.stores.chroma import index_build
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.index_build import IndexBuild
from reembed.stores.chroma.index_files import HEADER_FORM, IndexFiles, labels_of
from reembed.stores.filling import Bulk
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from tests.support.chroma_cases import new_chroma_folder, points
from tests.support.chroma_data import chroma, chroma_at
from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.servers.chroma_server import chroma_server as run_server
from tests.support.texts import sentence

RECORDS, DIMENSIONS = 700, 12
TEXTS = ("", "a", "ü中🙂", "nul\0inside", "line\nbreak", '"quoted" \\ back')


def metadata_of(chance: random.Random) -> dict[str, Any]:
    """Every kind that Chroma keeps, keys of two kinds, and nothing at all."""
    found: dict[str, Any] = {
        "text": chance.choice(TEXTS), "whole": chance.randint(-(2**63), 2**63 - 1),
        "number": chance.choice([0.0, -0.0, 0.1, 1e22, 5e-324, chance.random()]),
        "truth": chance.choice([True, False]), "either": chance.choice([1, "1", 1.0]),
        "texts": ["b", "a", "b"], "wholes": [3, 1, 2**62], "numbers": [0.1, 2.0],
        "truths": [True, False],
    }  # fmt: skip
    return {key: value for key, value in found.items() if chance.random() < 0.4}


def records_of(count: int = RECORDS, seed: int = 1) -> pa.RecordBatch:
    chance = random.Random(seed)
    return export_batch(
        [f"{chance.choice(['id', 'Ä', '🙂', ''])}{n}" for n in range(count)],
        [None if n % 5 == 0 else f"{chance.choice(TEXTS)} {sentence(n)}" for n in range(count)],
        [metadata_text(metadata_of(chance)) for _ in range(count)],
        [f"file:///{n}" if n % 7 == 0 else None for n in range(count)],
    )


def vectors_of(count: int = RECORDS, dimensions: int = DIMENSIONS, seed: int = 2) -> Vectors:
    """Vectors of several lengths, around some centres as a model's are."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(20, dimensions))
    made = centres[chance.integers(20, size=count)] + 0.5 * chance.normal(size=(count, dimensions))
    return (made * chance.uniform(0.5, 4, size=(count, 1))).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_chroma_folder(tmp_path / "db")


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = open_store(f"chroma:{folder}")
    yield opened
    opened.close()


def bulk_of(store: Store) -> Bulk:
    assert store.bulk is not None
    return store.bulk


def made(store: Store, name: str, metric: Any = "cosine", **index: Any) -> str:
    spec = CollectionSpec(
        name, dimensions=DIMENSIONS, metric=metric, index=index, metadata={"of": "ours"}, model=None
    )
    bulk_of(store).check(spec)
    return store.to_write().create(spec).id


def fill(
    store: Store, id: str, records: pa.RecordBatch, vectors: Vectors, metric: Any = "cosine",
    rows: int = 300,
) -> None:  # fmt: skip
    filling = bulk_of(store).begin(id, metric, vectors.shape[1], len(records))
    for start in range(0, len(records), rows):
        filling.add(records.slice(start, rows), vectors[start : start + rows])
    filling.finish()


def stands(folder: Path, id: str) -> dict[str, Any]:
    """All that Chroma keeps of a collection in its tables, without what counts from one on."""
    beside = "FROM embeddings e JOIN {} m ON m.{} = e.id WHERE e.segment_id = ?"
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connection:
        asked = connection.execute
        parts = dict(asked("SELECT scope, id FROM segments WHERE collection = ?", (id,)).fetchall())
        rows = (parts["METADATA"],)
        columns = "m.key, m.string_value, m.int_value, m.float_value, m.bool_value"
        values = f"SELECT e.embedding_id, {columns}, typeof(m.int_value), typeof(m.bool_value) "
        scalars = asked(values + beside.format("embedding_metadata", "id"), rows).fetchall()
        lists = asked(
            values + beside.format("embedding_metadata_array", "id") + " ORDER BY m.rowid", rows
        ).fetchall()
        log = asked(
            "SELECT operation, id, vector, encoding, metadata, typeof(seq_id) "
            "FROM embeddings_queue WHERE topic LIKE '%' || ?", (id,),
        ).fetchall()  # fmt: skip
        return {
            "records": asked("SELECT embedding_id, typeof(seq_id) FROM embeddings "
                             "WHERE segment_id = ? ORDER BY seq_id", rows).fetchall(),
            "scalars": sorted(map(repr, scalars)),
            "lists": {key: [row[1:] for row in lists if row[:2] == key]
                      for key in dict.fromkeys(row[:2] for row in lists)},
            "documents": asked(
                "SELECT e.embedding_id, m.string_value "
                + beside.format("embedding_fulltext_search", "rowid") + " ORDER BY 1", rows,
            ).fetchall(),
            "collection": asked("SELECT dimension, config_json_str FROM collections WHERE id = ?",
                                (id,)).fetchall(),
            "schema": json.loads(asked("SELECT schema_str FROM collections WHERE id = ?",
                                       (id,)).fetchone()[0]),
            "applied": asked("SELECT typeof(seq_id) FROM max_seq_id WHERE segment_id IN (?, ?)",
                             (parts["METADATA"], parts["VECTOR"])).fetchall(),
            "log": [(*row[:4], json.loads(row[4]), row[5]) for row in log],
        }  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_every_row_is_the_one_that_add_writes(store: Store, folder: Path, metric: str) -> None:
    records, vectors = records_of(), vectors_of()
    with chroma(folder) as client:  # whose lists Chroma leaves behind, for the next to take over
        ghosts = client.create_collection("ghosts", embedding_function=None)
        ghosts.add(
            ids=["x", "y"], embeddings=points([1.0], [2.0]), metadatas=[{"ghost": ["boo"]}] * 2
        )
        client.delete_collection("ghosts")
    by_bulk = made(store, "by-bulk", metric, sync_threshold=100, batch_size=10)
    fill(store, by_bulk, records, vectors, metric)
    by_add = made(store, "by-add", metric, sync_threshold=100, batch_size=10)
    store.to_write().write(by_add, records, vectors, "add")
    ours, theirs = stands(folder, by_bulk), stands(folder, by_add)
    assert ours.keys() == theirs.keys()
    for part in ours:
        assert ours[part] == theirs[part], part
    ids = records.column("id").to_pylist()
    ours, theirs = (store.reader.fetch(id, ids, vectors=True) for id in (by_bulk, by_add))
    assert ours.drop_columns(["embedding"]).equals(theirs.drop_columns(["embedding"]))
    rows = [np.stack(one.column("embedding").to_pylist()) for one in (ours, theirs)]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connection:
        table = "embedding_fulltext_search"
        connection.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


LATER = """
import sys, chromadb, numpy as np
folder, name, vectors = sys.argv[1], sys.argv[2], np.load(sys.argv[3])
assert "reembed" not in sys.modules
docs = chromadb.PersistentClient(folder).get_collection(name, embedding_function=None)
first = int(sys.argv[4])
ids = docs.get(include=[])["ids"]
for start in range(first, len(vectors), 100):  # past what the index had room for, and synced
    rows = range(start, min(start + 100, len(vectors)))
    docs.add(ids=[f"new{n}" for n in rows], embeddings=vectors[rows.start:rows.stop],
             documents=[f"text {n}" for n in rows], metadatas=[{"late": n} for n in rows])
docs.delete(ids=ids[:50])
docs.upsert(ids=ids[50:60], embeddings=vectors[:10] + 1, metadatas=[{"changed": True}] * 10)
"""


def test_it_takes_what_an_application_does_to_it_later(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    records, vectors = records_of(), vectors_of(2 * RECORDS)
    id = made(store, "docs", sync_threshold=100, batch_size=10)
    fill(store, id, records, vectors[:RECORDS])
    store.close()
    np.save(tmp_path / "vectors.npy", vectors)
    arguments = [str(folder), "docs", str(tmp_path / "vectors.npy"), str(RECORDS)]
    subprocess.run([sys.executable, "-P", "-c", LATER, *arguments], check=True)
    ids = records.column("id").to_pylist()
    expected = dict(zip(ids, vectors, strict=False))
    expected |= {f"new{n}": vectors[n] for n in range(RECORDS, 2 * RECORDS)}
    expected |= dict(zip(ids[50:60], vectors[:10] + 1, strict=True))
    for gone in ids[:50]:
        del expected[gone]
    with run_server(folder) as server, chroma_at(server.url) as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert docs.count() == len(expected)
        found: Any = docs.get(include=["embeddings"])
        assert {*found["ids"]} == {*expected}
        for one, vector in zip(found["ids"], found["embeddings"], strict=True):
            np.testing.assert_allclose(vector, expected[one], rtol=1e-5, atol=1e-6)
        asked = list(expected)[::7]
        near = docs.query(query_embeddings=[expected[one] for one in asked], n_results=1)
        missed = [one for one, (first, *_) in zip(asked, near["ids"], strict=True) if one != first]
        assert len(missed) <= len(asked) // 50
        assert len(docs.get(where={"changed": True})["ids"]) == 10
        assert len(docs.get(where_document={"$contains": "text 1399"})["ids"]) == 1


def test_numbers_of_writes_are_not_given_twice(store: Store, folder: Path) -> None:
    """Chroma takes no notice of a write whose number its parts have seen. The numbers count over
    all collections, and others are written to meanwhile."""
    records, vectors = records_of(90), vectors_of(90)
    id = made(store, "docs")
    with chroma(folder) as client:
        other = client.create_collection("other", embedding_function=None)
        filling = bulk_of(store).begin(id, "cosine", DIMENSIONS, 90)
        for start in range(0, 90, 30):
            filling.add(records.slice(start, 30), vectors[start : start + 30])
            other.add(ids=[f"o{start}"], embeddings=points([1.0, 2.0]))
        filling.finish()
        other.add(ids=["last"], embeddings=points([3.0, 4.0]))
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["new"], embeddings=vectors[:1] * -1, documents=["new text"])
        assert docs.query(query_embeddings=vectors[:1] * -1, n_results=1)["ids"] == [["new"]]
        assert (docs.count(), other.count()) == (91, 4)
        assert other.query(query_embeddings=points([3.0, 4.0]), n_results=4)["ids"][0]


def test_nothing_of_it_counts_before_its_end(store: Store, folder: Path) -> None:
    records, vectors = records_of(90), vectors_of(90)
    id = made(store, "docs")
    bulk = bulk_of(store)
    filling = bulk.begin(id, "cosine", DIMENSIONS, 90)
    filling.add(records, vectors)
    with chroma(folder) as client:  # of an application that sees all there is
        docs = client.get_collection("docs", embedding_function=None)
        assert docs.query(query_embeddings=vectors[:1], n_results=3)["ids"] == [[]]
        filling.finish()
        assert docs.query(query_embeddings=vectors[:1], n_results=1)["ids"] == [
            records.column("id").to_pylist()[:1]
        ]
    assert not bulk.take_back(id), "it counts"


def test_what_a_kill_leaves_is_taken_back(store: Store, folder: Path, tmp_path: Path) -> None:
    """Between the index's place and the end of the transaction, which is as far as it gets."""
    before = {one.name for one in folder.iterdir()}
    records, vectors = records_of(), vectors_of()
    id = made(store, "docs")
    empty = stands(folder, id)
    filling = bulk_of(store).begin(id, "cosine", DIMENSIONS, RECORDS)
    filling.add(records, vectors)
    parts = chroma_sqlite.segments(folder, id)
    assert parts is not None
    build = IndexBuild("cosine", DIMENSIONS, neighbours=16, breadth=100, expected=RECORDS)
    build.add(vectors)
    build.write(folder / parts.vectors, records.column("id").to_pylist())
    (folder / f"reembed-{parts.vectors}").mkdir()
    assert bulk_of(store).take_back(id)
    assert stands(folder, id) == empty
    assert {one.name for one in folder.iterdir()} == before
    fill(store, id, records, vectors)
    assert store.reader.count(id) == RECORDS
    found = store.to_search().query(id, vectors[:20], 1)
    assert [one for (one,) in found] == records.column("id").to_pylist()[:20]


def test_a_filling_that_was_given_up_leaves_no_file_when_it_is_dropped(
    store: Store, folder: Path
) -> None:
    before = {one.name for one in folder.iterdir()}
    id = made(store, "docs")
    filling = bulk_of(store).begin(id, "cosine", DIMENSIONS, RECORDS)
    filling.add(records_of(), vectors_of())
    parts = chroma_sqlite.segments(folder, id)
    assert parts is not None
    for name in (parts.vectors, f"reembed-{parts.vectors}"):
        (folder / name).mkdir()
    store.to_write().drop(id)
    assert {one.name for one in folder.iterdir()} == before
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connection:
        for table in ("embeddings", "embedding_metadata", "embedding_metadata_array",
                      "embedding_fulltext_search", "max_seq_id", "embeddings_queue"):  # fmt: skip
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


@follows_hint("Let nobody else write to it")
def test_somebody_elses_write_meanwhile_is_told(store: Store, folder: Path) -> None:
    records, vectors = records_of(90), vectors_of(90)
    id = made(store, "docs")
    filling = bulk_of(store).begin(id, "cosine", DIMENSIONS, 90)
    filling.add(records, vectors)
    with chroma(folder) as client:
        docs = client.get_collection("docs", embedding_function=None)
        with pytest.raises(ChromaError):  # so nobody takes it for written
            docs.add(ids=["intruder"], embeddings=vectors[:1])
    with pytest.raises(SourceChangedError, match="written to by somebody else"):
        filling.finish()
    assert bulk_of(store).take_back(id)  # as the same command does, run again
    assert store.reader.count(id) == 0
    fill(store, id, records, vectors)
    assert store.reader.count(id) == 90
    assert {one for page in store.reader.list_ids(id) for one in page.to_pylist()} == {
        *records.column("id").to_pylist()
    }


@pytest.mark.parametrize(
    "metadata", ['{"n": 9223372036854775808}', '{"n": NaN}', '{"n": []}', '{"n": {"a": 1}}',
                 '{"n": [1, "a"]}', '{"n": null}'],
)  # fmt: skip
def test_what_chroma_would_refuse_or_alter_is_refused(store: Store, metadata: str) -> None:
    id = made(store, "docs")
    filling = bulk_of(store).begin(id, "cosine", DIMENSIONS, 1)
    with pytest.raises(PreflightError, match="record 'a'"):
        filling.add(export_batch(["a"], ["x"], [metadata], [None]), vectors_of(1))


# --- the index's files ---------------------------------------------------------------------------


def written(folder: Path, count: int, neighbours: int) -> tuple[Path, Vectors, list[str]]:
    vectors, ids = vectors_of(count), [f"ü{n}" for n in range(count)]
    build = IndexBuild("l2", DIMENSIONS, neighbours=neighbours, breadth=60, expected=count)
    for start in range(0, count, 400):
        build.add(vectors[start : start + 400])
    build.write(folder / "index", ids)
    return folder / "index", vectors, ids


@pytest.mark.parametrize(("count", "neighbours"), [(1, 16), (37, 2), (2_500, 4), (1_000, 48)])
def test_the_files_hold_to_what_chroma_demands_of_its_own(
    tmp_path: Path, count: int, neighbours: int
) -> None:
    """The checks that Chroma's newest source makes before it loads an index."""
    folder, vectors, ids = written(tmp_path, count, neighbours)
    header = HEADER_FORM.unpack((folder / "header.bin").read_bytes())
    _, _, room, elements, size, label, start, top, entry, most, lowest, _, _, breadth = header
    assert (elements, most, lowest, breadth) == (count, neighbours, 2 * neighbours, 60)
    assert room >= count
    assert (start, label, size) == (4 + 4 * lowest, start + 4 * DIMENSIONS, label + 8)
    assert 0 <= entry < count and top >= 0
    rows = np.fromfile(folder / "data_level0.bin", np.uint8).reshape(count, size)
    flags = rows[:, :4].copy().view("<u4").ravel()
    links = rows[:, 4:start].copy().view("<i4")
    assert flags.max() <= lowest and links.min() >= 0 and links.max() < count
    np.testing.assert_array_equal(rows[:, start:label].copy().view("<f4"), vectors)
    assert rows[:, label:].copy().view("<u8").ravel().tolist() == list(range(1, count + 1))
    assert count == 1 or flags.min() > 0, "an element that nothing leads away from"
    upper, at, levels = (folder / "link_lists.bin").read_bytes(), 0, []
    for _ in range(count):
        length = int.from_bytes(upper[at : at + 4], "little")
        one = np.frombuffer(upper, "<i4", length // 4, at + 4).reshape(-1, 1 + most)
        assert len(one) <= top and one[:, 0].max(initial=0) <= most
        assert one[:, 1:].min(initial=0) >= 0 and one[:, 1:].max(initial=0) < count
        levels.append(len(one))
        at += 4 + length
    assert at == len(upper) and max(levels) == top == levels[entry]
    pickled = pickle.loads((folder / "index_metadata.pickle").read_bytes())
    labels = {id: n + 1 for n, id in enumerate(ids)}
    assert pickled == {
        "dimensionality": None, "total_elements_added": count, "max_seq_id": None,
        "id_to_label": labels, "label_to_id": {n: id for id, n in labels.items()},
        "id_to_seq_id": {},
    }  # fmt: skip
    known, numbers = labels_of((folder / "index_metadata.pickle").read_bytes())
    assert (known.cast(pa.string()).to_pylist(), numbers.tolist()) == (ids, list(labels.values()))
    found, read, _ = IndexFiles(folder, 1).vectors(pa.array(ids))
    assert found.all()
    np.testing.assert_array_equal(read, vectors)


def test_its_searches_find_what_those_of_chromas_own_index_find(store: Store) -> None:
    """As the recall gate will ask, of clusters in which an index is weakest."""
    count = 3_000
    records, vectors = records_of(count), vectors_of(count)
    ids = records.column("id").to_pylist()
    by_bulk, by_add = made(store, "by-bulk"), made(store, "by-add")
    fill(store, by_bulk, records, vectors, rows=1_000)
    store.to_write().write(by_add, records, vectors, "add")
    asked = vectors[::30]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(unit[::30] @ unit.T), axis=1)[:, :10]
    recall = {}
    for id in (by_bulk, by_add):
        found = store.to_search().query(id, asked, 10)
        recall[id] = np.mean([
            len({*one}.intersection(ids[n] for n in near)) / 10
            for one, near in zip(found, nearest, strict=True)
        ])  # fmt: skip
    assert recall[by_bulk] >= recall[by_add] - 0.02 and recall[by_bulk] > 0.95


# --- a run ---------------------------------------------------------------------------------------


def source(folder: Path, count: int) -> str:
    with chroma(folder) as client:
        docs = client.create_collection(
            "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        docs.add(
            ids=[f"r{n}" for n in range(count)], documents=[sentence(n) for n in range(count)],
            metadatas=[{"n": n, "half": n / 2} for n in range(count)],
            embeddings=vectors_of(count, 8),
        )  # fmt: skip
    return f"chroma:{folder}"


def held(url: str, name: str = "docs") -> tuple[dict[str, Any], dict[str, Any]]:
    """Texts and metadata by id, and vectors, as an application reads them; a search finds them."""
    with chroma_at(url) as client:
        docs = client.get_collection(name, embedding_function=None)
        found: Any = docs.get(include=["documents", "metadatas", "embeddings"])
        near: Any = docs.query(query_embeddings=found["embeddings"][:40], n_results=1)
        assert [one for (one,) in near["ids"]] == found["ids"][:40]
        rows = zip(found["documents"], found["metadatas"], strict=True)
        return (
            dict(zip(found["ids"], rows, strict=True)),
            dict(zip(found["ids"], found["embeddings"], strict=True)),
        )


KILLS = (
    ("reembed.stores.chroma.sqlite:add_rows", 3),
    pytest.param("reembed.stores.chroma.index_build:fsync_dir", 1, marks=pytest.mark.long),
    ("reembed.stores.chroma.sqlite:finish", 1),
    pytest.param("reembed.stages.fill:ShadowFill._loaded", 1, marks=pytest.mark.long),
    ("reembed.stages.fill:ShadowFill._loaded", 3),
)


@pytest.mark.parametrize(("function", "at"), KILLS)
def test_a_run_that_is_killed_while_it_fills_goes_on(
    tmp_path: Path, function: str, at: int
) -> None:
    url = source(tmp_path / "db", 160)
    path = write_manifest(tmp_path, url, target__bulk="always")
    assert work(path, "run(swap=True)", function, at) == -9
    assert work(path, "run(swap=True)") == 0, outcome(path)
    rows, _ = held(url)
    assert rows == {f"r{n}": (sentence(n), {"n": n, "half": n / 2}) for n in range(160)}
    assert not list((tmp_path / "db").glob("reembed-*"))


def test_a_run_fills_what_adding_would_make(tmp_path: Path, command: Command) -> None:
    found = {}
    for bulk in ("always", "never"):
        folder = tmp_path / bulk
        folder.mkdir()
        url = source(folder / "db", 160)
        path = write_manifest(folder, url, target__bulk=bulk)
        planned = command("plan", path)
        assert planned.code == 0, planned.out
        assert ("past Chroma's `add`" in planned.out) is (bulk == "always")
        for step in (("run", path), ("swap", path, "--yes")):
            done = command(*step)
            assert done.code == 0, done.out
        found[bulk] = held(url)
        journal = next(folder.glob("**/journal.jsonl")).read_text()
        assert ('"fill-begun"' in journal) is (bulk == "always")
    (ours, vectors), (theirs, expected) = found["always"], found["never"]
    assert ours == theirs
    for id, vector in expected.items():
        np.testing.assert_allclose(vectors[id], vector, rtol=1e-5, atol=1e-6)


@follows_hint("Install it (pip install 'reembed-pipeline[bulk]'), or leave target.bulk out.")
def test_where_the_library_is_missing(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = source(tmp_path / "db", 60)
    with monkeypatch.context() as patched:
        patched.setattr(chroma_bulk, "faiss_or_none", lambda: None)
        patched.setattr(index_build, "faiss_or_none", lambda: None)
        always = command("plan", write_manifest(tmp_path, url, target__bulk="always"))
        assert always.code == 5 and "reembed-pipeline[bulk]" in always.out
        left_out = write_manifest(tmp_path, url)
        assert command("plan", left_out).code == 0
    assert command("plan", write_manifest(tmp_path, url, target__bulk="always")).code == 0


@follows_hint("Leave target.bulk out: records are then added through Chroma.")
def test_indexes_of_keys_are_left_to_chroma(tmp_path: Path, command: Command) -> None:
    from chromadb import Schema, StringInvertedIndexConfig

    with chroma(tmp_path / "db") as client:
        schema = Schema().delete_index(config=StringInvertedIndexConfig(), key="secret")
        docs = client.create_collection("docs", schema=schema, embedding_function=None)
        docs.add(
            ids=[f"r{n}" for n in range(60)], documents=[sentence(n) for n in range(60)],
            metadatas=[{"secret": "x"}] * 60, embeddings=vectors_of(60, 8),
        )  # fmt: skip
    url = f"chroma:{tmp_path / 'db'}"
    refused = command("plan", write_manifest(tmp_path, url, target__bulk="always"))
    assert refused.code == 5 and "indexes of keys" in refused.out, refused.out
    ran = command("run", write_manifest(tmp_path, url))
    assert ran.code == 0, ran.out


@follows_hint("Leave target.bulk out.", where="stages/fill.py")
def test_other_stores_have_one_way(tmp_path: Path, command: Command) -> None:
    open_: Any = {"swap__accept_window": True}
    with run_server(new_chroma_folder(tmp_path / "db")) as server:
        with chroma_at(server.url) as client:
            docs = client.create_collection("docs", embedding_function=None)
            docs.add(
                ids=[f"r{n}" for n in range(60)], documents=[sentence(n) for n in range(60)],
                embeddings=vectors_of(60, 8),
            )  # fmt: skip
        refused = command(
            "plan", write_manifest(tmp_path, server.url, target__bulk="always", **open_)
        )
        assert refused.code == 5 and "target.bulk" in refused.out, refused.out
        assert command("plan", write_manifest(tmp_path, server.url, **open_)).code == 0
