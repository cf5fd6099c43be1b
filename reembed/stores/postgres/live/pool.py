"""The connections of one live name: a few, lent to one thread at a time.

They are an application's connections, with its role's own limits and policies. No statement is
prepared, since a plan that the server keeps fails once after a vector column was exchanged.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from psycopg import pq

from reembed.errors import SourceChangedError
from reembed.stores.postgres.client import Connection, connect, database_key, is_alive, keep_secrets

MOST = 8
"""Connections at most; more threads than that wait for one another."""


class Pool:
    """See the module. Nothing is opened before it is needed.

    Args:
        url: of the database; its secrets are taken out of it at once.
        most: connections at most.
    """

    def __init__(self, url: str, most: int = MOST) -> None:
        self.url = keep_secrets(url)
        self._free: list[tuple[Connection, float]] = []
        self._room = threading.BoundedSemaphore(most)
        self._most = most
        self._process = os.getpid()
        self._database: str | None = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """One that nobody else has.

        Raises:
            UnreachableError, PreflightError: as `client.connect`.
            SourceChangedError: another database answers than before.
        """
        if os.getpid() != self._process:  # forked: these are our parent's
            self.__init__(self.url, self._most)  # type: ignore[misc]
        with self._room:
            connection = self._taken() or self._dialled()
            try:
                yield connection
            finally:
                idle = connection.info.transaction_status == pq.TransactionStatus.IDLE
                if connection.broken:  # and with it, most likely, all that have been idle
                    self.close()
                if connection.closed or connection.broken or not idle:
                    connection.close()
                else:
                    self._free.append((connection, time.monotonic()))

    def _taken(self) -> Connection | None:
        while self._free:
            with contextlib.suppress(IndexError):
                connection, since = self._free.pop()
                if is_alive(connection, since):
                    return connection
        return None

    def _dialled(self) -> Connection:
        connection = connect(self.url, application=True)
        connection.prepare_threshold = None
        key = database_key(connection)
        if self._database is None:
            self._database = key
        if key != self._database:
            connection.close()
            raise SourceChangedError(
                f"{self.url}: another database answers now ({key}) than at first "
                f"({self._database}): somebody created it again or moved the address. Open the "
                "live name again if that is meant"
            )
        return connection

    def close(self) -> None:
        """Close all that are not lent."""
        while self._free:
            with contextlib.suppress(IndexError):
                self._free.pop()[0].close()
