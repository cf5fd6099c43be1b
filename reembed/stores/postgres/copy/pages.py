"""Pages of one table, read in a snapshot: the next while the caller works on the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from reembed.records import export_batch
from reembed.stores.postgres.client import Connection
from reembed.stores.postgres.copy.reading import Reader, Reading
from reembed.stores.postgres.copy.rows import begin_rows, take_rows
from reembed.stores.postgres.schema.ids import usable
from reembed.stores.postgres.schema.table import Table


@dataclass(frozen=True)
class _Page:
    """A page that is being read.

    Attributes:
        of: the collection's object id, the ids as they were asked for, and whether with vectors.
        reading: None where none of the ids can be one of the table.
    """

    of: tuple[str, Sequence[str], bool]
    table: Table
    reading: Reading | None

    def taken(self) -> pa.RecordBatch:
        _, ids, _ = self.of
        if self.reading is None:
            return export_batch([], [], [], [])
        return take_rows(self.reading, self.table, len(ids))


class Pages:
    """Reads pages with one connection, which is in a transaction as long as this is open. So a
    table keeps its columns once a page of it was begun."""

    def __init__(self, connection: Connection) -> None:
        self._reader = Reader(connection)
        self._begun: list[_Page] = []

    def table_of(self, id: str) -> Table | None:
        """The table of the page that is being read, if it is of this collection."""
        return next((page.table for page in self._begun if page.of[0] == id), None)

    def fetch(
        self, of: tuple[str, Table], ids: Sequence[str], vectors: bool, then: Sequence[str]
    ) -> pa.RecordBatch:
        """The rows of these ids, in no order.

        Args:
            of: the collection's object id, and its table.
            then: ids of the page that is asked for next; it is begun now.
        """
        id, table = of
        if not self._begun or self._begun[0].of != (id, ids, vectors):
            self.settle()
            self._begin(id, table, ids, vectors)
        if then:
            self._begin(id, table, then, vectors)
        return self._begun.pop(0).taken()

    def settle(self) -> None:
        """Let the connection be free: what was begun is read to its end, and lost."""
        while self._begun:
            self._begun.pop(0).taken()

    def _begin(self, id: str, table: Table, ids: Sequence[str], vectors: bool) -> None:
        wanted, reading = usable(table, ids), None
        if wanted:
            reading = begin_rows(self._reader, table, wanted, None, vectors)
        self._begun.append(_Page((id, ids, vectors), table, reading))

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)
