"""What tests ask of an open store."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from reembed.stores.chroma.catalog import ChromaCatalog
from reembed.stores.store import Capture, Changes, Cutover, Store


def mark_of(store: Store, id: str) -> str | None:
    """The mark of this moment; None where the store gives none."""
    return store.changes.since(id, None).mark if store.changes else None


def kinds_of(store: Store) -> list[str]:
    """The swap kinds it can do."""
    return sorted(store.cutover.kinds) if store.cutover else []


def is_pointer(cutover: Cutover | None, live: str) -> bool:
    return cutover is not None and cutover.follow(live) is not None


def logging(store: Store) -> tuple[Changes, Capture]:
    """The parts of a store that logs writes."""
    assert store.changes is not None and store.capture is not None
    return store.changes, store.capture


def snapshot_of(store: Store) -> AbstractContextManager[None]:
    return store.snapshot() if store.snapshot else nullcontext()


def build_index(store: Store, id: str) -> None:
    if store.build_index is not None:
        store.build_index(id)


def database_of(store: Store) -> Any:
    """What a Chroma store's parts share (`chroma.database.Database`), unchecked."""
    assert isinstance(store.catalog, ChromaCatalog)
    return store.catalog._database
