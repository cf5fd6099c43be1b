"""Vectors out of the files of a Chroma index, as hnswlib and Chroma's Rust part write them.

A vector segment is a folder: `header.bin` says how large everything is; `data_level0.bin` holds an
element of links, vector and label for each vector ever added; `length.bin` the length that each
vector had, where the index made it one (cosine); `index_metadata.pickle` which label an id has. All
are written in place, one after the other, when enough writes have come together. So whatever is
read counts only if the files are the same before and after it, by size and time of change.

Nothing is unpickled. The pickle is of Chroma's own making and always of one form, which is read as
it stands; what has another form is none of ours to read.
"""

from __future__ import annotations

import os
import struct
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reembed.records import Vectors, lengths_of

HEADER, ELEMENTS, LENGTHS, LABELS, LINKS = (
    "header.bin", "data_level0.bin", "length.bin", "index_metadata.pickle", "link_lists.bin",
)  # fmt: skip
_FILES = (HEADER, ELEMENTS, LENGTHS, LABELS)
HEADER_FORM = struct.Struct("<iQQQQQQiIQQQdQ")
_LABEL_BYTES = 8
SETTLED_SECONDS = 0.05
"""So old a change must be before a next one is sure to have another time."""
CHUNK_BYTES = 1 << 20
_LOOKED_AT, _NEARLY_ONE = 64, 0.01

Found = TypeVar("Found")
Stand = tuple[tuple[int, int, int], ...]


class ChangedError(Exception):
    """The files were written meanwhile, or are not of a form that is known. Never leaves the
    adapter: whoever reads files asks Chroma instead."""


class _Shape(NamedTuple):
    """Of `data_level0.bin`: number of elements, bytes of one, and where vector and label stand."""

    elements: int
    size: int
    vector: int
    label: int

    @property
    def dimensions(self) -> int:
        return (self.label - self.vector) // 4


class IndexFiles:
    """The vectors that a segment's files hold.

    Args:
        folder: of the segment.
        applied: the number of the last write that they hold, asked for before they were read.

    Raises:
        ChangedError: they are being written, are gone, or have a form that is not known.
    """

    def __init__(self, folder: Path, applied: int) -> None:
        self.applied = applied
        self._folder = folder
        self._stand = _settled(folder)
        self._lengths: Vectors
        self._unchanged(self._read_all)

    @property
    def dimensions(self) -> int:
        return self._shape.dimensions

    def ids(self) -> pa.Array:
        """The ids, as `binary`, whose vectors they hold."""
        return self._ids

    def vectors(self, ids: pa.Array) -> tuple[npt.NDArray[np.bool_], Vectors, Vectors]:
        """Which of n ids have a vector, `(n,) bool`, and of those m the vectors as they stand,
        `(m, d) float32`, and the length of each, `(m,) float32`, which only cosine has.

        Raises:
            ChangedError: the files were written since.
        """
        places = self._places_of(ids)
        found = places >= 0
        vectors, deleted = self._unchanged(lambda: self._read(places[found]))
        lengths = self._lengths[places[found]]
        if deleted.any():
            found[np.flatnonzero(found)[deleted]] = False
            vectors, lengths = vectors[~deleted], lengths[~deleted]
        return found, vectors, lengths

    def plain(self) -> bool:
        """Whether most of some vectors stand there with other lengths than one, so that the index
        keeps them as they were given. Raises ChangedError: the files were written since."""
        first = np.arange(min(_LOOKED_AT, self._shape.elements), dtype=np.int32)
        vectors, _ = self._unchanged(lambda: self._read(first))
        with np.errstate(all="ignore"):
            other = np.abs(lengths_of(vectors) - 1) > _NEARLY_ONE
        return int(other.sum()) > len(first) // 2

    def _unchanged(self, read: Callable[[], Found]) -> Found:
        """What was read, if the files are what they were."""
        try:
            found = read()
        except (OSError, ValueError, struct.error, IndexError) as error:
            raise ChangedError(f"{type(error).__name__}: {error}") from error
        if _stand(self._folder) != self._stand:
            raise ChangedError("it is being written to")
        return found

    # What is read once

    def _read_all(self) -> None:
        sizes = {name: one[1] for name, one in zip(_FILES, self._stand, strict=True)}
        self._shape = shape = _shape((self._folder / HEADER).read_bytes(), sizes)
        self._lengths = np.fromfile(self._folder / LENGTHS, np.float32, shape.elements)
        ids, labels = labels_of((self._folder / LABELS).read_bytes())
        places = self._places_by_label(shape)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(places):
            raise ValueError("a label that no element has")
        order = pc.sort_indices(ids)
        self._ids, self._places = ids.take(order), places[labels[order.to_numpy()]]

    def _places_by_label(self, shape: _Shape) -> npt.NDArray[np.int32]:
        """Where the element of each label stands, -1 for none."""
        labels = np.empty(shape.elements, np.int64)
        buffer = _buffer(shape, shape.elements)
        with (self._folder / ELEMENTS).open("rb", 0) as file:
            for start in range(0, shape.elements, len(buffer)):
                part = buffer[: shape.elements - start]
                if file.readinto(part.data) != part.nbytes:
                    raise ValueError(_SHORTER)
                labels[start : start + len(part)] = _column(part, shape.label, 8, np.int64)
        if shape.elements and not 0 <= labels.min() <= labels.max() <= 64 * shape.elements + 4096:
            raise ValueError("labels beyond what was ever added")
        places = np.full(labels.max(initial=0) + 1, -1, np.int32)
        places[labels] = np.arange(shape.elements, dtype=np.int32)
        return places

    def _places_of(self, ids: pa.Array) -> npt.NDArray[np.int32]:
        """Where the elements of ids stand, -1 for none."""
        if not len(ids) or not len(self._ids):
            return np.full(len(ids), -1, np.int32)
        ids = ids.cast(pa.binary())
        least, most = pc.min_max(ids).values()
        start, end = self._before(least), self._before(most) + 1
        at = pc.index_in(ids, value_set=self._ids.slice(start, end - start)).fill_null(-1)
        at = at.to_numpy(zero_copy_only=False)
        window = self._places[start:end]
        if not len(window):
            return np.full(len(ids), -1, np.int32)
        return np.where(at >= 0, window[at], -1).astype(np.int32)

    def _before(self, id: pa.Scalar) -> int:
        """How many of the ids sort before this one."""
        wanted, low, high = id.as_py(), 0, len(self._ids)
        while low < high:
            middle = (low + high) // 2
            if self._ids[middle].as_py() < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    # What is read for a page

    def _read(self, places: npt.NDArray[np.int32]) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """The vectors at places, and which of them are deleted."""
        shape, order = self._shape, np.argsort(places, kind="stable")
        vectors = np.empty((len(places), shape.dimensions), np.float32)
        deleted = np.empty(len(places), np.bool_)
        buffer = _buffer(shape, len(places))
        with (self._folder / ELEMENTS).open("rb", 0) as file:
            for start in range(0, len(places), len(buffer)):
                rows = order[start : start + len(buffer)]
                part = buffer[: len(rows)]
                _read_elements(file.fileno(), places[rows], part)
                vectors[rows] = part[:, shape.vector : shape.label].view(np.float32)
                deleted[rows] = part[:, 2] & 1  # hnswlib's mark of a deleted element
        return vectors, deleted


_SHORTER = "the file is shorter than it was"


def _buffer(shape: _Shape, most: int) -> npt.NDArray[np.uint8]:
    """Room for some elements, `most` at most, that are read together. One for many reads, since
    Chroma's client has the C library fill whatever it hands out."""
    return np.empty((max(1, min(most, CHUNK_BYTES // shape.size)), shape.size), np.uint8)


def _read_elements(
    descriptor: int, places: npt.NDArray[np.int32], into: npt.NDArray[np.uint8]
) -> None:
    """Read the elements at places, which ascend, neighbours in one call."""
    size = into.shape[1]
    starts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    for start, end in pairwise(starts):
        part = into[start:end]
        if os.preadv(descriptor, [part.data], int(places[start]) * size) != part.nbytes:
            raise ValueError(_SHORTER)


def header_of(header: bytes) -> tuple[int, int, int]:
    """Number of elements, bytes of one, and where in it its label stands.

    Raises:
        ValueError: it has another form.
        struct.error: it has another length.
    """
    endless = {ELEMENTS: 1 << 62, LENGTHS: 1 << 62}
    shape = _shape(header, endless)
    return shape.elements, shape.size, shape.label


def _shape(header: bytes, sizes: dict[str, int]) -> _Shape:
    version, offset, _, elements, size, label, vector, *_, links, _, _, _ = HEADER_FORM.unpack(
        header
    )
    shape = _Shape(elements, size, vector, label)
    known = (
        version == 1
        and offset == 0
        and vector == 4 * links + 4
        and label > vector
        and (label - vector) % 4 == 0
        and size == label + _LABEL_BYTES
        and sizes[ELEMENTS] >= elements * size
        and sizes[LENGTHS] >= elements * 4
    )
    if not known:
        raise ValueError("an index header of another form")
    return shape


def _column(
    part: npt.NDArray[np.uint8], start: int, size: int, kind: type[np.int64]
) -> npt.NDArray[np.int64]:
    return part[:, start : start + size].copy().view(kind).reshape(-1)


def _stand(folder: Path) -> Stand:
    """By which files are known to be the same: inode, bytes and time of change of each.

    Raises:
        ChangedError: one of them is not there.
    """
    found = []
    for name in _FILES:
        try:
            seen = (folder / name).stat()
        except OSError as error:
            raise ChangedError(f"{name}: {error.strerror}") from error
        found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return tuple(found)


def _settled(folder: Path) -> Stand:
    """The stand of files of which none was changed just now."""
    stand = _stand(folder)
    newest = max(changed for _, _, changed in stand)
    left = SETTLED_SECONDS - (time.time_ns() - newest) / 1e9
    if left > 0:
        time.sleep(min(left, SETTLED_SECONDS))
    return stand


# --- index_metadata.pickle -----------------------------------------------------------------------

_START = b"\x80\x03}("
_GROUP, _END, _TEXT, _WHOLE, _NONE, _MAP = b"(uXJN}"


def labels_of(pickled: bytes) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The ids, as `binary`, and the label of each, out of `index_metadata.pickle`.

    Raises:
        ValueError: it has another form than Chroma's Rust part gives it.
    """
    if not pickled.startswith(_START) or not pickled.endswith(b"u."):
        raise ValueError("a pickle of another form")
    at = len(_START)
    for name in (b"dimensionality", b"total_elements_added", b"max_seq_id", b"id_to_label"):
        end = at + 5 + len(name)
        if pickled[at:end] != b"X" + len(name).to_bytes(4, "little") + name:
            raise ValueError("a pickle of another form")
        if name != b"id_to_label":
            at = end + (1 if pickled[end] == _NONE else 5)
    return _map(pickled, end)


def _map(pickled: bytes, at: int) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """A map of texts to whole numbers: groups of pairs, each between a mark and its end."""
    ids: list[bytes] = []
    labels = array("i")
    if pickled[at] != _MAP:
        raise ValueError("a pickle of another form")
    at += 1
    number = struct.Struct("<i")
    while pickled[at] == _GROUP:
        at += 1
        while pickled[at] == _TEXT:
            start = at + 5
            at = start + int.from_bytes(pickled[at + 1 : start], "little")
            ids.append(pickled[start:at])
            if pickled[at] != _WHOLE:
                raise ValueError("a pickle of another form")
            labels.append(number.unpack_from(pickled, at + 1)[0])
            at += 5
        if pickled[at] != _END:
            raise ValueError("a pickle of another form")
        at += 1
    return pa.array(ids, pa.binary()), np.array(labels, np.int64)
