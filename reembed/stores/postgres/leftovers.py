"""What is left of runs in a database that was restored or copied from the one they ran in.

Triggers, functions, logs, leases, columns and notes are copied with a database, where no run knows
of them: the triggers would log every write for ever. Each is found by its name and told from a
run's own by the identity that no copy has. What belongs to this very database is another command's
business and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import LiteralString

from psycopg import sql

from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.claims import SHAPE, is_foreign
from reembed.stores.postgres.claims import TABLE as LEASE
from reembed.stores.postgres.client import (
    Connection,
    database_key,
    fetch_all,
    fetch_one,
    mapped,
)
from reembed.stores.postgres.locks.hold import patiently
from reembed.stores.postgres.schema.captured import Trigger, orphans, triggers_of
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.notes import OF, Noted, identity, noted_columns
from reembed.stores.postgres.schema.own import Look, look
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Leftover


@dataclass(frozen=True)
class Found:
    """A leftover, and what removes it."""

    leftover: Leftover
    remove: Callable[[], None]


class CopiedLeftovers:
    """See `reembed.stores.store.Leftovers`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def find(self) -> list[Leftover]:
        with mapped(self._catalog.url):
            return [found.leftover for found in _find(self._catalog.main)]

    def remove(self) -> list[Leftover]:
        removed = []
        with mapped(self._catalog.url):
            found = _find(self._catalog.main)
        for one in found:
            with mapped(f"{one.leftover.kind} {one.leftover.name}"):
                one.remove()
            removed.append(one.leftover)
        return removed


def _find(connection: Connection) -> list[Found]:
    """Everything that a copy has brought along, in the order in which it is removed."""
    notes = noted_columns(connection)
    return [
        *_captures(connection), *_orphans(connection), *_columns(connection, notes),
        *_tables(connection, notes), *_notes(connection, notes), *_leases(connection),
    ]  # fmt: skip


def _bare(oid: int, schema: str, name: str) -> Table:
    return Table(oid, schema, name, (), "", "", None, None, None, "table")


def _captures(connection: Connection) -> list[Found]:
    """Triggers that log the writes to a table for a run of another database, with what they call
    and where they log."""
    found = []
    for (oid, schema, name), triggers in _by_table(connection).items():
        table = _bare(oid, schema, name)
        if pg_capture.mark(connection, table) is None:
            names = ", ".join(trigger.name for trigger in triggers)
            about = f"{names}, which log every write, with their function and log"
            what = Leftover("triggers", table.label, about)
            found.append(Found(what, partial(pg_capture.remove, connection, table)))
    return found


def _by_table(connection: Connection) -> dict[tuple[int, str, str], list[Trigger]]:
    tables: dict[tuple[int, str, str], list[Trigger]] = {}
    for trigger in triggers_of(connection):
        if trigger.function.ours:
            tables.setdefault((trigger.oid, *trigger.place), []).append(trigger)
    return tables


def _orphans(connection: Connection) -> list[Found]:
    """Functions and logs of captures that no trigger calls."""
    functions, logs = orphans(connection)
    made = [("function", (one.schema, one.name), "DROP FUNCTION IF EXISTS {}()")
            for one in functions]  # fmt: skip
    made += [("log", place, "DROP TABLE IF EXISTS {}") for place in logs]
    found = []
    for kind, place, statement in made:
        query = sql.SQL(statement).format(sql.Identifier(*place))
        what = Leftover(kind, ".".join(place), "which no trigger uses")
        found.append(Found(what, _doing(connection, query)))
    return found


def _doing(connection: Connection, query: sql.Composed) -> Callable[[], None]:
    def do() -> None:
        connection.execute(query)

    return do


def _columns(connection: Connection, notes: Sequence[Noted]) -> list[Found]:
    """Columns beside the vectors, of moves that were under way in another database."""
    found = []
    for one in notes:
        if one.column == COMING and one.note.get("incoming") and not one.own:
            query = sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                sql.Identifier(one.schema, one.table), sql.Identifier(COMING)
            )
            what = Leftover(
                "column", f"{one.label}.{COMING}", "vectors of a move that was under way"
            )
            found.append(Found(what, _patient(connection, one, query)))
    return found


def _patient(connection: Connection, one: Noted, query: sql.Composed) -> Callable[[], None]:
    table = _bare(one.oid, one.schema, one.table)

    def remove() -> None:
        patiently(connection, [table], lambda: connection.execute(query))

    return remove


def _is_parked(connection: Connection, one: Noted) -> bool:
    """Whether this is the copy of a parked table, and no backup of one: it came with its whole
    database, and has the name still under which a swap parked it. A shadow's copy is never told
    from the table that an application was pointed to (`swap.kind: config`), so it stays."""
    whose = str(one.note.get(OF, ""))
    return (
        not one.own
        and not whose.startswith(f"{database_key(connection)}/")
        and one.note.get("parked") == one.label
    )


def _tables(connection: Connection, notes: Sequence[Noted]) -> list[Found]:
    """Old tables that runs of another database have parked."""
    found = []
    for one in notes:
        if _is_parked(connection, one):
            name = sql.Identifier(one.schema, one.table)
            row = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(name))
            what = Leftover(
                "table", one.label,
                f"with {row[0] if row else 0:,} rows, the old ones that a swap has parked",
            )  # fmt: skip
            query = sql.SQL("DROP TABLE IF EXISTS {}").format(name)
            found.append(Found(what, _patient(connection, one, query)))
    return found


def _notes(connection: Connection, notes: Sequence[Noted]) -> list[Found]:
    """Notes that were copied, by LIKE or with the database. Their owner's comment is put back."""
    found = []
    for one in notes:
        if one.own or one.note.get("incoming") or _is_parked(connection, one):
            continue
        query = sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            sql.Identifier(one.schema, one.table), sql.Identifier(one.column),
            sql.Literal(one.note.get("comment")),
        )  # fmt: skip
        what = Leftover(
            "note", f"{one.label}.{one.column}", "a comment that tells of another table's vectors"
        )
        found.append(Found(what, _patient(connection, one, query)))
    return found


def _leases(connection: Connection) -> list[Found]:
    """Claims on live names of another database, in tables of ours."""
    found = []
    for (schema,) in fetch_all(
        connection,
        "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname "
        "= %s AND relkind = 'r' ORDER BY 1",
        [LEASE],
    ):
        with connection.transaction():
            foreign, left = _foreign_claims(connection, schema, "ACCESS SHARE")
        if foreign is None or (left and not foreign):
            continue
        what = Leftover("lease", f"{schema}.{LEASE}", f"{len(foreign)} claims of another database")
        found.append(Found(what, partial(_drop_claims, connection, schema)))
    return found


def _foreign_claims(
    connection: Connection, schema: str, mode: LiteralString
) -> tuple[list[str] | None, int]:
    """The claims of another database that a table of leases holds, and how many others; None where
    it is not ours. It is locked, so that nobody can exchange it or put a trigger on it."""
    table = sql.Identifier(schema, LEASE)
    for locked in (False, True):
        there = look(connection, schema, LEASE, SHAPE, None)
        if there is None or not _is_own(connection, schema, there):
            return None, 0
        if not locked:
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN " + mode + " MODE").format(table))
    row = fetch_one(connection, sql.SQL("SELECT {}::regclass::oid").format(
        sql.Literal(table.as_string(None))
    ))  # fmt: skip
    assert row is not None, "it is locked"
    whose = identity(connection, row[0])
    rows = [live for (live,) in fetch_all(connection, sql.SQL("SELECT live FROM {}").format(table))]
    foreign = [live for live in rows if is_foreign(live, whose)]
    return foreign, len(rows) - len(foreign)


def _is_own(connection: Connection, schema: str, there: Look) -> bool:
    """Whether a table of leases is as we make it, and belongs to us, to a role that could act as
    us, or to the owner of a collection of its schema."""
    if there.wrong:
        return False
    return there.trusted or bool(
        fetch_one(
            connection,
            "SELECT 1 FROM pg_class c JOIN pg_attribute ON attrelid = c.oid JOIN pg_type t ON "
            "t.oid = atttypid WHERE typname IN ('vector', 'halfvec') AND relkind IN ('r', 'p') AND "
            "relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND "
            "pg_get_userbyid(relowner) = %s LIMIT 1",
            [schema, there.owner],
        )
    )


def _drop_claims(connection: Connection, schema: str) -> None:
    table = sql.Identifier(schema, LEASE)
    with connection.transaction():
        foreign, left = _foreign_claims(connection, schema, "ACCESS EXCLUSIVE")
        if foreign is None:
            return
        if left:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE live = ANY ({})").format(table, sql.Literal(foreign))
            )
        else:
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
