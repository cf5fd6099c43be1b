"""The move of a live name in Postgres: one transaction that exchanges two tables.

Leaf tables exchange their names, and those of their indexes, constraints and sequences, so that
every name the application or its migrations know still means the same thing. Tables that something
hangs on keep their place and exchange their vector columns (`pg_columns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg import sql

from reembed.stores.pg_client import Connection, fetch_all, fetch_one
from reembed.stores.pg_table import Table


def exchange_names(
    connection: Connection, outgoing: Sequence[Table], incoming: Sequence[Table],
    parked: Sequence[str],
) -> None:  # fmt: skip
    """Give the incoming tables the names of the outgoing ones, and those the parked names.

    Args:
        connection: in a transaction that locks all of these tables.
        parked: names for the outgoing tables, without a schema.
    """
    for old, new, name in zip(outgoing, incoming, parked, strict=True):
        live = old.name
        between = replace(new, name=f"reembed_{new.oid}")
        rename_table(connection, new, between.name)  # it may have the parked name: going back
        rename_table(connection, old, name)
        rename_table(connection, between, live)
        _exchange_constraints(connection, old, new)
        _exchange_indexes(connection, old, new)
        _hand_over_sequences(connection, old, new)


def rename_table(connection: Connection, table: Table, name: str) -> None:
    """Give a table another name in its schema."""
    connection.execute(
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(table.identifier, sql.Identifier(name))
    )


def _relation(connection: Connection, oid: int) -> sql.Identifier:
    row = fetch_one(
        connection,
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE c.oid = %s",
        [oid],
    )
    assert row is not None, "it is locked, so it is there"
    return sql.Identifier(*row)


def _exchange_constraints(connection: Connection, old: Table, new: Table) -> None:
    """Constraints of equal definition exchange their names; an index of one follows."""
    query = (
        "SELECT conname, contype::text || pg_get_constraintdef(oid) FROM pg_constraint WHERE "
        "conrelid = %s AND contype IN ('p', 'u', 'c', 'n') ORDER BY conname"
    )
    pairs = _pairs(fetch_all(connection, query, [old.oid]), fetch_all(connection, query, [new.oid]))
    for number, (name, other) in enumerate(pairs):
        if name == other:
            continue
        between = f"reembed_{old.oid}_{number}"
        for table, before, after in (
            (old, name, between),
            (new, other, name),
            (old, between, other),
        ):
            connection.execute(
                sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                    _relation(connection, table.oid), sql.Identifier(before), sql.Identifier(after)
                )
            )


def _exchange_indexes(connection: Connection, old: Table, new: Table) -> None:
    query = (
        "SELECT c.relname, CASE WHEN amname IN ('hnsw', 'ivfflat') THEN 'vector' ELSE "
        "indisunique::text || regexp_replace(pg_get_indexdef(indexrelid), '^.*? USING ', '') END "
        "FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE indrelid = %s AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid "
        "AND contype IN ('p', 'u', 'x')) ORDER BY c.relname"
    )
    pairs = _pairs(fetch_all(connection, query, [old.oid]), fetch_all(connection, query, [new.oid]))
    for number, (name, other) in enumerate(pairs):
        between = f"reembed_{old.oid}_{number}"
        for before, after in ((name, between), (other, name), (between, other)):
            connection.execute(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(old.schema, before), sql.Identifier(after)
                )
            )
    matched = {other for _, other in pairs}
    for name, _ in fetch_all(connection, query, [new.oid]):
        if name in matched or not name.startswith(f"{new.name}_"):
            continue
        wanted = old.name + name.removeprefix(new.name)
        if fetch_one(
            connection,
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = "
            "%s AND relname = %s",
            [old.schema, wanted],
        ):
            continue
        connection.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(old.schema, name), sql.Identifier(wanted)
            )
        )


def _pairs(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names of things of equal definition, old and new."""
    waiting: dict[str, list[str]] = {}
    for name, definition in new:
        waiting.setdefault(definition, []).append(name)
    return [
        (name, waiting[definition].pop(0)) for name, definition in old if waiting.get(definition)
    ]


def _hand_over_sequences(connection: Connection, old: Table, new: Table) -> None:
    """A serial column's sequence belongs to the live table; an identity's goes on counting."""
    rows = fetch_all(
        connection,
        "SELECT a.attname, attidentity <> '', d.objid FROM pg_depend d JOIN pg_class s ON s.oid = "
        "d.objid AND s.relkind = 'S' JOIN pg_attribute a ON attrelid = d.refobjid AND attnum = "
        "d.refobjsubid WHERE d.classid = 'pg_class'::regclass AND d.refclassid = "
        "'pg_class'::regclass AND d.refobjid = %s AND d.deptype IN ('a', 'i')",
        [old.oid],
    )
    for column, identity, sequence in rows:
        if not identity:
            connection.execute(
                sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                    _relation(connection, sequence), _relation(connection, new.oid),
                    sql.Identifier(column),
                )
            )  # fmt: skip
            continue
        other = fetch_one(
            connection,
            "SELECT objid FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = "
            "refobjsubid WHERE classid = 'pg_class'::regclass AND refclassid = "
            "'pg_class'::regclass AND refobjid = %s AND attname = %s AND deptype = 'i'",
            [new.oid, column],
        )
        if other is not None:
            connection.execute(
                sql.SQL("SELECT setval({}, last_value, is_called) FROM {}").format(
                    sql.Literal(other[0]), _relation(connection, sequence)
                )
            )
