"""Holding a table's writers, and the fence for readers that look at an old snapshot.

Writers wait while the last of their writes are carried and the name moves; readers go on, but for
the instant of the move itself. The lock lives in a session of its own, which Postgres ends by
itself if this process freezes or dies.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from psycopg import errors, sql

from reembed.errors import LockedError
from reembed.stores.pg_client import Connection, connect, fetch_all, mapped
from reembed.stores.pg_table import Table

LOCK_TRIES = 40
SHORT = "250ms"
"""How long we queue for a lock at a time: who comes after us in the queue waits as long."""
PAUSE = 0.1
FENCE_SECONDS = 20.0
"""How long the swap waits for transactions that would see the new table empty."""


class Hold:
    """A transaction that holds the writers of some tables.

    Args:
        url: of the database.
        seconds: after which Postgres ends the session if nothing more comes from us.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self.connection = connect(url)
        self.connection.autocommit = False
        self.connection.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, false)",
            [f"{round(seconds * 1000)}ms"],
        )
        self.connection.commit()

    def writers_of(self, tables: Sequence[Table]) -> None:
        """Let writers wait from now on. Readers go on.

        Raises:
            LockedError: transactions that write to the tables do not end.
        """
        self._lock(tables, "SHARE ROW EXCLUSIVE", LOCK_TRIES)

    def everybody_of(self, tables: Sequence[Table]) -> None:
        """Let readers wait, too. A reader that holds on to its lock and then writes waits for us as
        we for it: then all is let go.

        Raises:
            LockedError: transactions that read the tables do not end.
        """
        self._lock(tables, "ACCESS EXCLUSIVE", LOCK_TRIES // 2)

    def _lock(self, tables: Sequence[Table], mode: str, tries: int) -> None:
        statement = sql.SQL("LOCK TABLE {} IN {} MODE").format(
            sql.SQL(", ").join(table.identifier for table in tables), sql.SQL(mode)
        )  # fmt: skip
        about = ", ".join(table.label for table in tables)
        for left in range(tries, 0, -1):
            with mapped(about):
                self.connection.execute("SAVEPOINT lock")
                self.connection.execute(
                    sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(SHORT))
                )
            try:
                self.connection.execute(statement)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                self.connection.execute("ROLLBACK TO SAVEPOINT lock")
                if left == 1:
                    raise LockedError(
                        f"{about}: {_holders(self.connection, tables)}",
                        "Nothing was moved. Let those transactions end, then run the same command "
                        "again.",
                    ) from error
                time.sleep(PAUSE)
            else:
                return

    def fence(self) -> None:
        """Wait until no transaction is left that looks at a snapshot older than this moment: it
        would find the new table under the live name, and none of its rows.

        Readers blocked by us hold snapshots, too, and are not waited for. A transaction that reads
        anew for each statement is waited for while its statement runs.

        Raises:
            LockedError: one does not end in FENCE_SECONDS.
        """
        mine = [self.connection.info.backend_pid]
        old = dict(_snapshots(self.connection, mine))
        deadline = time.monotonic() + FENCE_SECONDS
        while old and time.monotonic() < deadline:
            time.sleep(0.02)
            now = dict(_snapshots(self.connection, mine))
            old = {who: what for who, what in old.items() if who in now}
        if old:
            named = "; ".join(sorted(old.values())[:5])
            raise LockedError(
                f"transactions older than the new table's rows would see it empty: {named}",
                "Nothing was moved. Let them end, then run the same command again.",
            )

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        """Let everybody go on; what was not committed is undone."""
        self.connection.close()


def _snapshots(connection: Connection, mine: Sequence[int]) -> list[tuple[tuple[str, ...], str]]:
    """Transactions of others in this database that hold a snapshot: who, and in words."""
    rows = fetch_all(
        connection,
        "SELECT pid::text, backend_xmin::text, coalesce(xact_start::text, ''), format('pid %%s "
        "(%%s, %%s) since %%s', pid, usename, coalesce(nullif(application_name, ''), 'no name'), "
        "date_trunc('second', xact_start)) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_xmin IS NOT NULL AND NOT pid = ANY (%s) AND NOT %s = ANY "
        "(pg_blocking_pids(pid)) AND backend_type = 'client backend'",
        [list(mine), mine[0]],
    )
    return [((row[0], row[1], row[2]), row[3]) for row in rows]


def _holders(connection: Connection, tables: Sequence[Table]) -> str:
    rows = fetch_all(
        connection,
        "SELECT DISTINCT format('pid %%s (%%s, %%s, %%s) since %%s', l.pid, usename, coalesce("
        "nullif(application_name, ''), 'no name'), state, date_trunc('second', xact_start)) FROM "
        "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE locktype = 'relation' AND "
        "relation = ANY (%s) AND granted AND l.pid <> pg_backend_pid() ORDER BY 1 LIMIT 5",
        [[table.oid for table in tables]],
    )
    named = "; ".join(row[0] for row in rows) or "a session that is gone by now"
    return f"other sessions hold locks on it: {named}"
