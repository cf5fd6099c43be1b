"""Equal vectors of different texts, found over any number of records in bounded memory.

A model that answers with one vector for all, a batch filled with its first vector, or a server that
cuts texts short all leave equal vectors behind texts that are not equal.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from reembed.records import Vectors
from reembed.run.sqlite import temporary_errors

HASH_BYTES = 16
CACHE_KIB = 65_536
INSERT = "INSERT INTO seen VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET records = records + 1"


class Twins(NamedTuple):
    """Records of different texts whose vectors are equal, bit for bit.

    Attributes:
        records: how many records have this vector.
        ids: one record for each of the first few texts.
    """

    records: int
    ids: tuple[str, ...]


class TwinFinder:
    """Collects vectors with the hashes of their texts; see `twins`.

    Kept in a private temporary SQLite database, which moves to disk when it outgrows its cache.
    Several threads may use it, one at a time.

    Raises:
        PreflightError: there is no room for it in the temporary directory; from every method.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE seen (vector BLOB, text BLOB, id TEXT, records INTEGER, "
            "PRIMARY KEY (vector, text)) WITHOUT ROWID"
        )

    def add(self, ids: Sequence[str], texts: Sequence[bytes], vectors: Vectors) -> None:
        """Take in records: ids, hashes of their texts, vectors `(n, d) float32`."""
        rows = (
            (hashlib.blake2b(vector, digest_size=HASH_BYTES).digest(), text[:HASH_BYTES], id)
            for id, text, vector in zip(ids, texts, vectors, strict=True)
        )
        with temporary_errors():
            self._db.execute("BEGIN")
            self._db.executemany(INSERT, rows)
            self._db.execute("COMMIT")

    def twins(self, texts_each: int = 3) -> Iterator[Twins]:
        """Every vector that stands for more than one text, those of most records first."""
        with temporary_errors():
            groups = self._db.execute(
                "SELECT vector, sum(records) FROM seen GROUP BY vector HAVING count(*) > 1 "
                "ORDER BY sum(records) DESC, vector"
            )
            for vector, records in groups:
                ids = self._db.execute(
                    "SELECT id FROM seen WHERE vector = ? ORDER BY text LIMIT ?",
                    (vector, texts_each),
                )
                yield Twins(records, tuple(id for (id,) in ids))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
