"""What was written to a collection's tables since, told by the triggers of `capture`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import mapped
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Change

Token = list[tuple[Table, list[int]]]
"""The log's entries, by table."""


class TableChanges:
    """See `reembed.stores.store.Changes` and `Capture`."""

    def __init__(self, catalog: Catalog, mover: Mover) -> None:
        self._catalog = catalog
        self._mover = mover

    def start(self, id: str) -> None:
        if self._catalog.options.text_query is not None:  # texts are written elsewhere
            return
        if self._mover.holding:  # there are none to be logged, and we would wait for ourselves
            return
        for table in self._catalog.tables(id):
            with mapped(table.label):
                pg_capture.install(self._catalog.main, table, self._catalog.schema)

    def stop(self, id: str) -> None:
        with mapped(self._catalog.url):
            for table in self._catalog.remains(id):
                pg_capture.remove(self._catalog.main, table)
                pg_columns.drop_columns(self._catalog.main, [table])
                if table.columns:
                    pg_columns.settle(self._catalog.main, table)
                    pg_notes.remove_spent(self._catalog.main, table)
                pg_capture.check_removed(self._catalog.main, table)

    def since(self, id: str, mark: str | None, besides: object = None) -> Change:
        tables = self._catalog.tables(id)
        if self._catalog.options.text_query is not None:
            self._saw_all(tables)
            return Change(None, None)
        with mapped(self._catalog.url):
            marks = [pg_capture.mark(self._catalog.main, table) for table in tables]
            now = None
            if all(marks):
                now = " ".join([*map(str, marks), pg_capture.crash(self._catalog.main)])
            if mark is None or now != mark:
                self._saw_all(tables)
                return Change(None, now)
            found = [(table, pg_capture.touched(self._catalog.main, table)) for table in tables]
        for table, touched in found:
            self._mover.ahead.logged(table, touched)
        token = [(table, list(touched.log)) for table, touched in found]
        known = {table.oid: entries for table, entries in cast("Token", besides or [])}
        fresh = [touched.without(known.get(table.oid, [])) for table, touched in found]
        if any(touched.truncated for touched in fresh):  # what else went cannot be told
            return Change(None, now, token)
        return Change([one for touched in fresh for one in touched.ids], now, token)

    def _saw_all(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self._mover.ahead.lost(table)

    def acknowledge(self, token: object) -> None:
        with mapped(self._catalog.url):
            for table, entries in cast("Token", token):
                pg_capture.forget(self._catalog.main, table, entries)
