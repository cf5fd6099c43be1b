"""Locks on tables that an application uses: asked for briefly, held briefly, and let go of.

Who waits for a lock makes everybody wait who comes after, so we queue for a moment, give up, let
the others pass, and queue again. A hold's lock lives in a session of its own, which Postgres ends
by itself if this process freezes or dies.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg
from psycopg import errors, pq, sql

from reembed.errors import LockedError
from reembed.stores.postgres.client import Connection, connect, mapped
from reembed.stores.postgres.locks.sessions import (
    entangled,
    horizon,
    in_the_way,
    old_waiters,
    snapshots,
    vacuumed,
)
from reembed.stores.postgres.schema.table import Table

LOCK_TRIES = 40
SHORT = 0.25
"""Seconds for which we queue for a lock at a time: who comes after us waits as long."""
PAUSE = 0.1
FENCE_SECONDS = 20.0
"""How long the swap waits for transactions that would see the new table empty."""
HEIR_SECONDS = 10.0
"""After which Postgres ends the session that took a hold over, if nothing more comes from us."""
ADJACENT = 0.002
"""Seconds between two requests for a lock, so that they queue in this order and nobody between."""
CANCEL_AGAIN = 0.05
WRITERS, EVERYBODY = "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"
"""Lock modes that let writers wait, and readers too."""
MAINTENANCE = "SHARE UPDATE EXCLUSIVE"
"""The one of vacuums, beside which everybody goes on."""
TRY_AGAIN = "Let those transactions end, then run the same command again."

T = TypeVar("T")


def patiently(
    connection: Connection, tables: Sequence[Table], work: Callable[[], T], *,
    mode: str = EVERYBODY,
) -> T:  # fmt: skip
    """Do work that locks tables, in a transaction; again and again if others are in the way.

    Args:
        mode: in which it locks them, to tell who is.

    Raises:
        LockedError: they do not end.
    """
    for left in range(LOCK_TRIES, 0, -1):
        try:
            with connection.transaction():
                _end_vacuum(connection, tables)
                return work()
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if left == 1:
                raise _locked(connection, tables, mode) from error
            time.sleep(PAUSE)
    raise AssertionError("the last try returns or raises")


class Hold:
    """A transaction that holds the writers of some tables.

    Args:
        url: of the database.
        seconds: after which Postgres ends the session if nothing more comes from us.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._heir: Connection | None = None
        self._asked = ""
        self.began: float | None = None
        self.asked = 0.0
        self.connection = self._session(seconds)

    def _session(self, seconds: float) -> Connection:
        connection = connect(self._url)
        connection.autocommit = False
        connection.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, false)",
            [f"{round(seconds * 1000)}ms"],
        )
        connection.commit()
        return connection

    def writers_of(self, tables: Sequence[Table], *, heir: bool = False) -> None:
        """Let writers wait from now on. Readers go on.

        Args:
            heir: whether a second session shall queue right behind for the same lock; see
                `hand_over`.

        Raises:
            LockedError: transactions that write to the tables do not end.
        """
        self._lock(tables, WRITERS, LOCK_TRIES, heir)
        self.began = self.asked

    @property
    def seconds(self) -> float | None:
        """For how long writers have waited by now; None where they do not."""
        return None if self.began is None else time.monotonic() - self.began

    def everybody_of(self, tables: Sequence[Table]) -> None:
        """Let readers wait, too.

        A reader that keeps its lock and then writes waits for us as we for it, and one of us would
        have to die of it. Then we go, before Postgres looks for deadlocks.

        Raises:
            LockedError: transactions that read the tables do not end.
        """
        self._lock(tables, EVERYBODY, LOCK_TRIES // 2, heir=False)

    def _lock(self, tables: Sequence[Table], mode: str, tries: int, heir: bool) -> None:
        statement = _locking(tables, mode)
        with mapped(_about(tables)):
            for left in range(tries, 0, -1):
                if mode == EVERYBODY and (others := entangled(self.connection, tables)):
                    raise LockedError(
                        f"{_about(tables)}: sessions that have read it wait to write to it: "
                        f"{'; '.join(others)}",
                        f"Nothing was moved. {TRY_AGAIN}",
                    )
                if mode == WRITERS:
                    self._asked = horizon(self.connection)
                self.connection.execute("SAVEPOINT lock")
                try:
                    _end_vacuum(self.connection, tables)
                    self.asked = time.monotonic()
                    if heir:
                        self._lock_with_heir(statement)
                    else:
                        self.connection.execute(statement)
                except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                    self.connection.execute("ROLLBACK TO SAVEPOINT lock")
                    if left == 1:
                        raise _locked(self.connection, tables, mode) from error
                    time.sleep(PAUSE)
                else:
                    return

    def _lock_with_heir(self, statement: sql.Composed) -> None:
        """Ask for a lock, and in the same moment in a second session, which waits until we commit:
        whoever comes later waits behind it."""
        self._heir = heir = self._heir or self._session(HEIR_SECONDS)
        heir.rollback()
        heir.execute("SET LOCAL lock_timeout = 0")
        query = statement.as_bytes(self.connection)
        self.connection.pgconn.send_query(query)
        time.sleep(ADJACENT)
        heir.pgconn.send_query(query)
        try:
            result_of(self.connection)
        except BaseException:
            self._dismiss_heir()
            raise

    def hand_over(self, tables: Sequence[Table]) -> None:
        """Commit, and hold the writers in a new transaction. What was committed is in every
        snapshot that is taken from now on. A writer that queued before the heir comes between.

        Raises:
            LockedError: such a writer does not end.
        """
        assert self._heir is not None, "writers_of was told to line one up"
        self.connection.commit()
        heir, self._heir = self._heir, None
        self.connection.close()
        self.connection = heir
        try:
            result_of(heir, HEIR_SECONDS)
        except (errors.QueryCanceled, errors.DeadlockDetected) as error:
            heir.rollback()
            raise _locked(heir, tables, WRITERS) from error

    def fence(self) -> None:
        """Wait until no transaction is left that looks at a snapshot older than this moment: it
        would find the new table under the live name, and none of its rows.

        A transaction that looks anew for each statement is waited for while its statement runs. One
        that waits for us is not: its snapshot is of after we asked for the lock, or else we go.

        Raises:
            LockedError: one does not end in FENCE_SECONDS, or waits for us.
        """
        wait_for_older(
            self.connection, "transactions older than the new table's rows would see it empty",
            lambda: old_waiters(self.connection, self._asked),
        )  # fmt: skip

    def commit(self) -> None:
        """Commit, and let everybody go on. An heir that was not needed goes first: it would get the
        lock, and keep it."""
        self._dismiss_heir()
        self.connection.commit()

    def close(self) -> None:
        """Let everybody go on; what was not committed is undone."""
        try:
            self._dismiss_heir()
        finally:
            self.connection.close()

    def _dismiss_heir(self) -> None:
        heir, self._heir = self._heir, None
        if heir is None:
            return
        with contextlib.suppress(psycopg.Error):  # or it would go on waiting for the lock
            result_of(heir, 0.0)
        heir.close()


def wait_for_older(
    connection: Connection, why: str, others: Callable[[], list[str]] = list
) -> None:  # fmt: skip
    """Wait until no transaction is left that looks at a snapshot older than this moment.

    Args:
        why: they are waited for, in the message.
        others: more of them, that are found at the end.

    Raises:
        LockedError: one does not end in FENCE_SECONDS.
    """
    old = snapshots(connection)
    deadline = time.monotonic() + FENCE_SECONDS
    while old and time.monotonic() < deadline:
        time.sleep(0.02)
        now = snapshots(connection)
        old = {who: what for who, what in old.items() if who in now}
    named = "; ".join(sorted(old.values())[:5] or others())
    if named:
        raise LockedError(f"{why}: {named}", f"Nothing was moved. {TRY_AGAIN}")


def _end_vacuum(connection: Connection, tables: Sequence[Table]) -> None:
    """Let Postgres end an autovacuum of the tables, which it does for whoever has waited long
    enough for a lock: for one beside which everybody goes on, so that nobody waits behind us. No
    other vacuum begins in this transaction. From here on it waits for locks as long as SHORT. A
    table that is gone has no name, and an autovacuum that was to begin may still hold its id."""
    there = [table for table in tables if table.name]
    if seconds := vacuumed(connection, there):
        _wait_at_most(connection, seconds)
        connection.execute(_locking(there, MAINTENANCE))
    _wait_at_most(connection, SHORT)


def _locking(tables: Sequence[Table], mode: str) -> sql.Composed:
    return sql.SQL("LOCK TABLE {} IN {} MODE").format(
        sql.SQL(", ").join(table.identifier for table in tables), sql.SQL(mode)
    )


def _wait_at_most(connection: Connection, seconds: float) -> None:
    """For locks, in this transaction."""
    connection.execute(
        sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{round(seconds * 1000)}ms"))
    )


def result_of(connection: Connection, seconds: float | None = None) -> None:
    """The end of a statement that was sent; after `seconds` it is cancelled.

    Raises psycopg.Error as `execute` does.
    """
    if seconds is not None:
        _cancel_after(connection, seconds)
    failed: psycopg.Error | None = None
    while (result := connection.pgconn.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failed = errors.error_from_result(result)
    if failed is not None:
        raise failed


def _cancel_after(connection: Connection, seconds: float) -> None:
    """Cancel again and again: a server that has not read the statement yet lets a cancel pass."""
    deadline = time.monotonic() + seconds
    connection.pgconn.consume_input()
    while connection.pgconn.is_busy():
        if time.monotonic() >= deadline:
            connection.cancel()
            deadline = time.monotonic() + CANCEL_AGAIN
        time.sleep(0.001)
        connection.pgconn.consume_input()


def _about(tables: Sequence[Table]) -> str:
    return ", ".join(table.label for table in tables)


def _locked(connection: Connection, tables: Sequence[Table], mode: str) -> LockedError:
    named = "; ".join(in_the_way(connection, tables, mode)) or "a session that is gone by now"
    return LockedError(
        f"{_about(tables)}: other sessions hold locks on it: {named}",
        f"Nothing was moved. {TRY_AGAIN}",
    )
