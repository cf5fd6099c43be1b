"""Vectors that were paid for, kept by model fingerprint and text hash.

Every batch is committed before its shard is written, so a run killed in the middle of a shard pays
again for at most the batches in flight. With `embed.cache` the file is shared by all runs of a
state directory; without, it belongs to one run.

A SQLite file in WAL mode: one process at a time writes it (the lease sees to that for one
migration; SQLite's own lock for several), and it survives the process being killed at any moment.
Each row has a checksum: a vector that a failing disk has changed is unknown, not wrong.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from reembed.disk import make_private_dir, sqlite_errors, write_errors
from reembed.errors import PreflightError
from reembed.records import Vectors

SQL_VARIABLES = 500
"""Keys in one SELECT; SQLite's own limit was 999 for a long time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    text_sha256 BLOB PRIMARY KEY, tokens INTEGER NOT NULL, vector BLOB NOT NULL,
    crc32 INTEGER NOT NULL
) WITHOUT ROWID
"""


class VectorCache:
    """Text hash to vector, for one model fingerprint.

    Args:
        path: the SQLite file; its name holds the fingerprint's key.
        dimensions: of every vector in it.

    Raises:
        PreflightError: the file is damaged or cannot be written, or the disk is full.
        UnreachableError: another process holds it for long.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        self._dimensions = dimensions
        self._path = path
        self._lock = threading.Lock()
        make_private_dir(path.parent)
        with write_errors(path):
            path.touch(mode=0o600, exist_ok=True)
        with self._errors():
            self._db = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=60
            )
        try:
            with self._errors():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute(SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, tuple[Vectors, int]]:
        """The known ones of these text hashes, each with its `(d,) float32` vector and tokens."""
        found: dict[bytes, tuple[Vectors, int]] = {}
        with self._lock, self._errors():
            for start in range(0, len(hashes), SQL_VARIABLES):
                keys = hashes[start : start + SQL_VARIABLES]
                marks = ",".join("?" * len(keys))
                rows = self._db.execute(
                    "SELECT text_sha256, tokens, vector, crc32 FROM vectors "  # noqa: S608
                    f"WHERE text_sha256 IN ({marks})",
                    keys,
                )
                for key, tokens, blob, crc in rows:
                    if len(blob) == 4 * self._dimensions and crc == _checksum(key, tokens, blob):
                        found[key] = (np.frombuffer(blob, np.float32), tokens)
        return found

    def put(self, hashes: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
        """Keep vectors `(n, d) float32`; returns when they are committed."""
        rows = []
        for key, count, vector in zip(hashes, tokens.tolist(), vectors, strict=True):
            blob = vector.tobytes()
            rows.append((key, count, blob, _checksum(key, count, blob)))
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with sqlite_errors(self._path):
                yield
        except sqlite3.DatabaseError as error:
            raise PreflightError(
                f"{self._path}: the cache of paid vectors is damaged: {error}",
                "Delete that file and run again; what is embedded already is kept in the shards.",
            ) from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def known_hashes(path: Path, hashes: Sequence[bytes]) -> set[bytes]:
    """Which of these text hashes a cache file knows, for an estimate: looks without writing, and
    knows nothing where the file is not there or cannot be read now."""
    if not path.is_file():
        return set()
    # Reading makes side files, unless SQLite is told that nobody writes; those who do have one.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    found: set[bytes] = set()
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db,
    ):
        for start in range(0, len(hashes), SQL_VARIABLES):
            keys = hashes[start : start + SQL_VARIABLES]
            marks = ",".join("?" * len(keys))
            query = f"SELECT text_sha256 FROM vectors WHERE text_sha256 IN ({marks})"  # noqa: S608
            found.update(key for (key,) in db.execute(query, keys))
    return found


def _checksum(key: bytes, tokens: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key, tokens))
