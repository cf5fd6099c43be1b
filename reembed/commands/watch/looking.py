"""One look at a live collection: what is there, counted, and whether known records find
themselves."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reembed.backup.drop import ValueCounts
from reembed.records import Vectors, list_array_to_vectors
from reembed.stores.collection import Collection
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

NEAREST = 10
"""Among how many nearest records a canary must be; its twins may come before it."""
DEEP = 400
"""As which it is asked for again: an index that was built anew may need a longer search for a few,
which is no fault of theirs; what is not in the index is not found by this, either."""


@dataclass(frozen=True)
class Canaries:
    """How the known records did.

    Attributes:
        ids: that are known by now, new ones in the place of those that are gone.
        asked: how many were known before.
        gone: how many of those are no more there, or have no vector.
        lost: ids of those that are there and do not find themselves.
        latency: median seconds of a search; None where none was made.
    """

    ids: list[str] = field(default_factory=list)
    asked: int = 0
    gone: int = 0
    lost: list[str] = field(default_factory=list)
    latency: float | None = None


@dataclass(frozen=True)
class Seen:
    """A live collection as it is now.

    Attributes:
        by: records for each value of the key that is counted by; empty where none is.
    """

    name: str
    info: CollectionInfo
    by: dict[str, int] = field(default_factory=dict)
    canaries: Canaries = field(default_factory=Canaries)

    @property
    def count(self) -> int:
        return self.info.count

    def to_dict(self) -> dict[str, Any]:
        info, canaries = self.info, self.canaries
        return {
            "collection": self.name, "id": info.id, "records": info.count,
            "dimensions": info.dimensions, "metric": info.metric, "by": self.by,
            "canaries": {
                "known": len(canaries.ids), "asked": canaries.asked, "gone": canaries.gone,
                "lost": canaries.lost, "latency": canaries.latency,
            },
        }  # fmt: skip


def count_by(collection: Collection, key: str) -> dict[str, int]:
    """Records for each value of a metadata key; those without it are not counted. Reads every
    record, page by page. Raises PreflightError for a key of too many values."""
    found = ValueCounts([key])
    for page in collection.list_ids():
        found.add(collection.fetch(page.to_pylist(), vectors=False))
    return found.counts[key]


def look(
    store: Store, name: str, info: CollectionInfo, by: str | None, wanted: int, known: list[str]
) -> Seen:
    """Look at a collection.

    Args:
        by: the key to count by.
        wanted: how many canaries there should be.
        known: ids of those that found themselves before.

    Raises:
        as the store's reader and search.
    """
    collection = Collection(store, info.id)
    counts = count_by(collection, by) if by else {}
    canaries = ask_canaries(collection, known[:wanted], wanted) if store.search else Canaries()
    return Seen(name, info, counts, canaries)


def ask_canaries(collection: Collection, known: list[str], wanted: int) -> Canaries:
    """Search with the vector of each known record, and look whether the record is found."""
    times: list[float] = []
    rows = collection.fetch(known, vectors=True) if known else None
    there: list[str] = []
    lost: list[str] = []
    if rows is not None:
        rows = rows.filter(rows.column("embedding").is_valid())
        there = rows.column("id").to_pylist()
        lost = _not_found(collection, rows, times)
    new: list[str] = []
    if len(there) < wanted:
        fresh = collection.some_with_vectors(2 * wanted)
        ids = [id for id in fresh.column("id").to_pylist() if id not in there]
        if ids:
            fresh = collection.fetch(ids, vectors=True)
            fresh = fresh.filter(fresh.column("embedding").is_valid())
            shy = set(_not_found(collection, fresh, times))
            new = [id for id in fresh.column("id").to_pylist() if id not in shy]
        new = new[:: max(1, len(new) // (wanted - len(there)))]  # spread, as they may go by age
    return Canaries(
        [*there, *new][:wanted], len(known), len(known) - len(there), lost,
        statistics.median(times) if times else None,
    )  # fmt: skip


def _not_found(collection: Collection, rows: Any, times: list[float]) -> list[str]:
    """Ids of the records that a search with their own vector does not find.

    Args:
        times: gets the seconds of each search.
    """
    if not rows.num_rows:
        return []
    vectors, _ = list_array_to_vectors(rows.column("embedding"))
    missed = []
    for id, vector in zip(rows.column("id").to_pylist(), vectors, strict=True):
        if not np.any(vector):
            continue  # zeros have no direction to be found by
        start = time.perf_counter()
        (found,) = collection.query(vector[np.newaxis], NEAREST, freely=True)
        times.append(time.perf_counter() - start)
        if id in found or _has_twin(collection, found, vector):
            continue
        (found,) = collection.query(vector[np.newaxis], DEEP)
        if id not in found:
            missed.append(id)
    return missed


def _has_twin(collection: Collection, found: list[str], vector: Vectors) -> bool:
    """Whether a record of the same vector was found in its place."""
    rows = collection.fetch(found, vectors=True) if found else None
    if rows is None or not rows.num_rows:
        return False
    vectors, _ = list_array_to_vectors(rows.column("embedding"))
    return bool(len(vectors)) and bool(np.isclose(vectors, vector, atol=1e-6).all(axis=1).any())
