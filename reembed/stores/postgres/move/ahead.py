"""What is done about an exchange of columns ahead of it, while the application goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable

from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.locks.brake import Brake
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move import indexing as pg_indexing
from reembed.stores.postgres.move.copying import Copying, copy_all, copy_touched
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Prepared


class Ahead:
    """Copies vectors of one database to the columns where they will be.

    Attributes:
        copies: by the oid of a live table, what is known of its vectors' way. Lost with the
            process: the next one looks at all rows again.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.copies: dict[int, Copying] = {}
        self._brakes: list[Brake] = []

    def release(self) -> None:
        """Let writers go on as they like, that were braked until copying gets ahead."""
        while self._brakes:
            self._brakes.pop().release()

    def saw(self, table: Table, ids: Iterable[str] | None) -> None:
        """Rows of a table were written to, or, given None, any may have been.

        Args:
            ids: of the records; those of other tables of the unit are left out by their prefix.
        """
        for copying in self.copies.values():
            if copying.of(table):
                copying.saw(
                    None if ids is None else [
                        id.removeprefix(table.prefix) for id in ids
                        if id.startswith(table.prefix)
                    ]
                )  # fmt: skip

    def lost(self, table: Table) -> None:
        """Any row may have been written to, and what was read of a log says nothing of its entries
        by now: after a crash numbers are given again."""
        self.saw(table, None)
        for copying in self.copies.values():
            copying.entries.pop(table.oid, None)

    def logged(self, table: Table, touched: pg_capture.Touched) -> None:
        """A table's log was read, of which entries stay that were read before."""
        for copying in self.copies.values():
            if copying.of(table):
                copying.read(table, touched)

    def is_ready(self, table: Table) -> bool:
        """Whether a live table's vectors are copied and indexed."""
        copying = self.copies.get(table.oid)
        return copying is not None and copying.pace.indexed

    def copy(self, old: Table, new: Table) -> Prepared:
        """Copy vectors to their new columns, all of them or those written since, and index them.

        Raises:
            LockedError: transactions of others do not end.
            SourceChangedError: copying does not keep up with what is written.
        """
        self.release()
        main, copying, began = self._catalog.main, self.copies.get(old.oid), time.monotonic()
        if copying is None or copying.other.oid != new.oid or not copying.whole:
            before = self.copies.pop(old.oid, None)  # if it fails midway, nothing is known
            copying = Copying(old, new)
            if before is not None:  # what was read of the logs is older than what is copied now
                copying.entries = before.entries
            wanted = pg_indexing.note_indexes(main, old, new)
            copying.unique = any(one.unique for one in wanted)
            pg_columns.add_columns(main, [(old, new)])
            rows = copy_all(main, copying)
            self.copies[old.oid] = copying
        else:
            rows = copy_touched(main, copying)
        told, pace = pg_capture.mark(main, old) is not None, copying.pace
        last = pace.step(rows, time.monotonic() - began)
        if pace.indexed:
            ready = pace.is_ready(old, last)
        elif told and not pace.may_index(last):
            ready = False
        else:
            pg_indexing.build_indexes(
                self._catalog.url, old, pg_indexing.noted_indexes(main, new)
            )  # fmt: skip
            ready = pace.has_index(began)
        if not ready and pace.indexed and pace.slow:
            self._brakes.append(Brake(self._catalog.url, old))
        if not told:  # nobody tells us what is written: all of it is looked at in the end
            copying.saw(None)
        return Prepared(rows, ready or not told)
