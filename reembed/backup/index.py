"""What the last good snapshot holds of every id, so that a backup writes only what changed.

A SQLite file for the time of one backup, made from the snapshot's shards: each is read and hashed
for it, so a shard that was damaged since is noticed by the next backup and its records are written
again. Memory stays flat: a byte a row.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reembed.backup.shards import read_shard
from reembed.backup.snapshot import ANOTHER_DISK, Alive, ShardFile, Snapshot
from reembed.errors import DamagedError
from reembed.records import SHARD_ROWS, list_array_to_vectors
from reembed.run.sqlite import remove_database, select_in, sqlite_errors

SPARSE = 0.5
"""A shard of which fewer rows than this share are records is written again."""
FEW_ROWS, MANY_SMALL = SHARD_ROWS // 2, 16
"""Where more than so many shards have fewer records than this, they are written again as one."""


Digests: TypeAlias = Callable[[pa.RecordBatch | pa.Table], list[bytes]]
STEPS, LENGTH_STEPS = 256, 1024
"""A vector counts as changed where one of its values has moved to another of so many steps of their
root mean square, or its length to another of so many steps from one power of two to the next.
Chroma hands the same vector out within a unit in the last place, by whether it is in the index
already: of 768 values one crosses a step then for one vector of 50, which is written again for
nothing."""


def digests(records: pa.RecordBatch | pa.Table) -> list[bytes]:
    """16 bytes for each record, over its row hash and its vector in steps."""
    rows = records.column("row_sha256").to_pylist()
    column = records.column("embedding")
    sizes = np.asarray(pc.list_value_length(column).fill_null(-1))
    found = [b""] * len(rows)
    for size in np.unique(sizes).tolist():
        places = np.flatnonzero(sizes == size)
        taken = column.filter(pa.array(sizes == size))
        vectors = list_array_to_vectors(taken)[0] if size > 0 else np.zeros((len(places), 0))
        said = _in_steps(vectors) if size >= 0 else None
        for number, place in enumerate(places.tolist()):
            vector = said[number].tobytes() if said is not None else b"none"
            found[place] = hashlib.sha256(rows[place] + vector).digest()[:16]
    return found


def _in_steps(vectors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """`(n, d)` floats as `(n, d + 1)` whole numbers that say where their values lie."""
    wide = np.nan_to_num(np.asarray(vectors, np.float64))
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    lengths[lengths == 0] = 1
    scale = STEPS * np.sqrt(max(1, wide.shape[1])) / lengths
    steps = np.rint(wide * scale[:, None])
    return np.column_stack([steps, np.rint(LENGTH_STEPS * np.log2(lengths))]).astype(np.int64)


def row_digests(records: pa.RecordBatch | pa.Table) -> list[bytes]:
    """16 bytes for each record, over all but its vector."""
    return [one[:16] for one in records.column("row_sha256").to_pylist()]


class Index:
    """Id to digest, shard and row of records.

    Args:
        path: of the file.
        keep: whether the file stays, and what a call that was killed has put into it counts;
            default: it begins empty, and is removed at the end.
        digests: of records.
    """

    def __init__(
        self, path: Path, *, keep: bool = False, digests: Digests = digests
    ) -> None:  # fmt: skip
        self._path, self._keep, self.digests = path, keep, digests
        if not keep:
            remove_database(self._path)
        with sqlite_errors(path, ANOTHER_DISK):
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                f"PRAGMA journal_mode = {'WAL' if keep else 'OFF'}; PRAGMA synchronous = OFF;"
                "PRAGMA cache_size = -32000;"
                "CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, digest BLOB NOT NULL, "
                "shard INTEGER NOT NULL, row INTEGER NOT NULL) WITHOUT ROWID"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        if not self._keep:
            remove_database(self._path)

    @property
    def complete(self) -> bool:
        """Whether all was put in that was to be: see `finish`."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            return bool(self._db.execute("PRAGMA user_version").fetchone()[0])

    def finish(self) -> None:
        """Note that it is complete."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            self._db.execute("PRAGMA user_version = 1")

    def begin(self) -> None:
        """Empty it."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            self._db.executescript("PRAGMA user_version = 0; DELETE FROM records")

    def count(self) -> int:
        """How many records it has."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def delete(self, ids: Sequence[str]) -> None:
        """Forget these."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            self._db.executemany("DELETE FROM records WHERE id = ?", [(id,) for id in ids])

    def add(
        self, records: pa.Table | pa.RecordBatch, shard: int = 0, rows: Sequence[int] = ()
    ) -> None:
        """Take records of a shard in, with their rows in its file."""
        ids = records.column("id").to_pylist()
        rows = rows or range(len(ids))
        values = zip(ids, self.digests(records), [shard] * len(ids), rows, strict=True)
        with sqlite_errors(self._path, ANOTHER_DISK):
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", values)
            self._db.execute("COMMIT")

    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[bytes, int, int]]:
        """Digest, shard and row of those of the ids that it has."""
        with sqlite_errors(self._path, ANOTHER_DISK):
            query = "SELECT id, digest, shard, row FROM records WHERE id IN ({})"
            rows = list(select_in(self._db, query, ids))
        return {id: (digest, shard, row) for id, digest, shard, row in rows}

    def pages(self) -> Iterator[list[tuple[str, bytes, int, int]]]:
        """All of it, in pages of SHARD_ROWS."""
        last = ""
        while True:
            with sqlite_errors(self._path, ANOTHER_DISK):
                page = self._db.execute(
                    "SELECT id, digest, shard, row FROM records WHERE id >= ? ORDER BY id LIMIT ?",
                    (last, SHARD_ROWS + 1),
                ).fetchall()
            yield page[:SHARD_ROWS]
            if len(page) <= SHARD_ROWS:
                return
            last = page[SHARD_ROWS][0]


class Base:
    """The snapshot that a new one shares shards with: which of its rows are records still.

    Attributes:
        damaged: shards that are not whole; the new snapshot does without them.
    """

    def __init__(self, index: Index, snapshot: Snapshot | None, shards: Path) -> None:
        self._index = index
        self.shards: list[ShardFile] = list(snapshot.shards) if snapshot else []
        self._kept: list[Alive] = [np.zeros(shard.rows, np.bool_) for shard in self.shards]
        self.damaged: list[ShardFile] = []
        self._rewritten = _worn(self.shards)
        for number, alive in enumerate(snapshot.alive() if snapshot else []):
            try:
                table = read_shard(shards, self.shards[number])
            except DamagedError:
                self.damaged.append(self.shards[number])
                continue
            rows = np.flatnonzero(alive).tolist()
            index.add(table.filter(pa.array(alive)), number, rows)

    def changed(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Those of the records that are to be written: all that the snapshot does not hold just so,
        and those whose shard is to be given up. The others are marked as kept."""
        ids = records.column("id").to_pylist()
        known = self._index.lookup(ids)
        new = np.ones(len(ids), np.bool_)
        for place, (id, digest) in enumerate(zip(ids, digests(records), strict=True)):
            there = known.get(id)
            if there is not None and there[0] == digest and there[1] not in self._rewritten:
                self._kept[there[1]][there[2]] = True
                new[place] = False
        return records.filter(pa.array(new))

    def kept(self) -> tuple[list[ShardFile], list[Alive]]:
        """The shards that still hold a record, and which of their rows those are."""
        used = [(shard, mask) for shard, mask in zip(self.shards, self._kept, strict=True)
                if mask.any()]  # fmt: skip
        shards = [
            ShardFile(shard.sha256, shard.rows, int((~mask).sum()), shard.bytes)
            for shard, mask in used
        ]
        return shards, [mask for _, mask in used]


def _worn(shards: Sequence[ShardFile]) -> set[int]:
    """Which shards a backup writes again, so that dead rows and small files do not pile up."""
    left = [shard.rows - shard.removed for shard in shards]
    sparse = {n for n, shard in enumerate(shards) if left[n] < SPARSE * shard.rows}
    small = {n for n, rows in enumerate(left) if rows < FEW_ROWS} - sparse
    return sparse | (small if len(small) > MANY_SMALL else set())
