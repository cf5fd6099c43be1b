"""Making shadow tables, like the source's or plain, and the notes that say what they hold.

A shadow has the source's columns, defaults, checks, comments and settings from the start, its keys
and unique constraints too; `pg_indexes` makes the indexes once it is full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema.indexes import OPERATORS
from reembed.stores.postgres.schema.table import Table

NOTE = "reembed:"
"""What a vector column's comment begins with where it says which model made the vectors."""


def create_plain(connection: Connection, schema: str, name: str, type: str, d: int) -> None:
    """A table of reembed's own: id, document, metadata, uri, embedding."""
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id text PRIMARY KEY, document text, metadata json, uri text, "
            "embedding {}({}))"
        ).format(sql.Identifier(schema, name), sql.SQL(type), sql.Literal(d))
    )


def create_like(connection: Connection, table: Table, name: str, type: str, d: int) -> None:
    """An empty table like another one, whose vector column is of this type.

    A column that takes vectors of any length is typed: it can be indexed then, and refuses vectors
    of another model. Only keys and unique constraints are made now; `make_indexes` makes the rest.
    """
    shadow = sql.Identifier(table.schema, name)
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(
            shadow, table.identifier
        )
    )
    vector = sql.Identifier(table.vector)
    written = sql.SQL("{}({})").format(sql.SQL(type), sql.Literal(d))
    connection.execute(
        sql.SQL("ALTER TABLE {} ALTER {} DROP DEFAULT, ALTER {} TYPE {}").format(
            shadow, vector, vector, written
        )
    )
    for (definition,) in fetch_all(
        connection,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype "
        "IN ('p', 'u', 'x') ORDER BY contype, conname",
        [table.oid],
    ):
        connection.execute(sql.SQL("ALTER TABLE {} ADD {}").format(shadow, sql.SQL(definition)))
    _copy_relation(connection, table, name)


def _copy_relation(connection: Connection, table: Table, name: str) -> None:
    """What LIKE leaves out: owner, settings and comment of a table, settings of its columns."""
    row = fetch_one(
        connection,
        "SELECT c.relowner::regrole::text, c.relowner = (SELECT oid FROM pg_roles WHERE rolname = "
        "current_user), array_cat(c.reloptions, (SELECT array_agg('toast.' || o) FROM "
        "unnest(t.reloptions) o)), obj_description(c.oid, 'pg_class'), c.relpersistence = 'u', "
        "c.relreplident FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE "
        "c.oid = %s",
        [table.oid],
    )
    assert row is not None, "the table is there"
    owner, ours, options, comment, unlogged, identity = row
    shadow = sql.Identifier(table.schema, name)
    changes: list[sql.Composable] = []
    if options:
        changes.append(sql.SQL("SET ({})").format(sql.SQL(", ".join(options))))
    if unlogged:
        changes.append(sql.SQL("SET UNLOGGED"))
    if identity in ("f", "n"):
        changes.append(sql.SQL(f"REPLICA IDENTITY {'FULL' if identity == 'f' else 'NOTHING'}"))
    for column, target, settings in fetch_all(
        connection,
        "SELECT attname, attstattarget, attoptions FROM pg_attribute WHERE attrelid = %s AND "
        "attnum > 0 AND NOT attisdropped AND (attstattarget >= 0 OR attoptions IS NOT NULL)",
        [table.oid],
    ):
        if target is not None and target >= 0:
            changes.append(
                sql.SQL("ALTER {} SET STATISTICS {}").format(
                    sql.Identifier(column), sql.Literal(target)
                )
            )
        if settings:
            changes.append(
                sql.SQL("ALTER {} SET ({})").format(
                    sql.Identifier(column), sql.SQL(", ".join(settings))
                )
            )
    if not ours:
        changes.append(sql.SQL("OWNER TO {}").format(sql.SQL(owner)))
    if comment:
        connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(shadow, sql.Literal(comment))
        )
    for change in changes:
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(shadow, change))


def write_note(connection: Connection, table: Table, note: Mapping[str, Any]) -> None:
    """Keep a note (model, collection metadata) as the vector column's comment. `comment` is what
    its owner had written there, which stands alone where there is nothing else to note."""
    own = note.get("comment")
    text = own if set(note) <= {"comment"} else NOTE + json.dumps(note, sort_keys=True)
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            table.identifier, sql.Identifier(table.vector), sql.Literal(text)
        )
    )


def read_note(connection: Connection, table: Table) -> dict[str, Any]:
    """The note of a vector column; empty where there is none."""
    row = fetch_one(
        connection, "SELECT col_description(%s, %s)", [table.oid, table.column(table.vector).number]
    )
    return parse_note(row[0] if row else None)


def parse_note(text: str | None) -> dict[str, Any]:
    """What a comment notes; one that is not ours is kept as `comment`."""
    if not text:
        return {}
    if not text.startswith(NOTE):
        return {"comment": text}
    try:
        note = json.loads(text.removeprefix(NOTE))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(note, dict):
        return {}
    return {key: value for key, value in note.items() if _is_sound(key, value)}


def _is_sound(key: str, value: Any) -> bool:
    """Whether a part of a note can be what it stands for: its table's owner can write anything into
    a comment, and parts of it become settings of statements."""
    try:
        if key in ("like", "stands_for"):
            return type(value) is int and 0 < value < 2**32
        if key == "metric":
            return value in OPERATORS
        if key == "index":
            pg_indexes.check_index(value)
        if key == "had_index":
            pg_indexes.check_index(pg_indexes.VectorIndex(**value).to_dict())
            return value["metric"] in OPERATORS and isinstance(value["name"], str)
    except (PreflightError, TypeError, AttributeError, KeyError, ValueError):
        return False
    return {
        "model": isinstance(value, dict), "metadata": isinstance(value, dict | None),
        "comment": isinstance(value, str), "not_null": isinstance(value, bool),
    }.get(key, True)  # fmt: skip
