"""What COPY BINARY sends, read in a thread of its own while another one parses what came before.

So the server need not wait until a block is parsed, nor, between two pages, for what is done with
a page. A block is so large that the calls it takes are few, and so small that its memory is used
again by the next one: fresh memory for a whole shard at once costs more than what is done with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from queue import Empty, Queue

import psycopg
from psycopg import errors, sql

from reembed.stores.postgres.client import Connection
from reembed.stores.postgres.copy.parse import HEADER, TRAILER, Block, Chunk

BLOCK_BYTES = 1 << 22
"""Bytes of rows that are parsed at once."""
BLOCKS_AHEAD = 2
"""Blocks that wait to be parsed."""
PAUSE = 0.1
"""Seconds between two looks at a reading that is to end."""


class Reading:
    """The rows of one COPY, a block at a time, in the order in which they come.

    Args:
        thread: reads as soon as it is free; a connection has one COPY at a time.
        width: fields in a row.
    """

    def __init__(
        self, thread: Executor, connection: Connection, query: sql.Composed, width: int
    ) -> None:
        self._connection, self._query, self._width = connection, query, width
        self._blocks: Queue[list[Chunk] | None] = Queue(BLOCKS_AHEAD)
        self._done = thread.submit(self._read)

    def __iter__(self) -> Iterator[Block]:
        """Raises what went wrong with reading. If not all is taken, `stop` is to be called."""
        while (chunks := self._blocks.get()) is not None:
            yield Block(chunks, self._width)
        self._done.result()

    def stop(self) -> None:
        """Read no more; what is read is lost, and so is the transaction it was read in."""
        if self._done.cancel() or self._done.done():
            return
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=5.0)
        while not self._done.done():
            with contextlib.suppress(Empty):
                self._blocks.get(timeout=PAUSE)

    def _read(self) -> None:
        try:
            with self._connection.cursor() as cursor, cursor.copy(self._query) as copy:
                for chunks in _gathered(self._connection, copy):
                    self._blocks.put(chunks)
        finally:
            self._blocks.put(None)


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
