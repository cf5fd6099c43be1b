"""What a store holds of records right now."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from reembed.records import Vectors, cosine_rows, list_array_to_vectors

SAME = 0.9999
"""Cosine from which a vector in the store is the one that was written: 16-bit floats round."""


def now_in(rows: pa.RecordBatch) -> dict[str, tuple[bytes, Vectors | None]]:
    """Hash and vector of records, by id."""
    vectors, there = list_array_to_vectors(rows.column("embedding"))
    at = np.cumsum(there) - 1
    names, hashes = rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist()
    return {
        id: (hashes[row], vectors[at[row]] if there[row] else None)
        for row, id in enumerate(names)
    }  # fmt: skip


def is_same(vector: Vectors | None, wanted: Vectors) -> bool:
    """Whether a vector in the store is this one."""
    if vector is None or vector.shape != wanted.shape:
        return False
    if not wanted.any():
        return not vector.any()
    lengths = np.linalg.norm([vector, wanted], axis=1)
    alike = cosine_rows(vector[None], wanted[None])[0] >= SAME
    return bool(alike and abs(lengths[0] - lengths[1]) <= 1e-2 * lengths[1])


def there_is(vector: Vectors | None) -> Vectors:
    """A vector that is known to be there."""
    assert vector is not None, "those without one are left"
    return vector
