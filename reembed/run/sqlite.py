"""Files of SQLite that are ours: for this user alone, and removed with what lies beside them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from reembed.run.disk import TEMPORARY, open_private, remove, sqlite_errors, write_errors

WAL_TRIES = 100
WAL_PAUSE = 0.05
"""Seconds between two tries to switch to a write-ahead log while another process does."""
WAIT = 60
"""Seconds for which a statement waits while another process writes."""


def open_database(path: Path, *, threads: bool = False) -> sqlite3.Connection:
    """Open a file, or make it. Every statement is its own transaction, but in `transaction`.

    Args:
        threads: several of them use the connection, one at a time.

    Raises:
        PreflightError: the file cannot be written, or the disk is full.
    """
    with write_errors(path):
        os.close(open_private(path, os.O_RDWR))
    with sqlite_errors(path):
        return sqlite3.connect(
            path, isolation_level=None, timeout=WAIT, check_same_thread=not threads
        )


def temporary_errors() -> contextlib.AbstractContextManager[None]:
    """`sqlite_errors` of what SQLite keeps in files of its own, which have no name."""
    return sqlite_errors("the temporary directory of SQLite (TMPDIR, else /var/tmp)", TEMPORARY)


def files_of(path: Path) -> list[Path]:
    """The file, and those that SQLite may keep beside it."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]


def remove_database(path: Path) -> None:
    """Remove it with what lies beside it, if it is there."""
    for one in files_of(path):
        remove(one)


def use_wal(db: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. Of several that do so at once, SQLite refuses all but one
    without waiting."""
    for left in range(WAL_TRIES, 0, -1):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if left == 1 or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(WAL_PAUSE)
        else:
            return


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block's writes, or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has ended it itself where the disk is full
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise
