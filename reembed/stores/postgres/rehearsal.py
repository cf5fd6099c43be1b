"""A new collection made for trial, in a transaction that is undone.

What Postgres refuses is known best to Postgres: a right that is missing on a type, a function or a
tablespace, an event trigger that forbids a statement, an index whose expression does not fit the
new vectors. Each would end a run, some of them after everything was paid for.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import psycopg
from psycopg import sql

from reembed.errors import PreflightError, RefusedError
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import Connection, fetch_all, mapped
from reembed.stores.postgres.schema.names import find_table
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector
from reembed.stores.postgres.shadow import ShadowMaker
from reembed.stores.values import CollectionSpec

LOOKED_AT = 1000
"""Rows among which one is chosen that is in as many indexes of some rows as can be."""


def rehearse(catalog: Catalog, shadows: ShadowMaker, spec: CollectionSpec) -> None:
    """Make a collection's tables with a row and all indexes, write to them, drop them, and undo it.

    Raises:
        PreflightError: something of that is refused.
    """
    like = catalog.tables(spec.like) if spec.like else []
    trial = replace(spec, name=catalog.fit_name(f"{spec.name}__trial-{secrets.token_hex(3)}"))
    beside = f" like {', '.join(table.label for table in like)}," if like else ""
    try:
        with mapped(catalog.url), catalog.main.transaction() as undone:
            found = find_table(catalog.main, shadows.create(trial))
            assert found is not None, "it has just been made"
            made = catalog.parts(found)
            for old, new in zip(like, made, strict=False):
                _copy_row(catalog.main, old, new)
            shadows.build_index(f"{catalog.database.key}/{found[0]}")
            for table in made:
                _write(catalog.main, table)
            raise psycopg.Rollback(undone)
    except RefusedError as error:
        raise PreflightError(
            f"a table{beside} for vectors of {spec.dimensions:,} dimensions, cannot be made and "
            f"written to, as a trial showed that was undone again: {error.message}",
            error.hint
            or "Let Postgres allow it, or drop what it names, and give the same command again.",
        ) from error


def _copy_row(connection: Connection, old: Table, new: Table) -> None:
    """Give the new table one row of the old one, with a vector of the new length."""
    conditions = fetch_all(
        connection,
        "SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indrelid = %s AND indpred IS "
        "NOT NULL",
        [old.oid],
    )
    fitting = [sql.SQL("coalesce(({})::int, 0)").format(sql.SQL(one)) for (one,) in conditions]
    names = [one.name for one in new.columns if not one.generated]
    vector = "[" + ",".join(["1", *["0"] * ((new.dimensions or 1) - 1)]) + "]"
    values = [
        sql.Identifier(name) if name != new.vector
        else sql.SQL("{}::{}").format(
            sql.Literal(vector), of_pgvector(connection, new.column(name).type)
        )
        for name in names
    ]  # fmt: skip
    connection.execute(
        sql.SQL(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM (SELECT * FROM {} WHERE {} "
            "LIMIT {}) t ORDER BY {} DESC LIMIT 1"
        ).format(
            new.identifier, sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(values), old.identifier, old.condition(), sql.Literal(LOOKED_AT),
            sql.SQL(" + ").join([sql.SQL("length('')"), *fitting]),
        )
    )  # fmt: skip


def _write(connection: Connection, table: Table) -> None:
    """As catching up and `clean` do."""
    vector = sql.Identifier(table.vector)
    for statement in (
        sql.SQL("UPDATE {} SET {} = {}").format(table.identifier, vector, vector),
        sql.SQL("DELETE FROM {}").format(table.identifier),
        sql.SQL("DROP TABLE {}").format(table.identifier),
    ):
        connection.execute(statement)
