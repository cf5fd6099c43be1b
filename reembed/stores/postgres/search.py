"""Search in a collection in Postgres. See `Search`.

The planner does not count the pages on which long vectors are stored apart (TOAST), so it takes
reading a whole table for cheaper than it is, and leaves the index out: 300 ms in place of 2 for
20,000 vectors of 1,536 dimensions. What is asked about an index is asked where sorting costs so
much that the index is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from psycopg import sql

from reembed.errors import ReembedError
from reembed.records import Metric, Vectors
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import (
    Connection,
    beside_parameters,
    connect,
    fetch_one,
    mapped,
)
from reembed.stores.postgres.copy.encode import VectorDumper
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector, operator_of_pgvector

QUERY_CONNECTIONS = 4
QUERIES_EACH = 50
"""A connection of its own is worth its while for so many queries."""
_WIDE = """
SELECT set_config('hnsw.ef_search', greatest(coalesce(current_setting('hnsw.ef_search', true),
  '40')::int, least(%s, 1000))::text, true)
"""
"""The index's list of candidates is never shorter than what is asked for."""
_BY_INDEX = """
SELECT set_config('enable_sort', 'off', true), set_config('jit', 'off', true)
"""
"""Where there is no index, what is forbidden is done all the same, and counts as so dear that
Postgres would compile it."""


@dataclass(frozen=True)
class _Asked:
    """How a collection is asked.

    Attributes:
        label: of its first table.
        queries: of each table the prefix of its ids, and the statement.
        freely: whether the planner may choose.
    """

    label: str
    queries: Sequence[tuple[str, sql.Composed]]
    k: int
    freely: bool

    def prepare(self, connection: Connection) -> None:
        """Set what a search needs, for this transaction."""
        connection.adapters.register_dumper(np.ndarray, VectorDumper)
        connection.execute(_WIDE, [self.k])
        if not self.freely:
            connection.execute(_BY_INDEX)

    def nearest(self, connection: Connection, vectors: Vectors) -> list[list[str]]:
        """The ids of the k nearest of each vector. A plan that is kept was made for the index."""
        answers: list[list[tuple[float, str]]] = [[] for _ in vectors]
        with mapped(self.label), connection.transaction():
            self.prepare(connection)
            for prefix, query in self.queries:
                for answer, vector in zip(answers, vectors, strict=True):
                    found = connection.execute(query, [vector], prepare=not self.freely)
                    answer.extend((row[1], prefix + row[0]) for row in found.fetchall())
        return [[one for _, one in sorted(answer)[: self.k]] for answer in answers]


class TableSearch:
    """Searches in one database."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def query(self, id: str, vectors: Vectors, k: int, *, freely: bool = False) -> list[list[str]]:
        """See `Search.query`. Many queries go through a few connections at once."""
        asked = self._asked(id, k, freely)
        several = max(1, min(QUERY_CONNECTIONS, len(vectors) // QUERIES_EACH))
        with contextlib.ExitStack() as opened:
            connections = [self._catalog.main]
            with contextlib.suppress(ReembedError):  # the server has no room for more
                while len(connections) < several:
                    connections.append(opened.enter_context(connect(self._catalog.url)))
            each = -(-len(vectors) // len(connections)) if len(vectors) else 1
            parts = [vectors[start : start + each] for start in range(0, len(vectors), each)]
            if len(parts) <= 1:
                return asked.nearest(connections[0], vectors)
            with ThreadPoolExecutor(len(parts), "query") as threads:
                works = [
                    threads.submit(partial(asked.nearest, connection, part))
                    for connection, part in zip(connections, parts, strict=False)
                ]
                return [answer for one in works for answer in one.result()]

    def leaves_index_out(self, id: str, vectors: Vectors, k: int) -> bool:
        """See `Search.leaves_index_out`. The planner is asked, and nothing is searched."""
        table, connection = self._catalog.tables(id)[0], self._catalog.main
        asked = self._asked(id, k, freely=True)
        with mapped(table.label), connection.transaction():
            index = pg_indexes.vector_index(connection, table)
            if index is None:
                return False
            asked.prepare(connection)
            explain = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(asked.queries[0][1])
            row = fetch_one(connection, explain, [vectors[0]])
        assert row is not None, "a plan is told"
        return "'Node Type': 'Sort'" in str(row[0])

    def _asked(self, id: str, k: int, freely: bool) -> _Asked:
        tables = self._catalog.tables(id)
        with mapped(tables[0].label):
            metric = self._catalog.metric_of(tables[0])
            queries = [(one.prefix, self._nearest_query(one, metric, k)) for one in tables]
        return _Asked(tables[0].label, queries, k, freely)

    def _nearest_query(self, table: Table, metric: Metric, k: int) -> sql.Composed:
        """Asks for the nearest rows of a table."""
        type, connection = table.column(table.vector).type, self._catalog.main
        return sql.SQL(
            "SELECT {id}::text, {vector} {operator} %b::{vectors}{type} AS distance "
            "FROM {table} WHERE {vector} IS NOT NULL ORDER BY distance LIMIT {k}"
        ).format(
            id=beside_parameters(sql.Identifier(table.id)),
            vector=beside_parameters(sql.Identifier(table.vector)),
            operator=operator_of_pgvector(connection, pg_indexes.OPERATORS[metric]),
            vectors=beside_parameters(of_pgvector(connection, "vector")),
            type=sql.SQL("" if type == "vector" else "::{}").format(
                *([] if type == "vector" else [beside_parameters(of_pgvector(connection, type))])
            ),
            table=beside_parameters(table.identifier), k=sql.Literal(k),
        )  # fmt: skip
