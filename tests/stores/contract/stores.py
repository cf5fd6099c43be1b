"""The stores that the contract suite runs on, and what each of them has not.

A file `opener_<name>.py` here holds `STORES`, the entries of one adapter. A store is held to the
tests of every part that it has: a test module says in PARTS which it needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from reembed.manifest import SwapKind
from reembed.records import Vectors
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, CollectionSpec
from tests.stores.contract.records import MODEL, Record, simple, vectors

PARTS = ("search", "writer", "changes", "capture", "cutover", "claims")
"""Those that a store may lack."""
Fill = Callable[[str, pa.RecordBatch, Vectors], CollectionInfo]
"""Makes a collection of this name with these records, by whatever way there is into the store."""


@dataclass(frozen=True)
class Opened:
    """An empty store, and the way into it."""

    store: Store
    fill: Fill


@dataclass(frozen=True)
class Entry:
    """A store of the suite.

    Attributes:
        open: `(empty folder, getter of a fixture's value)` to a context manager of an empty store.
        lacks: parts that it has not, each with the reason.
        holds: whether it can hold a record at all.
    """

    open: Callable[[Path, Callable[[str], Any]], AbstractContextManager[Opened]]
    lacks: Mapping[str, str] = field(default_factory=dict)
    holds: Callable[[Record], bool] = lambda record: True


def written_by(store: Store) -> Opened:
    """A store that is filled through its own writer."""

    def fill(name: str, records: pa.RecordBatch, given: Vectors) -> CollectionInfo:
        info = make(store, name)
        store.to_write().write(info.id, records, given, "add")
        return info

    return Opened(store, fill)


@cache
def entries() -> dict[str, Entry]:
    """Every store by the name under which its tests run."""
    found: dict[str, Entry] = {}
    for path in sorted(Path(__file__).parent.glob("opener_*.py")):
        found |= importlib.import_module(f"tests.stores.contract.{path.stem}").STORES
    return found


def make(
    store: Store, name: str, count: int = 0, metric: Any = "cosine", seed: int = 1
) -> CollectionInfo:
    """A collection of simple records, made by the store's writer."""
    made_of = {"made": "by a test"}
    spec = CollectionSpec(name, 4, metric, index={}, metadata=made_of, model=MODEL)
    info = store.to_write().create(spec)
    if count:
        store.to_write().write(info.id, simple(count), vectors(count, seed=seed), "add")
    return info


def renaming(store: Store) -> SwapKind:
    """A swap kind that renames collections."""
    kinds = store.to_move().kinds
    return next(kind for kind in ("rename", "transaction") if kind in kinds)


def ids_of(store: Store, id: str, where: Any = None) -> list[str]:
    return [one for page in store.reader.list_ids(id, where) for one in page.to_pylist()]
