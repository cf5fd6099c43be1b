"""Vectors that were paid for, kept by model fingerprint and text hash.

Every batch is in the file before its shard is written, so a run killed in the middle of a shard
pays again for at most the batches in flight. With `embed.cache` the file is shared by all runs of a
state directory; without, it belongs to one run.

A file that only grows (`vector_file`): it survives the process being killed at any moment, several
processes may add to it, and a vector that a failing disk has changed is unknown, not wrong. One
with damage between its batches is renamed, and a new one takes in the whole batches of it and what
is in the run's shards. What an earlier version kept, in a SQLite file of the same name, is looked
up too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from reembed.errors import UnreachableError
from reembed.records import Vectors, fixed_array_to_vectors
from reembed.run import vector_file
from reembed.run.cached import Known, Lender, looked_up, vectors_in
from reembed.run.directory import RunDir
from reembed.run.disk import (
    atomic_file,
    make_private_dir,
    open_private,
    read_errors,
    remove,
    write_errors,
)
from reembed.run.earlier_cache import earlier_vectors
from reembed.run.vector_file import Index, Paid

SYNC_SECONDS = 5.0
"""What a machine that loses its power loses of what was kept, at most: a killed process nothing."""
LOCK_SECONDS = 60.0
"""To wait for another process that writes the file."""


class VectorCache:
    """Text hash to vector, for one model fingerprint.

    Args:
        path: the file; its name holds the fingerprint's key.
        dimensions: of every vector in it.
        lenders: files to look into for what is not in this one.
        spare: vectors that are kept elsewhere too, to fill the file with if it is damaged.
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
        self._fd = -1
        self._synced, self._unsynced = -SYNC_SECONDS, False
        make_private_dir(path.parent)
        with write_errors(path), self._lock:
            self._open()
            try:
                with self._turn():
                    self._read_on()
            except BaseException:
                self._close()
                raise

    def get(self, hashes: Sequence[bytes]) -> Known:
        """The known ones of these text hashes, each with its `(d,) float32` vector and tokens."""
        with self._lock, read_errors(self._path):
            if not hashes:
                return {}
            if os.fstat(self._fd).st_size != self._end:  # another process has added to it
                with self._turn():
                    self._read_on()
            known = vectors_in(self._fd, self._index, hashes, self._dimensions)
        return known | earlier_vectors(self._path, hashes, known, self._dimensions)

    def borrow(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> Known:
        """What the lenders have of these texts, which are not in this file; it is, from now on.

        Args:
            tokens: of each text, or more.
        """
        found: dict[bytes, tuple[Vectors, int]] = {}
        for lender in self.lenders:
            short = lender.short(hashes, tokens)
            wanted = [key for key in short if key not in found]
            rows = looked_up(lender.path, wanted, self._dimensions)
            found |= {key: row for key, row in rows.items() if lender.lends(row[1], short[key])}
        if found:
            counts = np.array([count for _, count in found.values()], np.int32)
            self.put(list(found), np.stack([vector for vector, _ in found.values()]), counts)
        return found

    def put(self, hashes: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
        """Keep vectors `(n, d) float32`; returns when they are in the file, where a kill leaves
        them."""
        with self._lock, write_errors(self._path), self._turn():
            self._read_on()
            self._add(hashes, vectors, tokens)

    def forget(self, gone: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]) -> int:
        """Write the file anew without what nothing needs, a block at a time. Returns how many
        vectors went. A killed process leaves the file as it was.

        Args:
            gone: says of text hashes `(n, 32) uint8` which are not needed, `(n,)`.
        """
        with self._lock, write_errors(self._path), self._turn():
            self._read_on()
            went = sum(int(gone(keys).sum()) for keys in vector_file.keys_in(self._fd))
            if not went:
                return 0
            for left in self._path.parent.glob(f".{self._path.name}.*.tmp"):
                remove(left)  # of a process that was killed: nobody else has this turn
            with atomic_file(self._path) as file:
                for keys, vectors, tokens in vector_file.copied(self._path, self._dimensions):
                    stays = np.flatnonzero(~gone(np.frombuffer(b"".join(keys), np.uint8)
                                                 .reshape(len(keys), -1)))  # fmt: skip
                    if len(stays):
                        kept = [keys[row] for row in stays]
                        file.writelines(vector_file.block(kept, vectors[stays], tokens[stays]))
            self._close()  # and with it the turn of those who wait: they find the new file
            self._open()
            return went

    # The rest is for who holds the lock, and all but `_open` for whose turn it is

    def _open(self) -> None:
        self._fd = open_private(self._path, os.O_RDWR | os.O_APPEND)
        self._index, self._end = Index(), 0

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """While no other process writes the file; the one under the name now, which another process
        may have set aside and begun anew."""
        while True:
            fd = self._fd
            _take_turn(fd, self._path)
            if _is_at(fd, self._path):
                break
            self._close()
            self._open()
        try:
            yield
        finally:
            if fd == self._fd:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _read_on(self) -> None:
        """Index what was added since; make good what is damaged, and cut off what a killed process
        has begun to write."""
        size = os.fstat(self._fd).st_size
        if size < self._end:  # somebody has cut it
            self._index, self._end = Index(), 0
        if size == self._end:
            return
        found = vector_file.scan(self._fd, self._end, self._dimensions)
        if found.damaged or not vector_file.begins(self._fd):
            self._replace()
            return
        for rows in found.rows:
            self._index.add(rows)
        self._end = found.end
        if size > self._end:
            os.ftruncate(self._fd, self._end)
            self._fill(self._spare())

    def _add(
        self, hashes: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]
    ) -> None:
        if not len(hashes):
            return
        left = vector_file.block(hashes, vectors, tokens)
        try:
            while left:  # a disk that is nearly full takes a part
                self._unsynced = True
                left = _after(left, os.writev(self._fd, left))
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        found = vector_file.scan(self._fd, self._end, self._dimensions)
        for one in found.rows:
            self._index.add(one)
        self._end = found.end

    def _fill(self, paid: Iterable[Paid]) -> None:
        """Add what is not in the file."""
        for hashes, vectors, tokens in paid:
            held = set(self._index.find(hashes)[0])
            new = [row for row in range(len(hashes)) if row not in held]
            self._add([hashes[row] for row in new], vectors[new], tokens[new])

    def _replace(self) -> None:
        """Set the damaged file aside, under another name, and begin a new one with what can be had
        for nothing."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        damaged = self._fd
        self._path.rename(aside)
        self._open()
        _take_turn(self._fd, self._path)
        os.close(damaged)  # and with it the turn of those who wait: they find the new file
        kept = 0
        for hashes, vectors, tokens in vector_file.copied(aside, self._dimensions):
            self._add(hashes, vectors, tokens)
            kept += len(hashes)
        self._fill(self._spare())
        self._note(
            f"{self._path}: the cache of paid vectors is damaged; it is set aside as "
            f"{aside.name}, and the new one has {kept:,} vectors of it and those of the shards"
        )

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._synced, self._unsynced = time.monotonic(), False

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Let go of the file, with all that was kept on the disk."""
        with self._lock, write_errors(self._path):
            try:
                if self._unsynced:
                    self._sync()
            finally:
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _after(parts: Sequence[memoryview], written: int) -> list[memoryview]:
    """What of these parts comes after so many bytes."""
    left = []
    for part in parts:
        if written < len(part):
            left.append(part[written:])
        written = max(0, written - len(part))
    return left


def _take_turn(fd: int, path: Path) -> None:
    """Wait until no other process has the lock on a file, and take it."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise UnreachableError(
                    f"{path}: another process writes it and does not end",
                    "Another process may be using it; run the same command again to resume.",
                ) from None
        time.sleep(0.01)


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is the one under this name."""
    ours = os.fstat(fd)
    with contextlib.suppress(FileNotFoundError):
        there = path.stat()
        return (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev)
    return False


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
