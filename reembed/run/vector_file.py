"""A file of vectors by text hash that only grows, batch by batch, and the index of it in memory.

Each batch is one block, written by one call: a head, then the text hashes, the tokens and the
checksums of its rows, then the vectors as they stand in memory. Heads have a checksum of their own,
so that a file is indexed without its vectors being read; a row's checksum is over its text hash,
tokens and vector, and is looked at when the row is read. A block that a killed process left
unfinished is cut off by the next writer. Processes that share a file take turns by a lock on it,
and each indexes what the others have added.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reembed.records import Vectors

MAGIC = b"reembed\x01"
_HEAD = struct.Struct("<8sIIII")
"""Magic, rows, dimensions, checksum of the rows' hashes, tokens and checksums, checksum of this."""
_KEY = 32
_ROW = _KEY + 4 + 4
"""Bytes of a row before the vectors: text hash, tokens, checksum."""
_SCANNED = 1 << 22
"""Bytes that are looked through at a time for where whole blocks go on."""


Paid = tuple[Sequence[bytes], Vectors, npt.NDArray[np.int32]]
"""Text hashes with their vectors, `(n, d) float32`, and tokens, `(n,)`."""


class Rows(NamedTuple):
    """Rows of a file: text hashes as `(n, 32) uint8`, `(n,)` tokens and checksums, and where each
    vector stands."""

    keys: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int32]
    checksums: npt.NDArray[np.uint32]
    places: npt.NDArray[np.int64]


class Found(NamedTuple):
    """Rows of some text hashes: which of them, with their vectors `(n, d)` and tokens."""

    which: list[int]
    vectors: Vectors
    tokens: npt.NDArray[np.int32]


def block(
    keys: Sequence[bytes], vectors: Vectors, tokens: npt.NDArray[np.int32]
) -> list[memoryview]:
    """A block of these rows, in the parts that follow each other."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    counts = np.ascontiguousarray(tokens, np.int32)
    checksums = np.array(_checksums(keys, counts.tolist(), vectors), np.uint32)
    rows = b"".join(keys) + counts.astype("<i4").tobytes() + checksums.astype("<u4").tobytes()
    head = _head(len(keys), vectors.shape[1], rows)
    return [memoryview(head + rows), vectors.reshape(-1).view(np.uint8).data]


def _checksums(keys: Sequence[bytes], tokens: Sequence[int], vectors: Vectors) -> list[int]:
    """Of each row; `vectors` are contiguous."""
    data, width = vectors.reshape(-1).view(np.uint8).data, 4 * vectors.shape[1]
    return [
        zlib.crc32(data[row * width : (row + 1) * width], zlib.crc32(key, count))
        for row, (key, count) in enumerate(zip(keys, tokens, strict=True))
    ]


def _head(rows: int, dimensions: int, told: bytes) -> bytes:
    start = _HEAD.pack(MAGIC, rows, dimensions, zlib.crc32(told), 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start))


@dataclass
class Scan:
    """What a file holds from some place on.

    Attributes:
        rows: of its whole blocks of vectors of the right dimensions, block by block.
        end: where the last whole block ends.
        damaged: whether what is no block lies between blocks.
    """

    rows: list[Rows]
    end: int
    damaged: bool = False


def scan(fd: int, start: int, dimensions: int | None) -> Scan:
    """Look through a file from the end of a block on; the vectors are not read.

    Args:
        dimensions: of the vectors whose rows are wanted; None for all.
    """
    size = os.fstat(fd).st_size
    found = Scan([], start)
    place = start
    while place < size:
        read = _read_block(fd, place, size)
        if read is None:
            after = _next_block(fd, place + 1, size)
            if after is None:
                break
            found.damaged, place = True, after
            continue
        width, rows, place = read
        if dimensions in (width, None):
            found.rows.append(rows)
        found.end = place
    return found


def begins(fd: int) -> bool:
    """Whether a file begins as such a file does, as far as it goes."""
    return MAGIC.startswith(os.pread(fd, len(MAGIC), 0))


def _read_block(fd: int, place: int, size: int) -> tuple[int, Rows, int] | None:
    """Dimensions, rows and end of the whole block that begins there; None if none does."""
    head = os.pread(fd, _HEAD.size, place)
    if len(head) < _HEAD.size:
        return None
    magic, count, dimensions, told, own = _HEAD.unpack(head)
    if magic != MAGIC or own != zlib.crc32(head[:-4]):
        return None
    values = place + _HEAD.size + count * _ROW
    end = values + count * dimensions * 4
    if end > size:
        return None
    rows = os.pread(fd, count * _ROW, place + _HEAD.size)
    if zlib.crc32(rows) != told:
        return None
    keys = np.frombuffer(rows, np.uint8, count * _KEY).reshape(count, _KEY)
    numbers = np.frombuffer(rows, "<u4", 2 * count, count * _KEY)
    places = values + np.arange(count, dtype=np.int64) * (dimensions * 4)
    tokens = numbers[:count].astype(np.int32)
    return dimensions, Rows(keys, tokens, numbers[count:], places), end


def _next_block(fd: int, place: int, size: int) -> int | None:
    """Where the next whole block begins, None if there is none."""
    while place < size:
        data = os.pread(fd, _SCANNED + len(MAGIC) - 1, place)
        at = data.find(MAGIC)
        while at >= 0:
            if _read_block(fd, place + at, size) is not None:
                return place + at
            at = data.find(MAGIC, at + 1)
        place += _SCANNED
    return None


def read_rows(fd: int, rows: Rows, keys: Sequence[bytes], which: Sequence[int], d: int) -> Found:
    """The vectors of these rows, each of the text hash `keys[which[i]]`; a row whose checksum is
    wrong is left out. Those that stand together are read together."""
    vectors = np.empty((len(which), d), np.float32)
    order = np.argsort(rows.places, kind="stable")
    places, width = rows.places[order], 4 * d
    edges = [0, *(np.flatnonzero(np.diff(places) != width) + 1).tolist(), len(places)]
    for first, last in pairwise(edges):
        if first == last:
            continue
        data = os.pread(fd, width * (last - first), int(places[first]))
        if len(data) == width * (last - first):
            read = np.frombuffer(data, "<f4").reshape(last - first, d)
            vectors[order[first:last]] = read
    checked = _checksums([keys[one] for one in which], rows.tokens.tolist(), vectors)
    sound = np.flatnonzero(np.array(checked, np.uint32) == rows.checksums).tolist()
    if len(sound) == len(which):
        return Found(list(which), vectors, rows.tokens)
    return Found([which[number] for number in sound], vectors[sound], rows.tokens[sound])


class Index:
    """Where the rows of a file stand, by text hash; a later row of a hash takes an earlier one's
    place. 24 bytes a row, in runs that are sorted by eight bytes of the hash and merged as they
    grow: a row's checksum tells whether it is that of the hash."""

    def __init__(self) -> None:
        self._added: list[Rows] = []
        self._runs: list[tuple[npt.NDArray[np.uint64], Rows]] = []

    def add(self, rows: Rows) -> None:
        """Rows that come after all others."""
        self._added.append(rows)

    def find(self, keys: Sequence[bytes]) -> tuple[list[int], Rows]:
        """Which of these text hashes there are, and their rows."""
        self._sort()
        wanted = _marks(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY))
        tokens = np.zeros(len(keys), np.int32)
        checksums = np.zeros(len(keys), np.uint32)
        places = np.full(len(keys), -1, np.int64)
        for marks, rows in reversed(self._runs):
            left = np.flatnonzero(places < 0)
            at = np.searchsorted(marks, wanted[left], side="right") - 1
            hit = (at >= 0) & (marks[at] == wanted[left])
            left, at = left[hit], at[hit]
            tokens[left], checksums[left] = rows.tokens[at], rows.checksums[at]
            places[left] = rows.places[at]
        which = np.flatnonzero(places >= 0)
        none = np.zeros((0, _KEY), np.uint8)
        return which.tolist(), Rows(none, tokens[which], checksums[which], places[which])

    def _sort(self) -> None:
        if self._added:
            keys, tokens, checksums, places = (
                np.concatenate(parts) for parts in zip(*self._added, strict=True)
            )
            self._added.clear()
            self._runs.append(_sorted(_marks(keys), tokens, checksums, places))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (marks, rows), (later_marks, later) = self._runs[-2:]
            self._runs[-2:] = [_sorted(
                np.concatenate((marks, later_marks)),
                np.concatenate((rows.tokens, later.tokens)),
                np.concatenate((rows.checksums, later.checksums)),
                np.concatenate((rows.places, later.places)),
            )]  # fmt: skip


def _marks(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Eight bytes of each hash, all of it in them."""
    words = np.ascontiguousarray(keys).view(np.uint64)
    marks: npt.NDArray[np.uint64] = np.bitwise_xor.reduce(words, axis=1)
    return marks


def _sorted(
    marks: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int32],
    checksums: npt.NDArray[np.uint32], places: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.uint64], Rows]:  # fmt: skip
    order = np.argsort(marks, kind="stable")  # the newest of a hash stays the last
    none = np.zeros((0, _KEY), np.uint8)
    return marks[order], Rows(none, tokens[order], checksums[order], places[order])


def keys_in(fd: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The text hashes `(n, 32) uint8` of a file's whole blocks."""
    for rows in scan(fd, 0, None).rows:
        yield rows.keys


class Marked:
    """Many text hashes, by eight bytes of each: one of 10^13 others is taken for one of a million.

    Args:
        keys: parts of them, `(n, 32) uint8`.
    """

    def __init__(self, keys: Iterable[npt.NDArray[np.uint8]]) -> None:
        found = [_marks(part) for part in keys]
        self._marks = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))

    def has(self, keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which of these there are, `(n,)`."""
        return np.isin(_marks(keys), self._marks)


def copied(
    path: Path, dimensions: int
) -> Iterator[tuple[list[bytes], Vectors, npt.NDArray[np.int32]]]:
    """The rows of a file's whole blocks whose checksums are right, block by block."""
    fd = os.open(path, os.O_RDONLY)
    try:
        for rows in scan(fd, 0, dimensions).rows:
            keys = [key.tobytes() for key in rows.keys]
            found = read_rows(fd, rows, keys, range(len(keys)), dimensions)
            if found.which:
                yield [keys[one] for one in found.which], found.vectors, found.tokens
    finally:
        os.close(fd)
