"""Claims on live names: rows of a small table beside the live one, `reembed_lease`.

Each change is one statement that Postgres makes on one row, so the compare-and-set is its own. The
table is made with the first claim and dropped with the last. It is closed to all but its owner, who
is that of the live table where that can be, and looked at (`schema.own`) under a lock before each
use. It is UNLOGGED, so that no publication sends it to a subscriber; if Postgres crashes it is
empty, and whoever held a claim finds that it is lost. A row says whose it is, so a copied one binds
nobody. A connection of its own is used, for a renewal must not fall into a transaction that reads a
snapshot.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any, LiteralString

from psycopg import errors, sql

from reembed.stores.postgres.client import (
    Connection,
    beside_parameters,
    connect,
    database_key,
    is_alive,
    mapped,
)
from reembed.stores.postgres.schema.access import close_relation
from reembed.stores.postgres.schema.names import find_table, place_for
from reembed.stores.postgres.schema.own import Shape, may_own, require_own
from reembed.stores.values import restless

TABLE = "reembed_lease"
SHAPE = Shape(("live text not null", "claim text not null"), "who is at work on a live name")
_TRIES = 20
_NAMED = re.compile(r" of ([^ ]+/[0-9]+/[0-9]+)$")
"""How a row's name ends: the identity of the table that it was written to."""
_CLAIM = """
INSERT INTO {table} AS held (live, claim) VALUES ({key}, %(claim)s)
ON CONFLICT (live) DO UPDATE SET claim = excluded.claim
WHERE held.claim = excluded.claim OR held.claim = %(over)s
RETURNING claim
"""
_RENEW = """
UPDATE {table} SET claim = %(renewed)s WHERE live = {key} AND claim IN (%(claim)s, %(renewed)s)
RETURNING claim
"""


class Claims:
    """See `reembed.stores.store.Claims`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._places: dict[str, tuple[str, str, int | None]] = {}
        self._open: Connection | None = None
        self._used = 0.0
        self._one = threading.Lock()  # the heart beats in a thread of its own

    @property
    def _connection(self) -> Connection:
        if self._open is None or not is_alive(self._open, self._used):
            self._open = connect(self._url)
        self._used = time.monotonic()
        return self._open

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        with self._one, mapped(f"{self._url}: the lease on {live!r}"):
            for _ in range(_TRIES):
                try:
                    if self._row(_CLAIM, live, claim=claim, over=over):
                        return None
                    if (standing := self._standing(live)) is not None:
                        return standing
                except errors.UndefinedTable:  # not made yet, or dropped with its last claim
                    self._make(live)
        raise restless(f"{self._url}: the lease on {live!r}", _TRIES)

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        with self._one, mapped(f"{self._url}: the lease on {live!r}"):
            try:
                if self._row(_RENEW, live, claim=claim, renewed=renewed):
                    return None
                return self._standing(live) or ""
            except errors.UndefinedTable:
                return ""

    def unclaim(self, live: str, claim: str) -> None:
        with self._one, mapped(f"{self._url}: the lease on {live!r}"):
            try:
                with self._connection.transaction():
                    self._lock(live, "ACCESS EXCLUSIVE")
                    self._execute(
                        "DELETE FROM {table} WHERE live = {key} AND claim = %(claim)s OR live ~ "
                        "%(named)s AND live !~ concat(' of ', %(whose)s::text, '/', {oid}, '$')",
                        live, claim=claim, named=_NAMED.pattern,
                    )  # fmt: skip
                    if not self._fetch("SELECT 1 FROM {table} LIMIT 1", live) and self._owned(live):
                        self._execute("DROP TABLE {table}", live)
            except errors.UndefinedTable:
                return

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def _make(self, live: str) -> None:
        schema, _, oid = self._place(live)
        try:
            with self._connection.transaction():
                self._execute(
                    "CREATE UNLOGGED TABLE {table} (live text PRIMARY KEY, claim text NOT NULL)",
                    live,
                )
                made = self._fetch("SELECT {oid}", live)
                assert made is not None, "a SELECT without FROM has one row"
                close_relation(self._connection, int(made[0]))
                owner = may_own(self._connection, oid, schema) if oid is not None else None
                if owner is not None:  # so that all who may move its table share it
                    self._connection.execute(
                        sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                            sql.Identifier(schema, TABLE), sql.SQL(owner)
                        )
                    )
        except (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject):
            return  # another process made it at the same moment

    def _standing(self, live: str) -> str | None:
        row = self._row("SELECT claim FROM {table} WHERE live = {key}", live)
        return None if row is None else str(row[0])

    def _place(self, live: str) -> tuple[str, str, int | None]:
        """Schema and name of the table of a live name, or what they would be, and its oid."""
        if live not in self._places:  # asked once: one claim stays one row, whatever moves
            found = find_table(self._connection, live)
            if found is not None:
                self._places[live] = (found[1], found[2], found[0])
            else:
                self._places[live] = (*place_for(self._connection, live), None)
        return self._places[live]

    def _owned(self, live: str) -> bool:
        """Whether we may drop the table of claims."""
        row = self._connection.execute(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class c JOIN pg_namespace n ON n.oid = "
            "relnamespace WHERE nspname = %s AND relname = %s",
            [self._place(live)[0], TABLE],
        ).fetchone()
        return bool(row and row[0])

    def _lock(self, live: str, mode: LiteralString) -> None:
        """Hold the table as it is. Raises UndefinedTable where there is none, PreflightError where
        it is not ours."""
        schema, _, oid = self._place(live)
        require_own(self._connection, schema, TABLE, SHAPE, oid)
        self._execute("LOCK TABLE ONLY {table} IN " + mode + " MODE", live)
        require_own(self._connection, schema, TABLE, SHAPE, oid)

    def _row(self, query: LiteralString, live: str, **values: Any) -> tuple[Any, ...] | None:
        """The row that a statement on the table of claims gives, under a lock that keeps triggers
        and rules from being added."""
        with self._connection.transaction():
            self._lock(live, "ROW EXCLUSIVE")
            return self._fetch(query, live, **values)

    def _fetch(self, query: LiteralString, live: str, **values: Any) -> tuple[Any, ...] | None:
        statement, parameters = self._statement(query, live, values)
        return self._connection.execute(statement, parameters).fetchone()

    def _execute(self, query: LiteralString, live: str, **values: Any) -> None:
        statement, parameters = self._statement(query, live, values)
        self._connection.execute(statement, parameters)

    def _statement(
        self, query: LiteralString, live: str, values: dict[str, Any]
    ) -> tuple[sql.Composed, dict[str, Any] | None]:
        schema, name, _ = self._place(live)
        table = sql.Identifier(schema, TABLE)
        oid = sql.SQL("{}::regclass::oid").format(sql.Literal(table.as_string(None)))
        if "{key}" not in query:
            return sql.SQL(query).format(table=table, oid=oid), None
        oid_text = beside_parameters(oid)
        key = sql.SQL("concat(%(live)s::text, ' of ', %(whose)s::text, '/', {})").format(oid_text)
        statement = sql.SQL(query).format(table=beside_parameters(table), oid=oid_text, key=key)
        return statement, {"live": name, "whose": database_key(self._connection), **values}


def is_foreign(live: str, whose: str) -> bool:
    """Whether a row's name says that it is of another table than the one of this identity."""
    found = _NAMED.search(live)
    return found is not None and found[1] != whose
