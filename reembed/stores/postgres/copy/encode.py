"""Arrow columns and vectors as what COPY BINARY takes, whole columns at a time.

The format is that of the COPY documentation (PostgreSQL 18, "Binary Format"), a field's that of its
type's receive function: `uuid_recv`, `int8recv`, `jsonb_recv`, pgvector's `vector_recv`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.adapt import Dumper
from psycopg.pq import Format

from reembed.records import Vectors
from reembed.stores.canonical import NO_METADATA
from reembed.stores.postgres.schema.ids import FORMS
from reembed.stores.postgres.schema.metadata import JSON_NULL

Encoder = Callable[[pa.Array], pa.Array]
"""A column of texts as the bytes of its fields, `large_binary`, null for SQL's null. Raises
ValueError where a text is none of the type's."""


def _text(column: pa.Array) -> pa.Array:
    return column.cast(pa.large_binary())


def _json(column: pa.Array) -> pa.Array:
    texts = column.cast(pa.large_string())
    texts = pc.if_else(pc.equal(texts, NO_METADATA), pa.scalar(None, texts.type), texts)
    nulls = pc.match_substring_regex(texts, JSON_NULL)
    if pc.any(nulls).as_py():
        texts = pc.if_else(nulls, pc.utf8_slice_codeunits(texts, 1), texts)
    return texts.cast(pa.large_binary())


def _jsonb(column: pa.Array) -> pa.Array:
    version = pa.scalar(b"\x01", pa.large_binary())
    return pc.binary_join_element_wise(version, _json(column), pa.scalar(b"", pa.large_binary()))


def _uuid(column: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(column, f"^{FORMS['uuid']}$")).as_py():
        raise ValueError("an id is not a UUID as Postgres writes it")
    digits = "".join(column.to_pylist()).replace("-", "")
    return _of_width(np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 16))


def _integer(type: pa.DataType, code: str) -> Encoder:
    def encode(column: pa.Array) -> pa.Array:
        numbers = column.cast(pa.int64()).cast(type).to_numpy(zero_copy_only=False)
        return _of_width(numbers.astype(code).view(np.uint8).reshape(len(numbers), type.byte_width))

    return encode


ENCODERS: dict[str, Encoder] = {
    "uuid": _uuid, "int2": _integer(pa.int16(), ">i2"), "int4": _integer(pa.int32(), ">i4"),
    "int8": _integer(pa.int64(), ">i8"), "text": _text, "varchar": _text, "json": _json,
    "jsonb": _jsonb,
}  # fmt: skip
"""By the name of a column's type."""


def encode_rows(fields: list[pa.Array], vectors: Vectors, type: str) -> memoryview:
    """Rows of these fields and a vector at the end, as COPY takes them, without header or trailer.

    Args:
        fields: of `ENCODERS`, a column each.
        type: vector or halfvec.
    """
    count = struct.pack(">h", len(fields) + 1)
    pieces: list[pa.Array | pa.Scalar] = [pa.scalar(count, pa.large_binary())]
    for field in fields:
        lengths = pc.binary_length(field).fill_null(-1).to_numpy(zero_copy_only=False)
        frame = lengths.astype(">i4").view(np.uint8).reshape(len(field), 4)
        pieces += [_of_width(frame), field.fill_null(b"")]
    pieces += [_vectors(vectors, type), pa.scalar(b"", pa.large_binary())]
    rows = pc.binary_join_element_wise(*pieces)
    return memoryview(rows.buffers()[2])


def _vectors(vectors: Vectors, type: str) -> pa.Array:
    """Each row behind its length: int16 dimensions, int16 0, then the values."""
    n, d = vectors.shape
    wide, code = (4, ">f4") if type == "vector" else (2, ">f2")
    head = [("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2")]
    frame = np.empty(n, np.dtype([*head, ("values", code, (d,))]))
    frame["size"], frame["dimensions"], frame["unused"] = 4 + wide * d, d, 0
    with np.errstate(over="ignore"):  # Postgres refuses an infinite value
        frame["values"] = vectors
    return _of_width(frame.view(np.uint8).reshape(n, 8 + wide * d))


class VectorDumper(Dumper):
    """A vector `(d,) float32` as a parameter of a query; write `%b::vector`."""

    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return struct.pack(">hh", len(obj), 0) + np.asarray(obj, ">f4").tobytes()


def _of_width(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """Rows of so many bytes as `large_binary`."""
    n, width = rows.shape
    edges = np.arange(n + 1, dtype=np.int64) * width
    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(edges), data])
