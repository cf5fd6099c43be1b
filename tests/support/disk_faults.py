"""A disk that fails at one place: at one operation on one file, with an error that a disk gives.

What Python writes is failed where it calls the system (`os.open`, `os.write`, `os.fsync`, ...),
after as much has been done as a real disk would have done; SQLite gives its own error for a full
or a read-only file; what Chroma writes itself is failed with the error that Chroma gave on a real
full disk (`tests/campaigns/soak/full_disk.py` has one).
"""

from __future__ import annotations

import errno
import io
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chromadb.api.rust
import pytest
from chromadb.errors import InternalError

from reembed.stores.chroma import sqlite_calls, sqlite_pages
from reembed.stores.chroma.sqlite_process import beside

FULL = "error returned from database: (code: 13) database or disk is full"
READ_ONLY = "error returned from database: (code: 8) attempt to write a readonly database"
CHROMA_WRITES = (
    "create_collection", "delete_collection", "_add", "_upsert", "_update", "_delete", "_modify",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Place(NamedTuple):
    """One thing that can fail: an operation on a file, named as in `Disk.place`."""

    operation: str
    path: str

    def __str__(self) -> str:
        return f"{self.operation} {self.path}"


FAULTS: dict[str, dict[str, int]] = {
    "full": {
        "mkdir": errno.ENOSPC, "create": errno.ENOSPC, "write": errno.ENOSPC,
        "sync": errno.ENOSPC, "rename": errno.ENOSPC, "sqlite": errno.ENOSPC,
        "sqlite open": errno.ENOSPC, "chroma": errno.ENOSPC,
    },
    "read-only": {
        "mkdir": errno.EROFS, "create": errno.EROFS, "open": errno.EACCES, "rename": errno.EROFS,
        "remove": errno.EROFS, "sqlite": errno.EROFS, "chroma": errno.EROFS,
    },
}  # fmt: skip
"""What a full and what a read-only disk answers to which operation."""


class Disk:
    """The disk below `folder`; everything else is left alone.

    Attributes:
        seen: the places that were written to, in order, each once.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.seen: dict[Place, None] = {}
        self.fault: tuple[Place, int] | None = None
        self.hit = False
        self._paths: dict[int, str] = {}
        self._patch(monkeypatch)

    def fail(self, place: Place, error: int) -> None:
        """Fail at this place from now on, until `mend`."""
        self.fault, self.hit = (place, error), False

    def mend(self) -> None:
        self.fault = None

    def place(self, path: Any) -> str | None:
        """A path below the folder without what differs from run to run; None for one elsewhere."""
        if not isinstance(path, str | os.PathLike) or not (text := os.fspath(path)):
            return None
        try:
            inside = Path(os.fsdecode(text)).absolute().relative_to(self.folder)
        except ValueError:
            return None
        name = re.sub(r"^\.(.+)\.\d+\.tmp$", r"\1", inside.name)
        inside = inside.with_name(name) if name else inside
        parts = (re.sub(r"^\d{8}t\d{6}-[0-9a-f]{4}$", "RUN", part) for part in inside.parts)
        found = re.sub(r"\d{5}\.parquet$", "N.parquet", "/".join(parts)) or "."
        return re.sub(r"[0-9a-f]{64}\.(vectors|model\.json)", r"KEY.\1", found)

    def reach(self, operation: str, path: str | None) -> int | None:
        """Note that a place is reached. Returns the error number to fail with, or None."""
        if path is None:
            return None
        place = Place(operation, path)
        self.seen.setdefault(place)
        if self.fault is None or self.fault[0] != place:
            return None
        self.hit = True
        return self.fault[1]

    def _check(self, operation: str, path: str | None) -> None:
        number = self.reach(operation, path)
        if number is not None:
            raise OSError(number, os.strerror(number), path)

    # What is patched

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("open", "write", "pwrite", "fdopen", "fsync", "mkdir", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), getattr(self, name)))
        monkeypatch.setattr(sqlite3, "connect", self._wrapped(sqlite3.connect, self.connect))
        monkeypatch.setattr(beside, "call", self.call)
        bindings = chromadb.api.rust.RustBindingsAPI
        for name in CHROMA_WRITES:
            monkeypatch.setattr(bindings, name, self._chroma(name, getattr(bindings, name)))

    @staticmethod
    def _wrapped(real: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: instead(real, *arguments, **options)

    def open(self, real: Any, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        place = self.place(path)
        if place is not None and flags & WRITING:
            self._check("open" if os.path.lexists(path) else "create", place)
        fd: int = real(path, flags, *rest, **options)
        if place is None:
            self._paths.pop(fd, None)
        else:
            self._paths[fd] = place
        return fd

    def write(self, real: Any, fd: int, data: bytes) -> Any:
        number = self.reach("write", self._paths.get(fd))
        if number is None:
            return real(fd, data)
        if len(data) > 1:  # the disk takes what fits, and refuses the rest
            return real(fd, bytes(data)[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    def pwrite(self, real: Any, fd: int, data: bytes, offset: int) -> Any:
        self._check("write", self._paths.get(fd))
        return real(fd, data, offset)

    def fdopen(self, real: Any, fd: int, mode: str = "r", *rest: Any, **options: Any) -> Any:
        place = self._paths.get(fd)
        if place is None or "w" not in mode:
            return real(fd, mode, *rest, **options)
        return io.BufferedWriter(_File(fd, lambda: self.reach("write", place)), 1024)

    def fsync(self, real: Any, fd: int) -> None:
        self._check("sync", self._paths.get(fd))
        real(fd)

    def mkdir(self, real: Any, path: Any, *rest: Any, **options: Any) -> None:
        if not os.path.lexists(path):
            self._check("mkdir", self.place(path))
        real(path, *rest, **options)

    def replace(self, real: Any, source: Any, target: Any, **options: Any) -> None:
        self._check("rename", self.place(target))
        real(source, target, **options)

    def unlink(self, real: Any, path: Any, **options: Any) -> None:
        # Cleaning up after a fault is no place of its own: the name is that of a temporary file.
        if not os.fspath(path).endswith(".tmp"):
            self._check("remove", self.place(path))
        real(path, **options)

    @staticmethod
    def call(function: str, file: sqlite_calls.File, *arguments: Any) -> Any:
        """Do in this process, where it can fail, what is done to chroma.sqlite3 in another."""
        known = {**vars(sqlite_pages), **vars(sqlite_calls)}
        return known[function](file._replace(caller=None), *arguments)

    def connect(self, real: Any, database: Any, *rest: Any, **options: Any) -> Any:
        named = str(database)
        place = (
            None if "?mode=ro" in named else self.place(re.sub(r"^file:|\?mode=\w+$", "", named))
        )
        if place is None:
            return real(database, *rest, **options)
        path = Path(re.sub(r"^file:|\?mode=\w+$", "", named))
        empty = not path.exists() or not path.stat().st_size
        if empty and self.reach("sqlite open", place) is not None:  # the first page fits, no more
            db = real(database, *rest, **options)
            db.execute("PRAGMA max_page_count = 1")
            return db
        return real(database, *rest, factory=self._factory(place), **options)

    def _factory(self, place: str) -> type[sqlite3.Connection]:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                number = disk.reach("sqlite", place) if sql.startswith("BEGIN") else None
                if number is not None:
                    _sqlite_error(number)
                return super().execute(sql, *rest)

        return Connection

    def _chroma(self, name: str, real: Any) -> Any:
        def write(*arguments: Any, **options: Any) -> Any:
            number = self.reach("chroma", f"db {name.lstrip('_')}")
            if number is not None:
                raise InternalError(FULL if number == errno.ENOSPC else READ_ONLY)
            return real(*arguments, **options)

        return write


class _File(io.FileIO):
    """A file of which half of the first write reaches the disk, if that is to fail."""

    def __init__(self, fd: int, fault: Callable[[], int | None]) -> None:
        super().__init__(fd, "wb")
        self._fault = fault
        self._begun = False

    def write(self, data: Any) -> int:
        number = self._fault()
        if number is None:
            return super().write(data)
        if not self._begun:
            self._begun = True
            return super().write(bytes(data)[: max(1, len(data) // 2)])
        raise OSError(number, os.strerror(number))


def _sqlite_error(number: int) -> None:
    """Raise what SQLite itself raises when a file is full, or read-only, or cannot be read."""
    if number == errno.EIO:
        failed = sqlite3.OperationalError("disk I/O error")
        failed.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise failed
    db = sqlite3.connect(":memory:")
    try:
        if number == errno.ENOSPC:
            db.execute("PRAGMA max_page_count = 1")
        else:
            db.execute("PRAGMA query_only = ON")
        db.execute("CREATE TABLE t (a)")
    finally:
        db.close()
    raise AssertionError("SQLite wrote")


class Opened:
    """Every path that this process opens for writing, removes, renames or connects to, as the
    interpreter itself reports it: what `Disk` does not patch shows here."""

    def __init__(self) -> None:
        self.paths: set[str] | None = None
        sys.addaudithook(self._hook)  # for ever: there is no way to remove one

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.paths is None:
            return
        if event == "open":
            if isinstance(arguments[2], int) and arguments[2] & WRITING:
                self._note(arguments[0])
        elif event in ("os.mkdir", "os.remove", "os.truncate"):
            self._note(arguments[0])
        elif event == "os.rename":
            self._note(arguments[1])
        elif event == "sqlite3.connect" and "?mode=ro" not in str(arguments[0]):
            self._note(re.sub(r"^file:|\?mode=\w+$", "", str(arguments[0])))

    def _note(self, path: Any) -> None:
        if self.paths is not None and isinstance(path, str | bytes | os.PathLike):
            self.paths.add(os.fsdecode(path))


opened = Opened()
