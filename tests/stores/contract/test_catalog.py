"""What every store promises of its catalog (`reembed.stores.store.Catalog`)."""

from __future__ import annotations

import json

import pytest

from reembed.errors import CollectionNotFoundError
from reembed.stores.store import Store
from tests.stores.contract.records import batch, simple, vectors
from tests.stores.contract.stores import Fill

PARTS = ()


def test_collections_are_listed_sorted(store: Store, fill: Fill):
    for name in ("b-coll", "a-coll", "c-coll"):
        fill(name, simple(1), vectors(1))
    assert store.catalog.collections() == ["a-coll", "b-coll", "c-coll"]


def test_a_missing_collection_is_named_with_those_that_exist(store: Store, fill: Fill):
    fill("documents", batch([]), vectors(0))
    with pytest.raises(CollectionNotFoundError) as caught:
        store.catalog.describe("document")
    assert "documents" in caught.value.message
    assert "documents" in caught.value.hint


def test_a_description_is_json(store: Store, fill: Fill):
    info = fill("as-json", simple(1), vectors(1))
    assert json.loads(json.dumps(info.to_dict()))["name"] == "as-json"
