"""Where a live name leads, held by a lock for as long as a transaction lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from psycopg import errors, sql

from reembed.errors import SourceChangedError
from reembed.records import Metric
from reembed.stores.live import Leads
from reembed.stores.postgres.client import Connection, fetch_one
from reembed.stores.postgres.live.rows import View
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.layout import read_table, vector_tables
from reembed.stores.postgres.schema.names import find_table, missing_table

_LOOK = """
SELECT c.oid, nspname, relname, concat_ws(' ',
  (SELECT string_agg(concat_ws(',', attnum, attname, atttypid, atttypmod,
    col_description(c.oid, attnum)), ';' ORDER BY attnum) FROM pg_attribute
   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  (SELECT string_agg(indexrelid::text, ',' ORDER BY indexrelid) FROM pg_index
   WHERE indrelid = c.oid AND indisvalid))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)
"""
"""What tells one state of a table from another: it costs one look into the catalog."""


Lock: TypeAlias = Literal["ACCESS SHARE", "ROW EXCLUSIVE"]


@dataclass(frozen=True)
class State:
    """What a name leads to.

    Attributes:
        foreign: whether its note was copied from another table or database.
    """

    leads: Leads
    view: View
    foreign: bool


class Whereabouts:
    """Looks a live name up, and remembers what it read for as long as nothing has changed."""

    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url
        self._place: sql.Identifier | None = None
        self._known: tuple[tuple[Any, ...], State] | None = None

    def locked(self, connection: Connection, lock: Lock) -> State:
        """The state of the table that has the name, which nothing changes before the end of the
        connection's transaction.

        Raises:
            CollectionNotFoundError: no table has the name.
            PreflightError: the table has no vectors, or no key of one column.
        """
        place = self._place or self._look(connection)
        try:
            self._lock(connection, place, lock)
        except errors.UndefinedTable:  # in another schema of the role's path by now
            place = self._look(connection)
            self._lock(connection, place, lock)
        self._place = place
        token = fetch_one(connection, _LOOK, [place.as_string(None)])
        if token is None:
            raise SourceChangedError(f"{self._name} went away in the middle of a look")
        known = self._known
        if known is None or known[0] != token:
            known = self._known = (token, _read(connection, token))
        return known[1]

    def _look(self, connection: Connection) -> sql.Identifier:
        found = find_table(connection, self._name)
        if found is None:
            known = sorted(one[2] for one in vector_tables(connection))
            raise missing_table(self._name, self._url, known)
        return sql.Identifier(found[1], found[2])

    @staticmethod
    def _lock(connection: Connection, place: sql.Identifier, lock: Lock) -> None:
        with connection.transaction():
            connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(place, sql.SQL(lock)))


def _read(connection: Connection, token: tuple[Any, ...]) -> State:
    table = read_table(connection, (token[0], token[1], token[2]))
    row = fetch_one(
        connection, "SELECT col_description(%s, %s)",
        [table.oid, table.column(table.vector).number],
    )  # fmt: skip
    note = pg_notes.parse_note(row[0] if row else None)
    whose = note.get(pg_notes.OF)
    foreign = whose is not None and whose != pg_notes.identity(connection, table.oid)
    index = pg_indexes.vector_index(connection, table)
    metric: Metric = index.metric if index else note.get("metric", "cosine")
    leads = Leads(
        token=f"{token[0]} {hash(token)}", said=note.get("model"), dimensions=table.dimensions,
        moved=None if foreign else note.get("moved"), metric=metric,
    )  # fmt: skip
    return State(leads, View(table, metric), foreign)
