"""Vectors that were paid for, kept by model fingerprint and text hash.

Every batch is committed before its shard is written, so a run killed in the middle of a shard pays
again for at most the batches in flight. With `embed.cache` the file is shared by all runs of a
state directory; without, it belongs to one run.

A SQLite file in WAL mode: one process at a time writes it (the lease sees to that for one
migration; SQLite's own lock for several), and it survives the process being killed at any moment.
Each row has a checksum: a vector that a failing disk has changed is unknown, not wrong. A file that
SQLite cannot read any more is renamed, and a new one takes in what is still readable in it and what
is in the run's shards.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from reembed.errors import PreflightError
from reembed.records import Vectors, fixed_array_to_vectors
from reembed.run.damaged_cache import Row, readable
from reembed.run.directory import RunDir
from reembed.run.disk import STATE, make_private_dir, sqlite_errors, write_errors
from reembed.run.sqlite import files_of, open_database, transaction

Answer = TypeVar("Answer")
Paid = tuple[Sequence[bytes], Vectors, npt.NDArray[np.int32]]
"""Text hashes with their vectors, `(n, d) float32`, and tokens, `(n,)`."""

SQL_VARIABLES = 500
"""Keys in one SELECT; SQLite's own limit was 999 for a long time."""

PAGE_BYTES = 16_384
"""Of a new file: rows are as long as vectors, and few of them fit on SQLite's usual page."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    text_sha256 BLOB PRIMARY KEY, tokens INTEGER NOT NULL, vector BLOB NOT NULL,
    crc32 INTEGER NOT NULL
)
"""
"""Rows stand in the order in which they came: ordered by their hashes (WITHOUT ROWID, as in older
files) each would go to a page of its own, five times as slow."""

Known = Mapping[bytes, tuple[Vectors, int]]
"""Text hashes with their `(d,) float32` vectors and tokens."""


@dataclass(frozen=True)
class Lender:
    """The cache of the same model under another `on_too_long` or `max_tokens`, which change the
    vectors of long texts alone.

    Attributes:
        path: its SQLite file, which is only read.
        limit: the tokens of a text up to which it is embedded whole now.
        cuts: whether the file may hold vectors of texts that were cut, by us or after the server
            had refused them whole: of these fewer tokens were sent than they have.
    """

    path: Path
    limit: int
    cuts: bool = False

    def short(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> dict[bytes, int]:
        """Those of these texts that are short enough, with their tokens, in the file or not."""
        pairs = zip(hashes, tokens, strict=True)
        return {key: count for key, count in pairs if count <= self.limit}

    def lends(self, sent: int, tokens: int) -> bool:
        """Whether what is in the file, for which so many tokens were sent, is of the whole text."""
        return not self.cuts or sent == tokens


class VectorCache:
    """Text hash to vector, for one model fingerprint.

    Args:
        path: the SQLite file; its name holds the fingerprint's key.
        dimensions: of every vector in it.
        lenders: files to look into for what is not in this one.
        spare: vectors that are kept elsewhere too, to fill a new file with if this one is damaged.
        note: told of a damaged file.

    Raises:
        PreflightError: the file cannot be written, or the disk is full; from every method.
        UnreachableError: another process holds it for long; from every method.
    """

    def __init__(
        self,
        path: Path,
        dimensions: int,
        *,
        lenders: Sequence[Lender] = (),
        spare: Callable[[], Iterable[Paid]] = tuple,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._dimensions = dimensions
        self._path = path
        self.lenders = lenders
        self._spare, self._note = spare, note
        self._lock = threading.Lock()
        make_private_dir(path.parent)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._replace(error)

    def _open(self) -> None:
        self._db = open_database(self._path, threads=True)
        try:
            with write_errors(self._path):
                self._file = self._path.stat().st_ino
            with sqlite_errors(self._path):
                self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute(SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def get(self, hashes: Sequence[bytes]) -> Known:
        """The known ones of these text hashes, each with its `(d,) float32` vector and tokens."""
        with self._lock:
            return self._mended(lambda: self._get(hashes))

    def _get(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[Vectors, int]]:
        return _vectors_in(self._db, hashes, self._dimensions)

    def borrow(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> Known:
        """What the lenders have of these texts, which are not in this file; it is, from now on.

        Args:
            tokens: of each text, or more.
        """
        found: dict[bytes, tuple[Vectors, int]] = {}
        for lender in self.lenders:
            short = lender.short(hashes, tokens)
            wanted = [key for key in short if key not in found]
            with contextlib.suppress(sqlite3.Error), _only_read(lender.path) as db:
                rows = _vectors_in(db, wanted, self._dimensions)
                found |= {key: row for key, row in rows.items() if lender.lends(row[1], short[key])}
        if found:
            counts = np.array([count for _, count in found.values()], np.int32)
            self.put(list(found), np.stack([vector for vector, _ in found.values()]), counts)
        return found

    def put(self, hashes: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
        """Keep vectors `(n, d) float32`; returns when they are committed."""
        rows = _rows(hashes, vectors, tokens)
        with self._lock:
            self._mended(lambda: self._put(rows))

    def _put(self, rows: Iterable[Row]) -> None:
        with transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)

    # Damage

    def _mended(self, work: Callable[[], Answer]) -> Answer:
        """Do it, once more if the file turns out to be damaged: then there is a new one."""
        try:
            with sqlite_errors(self._path):
                return work()
        except sqlite3.DatabaseError as error:
            self._replace(error)
        try:
            with sqlite_errors(self._path):
                return work()
        except sqlite3.DatabaseError as error:
            raise PreflightError(
                f"{self._path}: the cache of paid vectors was created again and is damaged again: "
                f"{error}",
                f"Check the disk, or {STATE}, and run the same command again: it resumes.",
            ) from error

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Set the damaged file aside, under another name, and begin a new one with what can be had
        for nothing."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        with write_errors(self._path):
            ours = self._path.exists() and self._path.stat().st_ino == self._file
            if ours:  # and no other process has set it aside
                for file, there in zip(files_of(self._path), files_of(aside), strict=True):
                    with contextlib.suppress(FileNotFoundError):
                        file.rename(there)
        self._open()
        if not ours:
            return
        with sqlite_errors(self._path):
            for rows in readable(aside):
                self._put(rows)
            (kept,) = self._db.execute("SELECT count(*) FROM vectors").fetchone()
            for paid in self._spare():
                self._put(_rows(*paid))
        self._note(
            f"{self._path}: the cache of paid vectors is damaged ({error}); it is set aside as "
            f"{aside.name}, and the new one has {kept:,} vectors of it and those of the shards"
        )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rows(hashes: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> list[Row]:
    rows = []
    for key, count, vector in zip(hashes, tokens.tolist(), vectors, strict=True):
        blob = vector.tobytes()
        rows.append((key, count, blob, _checksum(key, count, blob)))
    return rows


def embedded_vectors(run: RunDir) -> Iterator[Paid]:
    """What the embed shards of a run hold."""
    for shard in run.shards("embed").values():
        if run.is_whole(shard):
            table = run.read_shard(shard, ["text_sha256", "tokens", "embedding"])
            yield (
                table.column("text_sha256").to_pylist(),
                fixed_array_to_vectors(table.column("embedding")),
                np.asarray(table.column("tokens"), np.int32),
            )


def known_hashes(
    path: Path, hashes: Sequence[bytes], tokens: Sequence[int], lenders: Sequence[Lender] = ()
) -> set[bytes]:
    """Which of these text hashes a cache file or its lenders know, for an estimate: looks without
    writing, and knows nothing where the file is not there or cannot be read now.

    Args:
        tokens: of each text, or more.
    """
    found: set[bytes] = set()
    for lender in (Lender(path, sys.maxsize), *lenders):
        short = lender.short(hashes, tokens)
        with contextlib.suppress(sqlite3.Error), _only_read(lender.path) as db:
            for keys, marks in _parts([*short]):
                query = f"SELECT text_sha256, tokens FROM vectors WHERE text_sha256 IN ({marks})"  # noqa: S608
                rows = db.execute(query, keys)
                found.update(key for key, sent in rows if lender.lends(sent, short[key]))
    return found


@contextlib.contextmanager
def _only_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A cache file, open for reading; sqlite3.Error without one. Reading makes side files, unless
    SQLite is told that nobody writes; those who do have one."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?{mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        yield db


def _parts(hashes: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    """As many at a time as one SELECT takes, with a mark for each."""
    for start in range(0, len(hashes), SQL_VARIABLES):
        keys = hashes[start : start + SQL_VARIABLES]
        yield keys, ",".join("?" * len(keys))


def _vectors_in(
    db: sqlite3.Connection, hashes: Sequence[bytes], dimensions: int
) -> dict[bytes, tuple[Vectors, int]]:
    """The whole rows of these texts."""
    found: dict[bytes, tuple[Vectors, int]] = {}
    for keys, marks in _parts(hashes):
        rows = db.execute(
            "SELECT text_sha256, tokens, vector, crc32 FROM vectors "  # noqa: S608
            f"WHERE text_sha256 IN ({marks})",
            keys,
        )
        for key, tokens, blob, crc in rows:
            if not isinstance(blob, bytes) or not isinstance(tokens, int):
                continue  # a bit of its type was changed
            if len(blob) == 4 * dimensions and crc == _checksum(key, tokens, blob):
                found[key] = (np.frombuffer(blob, np.float32), tokens)
    return found


def _checksum(key: bytes, tokens: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key, tokens))
