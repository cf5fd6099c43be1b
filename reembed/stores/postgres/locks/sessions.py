"""Other sessions, as the database sees them: whose locks and whose snapshots are in our way.

`pg_stat_activity` is frozen at the first look in a transaction, so every look here drops that copy
first: in a loop, the old one would never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.table import Table

HARMLESS: dict[str, list[str]] = {
    "SHARE ROW EXCLUSIVE": ["AccessShareLock", "RowShareLock"],
    "ACCESS EXCLUSIVE": [],
}
"""Locks of others that do not keep us from a mode."""
_NAMED = """'pid ' || a.pid || ' (' || concat_ws(', ', coalesce(usename, backend_type),
  nullif(application_name, ''), state) || ')' || coalesce(' since ' || date_trunc('second',
  xact_start), '')"""
_HOLDERS = """FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE locktype = 'relation'
  AND relation = ANY (%s) AND granted AND a.pid <> pg_backend_pid() AND database = (SELECT oid FROM
  pg_database WHERE datname = current_database())"""
_OLD = """FROM pg_stat_activity a WHERE datname = current_database() AND backend_xmin IS NOT NULL
  AND a.pid <> pg_backend_pid() AND backend_type = 'client backend'"""
_WAITS_FOR_US = "pg_backend_pid() = ANY (pg_blocking_pids(a.pid))"


def in_the_way(connection: Connection, tables: Sequence[Table], mode: str) -> list[str]:
    """Sessions that keep us from locking the tables in a mode: pid, user, application, state, and
    since when."""
    rows = _look(
        connection,
        f"SELECT DISTINCT {_NAMED} {_HOLDERS} AND mode <> ALL (%s) ORDER BY 1 LIMIT 5",
        [_oids(tables), HARMLESS[mode]],
    )
    return [row[0] for row in rows]


def vacuumed(connection: Connection, tables: Sequence[Table]) -> float:
    """Seconds to wait for a lock so that Postgres ends an autovacuum that is in the way, which it
    does for whoever has waited for deadlock_timeout. 0 where there is none."""
    rows = _look(
        connection,
        f"SELECT current_setting('deadlock_timeout')::interval {_HOLDERS} AND backend_type = "
        "'autovacuum worker' LIMIT 1",
        [_oids(tables)],
    )
    return 1.5 * float(rows[0][0].total_seconds()) if rows else 0.0


def entangled(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Sessions that hold a lock on the tables and wait for one of ours: if we waited for them, too,
    Postgres would end one of us."""
    rows = _look(
        connection,
        f"SELECT DISTINCT {_NAMED} {_HOLDERS} AND wait_event_type = 'Lock' AND {_WAITS_FOR_US} "
        "ORDER BY 1 LIMIT 5",
        [_oids(tables)],
    )
    return [row[0] for row in rows]


def horizon(connection: Connection) -> str:
    """The oldest transaction id that is still at work. No snapshot taken later is older."""
    return str(_look(connection, "SELECT pg_snapshot_xmin(pg_current_snapshot())::xid", [])[0][0])


def old_waiters(connection: Connection, since: str) -> list[str]:
    """Sessions that wait for us and look at a snapshot older than a horizon: of a transaction that
    does not look anew for each statement."""
    rows = _look(
        connection,
        f"SELECT {_NAMED} {_OLD} AND {_WAITS_FOR_US} AND age(backend_xmin) > age(%s::xid) LIMIT 5",
        [since],
    )
    return [row[0] for row in rows]


def snapshots(connection: Connection) -> dict[tuple[str, ...], str]:
    """Transactions of others in this database that look at a snapshot and do not wait for us: who,
    and in words."""
    rows = _look(
        connection,
        "SELECT a.pid::text, backend_xmin::text, coalesce(xact_start::text, ''), "
        f"{_NAMED} {_OLD} AND NOT {_WAITS_FOR_US}",
        [],
    )
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def _oids(tables: Sequence[Table]) -> list[int]:
    return [table.oid for table in tables]


def _look(
    connection: Connection, query: LiteralString, parameters: Sequence[Any]
) -> list[tuple[Any, ...]]:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    return fetch_all(connection, query, parameters)
