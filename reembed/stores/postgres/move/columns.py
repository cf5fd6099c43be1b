"""The exchange of two tables' vector columns, for a table that must keep its place.

The live table takes the shadow's vectors, and the shadow takes the live one's: after it, each table
stands for the other one's collection, which its vector column's comment says (`stands_for`).

A row that is written in the transaction of the exchange is not in a snapshot that is taken just
before its end, whose reader would find the new column empty. So vectors are copied to a column
beside the old one, and committed, before the transaction in which the columns change names
(`copying`), and their indexes are made there (`indexing`). What would have to look at every row
comes after it (`settle`): a check that is not validated yet holds for all that is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psycopg import sql

from reembed.errors import LockedError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.locks.hold import patiently
from reembed.stores.postgres.move.copying import Copying, complete
from reembed.stores.postgres.move.indexing import built, place_indexes
from reembed.stores.postgres.move.refusals import not_exchanged
from reembed.stores.postgres.schema.hanging import (
    Check,
    Index,
    copy_column_settings,
    give_grants,
    read_checks,
    read_grants,
    read_indexes,
    read_told,
)
from reembed.stores.postgres.schema.ids import any_of, usable
from reembed.stores.postgres.schema.layout import COMING, read_columns
from reembed.stores.postgres.schema.notes import (
    NOTED,
    comment_column,
    noted_columns,
    read_note,
    write_note,
)
from reembed.stores.postgres.schema.table import Table

NOT_NULL = "reembed_not_null"
"""A check that stands for NOT NULL until all rows were looked at."""
SETTLING = "settling"
"""The key of a note under which stands what is left to do after an exchange: the checks to be
validated, and what the NOT NULL constraint is called."""


def add_columns(connection: Connection, pairs: Sequence[tuple[Table, Table]]) -> None:
    """Give each table an empty column of the other one's vector type. Instant, and undone by
    `drop_columns`.

    Raises:
        LockedError: others use the tables for too long.
    """
    for one, other in pairs:
        for table, like in ((one, other), (other, one)):
            _add_column(connection, table, like.column(like.vector).written)


def _add_column(connection: Connection, table: Table, wanted: str) -> None:
    there = _coming(connection, table)
    if there is not None and not is_ours(connection, table):
        raise not_exchanged(table, [f"has a column {COMING}, which no move of reembed made"])
    if there == wanted:
        return

    def add() -> None:
        if there is not None:  # of a move of another model's, which was given up
            _drop_column(connection, table)
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                table.identifier, sql.Identifier(COMING), sql.SQL(wanted)
            )
        )
        copy_column_settings(connection, table)
        comment_column(connection, table, COMING, {"incoming": True})

    patiently(connection, [table], add)


def drop_columns(connection: Connection, tables: Sequence[Table]) -> None:
    """Remove what an exchange that was given up has left.

    Raises:
        LockedError: others use the tables for too long.
    """
    for table in tables:
        if _coming(connection, table) is not None and is_ours(connection, table):
            patiently(connection, [table], partial(_drop_column, connection, table))


def is_ours(connection: Connection, table: Table) -> bool:
    """Whether the column beside the vectors says that a move of ours made it, in this database or
    in the one of which this is a copy."""
    return any(
        one.oid == table.oid and one.column == COMING and one.note.get("incoming")
        for one in noted_columns(connection)
    )


def _drop_column(connection: Connection, table: Table) -> None:
    connection.execute(
        sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
            table.identifier, sql.Identifier(COMING)
        )
    )


def _coming(connection: Connection, table: Table) -> str | None:
    """The type of the column beside the vectors, None where there is none."""
    row = fetch_one(
        connection,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s AND "
        "attname = %s AND NOT attisdropped",
        [table.oid, COMING],
    )
    return str(row[0]) if row else None


def rename_columns(connection: Connection, copying: Copying, wanted: Sequence[Index]) -> None:
    """Let the copied columns take the vectors' place, and names their meaning. A row that only one
    table has is in both then, in one of them without a vector.

    Args:
        connection: the same transaction, which by now holds the readers, too.
        wanted: the indexes of the live table's coming column.

    Raises:
        LockedError: one of them has gone.
    """
    live, other = copying.live, copying.other
    connection.execute(
        "SET CONSTRAINTS ALL IMMEDIATE"
    )  # a table with checks to come is not altered
    if not built(connection, live, wanted):
        raise LockedError(
            f"{live.label}: the indexes of its new vectors are not as they were made",
            "Somebody has dropped or changed one. Nothing was moved. Run the same command again.",
        )
    complete(
        connection, other, live, copying.loose(live), only_with_vector=live.only_with_vector
    )  # fmt: skip
    complete(connection, live, other, copying.loose(other), only_with_vector=True)
    notes = [read_note(connection, table) for table in (live, other)]
    stands_for = [
        note.pop("stands_for", table.oid) for note, table in zip(notes, (live, other), strict=True)
    ]
    left = [one.to_dict() for one in read_indexes(connection, live)]
    checks, grants = read_checks(connection, live), read_grants(connection, live)
    told = read_told(connection, live)
    required = _required(connection, live, notes)
    for note in notes:
        for key in ("not_null", SETTLING):
            note.pop(key, None)
    notes[1].pop(NOTED, None)
    if required is not None:
        if _has_empty(connection, copying):
            notes[1]["not_null"] = True  # for the way back
        else:
            checks.append(Check(NOT_NULL, f"CHECK ({COMING} IS NOT NULL)", None))
    if checks:
        names = [one.name for one in checks]
        notes[1][SETTLING] = {"checks": names, "not_null": required or ""}
    notes[0][NOTED] = left  # the vectors that go keep no index; what they had is for the way back
    for one in told:
        if one.drop is not None:
            _run(connection, [one.drop])
    _drop_vectors(connection, live)
    for check in checks:
        _add_check(connection, live, check)
    for one in told:
        _run(connection, one.make)
    _take_column(connection, live, notes[1], int(stands_for[1]))
    _drop_vectors(connection, other)
    _take_column(connection, other, notes[0], int(stands_for[0]))
    place_indexes(connection, live, wanted)
    give_grants(connection, live, grants)


def _required(connection: Connection, live: Table, notes: Sequence[dict[str, Any]]) -> str | None:
    """Whether the live table's vectors must be there: the constraint's name, which is empty where
    it has none of its own."""
    if not live.column(live.vector).not_null and not any(note.get("not_null") for note in notes):
        return None
    row = fetch_one(
        connection,
        "SELECT conname FROM pg_constraint WHERE conrelid = %s AND contype = 'n' AND %s = ANY "
        "(conkey)",
        [live.oid, live.column(live.vector).number],
    )
    return str(row[0]) if row else ""


def _has_empty(connection: Connection, copying: Copying) -> bool:
    """Whether the live table has a row that is without a vector of the coming ones."""
    live, ids = copying.live, copying.loose(copying.live)
    if ids is not None and not (ids := usable(live, ids)):
        return False
    return bool(
        fetch_one(
            connection,
            sql.SQL("SELECT 1 FROM {} WHERE {} IS NULL AND {} LIMIT 1").format(
                live.identifier, sql.Identifier(COMING),
                sql.SQL("true") if ids is None else any_of(live, ids),
            ),
        )
    )  # fmt: skip


def _run(connection: Connection, statements: Sequence[str]) -> None:
    """Run what Postgres has written itself."""
    for statement in statements:
        connection.execute(sql.SQL(statement))


def _drop_vectors(connection: Connection, table: Table) -> None:
    connection.execute(
        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
            table.identifier, sql.Identifier(table.vector)
        )
    )


def _add_check(connection: Connection, table: Table, check: Check) -> None:
    """Add a check of the coming column, which looks at no row yet."""
    name = sql.Identifier(check.name)
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
            table.identifier, name, sql.SQL(check.definition)
        )
    )
    if check.comment is not None:
        connection.execute(
            sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                name, table.identifier, sql.Literal(check.comment)
            )
        )


def _take_column(connection: Connection, table: Table, note: dict[str, Any], stands: int) -> None:
    """Let the copied column of a table take the place of its vectors, which are gone."""
    connection.execute(
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            table.identifier, sql.Identifier(COMING), sql.Identifier(table.vector)
        )
    )
    renumbered = replace(table, columns=read_columns(connection, table.oid))
    note = note | ({} if stands == table.oid else {"stands_for": stands})
    write_note(connection, renumbered, note)


def settle(connection: Connection, table: Table) -> None:
    """Do what an exchange has left for later: look at all rows for the checks of the new vectors,
    while the application goes on, and let NOT NULL take its own check's place. Idempotent.

    Raises:
        LockedError: others use the table for too long.
    """
    note = read_note(connection, table)
    left = note.pop(SETTLING, None)
    if left is None:
        return
    for name in left["checks"]:
        there = fetch_all(
            connection,
            "SELECT 1 FROM pg_constraint WHERE conrelid = %s AND conname = %s AND NOT convalidated",
            [table.oid, name],
        )
        if there:
            connection.execute(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    table.identifier, sql.Identifier(name)
                )
            )
    patiently(connection, [table], partial(_settle_not_null, connection, table, left, note))


def _settle_not_null(
    connection: Connection, table: Table, left: dict[str, Any], note: dict[str, Any]
) -> None:
    if NOT_NULL in left["checks"]:
        for change in ("ALTER {} SET NOT NULL", f"DROP CONSTRAINT IF EXISTS {NOT_NULL}"):
            connection.execute(
                sql.SQL("ALTER TABLE {} {}").format(
                    table.identifier, sql.SQL(change).format(sql.Identifier(table.vector))
                )
            )
        renumbered = replace(table, columns=read_columns(connection, table.oid))
        made = _required(connection, renumbered, [])
        if made and left["not_null"] and made != left["not_null"]:
            connection.execute(
                sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                    table.identifier, sql.Identifier(made), sql.Identifier(left["not_null"])
                )
            )
    write_note(connection, table, note)
