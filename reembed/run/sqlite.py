"""Files of SQLite that are ours: opened whole, for this user alone, and removed with what lies
beside them.

An index is one that only repeats what other files hold. It has a checksum beside it, written when
it is closed: one that was changed by another since is not believed, and one that is damaged is no
loss. Either is removed, and made again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from reembed.errors import OutOfMemoryError, PreflightError, UnreachableError
from reembed.records import chunked
from reembed.run.disk import (
    STATE,
    TEMPORARY,
    file_sha256,
    open_private,
    read_errors,
    remove,
    write_atomic,
    write_errors,
)

Found = TypeVar("Found")

WAL_TRIES = 100
WAL_PAUSE = 0.05
"""Seconds between two tries to switch to a write-ahead log while another process does."""
WAIT = 60
"""Seconds for which a statement waits while another process writes."""
SQL_VARIABLES = 500
"""Keys in one SELECT; SQLite's own limit was 999 for a long time."""

_MEANT = {
    sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EACCES, sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}  # fmt: skip
"""What SQLite says of a disk, as the system says it."""
_MEMORY = (
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_NOMEM, sqlite3.SQLITE_IOERR_SHMMAP,
)  # fmt: skip
"""Where SQLite may not map memory it says "disk I/O error", and the disk is well."""


@contextlib.contextmanager
def sqlite_errors(path: Path | str, instead: str = STATE) -> Iterator[None]:
    """`write_errors` for a SQLite file. A damaged file is left to the caller.

    Raises:
        PreflightError: the disk is full or fails, or the file may not be written.
        UnreachableError: another process holds its lock.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if extended in _MEMORY:
            raise OutOfMemoryError(f"{path}: {error}") from error
        meant = _MEANT.get(extended & 0xFF)
        if meant is not None:
            with write_errors(path, instead):
                raise OSError(meant, str(error)) from error
        raise UnreachableError(
            f"{path}: {error}",
            "Another process may be using it; run the same command again to resume.",
        ) from error


@contextlib.contextmanager
def index_errors(path: Path) -> Iterator[None]:
    """`sqlite_errors` for an index. Whatever tells of damage (a table that is not there, values of
    other types than were written) is a sqlite3.DatabaseError."""
    with sqlite_errors(path):
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                raise
            raise sqlite3.DatabaseError(str(error)) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise sqlite3.DatabaseError(str(error)) from error


def temporary_errors() -> contextlib.AbstractContextManager[None]:
    """`sqlite_errors` of what SQLite keeps in files of its own, which have no name."""
    return sqlite_errors("the temporary directory of SQLite (TMPDIR, else /var/tmp)", TEMPORARY)


def files_of(path: Path) -> list[Path]:
    """The file, and those that SQLite may keep beside it."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]


def remove_database(path: Path) -> None:
    """Remove it with what lies beside it, if it is there."""
    for one in (*files_of(path), sum_of(path)):
        remove(one)


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


def open_index(path: Path, schema: str) -> sqlite3.Connection:
    """Open an index, or make it. One that was changed since it was closed, or is damaged, is begun
    anew.

    Raises:
        PreflightError: the file cannot be written, or the disk is full or fails.
    """
    if is_as_it_was_closed(path):
        remove(sum_of(path))  # until it is closed, what is in it changes
        with contextlib.suppress(sqlite3.DatabaseError):
            return _opened_index(path, schema)
    remove_database(path)
    with read_errors(path):
        try:
            return _opened_index(path, schema)
        except sqlite3.DatabaseError as error:  # in a file that was made just now
            raise OSError(errno.EIO, str(error)) from error


def _opened_index(path: Path, schema: str) -> sqlite3.Connection:
    db = open_database(path)
    try:
        with index_errors(path):
            _use_wal(db)
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.execute("PRAGMA synchronous = OFF")  # if it is lost, it is made again
            db.executescript(schema)
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection) -> None:
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


def close_index(db: sqlite3.Connection, path: Path) -> None:
    """Close an index, and write down what is in it."""
    try:
        db.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return  # closed already
    db.close()
    if path.with_name(f"{path.name}-wal").exists():
        return  # another process has it open
    with contextlib.suppress(OSError, PreflightError):  # it is made again without
        write_atomic(sum_of(path), file_sha256(path).encode())


def is_as_it_was_closed(path: Path) -> bool:
    """Whether nobody has changed an index since it was closed. One that a killed process left open
    has no checksum and is believed, as far as SQLite finds it whole."""
    with read_errors(path):
        sum = sum_of(path)
        if not sum.is_file():
            return path.is_file() or not path.is_symlink()
        return path.is_file() and sum.read_bytes().decode("ascii", "replace") == file_sha256(path)


def read_closed(path: Path, read: Callable[[sqlite3.Connection], Found | None]) -> Found | None:
    """What `read` finds in an index that is closed, read where it is; None of every other. Writes
    nothing."""
    try:
        written = sum_of(path).read_bytes()
        if file_sha256(path).encode() != written:
            return None
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            found = read(db)
        # Else another opened it meanwhile.
        return found if sum_of(path).read_bytes() == written else None
    except (OSError, sqlite3.Error, ValueError, TypeError):
        return None


def sum_of(path: Path) -> Path:
    """The checksum of an index."""
    return path.with_name(f"{path.name}.sha256")


def select_in(db: sqlite3.Connection, query: str, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of a query for these keys, some of which at a time take the place of its `{}`."""
    for part in chunked(keys, SQL_VARIABLES):
        yield from db.execute(query.format(",".join("?" * len(part))), part)


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
