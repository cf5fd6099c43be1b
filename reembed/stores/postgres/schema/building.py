"""How an index is built: with how much memory, and with how many workers.

pgvector builds an HNSW index in memory, and 2.7 times slower from where that is full. Several
workers build it in shared memory, of which Postgres takes all that it may at once: no more is
allowed than the index needs. A container may have next to none (64 MB, unless it is told
otherwise); then one worker builds it in memory of its own.
"""

from __future__ import annotations

import re

from psycopg import errors, sql

from reembed.stores.postgres.client import Connection, fetch_one
from reembed.stores.postgres.schema.table import Table

MOST_MEMORY = 1 << 30
"""`maintenance_work_mem` at most, where the server's is lower."""
SPARE_MEMORY = 1 << 24
"""What an HNSW index of no rows has."""
PARALLEL_FROM = "128kB"
"""Smallest table that several workers index. Postgres counts no pages on which long vectors are
stored apart, so its own limit of 8 MB leaves out 20,000 rows of short texts."""
VECTOR_INDEX = re.compile(r" USING (hnsw|ivfflat) ")
M = re.compile(r"\bm='?(\d+)")

_LONGEST = """
SELECT CASE WHEN min(atttypmod) > 0
  THEN max(atttypmod * CASE typname WHEN 'vector' THEN 4 ELSE 2 END) END
FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
WHERE attrelid = %s AND NOT attisdropped AND typname IN ('vector', 'halfvec')
"""
"""Bytes of the longest vectors, those on their way to the table too; null where a column takes any.
"""


def prepare(connection: Connection, table: Table, tail: str, *, lasting: bool) -> None:
    """Give the session what an index of the table is built with. Never less than the server does.

    Args:
        tail: the index's definition from ` USING` on.
        lasting: for the session, not for the transaction alone.
    """
    kind = VECTOR_INDEX.search(tail)
    settings = {"maintenance_work_mem": str(MOST_MEMORY >> 10)}  # in kB
    if kind is not None:
        settings["min_parallel_table_scan_size"] = PARALLEL_FROM
        if kind[1] == "hnsw":
            settings["maintenance_work_mem"] = str(_graph_bytes(connection, table, tail) >> 10)
    for name, value in settings.items():
        sign = "<" if name == "maintenance_work_mem" else ">"
        connection.execute(
            sql.SQL(
                "SELECT set_config({0}, {1}, {2}) WHERE pg_size_bytes(current_setting({0})) {3} "
                "pg_size_bytes({4})"
            ).format(
                sql.Literal(name), sql.Literal(value), sql.Literal(not lasting), sql.SQL(sign),
                sql.Literal(f"{value}kB" if value.isdigit() else value),
            )
        )  # fmt: skip


def _graph_bytes(connection: Connection, table: Table, tail: str) -> int:
    """What an HNSW index of the table's longest vectors takes while it is built."""
    found = fetch_one(connection, _LONGEST, [table.oid])
    if found is None or found[0] is None:
        return MOST_MEMORY
    counted = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
    told = M.search(tail)
    each = int(found[0]) + 48 * (int(told[1]) if told else 16) + 512
    return min(MOST_MEMORY, SPARE_MEMORY + (int(counted[0]) if counted else 0) * each)


def lacks_shared_memory(error: BaseException) -> bool:
    """Whether the workers of a build got no memory that they share."""
    return isinstance(error, errors.Error) and (
        (error.diag.source_function or "").startswith("dsm_impl")
    )


def forbid_workers(connection: Connection, *, lasting: bool) -> None:
    """Let one process build what comes; see `prepare`."""
    connection.execute(
        sql.SQL("SELECT set_config('max_parallel_maintenance_workers', '0', {})").format(
            sql.Literal(not lasting)
        )
    )
