"""The index of a new collection, built on all cores and written as Chroma's own files.

faiss builds the graph, which is the one that hnswlib builds: M neighbours on each level and twice
as many on the lowest (https://arxiv.org/abs/1603.09320). Chroma's library builds it a record at a
time, on one core. `index_files` says what the files are, and reads them.
"""

from __future__ import annotations

import math
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from reembed.records import Metric, Vectors, lengths_of
from reembed.run.disk import fsync_dir, write_errors
from reembed.stores.chroma.index_files import (
    CHUNK_BYTES,
    ELEMENTS,
    HEADER,
    HEADER_FORM,
    LABELS,
    LENGTHS,
    LINKS,
)
from reembed.stores.chroma.sqlite import INSTEAD

_SMALLEST = 1e-30
"""What Chroma adds to a length before it divides by it."""
_VERSION = 1
_WAIT = "OMP_WAIT_POLICY"
"""The OpenMP standard's variable (https://www.openmp.org/spec-html/5.0/openmpse55.html)."""


def faiss_or_none() -> Any:
    """The library, None where it is not installed. Its threads are to sleep while they wait for
    each other, which they are told before it is imported: else they turn in circles, which takes a
    third of the processor where others work on it too."""
    told = _WAIT in os.environ
    os.environ.setdefault(_WAIT, "PASSIVE")
    try:
        import faiss
    except ImportError:
        return None
    finally:
        if not told:
            del os.environ[_WAIT]
    return faiss


class IndexBuild:
    """An index that grows with each `add`, in memory.

    Args:
        metric: of the collection.
        neighbours: Chroma's `max_neighbors`, M of the graph.
        breadth: Chroma's `ef_construction`.
        expected: how many vectors there will be, about; room is made for them at once.
    """

    def __init__(
        self, metric: Metric, dimensions: int, *, neighbours: int, breadth: int, expected: int
    ) -> None:
        self._faiss = faiss = faiss_or_none()
        self._neighbours, self._breadth = neighbours, breadth
        self._unit = metric == "cosine"
        kind = faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2
        self._graph = graph = faiss.IndexHNSWFlat(dimensions, neighbours, kind)
        graph.hnsw.efConstruction = breadth
        self._kept = faiss.downcast_index(graph.storage).codes
        self._kept.resize(4 * dimensions * expected)
        self._kept.clear()  # the room stays
        self._lengths = array("f")
        self._dimensions = dimensions

    def add(self, vectors: Vectors) -> None:
        """Add vectors, `(n, d) float32`, all finite."""
        lengths = np.ones(len(vectors), np.float32)
        if self._unit:
            lengths[:] = lengths_of(vectors)
            vectors = np.divide(
                vectors, (lengths + np.float32(_SMALLEST))[:, None], dtype=np.float32
            )
        self._lengths.frombytes(lengths.tobytes())
        try:
            self._graph.add(np.ascontiguousarray(vectors, np.float32))
        except RuntimeError as error:
            if "bad_alloc" in str(error):
                raise MemoryError("the index of the new collection") from error
            raise

    def __len__(self) -> int:
        return int(self._graph.ntotal)

    def write(self, folder: Path, ids: Sequence[str]) -> None:
        """Write Chroma's five files into a new folder, on the disk when this returns.

        Args:
            ids: of the vectors, in the order in which they were added.

        Raises:
            PreflightError: the folder cannot be written.
        """
        hnsw, count = self._graph.hnsw, len(self)
        to_array = self._faiss.vector_to_array
        levels, offsets = to_array(hnsw.levels) - 1, to_array(hnsw.offsets).astype(np.int64)
        links = to_array(hnsw.neighbors)
        most = self._neighbours
        start = 4 + 8 * most
        size = start + 4 * self._dimensions + 8
        header = HEADER_FORM.pack(
            _VERSION, 0, count, count, size, size - 8, start, int(hnsw.max_level),
            int(hnsw.entry_point), most, 2 * most, most, 1 / math.log(most), self._breadth,
        )  # fmt: skip
        with write_errors(folder, INSTEAD):
            folder.mkdir()
            for name, parts in (
                (HEADER, iter([header])),
                (ELEMENTS, self._elements(links, offsets, size)),
                (LENGTHS, iter([self._lengths.tobytes()])),
                (LINKS, _upper_links(links, offsets, levels, most)),
                (LABELS, _pickled(ids)),
            ):
                with (folder / name).open("xb") as file:
                    _write(file, parts)
            fsync_dir(folder)

    def _elements(
        self, links: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], size: int
    ) -> Iterator[bytes]:
        """Of each record the links of the lowest level, the vector, the label."""
        most = 2 * self._neighbours
        start, count = 4 + 4 * most, len(self)
        rows = max(1, CHUNK_BYTES // size)
        for first in range(0, count, rows):
            end = min(count, first + rows)
            part = np.zeros((end - first, size), np.uint8)
            near = links[offsets[first:end, None] + np.arange(most)]
            part[:, :4] = _bytes((near >= 0).sum(axis=1, dtype=np.uint32))
            part[:, 4:start] = _bytes(np.where(near >= 0, near, 0).astype("<i4"))
            part[:, start : size - 8] = _bytes(self._graph.reconstruct_n(first, end - first))
            part[:, size - 8 :] = _bytes(np.arange(first + 1, end + 1, dtype="<u8"))
            yield part.tobytes()


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of each row."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def _upper_links(
    links: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    levels: npt.NDArray[np.int32],
    most: int,
) -> Iterator[bytes]:
    """Of each record how many bytes its links above the lowest level take, and these."""
    size = 4 * most + 4
    for first in range(0, len(levels), CHUNK_BYTES):
        part = levels[first : first + CHUNK_BYTES]
        told = np.ascontiguousarray(part * size).astype("<u4").tobytes()
        written = 0
        for place in np.flatnonzero(part).tolist():
            yield told[written : 4 * place + 4]
            written = 4 * place + 4
            for level in range(int(part[place])):
                start = int(offsets[first + place]) + (2 + level) * most
                near = links[start : start + most]
                near = near[near >= 0].astype("<i4")
                yield (struct.pack("<I", len(near)) + near.tobytes()).ljust(size, b"\0")
        yield told[written:]


def _pickled(ids: Sequence[str]) -> Iterator[bytes]:
    """`index_metadata.pickle`, as Chroma's Rust part makes it; labels count from one."""
    yield b"\x80\x03}("
    yield _text("dimensionality") + b"N"
    yield _text("total_elements_added") + _whole(len(ids))
    yield _text("max_seq_id") + b"N"
    encoded = [_text(id) for id in ids]
    yield _text("id_to_label")
    yield from _map(encoded, map(_whole, range(1, len(ids) + 1)))
    yield _text("label_to_id")
    yield from _map(map(_whole, range(1, len(ids) + 1)), encoded)
    yield _text("id_to_seq_id") + b"}u."


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


_GROUP = 1_000
"""Pairs of a map between two marks, as pickle has them."""


def _map(keys: Any, values: Any) -> Iterator[bytes]:
    yield b"}"
    group: list[bytes] = []
    for pair in zip(keys, values, strict=True):
        group += pair
        if len(group) == 2 * _GROUP:
            yield b"(" + b"".join(group) + b"u"
            group.clear()
    if group:
        yield b"(" + b"".join(group) + b"u"


def _write(file: IO[bytes], parts: Iterator[bytes]) -> None:
    for part in parts:
        file.write(part)
    file.flush()
    os.fsync(file.fileno())
