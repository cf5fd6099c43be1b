"""What vectors the rows of a table hold: of which dimensions, and how many hold none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one, mapped
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector, schema_of_pgvector
from reembed.stores.values import Where


@dataclass(frozen=True)
class VectorCounts:
    """Rows by their vectors.

    Attributes:
        dimensions: number of rows for each number of dimensions, the most first.
        without: rows that have no vector.
        where: the condition of the manifest, which these rows match.
        of_one: an SQL condition for those of the most frequent dimensions.
    """

    label: str
    dimensions: Mapping[int, int]
    without: int
    where: str | None
    of_one: str

    def mixed(self) -> PreflightError:
        """The refusal of vectors of several dimensions."""
        told = ", ".join(f"{d:,} ({rows:,} rows)" for d, rows in self.dimensions.items())
        also = f" AND ({self.where}\n)" if self.where is not None else ""
        return PreflightError(
            f"{self.label} holds vectors of several dimensions, so of several models: {told}",
            "Move those of one model at a time, into a collection of their own: "
            f"source.where: {json.dumps(self.of_one + also)} and swap.kind: config.",
        )


def count_vectors(
    connection: Connection, table: Table, where: Where, most: int | None = None
) -> VectorCounts:
    """Count the rows of a table by their vectors. A typed column is not read for its dimensions.

    Args:
        where: only rows that match; a condition in SQL.
        most: look at so many rows that have a vector, instead of all.
    """
    vector = sql.Identifier(table.vector)
    width: sql.Composable = sql.SQL("{}({})").format(of_pgvector(connection, "vector_dims"), vector)
    if table.dimensions is not None:
        width = sql.SQL("CASE WHEN {} IS NOT NULL THEN {} END").format(
            vector, sql.Literal(table.dimensions)
        )
    rows = sql.SQL("SELECT {} AS width FROM {} WHERE ({}\n)").format(
        width, table.identifier, sql.SQL(where if isinstance(where, str) else "true")
    )
    if most is not None:
        rows = sql.SQL("{} AND {} IS NOT NULL LIMIT {}").format(rows, vector, sql.Literal(most))
    with mapped(table.label):
        counted = fetch_all(
            connection,
            sql.SQL("SELECT width, count(*) FROM ({}) r GROUP BY width ORDER BY 2 DESC, 1").format(
                rows
            ),
        )
    dimensions = {int(width): int(count) for width, count in counted if width is not None}
    without = next((int(count) for width, count in counted if width is None), 0)
    of_one = ""
    if len(dimensions) > 1:
        row = fetch_one(
            connection, "SELECT format('%%I.vector_dims(%%I) = %%s', %s::text, %s::text, %s::text)",
            [schema_of_pgvector(connection), table.vector, str(next(iter(dimensions)))],
        )  # fmt: skip
        assert row is not None, "format gives a text"
        of_one = str(row[0])
    return VectorCounts(
        table.label, dimensions, without, where if isinstance(where, str) else None, of_one
    )
