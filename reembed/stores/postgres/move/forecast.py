"""What a move will ask of an application, as `plan` foretells it from the table's size, its indexes
and what was just measured on it."""

from __future__ import annotations

import time

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.table import Table

FIXED_SECONDS = 1.0
"""Of the last comparison and its files, which are synced, of locks, and of changes of the catalog;
measured on two cores, and several times as long where others keep them busy."""
LAST_ROWS = 50
"""That are carried while writers wait, at most, where their writes are logged."""
ROW_SECONDS = {"hnsw": 0.004, "ivfflat": 0.001}
"""To index one more vector of 768 dimensions (measured with pgvector 0.8); it grows with them."""
SAMPLE = 1_000


def hold_forecast(connection: Connection, table: Table, *, logged: bool) -> str:
    """How long writers will wait for the exchange of a vector column, in words.

    Args:
        logged: whether the table's writes are logged, so that only the last ones are looked at.
    """
    began = time.monotonic()
    row = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
    counted = time.monotonic() - began
    rows, each = int(row[0]) if row else 0, _seconds_of_row(connection, table)
    held = FIXED_SECONDS + 2 * counted + min(rows, LAST_ROWS) * 2 * each
    if not logged:
        began = time.monotonic()
        found = fetch_all(
            connection,
            sql.SQL("SELECT md5({}::text) FROM {} LIMIT {}").format(
                sql.Identifier(table.vector), table.identifier, sql.Literal(SAMPLE)
            ),
        )
        held += 2 * rows * (time.monotonic() - began) / max(len(found), 1)
    return (
        f"writers wait for about {held:.1f} s at its end ({rows:,} rows, counted in {counted:.2f} s"
        + ("" if logged else "; all of them are compared, since no writes are logged") + ")"
    )  # fmt: skip


def _seconds_of_row(connection: Connection, table: Table) -> float:
    """To index one row's vector."""
    methods = fetch_all(
        connection,
        "SELECT amname FROM pg_index i JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid "
        "= relam WHERE indrelid = %s AND amname IN ('hnsw', 'ivfflat')",
        [table.oid],
    )
    share = (table.dimensions or 768) / 768
    return 0.001 + sum(ROW_SECONDS[method] * share for (method,) in methods)
