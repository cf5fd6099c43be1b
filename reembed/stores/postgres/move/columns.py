"""The exchange of two tables' vector columns, for a table that must keep its place.

The live table takes the shadow's vectors, and the shadow takes the live one's: after it, each table
stands for the other one's collection, which its vector column's comment says (`stands_for`).

A row that is written in the transaction of the exchange is not in a snapshot that is taken just
before its end, whose reader would find the new column empty. So vectors are copied to a column
beside the old one, and committed, before the transaction in which the columns change names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.locks.hold import patiently
from reembed.stores.postgres.schema.indexes import VectorIndex, create_vector_index, vector_index
from reembed.stores.postgres.schema.layout import COMING, read_columns
from reembed.stores.postgres.schema.notes import (
    comment_column,
    noted_columns,
    read_note,
    write_note,
)
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import operator_of_pgvector


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
        raise PreflightError(
            f"{table.label} has a column {COMING} that reembed did not make",
            "Rename that column or drop it; nothing was changed.",
        )
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


def copy_vectors(connection: Connection, live: Table, other: Table) -> int:
    """Copy each table's vectors to the other's new column where they are not there yet, and index
    those that the live one gets. Returns the number of rows of the live table that were written.

    Args:
        connection: in a transaction that holds the live table's writers.
    """
    with_triggers = _disable_triggers(connection, live)
    written = _copy(connection, live, other)
    _copy(connection, other, live)
    for name, state in with_triggers:
        _set_trigger(connection, live, name, state)
    index = index_of(connection, other)
    if index is not None and not _indexed(connection, live):
        create_vector_index(connection, live, COMING, index)
    return written


def _copy(connection: Connection, table: Table, giver: Table) -> int:
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {table} t SET {new} = j.v FROM (SELECT o.{id} AS id, g.{vector} AS v FROM "
            "{table} o LEFT JOIN {giver} g ON g.{giver_id} = o.{id}) j WHERE t.{id} = j.id AND "
            "NOT coalesce(t.{new} {equals} j.v, t.{new} IS NULL AND j.v IS NULL)"
        ).format(
            table=table.identifier, new=sql.Identifier(COMING), id=sql.Identifier(table.id),
            vector=sql.Identifier(giver.vector), giver=giver.identifier,
            giver_id=sql.Identifier(giver.id), equals=operator_of_pgvector(connection, "="),
        )
    )  # fmt: skip
    return cursor.rowcount


def _indexed(connection: Connection, table: Table) -> bool:
    row = fetch_one(
        connection,
        "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = %s AND attname = %s",
        [table.oid, COMING],
    )
    return row is not None


def _complete(
    connection: Connection, table: Table, giver: Table, *, only_with_vector: bool = False
) -> None:
    """Give a table the rows that only the other one has: such as are in quarantine, and so not in
    the shadow, whose old vectors must not go with the old column.

    Args:
        only_with_vector: leave out those that have none there either: deleted by the application
            since, for nobody follows what happens to a row that is no record.
    """
    columns = [c.name for c in giver.columns if not c.generated and c.name != giver.vector]
    missing = sql.SQL(
        "FROM {} g WHERE NOT EXISTS (SELECT FROM {} t WHERE t.{} = g.{}){}"
    ).format(
        giver.identifier, table.identifier, sql.Identifier(table.id), sql.Identifier(giver.id),
        sql.SQL(" AND g.{} IS NOT NULL").format(sql.Identifier(giver.vector))
        if only_with_vector else sql.SQL(""),
    )  # fmt: skip
    if fetch_one(connection, sql.SQL("SELECT 1 {} LIMIT 1").format(missing)) is None:
        return
    if table.column(table.vector).not_null:  # a column that goes
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL").format(
                table.identifier, sql.Identifier(table.vector)
            )
        )
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    connection.execute(
        sql.SQL("INSERT INTO {} ({}, {}) OVERRIDING SYSTEM VALUE SELECT {}, g.{} {}").format(
            table.identifier, names, sql.Identifier(COMING), names, sql.Identifier(giver.vector),
            missing,
        )
    )  # fmt: skip


def rename_columns(connection: Connection, live: Table, other: Table) -> None:
    """Let the copied columns take the vectors' place, and names their meaning. A row that only one
    table has is in both then, in one of them without a vector.

    Args:
        connection: the same transaction, which by now holds the readers, too.
    """
    connection.execute(
        "SET CONSTRAINTS ALL IMMEDIATE"
    )  # a table with checks to come is not altered
    with_triggers = _disable_triggers(connection, live)
    _complete(connection, other, live)
    _complete(connection, live, other, only_with_vector=True)
    for name, state in with_triggers:
        _set_trigger(connection, live, name, state)
    left = index_of(connection, live)
    notes = [read_note(connection, table) for table in (live, other)]
    stands_for = [
        note.pop("stands_for", table.oid) for note, table in zip(notes, (live, other), strict=True)
    ]
    had = notes[1].pop("had_index", None)
    name = had["name"] if had else left.name if left else f"{live.name}_{live.vector}_idx"
    if left is not None:  # the vectors that go keep no index; what it was is noted for the way back
        notes[0]["had_index"] = asdict(left)
    _take_column(connection, live, other, notes[1], int(stands_for[1]))
    _take_column(connection, other, live, notes[0], int(stands_for[0]))
    made = vector_index(connection, replace(live, columns=read_columns(connection, live.oid)))
    if made is not None and made.name != name:
        connection.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(live.schema, made.name), sql.Identifier(name)
            )
        )


def _take_column(
    connection: Connection, table: Table, giver: Table, note: dict[str, Any], stands: int
) -> None:
    """Let the copied column of a table take the place of its vectors."""
    vector = sql.Identifier(table.vector)
    statements = [
        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table.identifier, vector),
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            table.identifier, sql.Identifier(COMING), vector
        ),
    ]
    required = note.pop("not_null", False) or any(
        one.column(one.vector).not_null for one in (table, giver)
    )
    empty = sql.SQL("SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1").format(
        table.identifier, sql.Identifier(COMING)
    )
    if required and fetch_one(connection, empty) is None:
        statements.append(
            sql.SQL("ALTER TABLE {} ALTER {} SET NOT NULL").format(table.identifier, vector)
        )
    elif required:  # noted for the way back
        note["not_null"] = True
    for statement in statements:
        connection.execute(statement)
    renumbered = replace(table, columns=read_columns(connection, table.oid))
    note = note | ({} if stands == table.oid else {"stands_for": stands})
    write_note(connection, renumbered, note)


def index_of(connection: Connection, table: Table) -> VectorIndex | None:
    """The index that the table's vectors have, or had while they were live."""
    had = read_note(connection, table).get("had_index")
    return vector_index(connection, table) or (VectorIndex(**had) if had else None)


def _disable_triggers(connection: Connection, table: Table) -> list[tuple[str, str]]:
    """Switch off the table's triggers, in this transaction that holds its writers: copying vectors
    is no write of the application's. Returns what was on, and how."""
    rows = fetch_all(
        connection,
        "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal "
        "AND tgenabled <> 'D'",
        [table.oid],
    )
    for name, _ in rows:
        _set_trigger(connection, table, name, "D")
    return [(name, state) for name, state in rows]


def _set_trigger(connection: Connection, table: Table, name: str, state: str) -> None:
    verb = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}[state]
    connection.execute(
        sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(
            table.identifier, sql.SQL(verb), sql.Identifier(name)
        )
    )  # fmt: skip
