"""The move of a live name in Postgres: one transaction that exchanges two tables.

Leaf tables exchange their names, and those of their indexes, constraints, statistics objects and
sequences, so that
every name the application or its migrations know still means the same thing. Tables that something
hangs on keep their place and exchange their vector columns (`pg_columns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.access import copy_grants
from reembed.stores.postgres.schema.counterparts import (
    constraint_pairs,
    index_pairs,
    statistics_pairs,
)
from reembed.stores.postgres.schema.indexes import definitions
from reembed.stores.postgres.schema.table import Table

CONSTRAINT = sql.SQL("ALTER TABLE {table} RENAME CONSTRAINT {name} TO {to}")
INDEX = sql.SQL("ALTER INDEX {schema}.{name} RENAME TO {to}")
SEQUENCE = sql.SQL("ALTER SEQUENCE {schema}.{name} RENAME TO {to}")
STATISTICS = sql.SQL("ALTER STATISTICS {schema}.{name} RENAME TO {to}")
"""What renames a thing of a table's."""


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
        _exchange(connection, CONSTRAINT, old, new, constraint_pairs(connection, old, new))
        _exchange_indexes(connection, old, new)
        _exchange(connection, STATISTICS, old, new, statistics_pairs(connection, old, new))
        _hand_over_sequences(connection, old, new)
        copy_grants(connection, old.oid, new.oid)


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


def _exchange(
    connection: Connection, rename: sql.SQL, old: Table, new: Table,
    pairs: Sequence[tuple[str, str]],
) -> None:  # fmt: skip
    """Exchange names of things, by a third one.

    Args:
        rename: one of the statements above.
        pairs: a name that is the old table's, and the one that is the new table's.
    """
    for number, (name, other) in enumerate(pairs):
        between = f"reembed_{old.oid}_{number}"
        for table, before, after in (
            (old, name, between), (new, other, name), (old, between, other),
        ):  # fmt: skip
            if name != other:
                connection.execute(
                    rename.format(
                        table=_relation(connection, table.oid),
                        schema=sql.Identifier(table.schema), name=sql.Identifier(before),
                        to=sql.Identifier(after),
                    )
                )  # fmt: skip


def _exchange_indexes(connection: Connection, old: Table, new: Table) -> None:
    pairs = index_pairs(connection, old, new)
    _exchange(connection, INDEX, old, new, pairs)
    matched = {other for _, other in pairs}
    for name in (one.name for one in definitions(connection, new)):
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
            "SELECT objid, s.relname, o.relname FROM pg_depend JOIN pg_attribute ON attrelid = "
            "refobjid AND attnum = refobjsubid JOIN pg_class s ON s.oid = objid JOIN pg_class o ON "
            "o.oid = %s WHERE "
            "classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = "
            "%s AND attname = %s AND deptype = 'i'",
            [sequence, new.oid, column],
        )
        if other is None:
            continue
        oid, its_name, name = other
        connection.execute(
            sql.SQL("SELECT setval({}::oid::regclass, last_value, is_called) FROM {}").format(
                sql.Literal(oid), _relation(connection, sequence)
            )
        )
        copy_grants(connection, sequence, oid)
        _copy_comment(connection, sequence, oid)
        _exchange(connection, SEQUENCE, old, new, [(name, its_name)])


def _copy_comment(connection: Connection, sequence: int, other: int) -> None:
    """Give a sequence the comment that another one has, or none."""
    row = fetch_one(connection, "SELECT obj_description(%s, 'pg_class')", [sequence])
    connection.execute(
        sql.SQL("COMMENT ON SEQUENCE {} IS {}").format(
            _relation(connection, other), sql.Literal(row[0] if row else None)
        )
    )
