"""Records in and out of Chroma where its own behaviour is in the way."""

from __future__ import annotations

import math
import random
import sqlite3
import struct
import time
from typing import Any

import httpx
import numpy as np
import pytest
from chromadb.base_types import SparseVector
from chromadb.errors import InternalError

from reembed.errors import PreflightError, UnreachableError
from reembed.records import list_array_to_vectors
from reembed.stores.chroma import records as chroma_records
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.floats import stored_as, to_send
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec, StoreOptions
from tests.stores.contract.records import MODEL, batch, rows, simple, vectors
from tests.support.chroma_cases import lose_vectors, new_chroma_folder, points, upgraded_0_5
from tests.support.chroma_data import chroma, chroma_at
from tests.support.following import follows_hint
from tests.support.servers.chroma_server import chroma_server as run_server
from tests.support.stores import database_of, mark_of


@pytest.fixture
def path_store(tmp_path):
    store = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    yield store
    store.close()


@pytest.fixture
def http_store(chroma_server):
    store = open_store(chroma_server.url)
    yield store
    for name in store.catalog.collections():
        store.to_write().drop(store.catalog.describe(name).id)
    store.close()


@pytest.fixture(params=["path", "http"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


def make(store: Any, name: str) -> Any:
    return (
        store.to_write()
        .create(
            CollectionSpec(name, dimensions=4, metric="l2", index={}, metadata=None, model=MODEL)
        )
        .id
    )


# Floats


def a_float(chance: random.Random) -> float:
    kind = chance.randrange(4)
    if kind == 0:
        while True:
            value = float(struct.unpack("d", chance.randbytes(8))[0])
            if math.isfinite(value):
                return value
    if kind == 1:
        return chance.gauss(0, 1) * 10.0 ** chance.randint(-10, 10)
    if kind == 2:
        return 1.7e9 + chance.random() * 1e8
    return chance.choice(
        [0.1, 1 / 3, 1e22, 1e23, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, 1e16,
         0.0, 1.0, -5.0, 9007199254740993.0, 123456789.123456789, chance.random()]
    )  # fmt: skip


def records_of_floats(records: int, floats: int, seed: int = 1):
    chance = random.Random(seed)
    return batch(
        [
            (
                f"r{i}",
                None,
                {f"k{j}": a_float(chance) for j in range(floats)}
                | {"list": [a_float(chance) for _ in range(3)]},
                None,
            )
            for i in range(records)
        ]
    )


def values(read: Any) -> Any:
    return read.column("metadata").to_pylist()


@pytest.mark.parametrize(("kind", "records"), [("path", 1_000), ("http", 250)])
def test_tens_of_thousands_of_floats_are_copied_to_the_last_bit(request, kind, records):
    """What Chroma holds, copied through fetch and add, has the same hash in every record."""
    store = request.getfixturevalue(f"{kind}_store")
    first, second = make(store, "floats-1"), make(store, "floats-2")
    store.to_write().write(first, records_of_floats(records, 40), vectors(records), "add")
    ids = [f"r{i}" for i in range(records)]
    held = store.reader.fetch(first, ids, vectors=False)
    store.to_write().write(second, held, vectors(records), "add")
    copied = store.reader.fetch(second, ids, vectors=False)
    assert values(copied) == values(held)
    assert copied.column("row_sha256") == held.column("row_sha256")


def test_a_naive_copy_alters_floats_which_is_why_they_are_sent_adjusted(path_store):
    first, second = make(path_store, "naive-1"), make(path_store, "naive-2")
    collection = database_of(path_store).handle(second)
    path_store.to_write().write(first, records_of_floats(200, 40), vectors(200), "add")
    held = database_of(path_store).handle(first).get(include=["metadatas"])
    collection.add(ids=held["ids"], embeddings=vectors(200), metadatas=held["metadatas"])
    copied = collection.get(include=["metadatas"])
    assert copied["metadatas"] != held["metadatas"]


@pytest.mark.parametrize("kind", ["path", "http"])
def test_the_rounding_of_chroma_is_foretold_to_the_last_bit(request, kind):
    store = request.getfixturevalue(f"{kind}_store")
    chance = random.Random(11)
    sent = [a_float(chance) for _ in range(4_000)]
    collection = database_of(store).handle(make(store, "raw"))
    collection.add(ids=["r"], embeddings=[[0, 0, 0, 1]],
                   metadatas=[{f"k{i}": value for i, value in enumerate(sent)}])  # fmt: skip
    stored = collection.get(include=["metadatas"])["metadatas"][0]
    passes = 1 if kind == "path" else 2
    for i, value in enumerate(sent):
        assert struct.pack("d", stored[f"k{i}"]) == struct.pack("d", stored_as(value, passes))


def test_what_is_to_be_sent_arrives_as_wanted():
    chance = random.Random(3)
    for passes in (1, 2):
        for value in (stored_as(a_float(chance), passes) for _ in range(5_000)):
            sent = to_send(value, passes)
            assert sent is not None
            assert stored_as(sent, passes) == value


def test_floats_of_chroma_0_5_that_cannot_be_sent_are_written_exactly_all_the_same(tmp_path):
    store: Any = open_store(f"chroma:{upgraded_0_5(tmp_path)}")
    source = store.catalog.describe("really-cosine")
    ids = [f"really-cosine-{i}" for i in range(40)]
    held = store.reader.fetch(source.id, ids, vectors=False)
    unsendable = [
        value
        for metadata in database_of(store).handle(source.id).get(include=["metadatas"])["metadatas"]
        if to_send(value := metadata["created"], 1) is None
    ]
    assert unsendable, "the case must hold some, or it proves nothing"
    copy = (
        store.to_write()
        .create(
            CollectionSpec("copy", dimensions=8, metric="l2", index={}, metadata=None, model=MODEL)
        )
        .id
    )
    store.to_write().write(copy, held, vectors(40, 8), "add")
    store.to_write().write(copy, held.slice(0, 20), vectors(20, 8), "replace")
    assert store.reader.fetch(copy, ids, vectors=False).equals(held)
    store.close()
    again = open_store(store.url)
    assert again.reader.fetch(copy, ids, vectors=False).equals(held)
    again.close()


def test_so_they_are_through_a_server_whose_directory_is_at_hand(tmp_path):
    with run_server(upgraded_0_5(tmp_path)) as server:
        store = open_store(server.url, StoreOptions(server.folder))
        ids = [f"really-l2-{i}" for i in range(40)]
        held = store.reader.fetch(store.catalog.describe("really-l2").id, ids, vectors=False)
        listed = batch([("list", None, {"l": [1732068743.6159577, 0.5, 1731198761.7340593]}, None)])
        copy = make(store, "copy")
        store.to_write().write(copy, held, vectors(40), "add")
        store.to_write().write(copy, listed, vectors(1), "add")
        assert store.reader.fetch(copy, ids, vectors=False).equals(held)
        assert store.reader.fetch(copy, ["list"], vectors=False).equals(listed)
        store.close()


# Ghosts: list-valued metadata of a deleted collection


LISTS = batch([(f"r{i}", "t", {"ghost": ["boo", "hoo"], "floats": [0.5]}, None) for i in range(30)])


@pytest.fixture(params=["path", "http", "http with the directory"])
def haunted(request, tmp_path, chroma_server):
    """A store whose newest collection, full of lists, an application has deleted."""
    if request.param == "http with the directory":
        store: Any = open_store(chroma_server.url)
        make(store, "any")
        store.close()
        store = open_store(chroma_server.url, StoreOptions(chroma_server.folder))
    else:
        store = request.getfixturevalue(f"{request.param}_store")
    id = make(store, "deleted")
    store.to_write().write(id, LISTS, vectors(30), "add")
    database_of(store).client.delete_collection("deleted")
    yield store
    if request.param == "http with the directory":
        for name in store.catalog.collections():
            store.to_write().drop(store.catalog.describe(name).id)
        store.close()


def test_chroma_gives_new_records_the_lists_of_a_deleted_collection(haunted):
    made = database_of(haunted).client.create_collection("theirs", embedding_function=None)
    made.add(ids=["new"], embeddings=points([1, 2, 3, 4]))
    assert made.get(include=["metadatas"])["metadatas"][0]["ghost"] == ["boo", "hoo"]


@pytest.mark.parametrize("verb", ["add", "replace"])
def test_records_written_here_have_only_what_was_written(haunted, verb):
    id = make(haunted, "clean")
    given = batch(
        [(f"n{i}", None, [None, {"k": 1}, {"ghost": "s"}, {"ghost": ["a"]}][i % 4], None)
         for i in range(40)]
    )  # fmt: skip
    haunted.to_write().write(id, given, vectors(40), verb)
    assert haunted.reader.fetch(id, given.column("id").to_pylist(), vectors=False).equals(given)


def test_lists_of_records_that_are_there_stay_when_they_are_added_again(haunted):
    id = make(haunted, "kept")
    haunted.to_write().write(id, LISTS, vectors(30), "add")
    haunted.to_write().write(id, batch([("r1", "t", None, None)]), vectors(1), "add")
    read = haunted.reader.fetch(id, ["r1"], vectors=False)
    assert rows(read) == [("r1", "t", '{"floats":[0.5],"ghost":["boo","hoo"]}', None)]


def test_a_collection_dropped_here_leaves_no_ghosts(store):
    id = make(store, "dropped")
    store.to_write().write(id, LISTS, vectors(30), "add")
    store.to_write().drop(id)
    made = database_of(store).client.create_collection("theirs", embedding_function=None)
    made.add(ids=["new"], embeddings=points([1, 2, 3, 4]))
    assert not made.get(include=["metadatas"])["metadatas"][0]


# Vectors that are lost


@pytest.fixture(params=["path", "http"])
def lossy(request, tmp_path, chroma_server):
    """A store, and a collection of 300 records with vectors and 3 without."""
    store = request.getfixturevalue(f"{request.param}_store")
    folder = tmp_path / "db" if request.param == "path" else chroma_server.folder
    id = make(store, "lossy")
    store.to_write().write(id, simple(300), vectors(300), "add")
    lose_vectors(folder, id, ["lost-1", "lost-2", "lost-3"])
    return store, id


def test_asking_chroma_for_a_lost_vector_fails_for_the_whole_page(lossy):
    store, id = lossy
    with pytest.raises(InternalError, match="Error finding id"):
        database_of(store).handle(id).get(include=["embeddings"])


def test_records_whose_vector_is_lost_come_whole_with_a_null_vector(lossy):
    store, id = lossy
    ids = ["r00000", "lost-1", *(f"r{i:05d}" for i in range(1, 300)), "lost-3", "lost-2"]
    read = store.reader.fetch(id, ids, vectors=True)
    assert read.column("id").to_pylist() == ids
    got, present = list_array_to_vectors(read.column("embedding"))
    assert [one for one, there in zip(ids, present, strict=True) if not there] == [
        "lost-1", "lost-3", "lost-2",
    ]  # fmt: skip
    np.testing.assert_allclose(got, vectors(300), atol=1e-6)
    assert read.column("document")[1].as_py() == "text of lost-1"


def test_records_whose_vector_is_lost_are_listed_and_counted(lossy):
    store, id = lossy
    listed = [one for page in store.reader.list_ids(id) for one in page.to_pylist()]
    assert len(listed) == store.reader.count(id) == 303
    assert {"lost-1", "lost-2", "lost-3"} <= set(listed)


def test_records_that_are_all_lost_come_too(lossy):
    store, id = lossy
    read = store.reader.fetch(id, ["lost-1", "lost-2"], vectors=True)
    assert read.column("embedding").null_count == read.num_rows == 2


# Pages


def test_pages_through_the_api_miss_nothing_when_records_before_them_are_deleted(
    http_store, monkeypatch
):
    monkeypatch.setattr(chroma_records, "SHARD_ROWS", 100)
    monkeypatch.setattr(chroma_records, "OVERLAP", 20)
    id = make(http_store, "shifting")
    http_store.to_write().write(id, simple(1_000), vectors(1_000), "add")
    collection = database_of(http_store).handle(id)
    pages, listed, deleted = chroma_records.list_ids(collection, None), list[str](), set[str]()
    for number, page in enumerate(pages):
        listed += page
        going = listed[:: number + 2][:90] if number < 5 else []
        deleted |= set(going)
        http_store.to_write().delete(id, going)
    assert len(listed) == len(set(listed))
    assert set(listed) >= {f"r{i:05d}" for i in range(1_000)} - deleted


def test_pages_through_the_api_repeat_nothing_when_records_are_written_anew(
    http_store, monkeypatch
):
    monkeypatch.setattr(chroma_records, "SHARD_ROWS", 100)
    monkeypatch.setattr(chroma_records, "OVERLAP", 20)
    id = make(http_store, "renewed")
    http_store.to_write().write(id, simple(500), vectors(500), "add")
    listed = list[str]()
    for number, page in enumerate(
        chroma_records.list_ids(database_of(http_store).handle(id), None)
    ):
        listed += page
        if number < 3:
            http_store.to_write().write(id, simple(150), vectors(150), "replace")
    assert sorted(listed) == [f"r{i:05d}" for i in range(500)]


def test_a_filter_is_chromas_own_and_holds_for_ids_and_records(store):
    id = make(store, "filtered")
    store.to_write().write(id, simple(20), vectors(20), "add")
    where = {"i": {"$gte": 15}}
    store.reader.check_where(where)
    assert sorted(one for page in store.reader.list_ids(id, where) for one in page.to_pylist()) == [
        f"r{i:05d}" for i in range(15, 20)
    ]
    read = store.reader.fetch(id, ["r00003", "r00017"], vectors=True, where=where)
    assert read.column("id").to_pylist() == ["r00017"]


@pytest.mark.parametrize(
    "where", ["kind = 'x'", {}, {"a": {"$foo": 1}}, {"a": 1, "b": 2}, {"$and": [{"a": 1}]}]
)
def test_a_filter_that_chroma_would_refuse_is_refused_first(path_store, where):
    with pytest.raises(PreflightError, match=r"source\.where"):
        path_store.reader.check_where(where)
    with pytest.raises(PreflightError):
        path_store.reader.fetch(make(path_store, "any"), ["r"], vectors=False, where=where)


def test_answers_over_http_stay_near_the_byte_size_aimed_for(http_store, monkeypatch):
    monkeypatch.setattr(chroma_records, "PAGE_BYTES", 200_000)
    id = make(http_store, "heavy")
    heavy = batch([(f"r{i}", "x" * 20_000, None, None) for i in range(300)])
    http_store.to_write().write(id, heavy, vectors(300), "add")
    sizes = []
    real = chroma_records._get

    def counting(collection, ids, *rest):
        sizes.append(len(ids))
        return real(collection, ids, *rest)

    monkeypatch.setattr(chroma_records, "_get", counting)
    read = http_store.reader.fetch(id, [f"r{i}" for i in range(300)], vectors=True)
    assert rows(read) == rows(heavy)
    assert max(sizes[1:]) <= 15


# Batches


def test_batches_keep_within_rows_and_bytes_and_a_huge_document_goes_alone(monkeypatch):
    monkeypatch.setattr(chroma_records, "BATCH_BYTES", 100_000)
    given = batch([(f"r{i}", "x" * (150_000 if i == 50 else 10), None, None) for i in range(2_500)])
    made = list(chroma_records.batches(given, 4, passes=1, max_rows=1_000))
    assert [one for part in made for one in part.ids] == given.column("id").to_pylist()
    assert ["r50"] in [part.ids for part in made]
    assert all(len(part.ids) <= 1_000 for part in made)


def test_more_bytes_than_the_server_takes_at_once_are_written_in_parts(http_store):
    id = make(http_store, "much")
    much = batch([(f"r{i}", None, None, chr(97 + i) * 12_000_000) for i in range(4)])
    http_store.to_write().write(id, much, vectors(4), "add")
    assert http_store.reader.count(id) == 4


def test_a_lower_limit_of_the_server_is_found_by_halving(http_store, monkeypatch):
    monkeypatch.setattr(chroma_records, "BATCH_BYTES", 100 << 20)
    id = make(http_store, "halved")
    much = batch([(f"r{i}", None, None, chr(97 + i) * 15_000_000) for i in range(4)])
    http_store.to_write().write(id, much, vectors(4), "add")
    assert http_store.reader.count(id) == 4


def test_a_record_larger_than_any_request_is_named(http_store):
    id = make(http_store, "too-large")
    with pytest.raises(PreflightError, match="'the-large-one'") as caught:
        http_store.to_write().write(
            id,
            batch([("small", "x", None, None), ("the-large-one", None, None, "x" * 42_000_000)]),
            vectors(2),
            "add",
        )
    assert "max_payload_size_bytes" in caught.value.hint


@pytest.mark.parametrize("key", ["", "$gt", "#document", "chroma:document"])
def test_the_record_whose_metadata_key_chroma_refuses_is_named(store, key):
    some = batch([(f"r{i}", None, {key if i == 7 else "key": 1}, None) for i in range(20)])
    with pytest.raises(PreflightError, match="'r7'"):
        store.to_write().write(make(store, "odd-keys"), some, vectors(20), "add")


@follows_hint("Leave such records out with source.where; sparse vectors are not copied.")
def test_a_sparse_vector_in_metadata_is_refused_by_its_record(path_store, monkeypatch):
    id = make(path_store, "sparse")
    answer = {
        "ids": ["r"], "documents": None, "uris": None, "embeddings": None,
        "metadatas": [{"sparse": SparseVector(indices=[1], values=[0.5])}],
    }  # fmt: skip
    path_store.to_write().write(id, batch([("s", None, {"n": 1}, None)]), vectors(1), "add")
    handle = database_of(path_store).handle(id)
    get = handle.get

    def got(**given):
        return get(**given) if given.get("where") or given.get("where") else answer

    monkeypatch.setattr(handle, "get", got)
    with pytest.raises(PreflightError, match=r"'r'.*JSON"):
        path_store.reader.fetch(id, ["r"], vectors=False)
    left = path_store.reader.fetch(id, ["r", "s"], vectors=False, where={"n": 1})
    assert left.column("id").to_pylist() == ["s"]


def test_an_integer_beyond_64_bits_is_refused_where_chroma_would_store_a_float(store):
    with pytest.raises(PreflightError, match=r"'r'.*'n'"):
        store.to_write().write(
            make(store, "large-int"), batch([("r", None, {"n": 2**63}, None)]), vectors(1), "add"
        )


def test_chromas_own_metadata_keys_are_seen_as_document_and_uri_only(path_store):
    id = make(path_store, "own-keys")
    path_store.to_write().write(id, batch([("r", "d", {"k": 1}, "u")]), vectors(1), "add")
    read = path_store.reader.fetch(id, ["r"], vectors=False)
    assert rows(read) == [("r", "d", '{"k":1}', "u")]


def test_the_functions_of_the_collection_are_not_built_when_records_are_written(path_store):
    """Chroma builds it at each add, and warns (an error in tests) where its key is missing."""
    model = MODEL.model_copy(update={"provider": "openai", "name": "text-embedding-3-small"})
    id = (
        path_store.to_write()
        .create(
            CollectionSpec(
                "keyless", dimensions=4, metric="l2", index={}, metadata=None, model=model
            )
        )
        .id
    )
    path_store.to_write().write(id, simple(3), vectors(3), "add")
    assert path_store.reader.count(id) == 3


# Faults


def test_a_connection_that_breaks_is_unreachable_with_a_hint(http_store, monkeypatch):
    id = make(http_store, "breaking")
    collection = database_of(http_store).handle(id)

    def broken(*args, **kwargs):
        raise httpx.ReadTimeout("no answer")

    monkeypatch.setattr(collection, "get", broken)
    monkeypatch.setattr(collection, "add", broken)
    for call in (
        lambda: http_store.reader.fetch(id, ["r"], vectors=True),
        lambda: http_store.to_write().write(id, simple(1), vectors(1), "add"),
        lambda: list(http_store.reader.list_ids(id)),
    ):
        with pytest.raises(UnreachableError) as caught:
            call()
        assert "resume" in caught.value.hint


def test_a_panic_of_chromas_rust_part_is_no_crash(path_store, monkeypatch):
    class PanicException(BaseException):
        pass

    collection = database_of(path_store).handle(make(path_store, "panicking"))

    def panic(*args, **kwargs):
        raise PanicException("called unwrap on None")

    monkeypatch.setattr(collection, "count", panic)
    with pytest.raises(UnreachableError, match="unwrap"):
        path_store.reader.count(str(collection.id))


def test_a_locked_database_is_waited_for_and_then_unreachable(path_store, tmp_path, monkeypatch):
    monkeypatch.setattr(chroma_sqlite, "BUSY_SECONDS", 0.2)
    id = make(path_store, "locked")
    other = sqlite3.connect(tmp_path / "db" / "chroma.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnreachableError, match="locked"):
        mark_of(path_store, id)
    other.execute("ROLLBACK")
    other.close()
    assert mark_of(path_store, id) is not None


def test_listing_ids_holds_no_lock_between_its_pages(path_store, tmp_path):
    id = make(path_store, "short-reads")
    path_store.to_write().write(id, simple(6_000), vectors(6_000), "add")
    pages = path_store.reader.list_ids(id)
    next(iter(pages))
    began = time.monotonic()
    path_store.to_write().write(id, simple(10, "new"), vectors(10), "add")
    assert time.monotonic() - began < 2
    assert sum(len(page) for page in pages) >= 1_000


def test_vectors_of_a_cosine_collection_come_back_within_their_precision(store):
    id = (
        store.to_write()
        .create(
            CollectionSpec(
                "cosine", dimensions=64, metric="cosine", index={}, metadata=None, model=MODEL
            )
        )
        .id
    )
    store.to_write().write(id, simple(50), vectors(50, 64) * 3, "add")
    ids = [f"r{i:05d}" for i in range(50)]
    got, _ = list_array_to_vectors(store.reader.fetch(id, ids, vectors=True).column("embedding"))
    np.testing.assert_allclose(got, vectors(50, 64) * 3, atol=1e-6)


def test_records_written_by_an_application_meanwhile_are_read(chroma_server, tmp_path, path_store):
    with chroma(tmp_path / "db") as client:
        made = client.create_collection("theirs", embedding_function=None)
        made.add(ids=["a"], embeddings=points([1, 2, 3, 4]), documents=["x"])
        assert path_store.reader.fetch(str(made.id), ["a"], vectors=True).num_rows == 1
    with chroma_at(chroma_server.url) as client:
        assert client.heartbeat() > 0
