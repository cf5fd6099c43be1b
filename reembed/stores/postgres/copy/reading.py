"""What COPY BINARY sends, read in a thread of its own while another one parses what came before.

So the server need not wait until a block is parsed, nor, between two pages, for what is done with
a page. A block is so large that the calls it takes are few, and so small that its memory is used
again by the next one: fresh memory for a whole shard at once costs more than what is done with it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from typing import Self

import psycopg
from psycopg import errors, sql

from reembed.stores.postgres.client import Connection
from reembed.stores.postgres.copy.parse import HEADER, TRAILER, Block, Chunk

BLOCK_BYTES = 1 << 22
"""Bytes of rows that are parsed at once."""
BLOCKS_AHEAD = 2
"""Blocks that wait to be parsed."""
PAUSE = 0.1
"""Seconds between two looks whether anybody still takes what is read."""
CANCEL_SECONDS = 5.0


class GivenUpError(Exception):
    """Nobody takes what is read."""


class Reader:
    """A thread that reads one COPY after another with one connection. What is not taken when its
    block ends is given up, and so is the transaction it was read in."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.closed = threading.Event()
        self._thread = ThreadPoolExecutor(1, "read")
        self._last: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Do it as soon as the thread is free."""
        self._last = self._thread.submit(work)
        return self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        if self._last is not None and not self._last.done():
            with contextlib.suppress(psycopg.Error):
                self.connection.cancel_safe(timeout=CANCEL_SECONDS)
        self._thread.shutdown(cancel_futures=True)


class Reading:
    """The rows of one COPY, a block at a time, in the order in which they come.

    Args:
        width: fields in a row.
    """

    def __init__(self, reader: Reader, query: sql.Composed, width: int) -> None:
        self._reader, self._query, self._width = reader, query, width
        self._blocks: Queue[list[Chunk] | None] = Queue(BLOCKS_AHEAD)
        self._done = reader.submit(self._read)

    def __iter__(self) -> Iterator[Block]:
        """Raises what went wrong with reading."""
        while (chunks := self._blocks.get()) is not None:
            yield Block(chunks, self._width)
        self._done.result()

    def _read(self) -> None:
        connection = self._reader.connection
        try:
            with connection.cursor() as cursor, cursor.copy(self._query) as copy:
                for chunks in _gathered(connection, copy):
                    self._put(chunks)
        finally:
            self._put(None)

    def _put(self, chunks: list[Chunk] | None) -> None:
        while not self._reader.closed.is_set():
            with contextlib.suppress(Full):
                self._blocks.put(chunks, timeout=PAUSE)
                return
        raise GivenUpError


def _gathered(connection: Connection, copy: psycopg.Copy) -> Iterator[list[Chunk]]:
    """A block's rows at a time; libpq hands out one a chunk, the first behind the header. What it
    holds is taken from it: to ask psycopg for each row costs as much as to receive it."""
    take = connection.pgconn.get_copy_data
    waiting: list[Chunk] = []
    size = 0
    chunk: Chunk = copy.read()[len(HEADER) :]
    while len(chunk) > len(TRAILER):
        waiting.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            yield waiting
            waiting, size = [], 0
        found, chunk = take(1)
        if found == 0:
            chunk = copy.read()  # waits for the server
        elif found < 0:
            raise _failure(connection)
    copy.read()  # to the end, where an error may still come
    if waiting:
        yield waiting


def _failure(connection: Connection) -> psycopg.Error:
    """What ended a COPY before its last row."""
    result = connection.pgconn.get_result()
    while connection.pgconn.get_result() is not None:
        pass
    if result is None:
        return errors.OperationalError("the server ended a COPY without saying why")
    return errors.error_from_result(result)
