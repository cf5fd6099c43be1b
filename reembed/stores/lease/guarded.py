"""What a run does under a lease: the parts of a store that write, asked for the lease first.

Every part that writes has its own class here, so a method that is new in a part has to be given its
place: a part that lacks it is not of its type any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from reembed.manifest import SwapKind
from reembed.progress import Counter, Forwarded, Progress
from reembed.records import Metric, Vectors
from reembed.stores.filling import Bulk, Filling
from reembed.stores.store import Capture, Cutover, Shapes, Store, Writer
from reembed.stores.values import (
    CollectionInfo,
    CollectionSpec,
    Exchange,
    Prepared,
    Receipt,
    SpecCheck,
    WriteMode,
)

Check = Callable[[bool], None]
"""Raises if the lease is lost. Given True, the store itself is asked whose it is: the writes that
make, move or delete a collection must not rest on an answer of a moment ago."""


@dataclass(frozen=True)
class LeasedWriter:
    """A `Writer` that asks for the lease before every write."""

    writer: Writer
    lease: Check

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        return self.writer.default_target(collection, model, dimensions)

    def check(self, spec: CollectionSpec) -> SpecCheck:
        return self.writer.check(spec)

    def create(self, spec: CollectionSpec) -> CollectionInfo:
        self.lease(True)
        return self.writer.create(spec)

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        self.lease(False)
        self.writer.write(id, records, vectors, mode)

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        self.lease(False)
        self.writer.set_vectors(id, ids, vectors)

    def delete(self, id: str, ids: Sequence[str]) -> None:
        self.lease(False)
        self.writer.delete(id, ids)

    def drop(self, id: str) -> None:
        self.lease(True)
        self.writer.drop(id)


@dataclass(frozen=True)
class LeasedFilling:
    """A `Filling` that asks for the lease before every write."""

    filling: Filling
    lease: Check

    def add(self, records: pa.RecordBatch, vectors: Vectors) -> None:
        self.lease(False)
        self.filling.add(records, vectors)

    def finish(self) -> None:
        self.lease(True)
        self.filling.finish()


@dataclass(frozen=True)
class LeasedBulk:
    """A `Bulk` that asks for the lease before every write."""

    bulk: Bulk
    lease: Check

    def check(self, spec: CollectionSpec) -> None:
        self.bulk.check(spec)

    def begin(self, id: str, metric: Metric, dimensions: int, expected: int) -> Filling:
        self.lease(True)
        return LeasedFilling(self.bulk.begin(id, metric, dimensions, expected), self.lease)

    def take_back(self, id: str) -> bool:
        self.lease(True)
        return self.bulk.take_back(id)


@dataclass(frozen=True)
class LeasedCapture:
    """A `Capture` that asks for the lease before every write."""

    capture: Capture
    lease: Check

    def start(self, id: str) -> None:
        self.lease(False)
        self.capture.start(id)

    def stop(self, id: str) -> None:
        self.lease(False)
        self.capture.stop(id)

    def acknowledge(self, token: object) -> None:
        self.lease(False)
        self.capture.acknowledge(token)


@dataclass(frozen=True)
class LeasedCutover:
    """A `Cutover` that asks for the lease before every write."""

    cutover: Cutover
    lease: Check

    @property
    def kinds(self) -> Mapping[SwapKind, str]:
        return self.cutover.kinds

    def follow(self, live: str) -> CollectionInfo | None:
        return self.cutover.follow(live)

    def fit_name(self, name: str) -> str:
        return self.cutover.fit_name(name)

    def check(self, live: str, parked: str, outgoing_id: str) -> None:
        self.cutover.check(live, parked, outgoing_id)

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        self.lease(True)
        return self.cutover.exchange(kind, exchange)

    def prepare(self, live: str, incoming: str) -> Prepared:
        self.lease(True)
        return self.cutover.prepare(live, incoming)

    def hold_writes(self, incoming: Mapping[str, str], seconds: float) -> float | None:
        self.lease(False)
        return self.cutover.hold_writes(incoming, seconds)

    def release_writes(self, live: str) -> None:
        self.lease(False)
        self.cutover.release_writes(live)


@dataclass(frozen=True)
class LeasedShapes:
    """`Shapes` that ask for the lease before every write."""

    shapes: Shapes
    lease: Check

    def define(self, id: str) -> dict[str, Any]:
        return self.shapes.define(id)

    def make(self, definition: dict[str, Any], name: str) -> str:
        self.lease(True)
        return self.shapes.make(definition, name)

    def missing(self, definition: dict[str, Any]) -> list[list[str]]:
        return self.shapes.missing(definition)


def leased(store: Store, lease: Check) -> Store:
    """`store`, which asks for the lease before every write; its claims are the lease's own."""
    build_index, withdraw = store.build_index, store.withdraw

    def guarded_index(id: str) -> None:
        lease(False)
        assert build_index is not None, "it is guarded where there is one"
        build_index(id)

    def guarded_withdraw(ids: Sequence[str]) -> None:
        lease(True)
        assert withdraw is not None, "it is guarded where there is one"
        withdraw(ids)

    return replace(
        store,
        writer=LeasedWriter(store.writer, lease) if store.writer else None,
        bulk=LeasedBulk(store.bulk, lease) if store.bulk else None,
        build_index=guarded_index if build_index else None,
        withdraw=guarded_withdraw if withdraw else None,
        capture=LeasedCapture(store.capture, lease) if store.capture else None,
        cutover=LeasedCutover(store.cutover, lease) if store.cutover else None,
        shapes=LeasedShapes(store.shapes, lease) if store.shapes else None,
    )


class LeasedProgress(Forwarded):
    """Progress that ends a stage which needs no store, such as embedding, when the lease is lost.

    Args:
        check: raises then.
    """

    def __init__(self, progress: Progress, check: Callable[[], None]) -> None:
        super().__init__(progress)
        self._check = check

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        with self._progress.stage(name, total, done) as counter:
            yield _LeasedCounter(counter, self._check)


class _LeasedCounter:
    def __init__(self, counter: Counter, check: Callable[[], None]) -> None:
        self._counter, self._check = counter, check

    def update(self, n: float | None = 1) -> None:
        self._check()
        self._counter.update(n)
