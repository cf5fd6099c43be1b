"""Paid vectors that an earlier version kept in a SQLite file, one row a text: only looked up."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from reembed.records import Vectors
from reembed.run.sqlite import select_in

EARLIER = ".sqlite"


def earlier_vectors(
    path: Path, hashes: Sequence[bytes], known: Container[bytes], dimensions: int | None
) -> dict[bytes, tuple[Vectors, int]]:
    """What the file beside `path` that an earlier version made has of these texts, but for those
    that are known: vectors `(d,) float32` and tokens. Nothing where there is none, or it cannot be
    read now.

    Args:
        dimensions: of the vectors; None for those of any, which are then left empty.
    """
    found: dict[bytes, tuple[Vectors, int]] = {}
    file = path.with_suffix(EARLIER)
    if not file.is_file():
        return found
    wanted = [key for key in hashes if key not in known]
    # Reading makes side files, unless SQLite is told that nobody writes; those who do have one.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{file.absolute().as_uri()}?{mode}"
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(uri, uri=True)) as db,
    ):
        query = "SELECT text_sha256, tokens, vector, crc32 FROM vectors WHERE text_sha256 IN ({})"
        for key, tokens, blob, crc in select_in(db, query, wanted):
            if not isinstance(blob, bytes) or not isinstance(tokens, int):
                continue  # a bit of its type was changed
            right = dimensions is None or len(blob) == 4 * dimensions
            if right and crc == zlib.crc32(blob, zlib.crc32(key, tokens)):
                vector = np.frombuffer(b"" if dimensions is None else blob, np.float32)
                found[key] = (vector, tokens)
    return found
