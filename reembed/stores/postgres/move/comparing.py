"""Rows of two tables whose vectors are on their way, beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import operator_of_pgvector

PAGE_ROWS = 20_000
"""Rows that are compared at a time; see `spread`."""


@dataclass(frozen=True)
class Row:
    """A row of a table, beside the other table's row of the same id.

    Attributes:
        differs: whether its new column is to be written.
        without: whether it is a record for which the other table has no vector.
        place: its number in its block of the table's file.
    """

    id: str
    differs: bool
    without: bool
    place: int


def spread(rows: Sequence[Row]) -> list[Row]:
    """Rows in an order in which those that follow each other lie in different blocks.

    Where a block has room for the new version of a row, no index gets an entry for it (HOT, as the
    new column is in none), and to find a row's place in the old vectors' index takes longer than
    all else. Blocks are full at first. The first rows of each block have to leave it; what they
    were is removed by whoever comes to the block next, and leaves room for those that follow.
    """
    return sorted(rows, key=lambda row: row.place)


def pages(connection: Connection, table: Table, giver: Table) -> Iterator[list[Row]]:
    """All rows of a table by their ids; see `compared`."""
    id = sql.Identifier(table.id)
    after: sql.Composable = sql.SQL("true")
    type = sql.SQL(table.column(table.id).written)
    while True:
        page = compared(
            connection, table, giver,
            sql.SQL("{} ORDER BY {} LIMIT {}").format(after, id, sql.Literal(PAGE_ROWS)),
        )  # fmt: skip
        if not page:
            return
        yield page
        after = sql.SQL("{} > {}::{}").format(id, sql.Literal(page[-1].id), type)


def compared(
    connection: Connection, table: Table, giver: Table, these: sql.Composable
) -> list[Row]:
    """Rows of a table in the order of their ids.

    Args:
        these: which rows, as SQL after WHERE.
    """
    own = sql.SQL("o.{} IS NOT NULL").format(sql.Identifier(table.vector))
    rows: list[tuple[Any, ...]] = fetch_all(
        connection,
        sql.SQL(
            "SELECT o.{id}::text, NOT coalesce(o.{new} {equals} g.{vector}, o.{new} IS NULL AND "
            "g.{vector} IS NULL), g.{vector} IS NULL AND {record}, "
            "(o.reembed_place::text::point)[1]::int "
            "FROM (SELECT ctid AS reembed_place, {id}, {new}, {own} FROM {table} WHERE {these}) o "
            "LEFT JOIN {giver} g ON g.{giver_id} = o.{id} ORDER BY o.{id}"
        ).format(
            table=table.identifier, new=sql.Identifier(COMING), id=sql.Identifier(table.id),
            vector=sql.Identifier(giver.vector), giver=giver.identifier,
            giver_id=sql.Identifier(giver.id), equals=operator_of_pgvector(connection, "="),
            own=sql.Identifier(table.vector), these=these,
            record=own if table.only_with_vector else sql.SQL("true"),
        ),
    )  # fmt: skip
    return [Row(*row) for row in rows]
