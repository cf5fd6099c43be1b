"""What COPY BINARY sends, as Arrow columns: a block of rows at a time, no Python object per field.

The format is that of the COPY documentation (PostgreSQL 18, "Binary Format"): a header, and for
each row a count of fields (int16) and each field behind its length (int32, -1 for null).
Who reads them is `reading.py`.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.records import Vectors

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
VECTOR_HEAD = 4
"""Bytes before a vector's values: its dimensions (int16), and a zero."""

Chunk = bytes | bytearray | memoryview
Places = npt.NDArray[np.int64]


class Block:
    """Rows of one block.

    Args:
        chunks: a row each, as psycopg hands them out.
        width: fields in a row.
    """

    def __init__(self, chunks: list[Chunk], width: int) -> None:
        self._data = pa.py_buffer(b"".join(chunks))
        self._bytes = np.frombuffer(self._data, np.uint8)
        ends = np.cumsum(np.fromiter(map(len, chunks), np.int64, len(chunks)))
        at = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        assert (self._integers(at, ">i2") == width).all(), "a row has another number of fields"
        at += 2
        self._fields: list[tuple[Places, Places]] = []
        for _ in range(width):
            sizes = self._integers(at, ">i4")
            at = at + 4
            self._fields.append((at, sizes))
            at = at + np.maximum(sizes, 0)
        assert (at == ends).all(), "rows end where their fields do"

    def __len__(self) -> int:
        return len(self._fields[0][0])

    def _integers(self, at: Places, type: str) -> Places:
        """The big-endian integers that begin at these bytes."""
        wide = np.dtype(type).itemsize
        raw = self._bytes[at[:, None] + np.arange(wide)]
        return np.ascontiguousarray(raw).view(type)[:, 0].astype(np.int64)

    def _taken(self, starts: Places, ends: Places) -> pa.Array:
        """These ranges of bytes, in ascending order, as every other value of `large_binary`."""
        edges = np.stack((starts, ends), axis=-1).reshape(-1)
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(edges) - 1, [None, pa.py_buffer(edges), self._data]
        )

    def texts(self, width: int) -> list[pa.Array]:
        """The first so many fields as `large_string`; Postgres sends UTF-8 or refuses."""
        starts = np.stack([starts for starts, _ in self._fields[:width]], axis=1)
        sizes = np.stack([sizes for _, sizes in self._fields[:width]], axis=1)
        ranges = self._taken(starts, starts + np.maximum(sizes, 0))
        by_field = np.arange(0, 2 * sizes.size, 2).reshape(sizes.shape).T
        column = ranges.take(pa.array(by_field.ravel(), mask=(sizes < 0).T.ravel()))
        texts = column.cast(pa.large_string())
        return [texts.slice(field * len(self), len(self)) for field in range(width)]

    def vectors(self, field: int) -> tuple[npt.NDArray[np.float32], Places]:
        """The values of a vector field behind each other, as sent (big-endian), and how many each
        row has; -1 for null."""
        starts, sizes = self._fields[field]
        kept = sizes >= 0
        starts, ends = starts[kept] + VECTOR_HEAD, starts[kept] + sizes[kept]
        if not len(starts):
            return np.zeros(0, np.float32), np.full(len(sizes), -1)
        ranges = self._taken(starts, ends).take(pa.array(np.arange(0, 2 * len(starts), 2)))
        values = np.frombuffer(ranges.buffers()[2], ">f4")
        return values, np.where(kept, (sizes - VECTOR_HEAD) // 4, -1)


class VectorColumn:
    """Vectors of the rows of several blocks, put together as `list<float32>`.

    Args:
        rows: at most so many.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._values = np.zeros(0, np.float32)
        self._used = 0
        self._sizes: list[Places] = []

    def append(self, values: Vectors, sizes: Places) -> None:
        """What `Block.vectors` gives."""
        self._sizes.append(sizes)
        end = self._used + len(values)
        if end > len(self._values):
            most = max(end, int(sizes.max()) * self._rows)
            self._values, old = np.empty(most, np.float32), self._values
            self._values[: self._used] = old[: self._used]
        self._values[self._used : end] = values
        self._used = end

    def array(self) -> pa.Array:
        sizes = np.concatenate(self._sizes) if self._sizes else np.zeros(0, np.int64)
        offsets = np.zeros(len(sizes) + 1, np.int32)
        np.cumsum(np.maximum(sizes, 0), out=offsets[1:])
        nulls = sizes < 0
        return pa.ListArray.from_arrays(
            offsets, pa.array(self._values[: self._used]),
            mask=pa.array(nulls) if nulls.any() else None,
        )  # fmt: skip
