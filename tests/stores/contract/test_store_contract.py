"""What every store adapter promises (`reembed.stores.store.Store`), on every store."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from reembed.errors import CollectionNotFoundError, PreflightError, SourceChangedError
from reembed.manifest import SwapKind
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, list_array_to_vectors, row_hash
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, CollectionSpec, Exchange
from tests.stores.contract.records import AWKWARD, MODEL, batch, rows, simple, vectors
from tests.support.stores import build_index, is_pointer, mark_of, snapshot_of


def make(store: Store, name: str, count: int = 0, metric="cosine", seed=1) -> CollectionInfo:
    info = store.to_write().create(
        CollectionSpec(
            name, dimensions=4, metric=metric, index={}, metadata={"made": "by a test"}, model=MODEL
        )
    )
    if count:
        store.to_write().write(info.id, simple(count), vectors(count, seed=seed), "add")
    return info


def renaming(store: Store) -> SwapKind:
    """A swap kind that renames collections."""
    return next(kind for kind in ("rename", "transaction") if kind in store.to_move().kinds)


def awkward(store: Store):
    """Records that break naive copies, but for what the store cannot hold at all."""
    held = AWKWARD
    if store.url.startswith("postgres"):  # NUL ends a string there
        held = [row for row in AWKWARD if "\x00" not in (row[1] or "")]
    return held


def ids_of(store: Store, id: str, where=None) -> list[str]:
    return [one for page in store.reader.list_ids(id, where) for one in page.to_pylist()]


# What is there


def test_collections_are_listed_sorted(store: Store):
    for name in ("b-coll", "a-coll", "c-coll"):
        make(store, name)
    assert store.catalog.collections() == ["a-coll", "b-coll", "c-coll"]


def test_a_missing_collection_is_named_with_those_that_exist(store: Store):
    make(store, "documents")
    with pytest.raises(CollectionNotFoundError) as caught:
        store.catalog.describe("document")
    assert "documents" in caught.value.message
    assert "documents" in caught.value.hint


def test_a_missing_id_is_none(store: Store):
    gone = make(store, "gone").id
    store.to_write().drop(gone)
    assert store.catalog.describe_id(gone) is None


def test_a_description_by_id_follows_a_rename(store: Store):
    info = make(store, "before", 3)
    store.to_move().exchange(renaming(store), Exchange("after", info.id, None, "unused"))
    found = store.catalog.describe_id(info.id)
    assert found is not None
    assert (found.name, found.count, found.dimensions) == ("after", 3, 4)


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


# Records


def test_every_awkward_record_comes_back_as_it_was_written(store: Store):
    records = awkward(store)
    written = batch(records)
    id = make(store, "awkward").id
    given = vectors(len(records))
    store.to_write().write(id, written, given, "add")
    ids = written.column("id").to_pylist()
    read = store.reader.fetch(id, ids, vectors=True)
    assert read.schema == EXPORT_SCHEMA
    assert rows(read) == rows(written)
    assert read.column("row_sha256") == written.column("row_sha256")
    got, present = list_array_to_vectors(read.column("embedding"))
    assert present.all()
    np.testing.assert_allclose(got, given, atol=1e-6)
    assert sorted(ids_of(store, id)) == sorted(ids)
    assert store.reader.count(id) == len(records)


def test_metadata_is_canonical_json_text(store: Store):
    id = make(store, "canonical").id
    store.to_write().write(
        id, batch([("r", None, {"b": 1, "a": 1.0, "ü": True}, None)]), vectors(1), "add"
    )
    read = store.reader.fetch(id, ["r"], vectors=False)
    text = read.column("metadata")[0].as_py()
    assert text == '{"a":1.0,"b":1,"ü":true}'
    assert read.column("row_sha256")[0].as_py() == row_hash("r", None, text, None)


def test_a_copy_of_a_copy_has_the_same_hashes(store: Store):
    first, second = make(store, "first").id, make(store, "second").id
    records = awkward(store)
    store.to_write().write(first, batch(records), vectors(len(records)), "add")
    ids = [row[0] for row in records]
    copied = store.reader.fetch(first, ids, vectors=False)
    store.to_write().write(second, copied, vectors(len(records), seed=2), "add")
    assert store.reader.fetch(second, ids, vectors=False).equals(copied)


def test_records_come_in_the_order_asked_for_without_those_that_are_missing(store: Store):
    id = make(store, "order", 20).id
    read = store.reader.fetch(id, ["r00009", "never", "r00001", "r00015"], vectors=True)
    assert read.column("id").to_pylist() == ["r00009", "r00001", "r00015"]
    got, _ = list_array_to_vectors(read.column("embedding"))
    np.testing.assert_allclose(got, vectors(20)[[9, 1, 15]], atol=1e-6)
    assert store.reader.fetch(id, ["never"], vectors=True).num_rows == 0
    assert store.reader.fetch(id, [], vectors=True).num_rows == 0


def test_without_vectors_every_embedding_is_null(store: Store):
    id = make(store, "bare", 3).id
    read = store.reader.fetch(id, ["r00000", "r00001"], vectors=False)
    assert read.column("embedding").null_count == 2


def test_ids_come_in_pages_each_exactly_once(store: Store):
    count = SHARD_ROWS + 50
    id = make(store, "pages", count).id
    pages = list(store.reader.list_ids(id))
    assert all(0 < len(page) <= SHARD_ROWS for page in pages)
    assert all(page.type == pa.string() for page in pages)
    listed = [one for page in pages for one in page.to_pylist()]
    assert sorted(listed) == [f"r{i:05d}" for i in range(count)]
    assert ids_of(store, make(store, "none").id) == []


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


def test_a_search_finds_each_vector_itself_first_and_at_most_k(store: Store):
    id = make(store, "searched", 300).id
    given = vectors(300)
    found = store.to_search().query(id, given[:150], 3)
    assert len(found) == 150
    assert all(len(hits) == 3 for hits in found)
    assert np.mean([hits[0] == f"r{i:05d}" for i, hits in enumerate(found)]) > 0.98
    assert len(store.to_search().query(make(store, "small", 2).id, given[:1], 10)[0]) == 2


def test_what_changed_since_a_mark_is_told_or_not_known(store: Store):
    info = make(store, "marked", 3)
    other = make(store, "other")
    if store.changes is None:
        return
    for _ in range(2):
        if store.capture is not None:
            store.capture.start(info.id)
    mark = mark_of(store, info.id)
    assert store.changes.since(info.id, "some mark").ids is None
    store.to_write().write(other.id, simple(2), vectors(2), "add")
    assert store.changes.since(info.id, mark).ids == []
    changes = [
        (lambda: store.to_write().write(info.id, simple(1, "new"), vectors(1), "add"), "new00000"),
        (
            lambda: store.to_write().write(
                info.id, simple(1, "new", changed=True), vectors(1), "replace"
            ),
            "new00000",
        ),
        (lambda: store.to_write().delete(info.id, ["r00001"]), "r00001"),
    ]
    for change, id in changes:
        change()
        told = store.changes.since(info.id, mark)
        assert told.ids is None or told.ids == [id]
        if store.capture:
            store.capture.acknowledge(told.token)
        mark = mark_of(store, info.id)
        assert mark is not None
        assert store.changes.since(info.id, mark).ids == []
    for _ in range(2):
        if store.capture is not None:
            store.capture.stop(info.id)
    assert store.reader.count(info.id) == 3


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


def test_a_snapshot_does_not_hinder(store: Store):
    id = make(store, "snapped", 3).id
    with snapshot_of(store):
        ids = ids_of(store, id)
        assert store.reader.fetch(id, ids, vectors=True).num_rows == 3


# Filters


def test_no_filter_is_always_right(store: Store):
    store.reader.check_where(None)


def test_the_other_stores_kind_of_filter_is_refused(store: Store):
    with pytest.raises(PreflightError):
        store.reader.check_where({"no such operator": {"$nonsense": 1}})


# Names


def kinds(store: Store) -> list[SwapKind]:
    return sorted(store.to_move().kinds)


def test_each_swap_kind_says_what_it_guarantees(store: Store):
    assert all(len(text) > 40 for text in store.to_move().kinds.values())


def test_a_swap_goes_there_and_back_and_there_again(store: Store):
    for kind in kinds(store):
        old, new = make(store, f"{kind}-docs", 3), make(store, f"{kind}-new", 3, seed=2)
        live, parked = old.name, f"{kind}-docs__parked-r1"
        there = Exchange(live, new.id, old.id, parked, {"provider": "static", "name": "wordllama"})
        back = Exchange(live, old.id, new.id, parked)
        for move in (there, back, there):
            receipt = store.to_move().exchange(kind, move)
            assert receipt.kind == kind
            assert receipt.intruder is None
            assert (receipt.gap_seconds is None) == (kind != "rename")
            assert store.resolve(live).id == move.incoming_id
            again = store.to_move().exchange(kind, move)
            assert again.intruder is None
            assert store.resolve(live).id == move.incoming_id
        assert is_pointer(store.cutover, live) == (kind == "pointer")
        assert store.catalog.describe_id(old.id).name == parked  # type: ignore[union-attr]
        assert (store.reader.count(old.id), store.reader.count(new.id)) == (3, 3)


def test_a_swap_is_refused_when_a_collection_is_gone(store: Store):
    for kind in kinds(store):
        old, new = make(store, f"{kind}-docs"), make(store, f"{kind}-new")
        store.to_write().drop(new.id)
        with pytest.raises(SourceChangedError):
            store.to_move().exchange(kind, Exchange(old.name, new.id, old.id, f"{kind}-parked"))
        assert store.resolve(old.name).id == old.id


def test_a_swap_is_refused_when_the_live_name_leads_to_a_third_collection(store: Store):
    for kind in kinds(store):
        old, new = make(store, f"{kind}-docs"), make(store, f"{kind}-new")
        store.to_write().drop(old.id)
        third = make(store, f"{kind}-docs")
        with pytest.raises(SourceChangedError):
            store.to_move().exchange(kind, Exchange(third.name, new.id, old.id, f"{kind}-parked"))
        assert store.catalog.describe(f"{kind}-docs").id == third.id
        assert store.catalog.describe(f"{kind}-new").id == new.id


def test_a_taken_parking_name_is_refused_before_the_live_name_moves(store: Store):
    for kind in kinds(store):
        old, new = make(store, f"{kind}-docs"), make(store, f"{kind}-new")
        other = make(store, f"{kind}-parked")
        with pytest.raises(PreflightError):
            store.to_move().exchange(kind, Exchange(old.name, new.id, old.id, other.name))
        assert store.resolve(old.name).id == old.id
        assert store.catalog.describe(other.name).id == other.id


def test_dropping_is_by_object_id_and_never_by_name(store: Store):
    old, new = make(store, "docs", 2), make(store, "docs-new", 3)
    store.to_move().exchange(renaming(store), Exchange("docs", new.id, old.id, "docs__parked-r1"))
    store.to_write().drop(old.id)
    store.to_write().drop(old.id)
    assert store.catalog.collections() == ["docs"]
    assert store.reader.count(new.id) == 3


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


def test_a_description_is_json(store: Store):
    info = make(store, "as-json", 1)
    assert json.loads(json.dumps(info.to_dict()))["name"] == "as-json"
