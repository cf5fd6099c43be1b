"""The nearest rows of a table, for an application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from psycopg import sql

from reembed.records import Metric
from reembed.stores.postgres.client import Connection, beside_parameters, fetch_all
from reembed.stores.postgres.copy.encode import VectorDumper
from reembed.stores.postgres.live.rows import View
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.search_path import of_pgvector, operator_of_pgvector

_WIDE = """
SELECT set_config('hnsw.ef_search', greatest(coalesce(current_setting('hnsw.ef_search', true),
  '40')::int, least(%s, 1000))::text, true)
"""
_ITERATIVE = """
SELECT set_config('hnsw.iterative_scan', 'strict_order', true),
  set_config('ivfflat.iterative_scan', 'relaxed_order', true) FROM pg_extension
WHERE extname = 'vector' AND string_to_array(extversion, '.')::int[] >= '{0,8}'
"""
"""So that an index goes on until enough rows match the condition. Older ones give fewer."""


def nearest(
    connection: Connection, view: View, vector: Any, k: int,
    where: Mapping[str, Any] | None, vectors: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Up to `k` records, nearest first, each with its `distance` as Chroma tells it.

    Args:
        connection: in a transaction.
        vector: `(d,) float32`.
        where: see `View.where`.
        vectors: whether to give the records' own.
    """
    table = view.table
    condition, values = view.where(where or {})
    connection.execute(_WIDE, [k])
    if where:
        connection.execute(_ITERATIVE)
    connection.adapters.register_dumper(np.ndarray, VectorDumper)
    type = table.column(table.vector).type
    query = sql.SQL(
        "SELECT {columns}, {vector} {operator} %b::{vectors}{type} AS reembed_distance FROM "
        "{table} WHERE {vector} IS NOT NULL AND {condition} ORDER BY reembed_distance LIMIT %s"
    ).format(
        columns=beside_parameters(view.selected(vectors)),
        vector=beside_parameters(sql.Identifier(table.vector)),
        operator=operator_of_pgvector(connection, pg_indexes.OPERATORS[view.metric]),
        vectors=beside_parameters(of_pgvector(connection, "vector")),
        type=sql.SQL("") if type == "vector"
        else sql.SQL("::{}").format(beside_parameters(of_pgvector(connection, type))),
        table=beside_parameters(table.identifier), condition=condition,
    )  # fmt: skip
    rows = fetch_all(connection, query, [np.asarray(vector, np.float32), *values, k])
    return [
        view.record(row) | {"distance": _as_chroma(view.metric, float(row[-1]))}
        for row in rows
    ]  # fmt: skip


def _as_chroma(metric: Metric, distance: float) -> float:
    """Pgvector's number as Chroma has it: 1 - cosine, squared l2, 1 - inner product."""
    return {"cosine": distance, "l2": distance**2, "ip": 1.0 + distance}[metric]
