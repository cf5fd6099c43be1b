"""A faster way into a collection that is new: filled as a whole, and counting only then."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from reembed.records import Metric, Vectors
from reembed.stores.values import CollectionSpec


class Filling(Protocol):
    """A collection that is being filled as a whole: nothing of it counts before `finish`."""

    def add(self, records: pa.RecordBatch, vectors: Vectors) -> None:
        """Take n new records, in the columns of `Writer.write`, and their vectors, `(n, d)
        float32`. Raises PreflightError for a record that the store will never take."""

    def finish(self) -> None:
        """Make all of it count, at once."""


class Bulk(Protocol):
    """A faster way than `Writer.write` into a collection that is new and that nobody knows yet."""

    def check(self, spec: CollectionSpec) -> None:
        """Raise PreflightError where a collection like this cannot be filled so."""
        ...

    def begin(self, id: str, metric: Metric, dimensions: int, expected: int) -> Filling:
        """Begin to fill an empty collection with so many records, about."""
        ...

    def take_back(self, id: str) -> bool:
        """Remove what a filling that did not finish has left. Returns False, and removes nothing,
        where it did finish."""
        ...
