"""What a store promises in which live names move (`reembed.stores.store.Cutover`)."""

from __future__ import annotations

import pytest

from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import SwapKind
from reembed.stores.store import Store
from reembed.stores.values import Exchange
from tests.stores.contract.stores import make, renaming
from tests.support.stores import is_pointer

PARTS = ("writer", "cutover")


def test_a_description_by_id_follows_a_rename(store: Store):
    info = make(store, "before", 3)
    store.to_move().exchange(renaming(store), Exchange("after", info.id, None, "unused"))
    found = store.catalog.describe_id(info.id)
    assert found is not None
    assert (found.name, found.count, found.dimensions) == ("after", 3, 4)


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
