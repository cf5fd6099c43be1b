"""A collection of a store: what stages take instead of a store, an object id and a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from reembed.records import Vectors, hashes_of
from reembed.stores.foreign import Fitting
from reembed.stores.store import Store
from reembed.stores.values import Change, CollectionInfo, Where, WriteMode


@dataclass(frozen=True)
class Collection:
    """A collection by its object id, whatever its name is by now.

    Attributes:
        where: the store's own filter: only what matches is listed and fetched.
        marked: makes row hashes of records with vectors that count these in, where a vector is a
            part of its record; None where it is made of it.
        fitted: for a run into another kind of store: how its records look there.
    """

    store: Store
    id: str
    where: Where = None
    marked: Callable[[pa.RecordBatch], pa.RecordBatch] | None = field(default=None, compare=False)
    fitted: Fitting | None = None

    @property
    def whole(self) -> Collection:
        """The same collection without the filter."""
        return replace(self, where=None)

    def describe(self) -> CollectionInfo | None:
        """See `Catalog.describe_id`."""
        return self.store.catalog.describe_id(self.id)

    def list_ids(self) -> Iterator[pa.Array]:
        """See `Reader.list_ids`."""
        return self.store.reader.list_ids(self.id, self.where)

    def fetch(self, ids: Sequence[str], *, vectors: bool) -> pa.RecordBatch:
        """See `Reader.fetch`. With `marked`, vectors are fetched in any case."""
        wanted = vectors or self.marked is not None
        rows = self.store.reader.fetch(self.id, ids, vectors=wanted, where=self.where)
        return self._here(rows)

    def fetch_page(
        self, ids: Sequence[str], *, vectors: bool, then: Sequence[str] = ()
    ) -> pa.RecordBatch:
        """`fetch` of one page of many, which the store may have a faster way for.

        Args:
            then: the ids of the page that is asked for next, if they are known.
        """
        if self.where is not None or self.store.many is None:
            return self.fetch(ids, vectors=vectors)
        wanted = vectors or self.marked is not None
        return self._here(self.store.many(self.id, ids, vectors=wanted, then=then))

    def _here(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Records of the store as the run sees them."""
        marked = self.marked
        rows = rows if self.fitted is None else self.fitted.there(rows)
        return rows if marked is None else marked(rows)

    def hashes(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Row hash of each of these records that is there, by id."""
        return hashes_of(self.fetch(ids, vectors=False))

    def all_hashes(self) -> Iterator[dict[str, bytes]]:
        """Row hashes of all records by id, in the order of `list_ids`: as the store knows them,
        else of records without their vectors."""
        known = self.store.row_hashes
        if known is not None and self.where is None and self.fitted is None and not self.marked:
            yield from map(hashes_of, known(self.id))
        else:
            for ids in self.list_ids():
                yield hashes_of(self.fetch_page(ids.to_pylist(), vectors=False))

    def some(self, most: int, *, vectors: bool) -> pa.RecordBatch:
        """Up to `most` records, spread over the first page of ids."""
        return self.fetch(self.some_ids(most), vectors=vectors)

    def some_ids(self, most: int) -> list[str]:
        """The ids of `some`."""
        first = next(iter(self.list_ids()), None)
        ids: list[str] = first.to_pylist() if first is not None else []
        return ids[:: max(1, len(ids) // most)][:most]

    def some_with_vectors(self, most: int) -> pa.RecordBatch:
        """Those of `some` that have a vector."""
        rows = self.some(most, vectors=True)
        return rows.filter(rows.column("embedding").is_valid())

    def count(self) -> int:
        """Number of records, whatever the filter."""
        return self.store.reader.count(self.id)

    def query(self, vectors: Vectors, k: int, *, freely: bool = False) -> list[list[str]]:
        """See `Search.query`. Raises PreflightError where the store has no search."""
        return self.store.to_search().query(self.id, vectors, k, freely=freely)

    def leaves_index_out(self, vectors: Vectors, k: int) -> bool:
        """See `Search.leaves_index_out`."""
        return self.store.to_search().leaves_index_out(self.id, vectors, k)

    def write(self, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        """See `Writer.write`. Raises PreflightError where the store can only be read."""
        records = records if self.fitted is None else self.fitted.back(records)
        self.store.to_write().write(self.id, records, vectors, mode)

    def add(self, records: pa.RecordBatch, vectors: Vectors) -> None:
        """`write` that never changes a record that is there."""
        self.write(records, vectors, "add")

    def overwrite(self, records: pa.RecordBatch, vectors: Vectors) -> None:
        """`write` that leaves nothing of an older version."""
        self.write(records, vectors, "replace")

    def set_vectors(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See `Writer.set_vectors`."""
        self.store.to_write().set_vectors(self.id, ids, vectors)

    def delete(self, ids: Sequence[str]) -> None:
        """See `Writer.delete`. Raises PreflightError where the store can only be read."""
        self.store.to_write().delete(self.id, ids)

    def changes_since(self, mark: str | None, besides: object = None) -> Change:
        """See `Changes.since`; of a store without it everything must be compared."""
        changes = self.store.changes
        if changes is None:
            return Change(None, None)
        return changes.since(self.id, mark, besides)

    def start_capture(self) -> None:
        """Log writes from now on, where the store can."""
        if self.store.capture is not None:
            self.store.capture.start(self.id)

    def stop_capture(self) -> None:
        """Remove every trace of that."""
        if self.store.capture is not None:
            self.store.capture.stop(self.id)

    def acknowledge(self, token: object) -> None:
        """What `changes_since` told with this token is carried, and need not be told again."""
        if self.store.capture is not None and token is not None:
            self.store.capture.acknowledge(token)
