"""The exchange of two tables' vector columns, for a table that must keep its place.

The live table takes the shadow's vectors, and the shadow takes the live one's: after it, each table
stands for the other one's collection, which its vector column's comment says (`stands_for`). Vectors
are copied and the new index is built while writers wait and readers go on; readers wait only while
the columns are renamed. Everything but an empty column made beforehand is one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from reembed.stores.pg_client import Connection, fetch_all, fetch_one
from reembed.stores.pg_layout import COMING, Table
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
    for table, giver in ((live, other), (other, live)):
        connection.execute(
            sql.SQL("UPDATE {} t SET {} = s.{} FROM {} s WHERE t.{} = s.{}").format(
                table.identifier, sql.Identifier(COMING), sql.Identifier(giver.vector),
                giver.identifier, sql.Identifier(table.id), sql.Identifier(giver.id),
            )
        )  # fmt: skip
    for name, state in with_triggers:
        _set_trigger(connection, live, name, state)
    for tail in _index_tails(connection, other, COMING):
        connection.execute(sql.SQL("CREATE INDEX ON {}{}").format(live.identifier, sql.SQL(tail)))


def rename_columns(connection: Connection, live: Table, other: Table) -> None:
    """Let the copied columns take the vectors' place, and names their meaning.

    Args:
        connection: the same transaction, which by now holds the readers, too.
    """
    names = _index_names(connection, live)
    notes = [read_note(connection, table) for table in (live, other)]
    stands_for = [note.pop("stands_for", table.oid) for note, table in
                  zip(notes, (live, other), strict=True)]  # fmt: skip
    for table, giver, note, stands in (
        (live, other, notes[1], stands_for[1]), (other, live, notes[0], stands_for[0]),
    ):  # fmt: skip
        vector = sql.Identifier(table.vector)
        required = table.column(table.vector).not_null and giver.column(giver.vector).not_null
        statements = [
            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table.identifier, vector),
            sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                table.identifier, sql.Identifier(COMING), vector
            ),
        ]
        if required:
            statements.append(
                sql.SQL("ALTER TABLE {} ALTER {} SET NOT NULL").format(table.identifier, vector)
            )
        for statement in statements:
            connection.execute(statement)
        if stands != table.oid:
            note = note | {"stands_for": stands}
        _write_note_after(connection, table, note)
    for old, new in zip(names, _index_names(connection, live), strict=False):
        if old != new:
            connection.execute(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(live.schema, new), sql.Identifier(old)
                )
            )


def _write_note_after(connection: Connection, table: Table, note: dict[str, object]) -> None:
    if note:
        write_note(connection, table, note)


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
    """Switch off the table's triggers, in this transaction that holds its writers: a copy of vectors
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


def _index_tails(connection: Connection, table: Table, column: str) -> list[str]:
    """Definitions of the indexes of the table's vector column, from USING on, for another column."""
    rows = fetch_all(
        connection,
        "SELECT amname, opcname, coalesce(c.reloptions, '{}') FROM pg_index JOIN pg_class c ON "
        "c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_opclass o ON o.oid = "
        "indclass[0] WHERE indrelid = %s AND amname IN ('hnsw', 'ivfflat') AND indkey[0] = %s",
        [table.oid, table.column(table.vector).number],
    )
    return [
        f" USING {method} ({column} {opclass})"
        + (f" WITH ({', '.join(options)})" if options else "")
        for method, opclass, options in rows
    ]


def _index_names(connection: Connection, table: Table) -> list[str]:
    rows = fetch_all(
        connection,
        "SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid "
        "= c.relam JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] WHERE indrelid "
        "= %s AND amname IN ('hnsw', 'ivfflat') AND attname = %s ORDER BY c.relname",
        [table.oid, table.vector],
    )
    return [row[0] for row in rows]
