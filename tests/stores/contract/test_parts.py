"""A store is held to the parts it has, and what it has not is named with a reason."""

from __future__ import annotations

from reembed.stores.store import Store
from tests.stores.contract.stores import PARTS as ALL
from tests.stores.contract.stores import Entry

PARTS = ()


def test_what_a_store_lacks_is_named_with_a_reason(entry: Entry, store: Store) -> None:
    assert {part for part in ALL if getattr(store, part) is None} == set(entry.lacks)
    assert all(len(reason.split()) > 3 for reason in entry.lacks.values())


def test_a_log_of_writes_is_told_by_changes(store: Store) -> None:
    assert store.capture is None or store.changes is not None
