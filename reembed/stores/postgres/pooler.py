"""Poolers that give each transaction another session: told from direct connections, and refused.

Through such a pooler our settings (no time limits, no row security) would be left in sessions that
the application's next transactions get, and its own in ours: nothing is set before this is asked. A
pooler gives itself away by the pid of its own that it puts in the key for cancelling; whether it
lets sessions go is tried with a second connection, which gets the first one's session then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import psycopg
from psycopg import pq

from reembed.errors import PreflightError

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

ROUNDS = 3
"""A busy pooler may give the session to somebody else than our second connection, once."""
ANSWER_SECONDS = 5.0
"""For which a pooler may keep a connection waiting before we say that it has no more."""
PID = b"SELECT pg_backend_pid()"


def refuse_transaction_pooler(connection: Connection, url: str, dial: Callable[[], Any]) -> None:
    """Raise PreflightError if a session is ours for one transaction only.

    Args:
        connection: new, in autocommit mode, with nothing set in it.
        dial: opens another one.
    """
    if _ask(connection, PID) == str(connection.info.backend_pid):
        return  # nothing is between us and the server
    other: Connection = dial()
    try:
        for _ in range(ROUNDS):
            first = _ask(connection, PID)
            begun = _ask(other, b"BEGIN") is not None  # a pooler of single statements takes none
            theirs = _ask(other, PID) if begun else None
            if not begun or theirs == first or _ask(connection, PID) != first:
                raise PreflightError(
                    f"{url}: the pooler there gives each transaction another session (PgBouncer's "
                    "pool_mode = transaction, Supabase's port 6543, a -pooler host of Neon), so "
                    "settings of a run would be left to the application's sessions",
                    "Give the database's own address as the URL, or a pooler's port that keeps "
                    "sessions (pool_mode = session).",
                )
            _ask(other, b"ROLLBACK")
    except TimeoutError:
        raise PreflightError(
            f"{url}: the pooler there gives no second session in {ANSWER_SECONDS:.0f} s, and a run "
            "needs four",
            "Give the database's own address as the URL, or let the pooler have more sessions "
            "(PgBouncer: default_pool_size).",
        ) from None
    finally:
        other.close()


def _ask(connection: Connection, query: bytes) -> str | None:
    """The first value of the answer, empty where it has none; None where it is an error.

    Raises TimeoutError where there is none in time.
    """
    pgconn = connection.pgconn
    pgconn.send_query(query)
    deadline = time.monotonic() + ANSWER_SECONDS
    pgconn.consume_input()
    while pgconn.is_busy():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)
        pgconn.consume_input()
    answer: str | None = None
    while (result := pgconn.get_result()) is not None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            answer = (result.get_value(0, 0) or b"").decode()
        elif result.status == pq.ExecStatus.COMMAND_OK:
            answer = ""
    return answer
