"""Row hashes that count a record's vector in, for a run that moves vectors as they are.

A store hands the same vector out in other bits: Chroma a unit in the last place off by whether it
is in the index already, a halfvec column rounded. So bits cannot be hashed. What the run has seen
of each record's vectors is kept as sketches, and a vector that comes within such a rounding of one
that was seen is that one. They are in a SQLite file beside the ledger; where it is gone, the run's
export shards make it again.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reembed.records import Vectors, list_array_to_vectors, row_hashes
from reembed.run.directory import RunDir
from reembed.run.sqlite import (
    open_database,
    remove_database,
    select_in,
    sqlite_errors,
    transaction,
)

FILE = "vectors.sqlite"
PROJECTIONS = 12
"""Random projections of a sketch. A vector that differs in direction by x moves each of them by
about x; that all twelve move by less than a tenth of it has a probability of about 1e-12."""
ROUNDING, HALF_ROUNDING = 1e-5, 2e-3
"""How far projections of a direction, or a length relative to itself, may be from what was seen:
float32 is off by 1e-7, halfvec by 5e-4."""
NO_VECTOR = b"none"
MOST_NUMBERS = 1_000
"""Vectors of one record that are told apart when the file is made again."""

Sketches = npt.NDArray[np.float64]


class VectorIds:
    """What is known of the vectors of a run's records.

    A record's first vector is its number 0, another one its number 1, and so on. The first leaves
    the row hash as it is, each further one makes another hash of it.

    Args:
        run: its directory.
    """

    def __init__(self, run: RunDir) -> None:
        self._run, self._path = run, run.path / FILE
        self._lock = threading.Lock()
        self._projections: dict[int, npt.NDArray[np.float64]] = {}
        try:
            self._open()
        except sqlite3.DatabaseError:  # it is only an index over the shards
            remove_database(self._path)
            self._open()

    def _open(self) -> None:
        self._db = open_database(self._path, threads=True)
        with sqlite_errors(self._path):
            self._db.executescript(
                "PRAGMA synchronous = OFF;"
                "CREATE TABLE IF NOT EXISTS seen (id TEXT NOT NULL, number INTEGER NOT NULL, "
                "sketch BLOB NOT NULL, PRIMARY KEY (id, number)) WITHOUT ROWID"
            )
            made = self._db.execute("PRAGMA user_version").fetchone()[0]
        if not made:
            self._take_in_shards()

    def _take_in_shards(self) -> None:
        """What the export shards say, each record's number by its row hash."""
        for shard in self._run.shards("export").values():
            if not shard.rows or not self._run.is_whole(shard):
                continue
            table = self._run.read_shard(shard).combine_chunks()
            for rows in table.to_batches():
                names = ("id", "document", "metadata", "uri")
                plain = row_hashes(*(rows.column(name) for name in names)).to_pylist()
                self._take_in(rows, plain)
        with sqlite_errors(self._path):
            self._db.execute("PRAGMA user_version = 1")

    def _take_in(self, rows: pa.RecordBatch, plain: list[bytes]) -> None:
        ids, hashes = rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist()
        with sqlite_errors(self._path), transaction(self._db):
            for places, vectors in _by_dimension(rows.column("embedding")):
                for place, sketch in zip(places, self._sketches(vectors), strict=True):
                    number = _number_in(hashes[place], plain[place])
                    self._db.execute(
                        "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)",
                        (ids[place], number, sketch.tobytes()),
                    )

    def marked(self, records: pa.RecordBatch, *, lengths: bool = True) -> pa.RecordBatch:
        """Records whose `row_sha256` counts their vector in.

        Args:
            records: with their vectors, and row hashes over all else.
            lengths: False where the length of a vector means nothing.
        """
        if not records.num_rows:
            return records
        ids, rows = records.column("id").to_pylist(), records.column("row_sha256").to_pylist()
        hashes = [hashlib.sha256(row + NO_VECTOR).digest() for row in rows]
        for places, vectors in _by_dimension(records.column("embedding")):
            numbers = self._numbers([ids[place] for place in places], vectors, lengths)
            for place, number in zip(places, numbers, strict=True):
                hashes[place] = _with_number(rows[place], number)
        place = records.schema.get_field_index("row_sha256")
        field = records.schema.field(place)
        return records.set_column(place, field, pa.array(hashes, field.type))

    def _numbers(self, ids: Sequence[str], vectors: Vectors, lengths: bool) -> list[int]:
        """Which of each record's vectors these are; new ones get a number."""
        sketches, limits = self._sketches(vectors), _limits(vectors)
        with self._lock:
            found = self._known(ids, sketches, limits, lengths)
            if None not in found:
                return [number for number in found if number is not None]
            with (
                sqlite_errors(self._path),
                transaction(self._db),
            ):  # another process may have numbered them meanwhile
                return self._numbered(ids, sketches, limits, lengths)

    def _known(
        self, ids: Sequence[str], sketches: Sketches, limits: npt.NDArray[np.float64], lengths: bool
    ) -> list[int | None]:
        seen = self._seen(ids)
        return [
            next((number for number, one in seen.get(id, ())
                  if _same(sketches[row], one, limits[row], lengths)), None)
            for row, id in enumerate(ids)
        ]  # fmt: skip

    def _numbered(
        self, ids: Sequence[str], sketches: Sketches, limits: npt.NDArray[np.float64], lengths: bool
    ) -> list[int]:
        numbers = []
        for row, (id, number) in enumerate(
            zip(ids, self._known(ids, sketches, limits, lengths), strict=True)
        ):
            if number is None:
                (number,) = self._db.execute(
                    "SELECT coalesce(max(number), -1) + 1 FROM seen WHERE id = ?", (id,)
                ).fetchone()
                self._db.execute(
                    "INSERT INTO seen VALUES (?, ?, ?)", (id, number, sketches[row].tobytes())
                )
            numbers.append(int(number))
        return numbers

    def _sketches(self, vectors: Vectors) -> Sketches:
        """`(n, PROJECTIONS + 2)`: dimension, length, and the projections of the direction."""
        size = vectors.shape[1]
        if size not in self._projections:
            generator = np.random.default_rng(size)
            self._projections[size] = generator.standard_normal((size, PROJECTIONS))
        wide = np.nan_to_num(vectors.astype(np.float64))
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        directions = wide / np.where(norms > 0, norms, 1)[:, None]
        fixed = np.column_stack([np.full(len(vectors), float(size)), norms])
        return np.column_stack([fixed, directions @ self._projections[size]])

    def _seen(self, ids: Sequence[str]) -> dict[str, list[tuple[int, Sketches]]]:
        found: dict[str, list[tuple[int, Sketches]]] = {}
        with sqlite_errors(self._path):
            query = "SELECT id, number, sketch FROM seen WHERE id IN ({})"
            for id, number, sketch in select_in(self._db, query, ids):
                found.setdefault(id, []).append((number, np.frombuffer(sketch, np.float64)))
        return found

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_number(row: bytes, number: int) -> bytes:
    return hashlib.sha256(row + number.to_bytes(4, "big")).digest() if number else row


def _number_in(marked: bytes, row: bytes) -> int:
    """The number that a row hash was marked with."""
    return next((n for n in range(MOST_NUMBERS) if _with_number(row, n) == marked), 0)


def _by_dimension(column: pa.Array) -> Iterator[tuple[list[int], Vectors]]:
    """Vectors `(n, d) float32` of one dimension each, with their places; rows without one are left
    out."""
    sizes = np.asarray(pc.list_value_length(column).fill_null(-1))
    for size in np.unique(sizes[sizes > 0]).tolist():
        vectors, _ = list_array_to_vectors(column.filter(pa.array(sizes == size)))
        yield np.flatnonzero(sizes == size).tolist(), vectors


def _limits(vectors: Vectors) -> npt.NDArray[np.float64]:
    """How far each vector may be from what was seen: what float16 holds may have been rounded."""
    with np.errstate(over="ignore"):
        half = (vectors.astype(np.float16).astype(np.float32) == vectors).all(axis=1)
    return np.where(half, HALF_ROUNDING, ROUNDING)


def _same(sketch: Sketches, seen: Sketches, near: float, lengths: bool) -> bool:
    if sketch[0] != seen[0] or np.abs(sketch[2:] - seen[2:]).max() > near:
        return False
    return not lengths or abs(sketch[1] - seen[1]) <= near * max(sketch[1], seen[1])
