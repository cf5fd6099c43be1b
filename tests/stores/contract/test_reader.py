"""What every store promises of reading records (`reembed.stores.store.Reader`)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, list_array_to_vectors, row_hash
from reembed.stores.store import Store
from tests.stores.contract.records import Record, batch, rows, simple, vectors
from tests.stores.contract.stores import Fill, ids_of
from tests.support.stores import snapshot_of

PARTS = ()
NOWHERE = "00000000-0000-4000-8000-000000000000"


def test_every_awkward_record_comes_back_as_it_was_written(
    store: Store, fill: Fill, awkward: list[Record]
):
    written, given = batch(awkward), vectors(len(awkward))
    id = fill("awkward", written, given).id
    ids = written.column("id").to_pylist()
    read = store.reader.fetch(id, ids, vectors=True)
    assert read.schema == EXPORT_SCHEMA
    assert rows(read) == rows(written)
    assert read.column("row_sha256") == written.column("row_sha256")
    got, present = list_array_to_vectors(read.column("embedding"))
    assert present.all()
    np.testing.assert_allclose(got, given, atol=1e-6)
    assert sorted(ids_of(store, id)) == sorted(ids)
    assert store.reader.count(id) == len(awkward)


def test_metadata_is_canonical_json_text(store: Store, fill: Fill):
    record = batch([("r", None, {"b": 1, "a": 1.0, "ü": True}, None)])
    id = fill("canonical", record, vectors(1)).id
    read = store.reader.fetch(id, ["r"], vectors=False)
    text = read.column("metadata")[0].as_py()
    assert text == '{"a":1.0,"b":1,"ü":true}'
    assert read.column("row_sha256")[0].as_py() == row_hash("r", None, text, None)


def test_records_come_in_the_order_asked_for_without_those_that_are_missing(
    store: Store, fill: Fill
):
    id = fill("order", simple(20), vectors(20)).id
    read = store.reader.fetch(id, ["r00009", "never", "r00001", "r00015"], vectors=True)
    assert read.column("id").to_pylist() == ["r00009", "r00001", "r00015"]
    got, _ = list_array_to_vectors(read.column("embedding"))
    np.testing.assert_allclose(got, vectors(20)[[9, 1, 15]], atol=1e-6)
    assert store.reader.fetch(id, ["never"], vectors=True).num_rows == 0
    assert store.reader.fetch(id, [], vectors=True).num_rows == 0


def test_without_vectors_every_embedding_is_null(store: Store, fill: Fill):
    id = fill("bare", simple(3), vectors(3)).id
    read = store.reader.fetch(id, ["r00000", "r00001"], vectors=False)
    assert read.column("embedding").null_count == 2


def test_ids_come_in_pages_each_exactly_once(store: Store, fill: Fill):
    count = SHARD_ROWS + 50
    id = fill("pages", simple(count), vectors(count)).id
    pages = list(store.reader.list_ids(id))
    assert all(0 < len(page) <= SHARD_ROWS for page in pages)
    assert all(page.type == pa.string() for page in pages)
    listed = [one for page in pages for one in page.to_pylist()]
    assert sorted(listed) == [f"r{i:05d}" for i in range(count)]
    assert ids_of(store, fill("none", batch([]), vectors(0)).id) == []


def test_what_is_not_there_is_an_error(store: Store, fill: Fill):
    fill("there", simple(1), vectors(1))
    for ask in (store.reader.count, lambda id: list(store.reader.list_ids(id))):
        with pytest.raises(CollectionNotFoundError):
            ask(NOWHERE)
    with pytest.raises(CollectionNotFoundError):
        store.reader.fetch(NOWHERE, ["r00000"], vectors=True)
    assert store.catalog.describe_id(NOWHERE) is None


def test_no_filter_is_always_right(store: Store):
    store.reader.check_where(None)


def test_the_other_stores_kind_of_filter_is_refused(store: Store):
    with pytest.raises(PreflightError):
        store.reader.check_where({"no such operator": {"$nonsense": 1}})


def test_a_snapshot_does_not_hinder(store: Store, fill: Fill):
    id = fill("snapped", simple(3), vectors(3)).id
    with snapshot_of(store):
        ids = ids_of(store, id)
        assert store.reader.fetch(id, ids, vectors=True).num_rows == 3
