"""What a table asks of its vectors that those of another model could not fulfil: told by `plan`."""

from __future__ import annotations

import psycopg
from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.indexes import MOST_DIMENSIONS
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector

PAGE_BYTES = 8_000
"""Of a row that is not moved out of its page (STORAGE PLAIN), a little less than Postgres takes."""


def misfits(connection: Connection, table: Table, dimensions: int, *, stays: bool) -> list[str]:
    """What allows no exchange since the new vectors would not fit, in words.

    Args:
        dimensions: of the new model.
        stays: whether the table keeps its place, and so has both vectors in a row for a while.
    """
    told = _checks(connection, table, dimensions, stays=stays)
    told += _storage(connection, table, dimensions, stays=stays)
    return told + (_unique(connection, table) if stays else [])


def _checks(connection: Connection, table: Table, dimensions: int, *, stays: bool) -> list[str]:
    """Each check of the vector column is asked about a vector of the new length, and about none."""
    told = []
    for name, expression, alone in fetch_all(
        connection,
        "SELECT conname, pg_get_expr(conbin, conrelid), conkey = ARRAY[%s]::int2[] FROM "
        "pg_constraint WHERE conrelid = %s AND contype = 'c' AND %s = ANY (conkey) ORDER BY 1",
        [number := table.column(table.vector).number, table.oid, number],
    ):
        if not alone:
            told.append(f"its check {name} reads the vector column and others")
            continue
        long = dimensions > MOST_DIMENSIONS["vector"]
        type = "halfvec" if long else table.column(table.vector).type
        vector = sql.Literal("[" + ",".join(["1", *["0"] * (dimensions - 1)]) + "]")
        answers = []
        for value in (vector, sql.SQL("NULL")):
            answers.append(
                _ask(
                    connection,
                    sql.SQL("SELECT {} FROM (SELECT {}::{} AS {}) t").format(
                        sql.SQL(expression), value, of_pgvector(connection, type),
                        sql.Identifier(table.vector),
                    ),
                )
            )  # fmt: skip
        if answers[0] is not None and answers[0] != "true":
            told.append(
                f"its check {name} is not true of a vector of {dimensions} dimensions: {answers[0]}"
            )
        elif stays and answers[1] is not None and answers[1] != "true":
            told.append(
                f"its check {name} asks for a vector in every row, and one in quarantine has none: "
                "write it as NOT NULL"
            )
    return told


def _ask(connection: Connection, query: sql.Composed) -> str | None:
    """What a condition answers: `true`, `false`, None for neither, or the error it ends in."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            row = fetch_one(connection, query)
    except psycopg.Error as error:
        return str(error).splitlines()[0]
    return None if row is None or row[0] is None else str(row[0]).lower()


def _storage(connection: Connection, table: Table, dimensions: int, *, stays: bool) -> list[str]:
    row = fetch_one(
        connection,
        "SELECT attstorage = 'p' FROM pg_attribute WHERE attrelid = %s AND attname = %s",
        [table.oid, table.vector],
    )
    size = 2 if table.column(table.vector).type == "halfvec" else 4
    needed = size * (dimensions + (table.dimensions or 0 if stays else 0))
    if row is None or not row[0] or needed < PAGE_BYTES:
        return []
    return [
        f"its vector column has STORAGE PLAIN, and {needed:,} bytes of vectors do not fit into a "
        "row then: SET STORAGE EXTERNAL moves them out of it"
    ]


def _unique(connection: Connection, table: Table) -> list[str]:
    """Unique indexes in which rows that have no new vector yet would stand in each other's way."""
    told = []
    vector = sql.Identifier(table.vector).as_string(None).strip('"')
    for oid, name, whole, columns, condition in fetch_all(
        connection,
        "SELECT indexrelid, indexrelid::regclass::text, to_jsonb(i) ->> 'indnullsnotdistinct' = "
        "'true', indnkeyatts, coalesce(pg_get_expr(indpred, indrelid), '') FROM pg_index i WHERE "
        "indrelid = %s AND indisunique AND EXISTS (SELECT FROM pg_depend d WHERE d.refobjid = "
        "indrelid AND d.refobjsubid = %s AND (d.objid = indexrelid OR d.objid IN (SELECT k.oid "
        "FROM pg_constraint k WHERE conindid = indexrelid))) ORDER BY 2",
        [table.oid, table.column(table.vector).number],
    ):
        empty: list[sql.Composable] = []
        for column in range(1, columns + 1):
            part = fetch_one(connection, "SELECT pg_get_indexdef(%s, %s, true)", [oid, column])
            if part and vector in part[0]:
                empty.append(sql.SQL("({}) IS NULL").format(sql.SQL(part[0])))
        of_some = vector in condition
        fits = condition in (f"({vector} IS NOT NULL)", f'("{vector}" IS NOT NULL)') or (
            not whole and not of_some and empty and _ask(
                connection,
                sql.SQL("SELECT {} FROM (SELECT (NULL::{}).*) t").format(
                    sql.SQL(" OR ").join(empty), table.identifier
                ),
            ) == "true"
        )  # fmt: skip
        if not fits:
            told.append(
                f"the unique index {name} takes one row alone that has no vector, and each row has "
                "none of the new ones before it is copied"
            )
    return told
