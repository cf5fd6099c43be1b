"""Records, shards and their Arrow schemas: the only place where shapes are defined.

A record is (id, document, metadata, uri, vector). Stages pass records as Arrow record batches and
vectors as `(n, d) float32` numpy arrays; a shard is a Parquet file of such batches. Every shard is
readable as it stands by DuckDB, Polars or pandas.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Vectors: TypeAlias = npt.NDArray[np.float32]
Metric: TypeAlias = Literal["cosine", "l2", "ip"]

SHARD_ROWS = 5_000
"""Rows in a full shard. Chroma's `get` fails above about 32,765 ids, and 5,000 keeps a page of
1,536-d vectors near 30 MB."""

EXPORT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("document", pa.large_string()),
        pa.field("metadata", pa.large_string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("row_sha256", pa.binary(32), nullable=False),
    ]
)
"""An export shard: `metadata` is JSON text, `embedding` the old vector (null where the store lost
it), `row_sha256` the hash over id, document, metadata and uri (see `row_hashes`)."""

QUARANTINE_SCHEMA = pa.schema(
    [
        *EXPORT_SCHEMA,
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""A quarantined record whole, with a short `reason` (`no_text`, `too_long`, `refused`) and what the
provider or reembed said (`detail`)."""


def embed_schema(dimensions: int) -> pa.Schema:
    """The schema of an embed shard of `dimensions`-d vectors.

    `text_sha256` is the hash of the text that the template gave, before the model's prefix.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text_sha256", pa.binary(32), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def metadata_object(text: str) -> dict[str, Any]:
    """Metadata text, parsed; empty where it is not a JSON object, as a store's own JSON may be."""
    parsed = json.loads(text)
    return parsed if isinstance(parsed, dict) else {}


def _frame(value: str | None) -> bytes:
    """A length-prefixed field; null has a length that no string can have."""
    if value is None:
        return b"\xff" * 8
    data = value.encode("utf-8")
    return struct.pack(">Q", len(data)) + data


def row_hash(id: str, document: str | None, metadata: str, uri: str | None) -> bytes:
    """SHA-256 over the record's fields, each length-prefixed, null told apart from empty."""
    return hashlib.sha256(_frame(id) + _frame(document) + _frame(metadata) + _frame(uri)).digest()


def text_hash(text: str) -> bytes:
    """SHA-256 of a text as UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def unicode_fault(text: str) -> str:
    """Why a text is not valid Unicode (it holds half of a surrogate pair); empty where it is."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{error.reason} at {error.start}"
    return ""


def row_hashes(ids: pa.Array, documents: pa.Array, metadatas: pa.Array, uris: pa.Array) -> pa.Array:
    """`row_hash` of each row of four text columns, as `binary(32)`."""
    frames: list[pa.Array] = []
    for column in (ids, documents, metadatas, uris):
        lengths = pc.binary_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        frames += [_wide(lengths.astype(">i8")), column.cast(pa.large_binary()).fill_null(b"")]
    joined = pc.binary_join_element_wise(*frames, pa.scalar(b"", pa.large_binary()))
    edges = np.frombuffer(joined.buffers()[1], np.int64, len(joined) + 1).tolist()
    data = memoryview(joined.buffers()[2] or b"")
    digests = [hashlib.sha256(data[start:end]).digest() for start, end in pairwise(edges)]
    return pa.Array.from_buffers(
        pa.binary(32), len(digests), [None, pa.py_buffer(b"".join(digests))]
    )


def hashes_of(rows: pa.RecordBatch | pa.Table) -> dict[str, bytes]:
    """The row hash of each record, by id."""
    ids, hashes = rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist()
    return dict(zip(ids, hashes, strict=True))


def _wide(numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Eight bytes each, as `large_binary`."""
    edges = np.arange(0, 8 * len(numbers) + 1, 8, dtype=np.int64)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(numbers.tobytes())]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(numbers), buffers)


Texts: TypeAlias = Sequence[str | None] | pa.Array


def export_batch(
    ids: Sequence[str] | pa.Array,
    documents: Texts,
    metadatas: Sequence[str] | pa.Array,
    uris: Texts,
    embeddings: pa.Array | None = None,
) -> pa.RecordBatch:
    """Columns as a record batch of `EXPORT_SCHEMA`, with the row hashes computed.

    Args:
        metadatas: JSON text of each record, `null` where it has none.
        embeddings: old vectors as `list<float32>`, null where one is missing; None for none at all.

    Raises:
        ValueError: the columns are of unequal length.
    """
    texts = [
        column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip((ids, documents, metadatas, uris), EXPORT_SCHEMA, strict=False)
    ]
    if embeddings is None:
        embeddings = pa.nulls(len(ids), pa.list_(pa.float32()))
    return pa.record_batch([*texts, embeddings, row_hashes(*texts)], schema=EXPORT_SCHEMA)


def vectors_to_list_array(vectors: Vectors) -> pa.Array:
    """`(n, d) float32` to `list<float32>` without copying the values."""
    n, d = vectors.shape
    offsets = np.arange(0, (n + 1) * d, d, dtype=np.int32) if d else np.zeros(n + 1, np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1), pa.float32()))


def vectors_to_fixed_array(vectors: Vectors) -> pa.Array:
    """`(n, d) float32` to `fixed_size_list<float32, d>` without copying the values."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1]
    )


def fixed_array_to_vectors(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """`fixed_size_list<float32, d>` without nulls to `(n, d) float32`."""
    column = _one_array(column)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, np.float32).reshape(len(column), column.type.list_size)


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column in one piece, which is not copied where it is one already."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def list_array_to_vectors(
    column: pa.Array | pa.ChunkedArray,
) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """`list<float32>` to `(m, d) float32` of the non-null rows, and the `(n,) bool` mask of them.

    Raises:
        ValueError: if the vectors have different dimensions.
    """
    column = _one_array(column)
    mask = np.asarray(column.is_valid())
    present = column.drop_null() if column.null_count else column
    if not len(present):
        return np.zeros((0, 0), np.float32), mask
    offsets = np.asarray(present.offsets)
    sizes = np.diff(offsets)
    if (sizes != sizes[0]).any():
        raise ValueError(f"vectors of {sizes.min()} and of {sizes.max()} dimensions in one batch")
    values = np.asarray(present.flatten())
    return np.ascontiguousarray(values, np.float32).reshape(len(present), int(sizes[0])), mask


def bad_rows(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """`(n,) bool`: rows that are not finite or have a zero norm."""
    squared = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    bad: npt.NDArray[np.bool_] = ~(np.isfinite(squared) & (squared > 0))
    return bad


def lengths_of(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Euclidean length of each row, `(n,) float64`."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)))


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length one. Raises nothing: check with `bad_rows` first."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    made: Vectors = np.empty(vectors.shape, np.float32)
    # Divided as float64, of which no array is made.
    np.divide(vectors, norms[:, None], out=made, dtype=np.float64, casting="same_kind")
    return made


def cosine_rows(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    """Cosine similarity of row i of `a` with row i of `b`, `(n,) float64`."""
    dot = np.einsum("ij,ij->i", a, b, dtype=np.float64)
    norms = np.sqrt(
        np.einsum("ij,ij->i", a, a, dtype=np.float64)
        * np.einsum("ij,ij->i", b, b, dtype=np.float64)
    )
    return np.asarray(np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0))


def chunked(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """`items` in slices of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
