"""The exchange of two tables' vector columns, for a table that must keep its place.

The live table takes the shadow's vectors, and the shadow takes the live one's: after it, each table
stands for the other one's collection, which its vector column's comment says (`stands_for`).
Vectors are copied and the new index is built while writers wait and readers go on; readers wait
only while the columns are renamed. Everything but an empty column made beforehand is one
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from psycopg import sql

from reembed.stores.pg_client import Connection, fetch_all, fetch_one
from reembed.stores.pg_indexes import VectorIndex, create_vector_index, vector_index
from reembed.stores.pg_layout import COMING, read_columns
from reembed.stores.pg_table import Table
from reembed.stores.pg_tables import read_note, write_note


def add_columns(connection: Connection, tables: Sequence[tuple[Table, Table]]) -> None:
    """Give each table an empty column of the other one's vector type. Instant, and undone by
    `drop_columns`."""
    for one, other in tables:
        for table, like in ((one, other), (other, one)):
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
                    table.identifier, sql.Identifier(COMING),
                    sql.SQL(like.column(like.vector).written),
                )
            )  # fmt: skip


def drop_columns(connection: Connection, tables: Sequence[Table]) -> None:
    """Remove what an exchange that was given up has left."""
    for table in tables:
        left = fetch_one(
            connection,
            "SELECT 1 FROM pg_attribute WHERE attrelid = %s AND attname = %s AND NOT attisdropped",
            [table.oid, COMING],
        )
        if left:
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                    table.identifier, sql.Identifier(COMING)
                )
            )


def copy_vectors(connection: Connection, live: Table, other: Table) -> None:
    """Copy each table's vectors to the other, and index those that the live one gets.

    Args:
        connection: in a transaction that holds the writers of both.
    """
    with_triggers = _disable_triggers(connection, live)
    _add_missing_rows(connection, live, other)
    for table, giver in ((live, other), (other, live)):
        connection.execute(
            sql.SQL("UPDATE {} t SET {} = s.{} FROM {} s WHERE t.{} = s.{}").format(
                table.identifier, sql.Identifier(COMING), sql.Identifier(giver.vector),
                giver.identifier, sql.Identifier(table.id), sql.Identifier(giver.id),
            )
        )  # fmt: skip
    for name, state in with_triggers:
        _set_trigger(connection, live, name, state)
    index = index_of(connection, other)
    if index is not None:
        create_vector_index(connection, live, COMING, index)


def _add_missing_rows(connection: Connection, live: Table, other: Table) -> None:
    """Give the other table the rows that it lacks, with no vector of its own: those in quarantine,
    whose old vectors would be lost for the way back."""
    names = [column.name for column in live.columns
             if not column.generated and column.name != live.vector]  # fmt: skip
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    if other.column(other.vector).not_null:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL").format(
                other.identifier, sql.Identifier(other.vector)
            )
        )
    connection.execute(
        sql.SQL(
            "INSERT INTO {other} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {live} "
            "l WHERE NOT EXISTS (SELECT FROM {other} o WHERE o.{id} = l.{id})"
        ).format(
            other=other.identifier, live=live.identifier, columns=columns,
            id=sql.Identifier(live.id),
        )
    )  # fmt: skip


def rename_columns(connection: Connection, live: Table, other: Table) -> None:
    """Let the copied columns take the vectors' place, and names their meaning.

    Args:
        connection: the same transaction, which by now holds the readers, too.
    """
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
    if table.column(table.vector).not_null and giver.column(giver.vector).not_null:
        statements.append(
            sql.SQL("ALTER TABLE {} ALTER {} SET NOT NULL").format(table.identifier, vector)
        )
    for statement in statements:
        connection.execute(statement)
    renumbered = replace(table, columns=read_columns(connection, table.oid))
    note = note | ({} if stands == table.oid else {"stands_for": stands})
    write_note(connection, renumbered, note)


def index_of(connection: Connection, table: Table) -> VectorIndex | None:
    """The index that the table's vectors have, or had while they were live."""
    had = read_note(connection, table).get("had_index")
    return vector_index(connection, table) or (VectorIndex(**had) if had else None)


def stands_for(connection: Connection, table: Table) -> int:
    """The oid of the table whose collection this one holds: its own, but for exchanged columns."""
    return int(read_note(connection, table).get("stands_for", table.oid))


def standing_in(connection: Connection, oid: int) -> int:
    """The oid of the table that holds the collection of table `oid`."""
    row = fetch_one(
        connection,
        "SELECT attrelid FROM pg_description JOIN pg_attribute ON attrelid = objoid AND attnum = "
        "objsubid WHERE classoid = 'pg_class'::regclass AND objsubid > 0 AND description LIKE "
        "'reembed:%%' AND description LIKE %s",
        [f'%"stands_for": {oid}%'],
    )
    return int(row[0]) if row else oid


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
