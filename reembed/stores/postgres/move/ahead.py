"""What is done about an exchange of columns ahead of it, while the application goes on."""

from __future__ import annotations

from collections.abc import Iterable

from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move import indexing as pg_indexing
from reembed.stores.postgres.move.copying import Copying, copy_all, copy_touched
from reembed.stores.postgres.schema.table import Table


class Ahead:
    """Copies vectors of one database to the columns where they will be.

    Attributes:
        copies: by the oid of a live table, what is known of its vectors' way. Lost with the
            process: the next one looks at all rows again.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.copies: dict[int, Copying] = {}

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

    def copy(self, old: Table, new: Table) -> int:
        """Copy vectors to their new columns, all of them or those written since, and index them.
        Returns the number of rows.

        Raises:
            LockedError: transactions of others do not end.
        """
        main, copying = self._catalog.main, self.copies.get(old.oid)
        again = copying is not None and copying.other.oid == new.oid
        if copying is not None and again and copying.whole:
            return copy_touched(main, copying)
        self.copies.pop(old.oid, None)  # if it fails midway, nothing is known
        wanted = pg_indexing.note_indexes(main, old, new)
        pg_columns.add_columns(main, [(old, new)])
        copying = Copying(old, new, unique=any(one.unique for one in wanted))
        rows = copy_all(main, copying)
        pg_indexing.build_indexes(self._catalog.url, old, wanted)
        self.copies[old.oid] = copying
        if pg_capture.mark(main, old) is None:  # nobody tells us what is written
            copying.saw(None)
            return 0 if again else rows
        return rows
