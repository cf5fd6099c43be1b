"""What a store that can be written to promises (`reembed.stores.store.Writer`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.records import SHARD_ROWS, list_array_to_vectors
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from tests.stores.contract.records import MODEL, Record, batch, rows, simple, vectors
from tests.stores.contract.stores import ids_of, make
from tests.support.stores import build_index

PARTS = ("writer", "search")


def test_a_missing_id_is_none(store: Store):
    gone = make(store, "gone").id
    store.to_write().drop(gone)
    assert store.catalog.describe_id(gone) is None


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_the_metric_asked_for_is_the_metric_described(store: Store, metric):
    assert make(store, "empty-one", 0, metric).metric == metric
    make(store, "full-one", 50, metric)
    assert store.catalog.describe("full-one").metric == metric


def test_a_collection_can_be_made_again_from_its_description(store: Store):
    make(store, "first", 2)
    first = store.catalog.describe("first")
    store.to_write().create(CollectionSpec(
        "second", dimensions=4, metric=first.metric, index=first.index, metadata=first.metadata,
        model=MODEL,
    ))  # fmt: skip
    second = store.catalog.describe("second")
    assert (second.metric, second.index, second.metadata, second.model) == (
        first.metric, first.index, first.metadata, first.model,
    )  # fmt: skip
    assert first.metadata == {"made": "by a test"}
    assert first.model == {"provider": "static", "name": "wordllama", "dimensions": 4}


def test_a_taken_name_is_refused_and_its_collection_untouched(store: Store):
    taken = make(store, "taken", 3)
    with pytest.raises(PreflightError, match="taken"):
        make(store, "taken")
    assert store.reader.count(taken.id) == 3


def test_an_unknown_index_setting_is_refused_by_name(store: Store):
    fine = CollectionSpec("never", 4, "l2", index={}, metadata=None, model=MODEL)
    assert store.to_write().check(fine).refusals == ()
    wrong = replace(fine, index={"nonsense": 1})
    (refusal,) = store.to_write().check(wrong).refusals
    assert "nonsense" in refusal.message
    with pytest.raises(PreflightError, match="nonsense"):
        store.to_write().create(wrong)
    assert "never" not in store.catalog.collections()


@pytest.mark.parametrize("name", ["", "a/b", "ends with space ", "x" * 3_000])
def test_an_illegal_name_is_refused_before_and_on_creation(store: Store, name):
    spec = CollectionSpec(name, 4, "cosine", index={}, metadata=None, model=MODEL)
    assert len(store.to_write().check(spec).refusals) == 1
    wrong = replace(spec, index={"nonsense": 1})
    assert len(store.to_write().check(wrong).refusals) == 2, "all that is wrong is told"
    with pytest.raises(PreflightError):
        make(store, name)


@pytest.mark.parametrize(
    "model",
    ["nomic-embed-text", "org/model:latest", "package:some.module", "äöü", "/a/b.onnx/", "-"],
)
def test_the_default_target_is_a_legal_name(store: Store, model):
    name = store.to_write().default_target("docs", model, 768)
    assert name.startswith("docs__")
    assert name.endswith("-768")
    spec = CollectionSpec(name, 768, "cosine", index={}, metadata=None, model=MODEL)
    assert store.to_write().check(spec).refusals == ()


def test_a_copy_of_a_copy_has_the_same_hashes(store: Store, awkward: list[Record]):
    first, second = make(store, "first").id, make(store, "second").id
    records = awkward
    store.to_write().write(first, batch(records), vectors(len(records)), "add")
    ids = [row[0] for row in records]
    copied = store.reader.fetch(first, ids, vectors=False)
    store.to_write().write(second, copied, vectors(len(records), seed=2), "add")
    assert store.reader.fetch(second, ids, vectors=False).equals(copied)


def test_ids_that_stay_are_all_listed_while_others_are_deleted(store: Store):
    count = SHARD_ROWS + 500
    id = make(store, "shrinking", count).id
    pages = store.reader.list_ids(id)
    first = next(iter(pages)).to_pylist()
    store.to_write().delete(id, first[:1_000])
    rest = [one for page in pages for one in page.to_pylist()]
    listed = first + rest
    assert len(listed) == len(set(listed))
    assert set(listed) >= {f"r{i:05d}" for i in range(count)} - set(first[:1_000])


def test_adding_again_changes_nothing(store: Store):
    id = make(store, "twice", 5).id
    before = store.reader.fetch(id, ids_of(store, id), vectors=True)
    store.to_write().write(id, simple(7), vectors(7, seed=9), "add")
    assert store.reader.count(id) == 7
    assert store.reader.fetch(id, before.column("id").to_pylist(), vectors=True).equals(before)


def test_other_vectors_leave_all_else_of_a_record(store: Store, awkward: list[Record]):
    id = make(store, "given-others").id
    store.to_write().write(id, batch(awkward), vectors(len(awkward)), "add")
    ids = [row[0] for row in awkward]
    before = store.reader.fetch(id, ids, vectors=True)
    given, others = ids[::2], vectors(len(ids[::2]), seed=5)
    for _ in range(2):
        store.to_write().set_vectors(id, [*given, "nobody"], np.vstack([others, others[:1]]))
    after = store.reader.fetch(id, ids, vectors=True)
    assert after.drop_columns(["embedding"]).equals(before.drop_columns(["embedding"]))
    got, _ = list_array_to_vectors(after.column("embedding"))
    np.testing.assert_allclose(got[::2], others, atol=1e-6)
    np.testing.assert_allclose(got[1::2], vectors(len(ids))[1::2], atol=1e-6)
    assert store.reader.count(id) == len(ids)
    if store.search:
        build_index(store, id)
        assert store.search.query(id, others[:1], 1) == [[given[0]]]


def test_replacing_leaves_nothing_of_the_old_record(store: Store):
    id = make(store, "replaced").id
    store.to_write().write(
        id, batch([("r", "old", {"old": 1, "both": 1}, "old uri")]), vectors(1), "add"
    )
    new = batch([("r", None, {"both": 2}, None), ("s", "new", None, None)])
    store.to_write().write(id, new, vectors(2, seed=7), "replace")
    read = store.reader.fetch(id, ["r", "s"], vectors=True)
    assert rows(read) == rows(new)
    got, _ = list_array_to_vectors(read.column("embedding"))
    np.testing.assert_allclose(got, vectors(2, seed=7), atol=1e-6)
    assert store.reader.count(id) == 2


def test_deleting_takes_missing_ids_too(store: Store):
    id = make(store, "deleted", 4).id
    store.to_write().delete(id, ["r00001", "never", "r00003"])
    store.to_write().delete(id, [])
    assert ids_of(store, id) == ["r00000", "r00002"]


def test_no_records_at_all_can_be_written(store: Store):
    id = make(store, "nothing").id
    store.to_write().write(id, batch([]), np.zeros((0, 4), np.float32), "add")
    store.to_write().write(id, batch([]), np.zeros((0, 4), np.float32), "replace")
    assert store.reader.count(id) == 0


def test_a_record_that_the_store_refuses_is_named(store: Store):
    id = make(store, "refusing").id
    bad = vectors(3)
    bad[1, 2] = np.nan
    with pytest.raises(PreflightError, match="r00001"):
        store.to_write().write(id, simple(3), bad, "add")


def test_a_collection_can_be_made_like_another_and_indexed_when_it_is_full(store: Store):
    first = make(store, "first", 5)
    second = store.to_write().create(
        CollectionSpec("second", 8, first.metric, first.index, first.metadata, MODEL, first.id)
    )
    records = store.reader.fetch(first.id, ids_of(store, first.id), vectors=False)
    store.to_write().write(second.id, records, vectors(5, dimensions=8), "add")
    for _ in range(2):
        build_index(store, second.id)
    assert store.catalog.describe("second").dimensions == 8
    assert store.reader.fetch(second.id, ids_of(store, first.id), vectors=False).equals(records)
    assert store.to_search().query(second.id, vectors(5, dimensions=8)[:1], 1) == [["r00000"]]
    store.to_write().drop(first.id)
    assert store.reader.count(second.id) == 5


def test_work_on_a_dropped_collection_says_so(store: Store):
    id = make(store, "soon-gone", 2).id
    store.reader.count(id)
    store.to_write().drop(id)
    with pytest.raises(CollectionNotFoundError):
        store.reader.count(id)
    with pytest.raises(CollectionNotFoundError):
        store.reader.fetch(id, ["r00001"], vectors=True)
    with pytest.raises(CollectionNotFoundError):
        list(store.reader.list_ids(id))
