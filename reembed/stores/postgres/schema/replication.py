"""Logical replication around a table: which publications send it, and to whom.

A subscriber stops, for all of its tables, at a table or a column that it lacks and at a value that
does not fit: a new table in a published schema, a column beside the vectors, vectors of another
length. What would do that is refused while anybody subscribes, by a slot of `pgoutput`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.table import Table

ALL = " (FOR ALL TABLES)"


@dataclass(frozen=True)
class Publication:
    """A publication that takes in a table.

    Attributes:
        scope: `all` tables, a `schema`, or this `table` by its name.
        vectors: whether the vector column is sent.
        where: the condition on the rows that are sent, None where all are.
        columns: those that are sent; none where all are.
    """

    name: str
    scope: str
    vectors: bool
    where: str | None
    columns: tuple[str, ...] = ()


def slots(connection: Connection) -> list[str]:
    """Slots by which subscribers follow publications of this database."""
    return [
        row[0]
        for row in fetch_all(
            connection,
            "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical' AND plugin = "
            "'pgoutput' AND database = current_database() ORDER BY 1",
        )
    ]


def publications(connection: Connection, table: Table) -> list[Publication]:
    """Those that send a table's rows."""
    number = table.column(table.vector).number
    rows = fetch_all(connection, "SELECT pubname FROM pg_publication WHERE puballtables ORDER BY 1")
    found = [Publication(name, "all", True, None) for (name,) in rows]
    if not _has_lists(connection):
        rows = fetch_all(
            connection,
            "SELECT pubname FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid WHERE "
            "prrelid = %s ORDER BY 1",
            [table.oid],
        )
        return found + [Publication(name, "table", True, None) for (name,) in rows]
    found += [
        Publication(name, "schema", True, None) for name in _of_schema(connection, table.schema)
    ]
    rows = fetch_all(
        connection,
        "SELECT pubname, coalesce(%s = ANY (prattrs), true), pg_get_expr(prqual, prrelid), "
        "ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = prrelid AND attnum = "
        "ANY (prattrs) ORDER BY attnum) FROM pg_publication_rel JOIN pg_publication p ON p.oid = "
        "prpubid WHERE prrelid = %s ORDER BY 1",
        [number, table.oid],
    )
    return found + [
        Publication(name, "table", vectors, where, tuple(columns))
        for name, vectors, where, columns in rows
    ]


def addition(table: Table, one: Publication) -> sql.Composed:
    """The statement that adds a table to a publication, as it is in it."""
    names = sql.SQL(", ").join(map(sql.Identifier, one.columns))
    return sql.SQL("ALTER PUBLICATION {} ADD TABLE {}{}{}").format(
        sql.Identifier(one.name), table.identifier,
        sql.SQL(" ({})").format(names) if one.columns else sql.SQL(""),
        sql.SQL(" WHERE ({})").format(sql.SQL(one.where)) if one.where else sql.SQL(""),
    )  # fmt: skip


def _has_lists(connection: Connection) -> bool:
    """Whether this server knows publications of schemas and of some columns (15 and later)."""
    row = fetch_one(
        connection, "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL"
    )
    return bool(row and row[0])


def _of_schema(connection: Connection, schema: str) -> list[str]:
    rows = fetch_all(
        connection,
        "SELECT pubname FROM pg_publication_namespace JOIN pg_publication p ON p.oid = pnpubid "
        "JOIN pg_namespace n ON n.oid = pnnspid WHERE nspname = %s ORDER BY 1",
        [schema],
    )
    return [name for (name,) in rows]


def stopped_by_exchange(connection: Connection, table: Table) -> list[str]:
    """Whom an exchange of the table's vectors would stop, and what helps, in words."""
    told = []
    followed = slots(connection)
    for one in publications(connection, table) if followed else []:
        if one.vectors:
            told.append(
                f"the publication {one.name} sends its vectors to subscribers (slots "
                f"{', '.join(followed)}), which stop at a new column and at vectors of another "
                f"length: {_way_out(table, one)}"
            )
    rows = fetch_all(
        connection,
        "SELECT subname FROM pg_subscription_rel JOIN pg_subscription s ON s.oid = srsubid WHERE "
        "srrelid = %s ORDER BY 1",
        [table.oid],
    )
    told += [
        f"the subscription {name} writes to it, and stops where the vectors it brings do not fit"
        for (name,) in rows
    ]
    return told


def _way_out(table: Table, one: Publication) -> str:
    if one.scope != "table":
        return "publish a list of tables instead, this one by its columns without the vector"
    names = [column.name for column in table.columns if column.name != table.vector]
    return sql.SQL(
        "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {table}; {again}; COMMIT; takes them "
        "out of it"
    ).format(
        publication=sql.Identifier(one.name), table=table.identifier,
        again=addition(table, replace(one, columns=tuple(names))),
    ).as_string(None)  # fmt: skip


def taking_in(connection: Connection, schema: str) -> list[str]:
    """Publications that send each new table of a schema to somebody."""
    if not slots(connection):
        return []
    rows = fetch_all(connection, "SELECT pubname FROM pg_publication WHERE puballtables ORDER BY 1")
    found = [f"{name}{ALL}" for (name,) in rows]
    if _has_lists(connection):
        found += [
            f"{name} (FOR TABLES IN SCHEMA {schema})" for name in _of_schema(connection, schema)
        ]
    return found


def check_unpublished(connection: Connection, schema: str) -> None:
    """Raise PreflightError where a new table of a schema would stop a subscriber."""
    found = taking_in(connection, schema)
    if not found:
        return
    everything = [name.removesuffix(ALL) for name in found if name.endswith(ALL)]
    raise PreflightError(
        f"the publication {', '.join(found)} sends every new table to its subscribers (slots "
        f"{', '.join(slots(connection))}), and one without the table stops for all tables",
        "Publish a list of tables instead: CREATE PUBLICATION .. FOR TABLE .., on the subscriber "
        "ALTER SUBSCRIPTION .. SET PUBLICATION .., and then here DROP PUBLICATION "
        f"{sql.SQL(', ').join(map(sql.Identifier, everything)).as_string(None)}."
        if everything
        else "Give a schema that no publication names as target.schema.",
    )
