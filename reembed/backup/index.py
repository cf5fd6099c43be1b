"""What the last good snapshot holds of every id, so that a backup writes only what changed.

A SQLite file for the time of one backup, made from the snapshot's shards: each is read and hashed
for it, so a shard that was damaged since is noticed by the next backup and its records are written
again. Memory stays flat: a byte a row.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from reembed.backup.shards import read_shard
from reembed.backup.snapshot import Alive, ShardFile, Snapshot
from reembed.disk import remove, sqlite_errors
from reembed.errors import DamagedError
from reembed.records import SHARD_ROWS, chunked

SQL_VARIABLES = 500
SPARSE = 0.5
"""A shard of which fewer rows than this share are records is written again."""
FEW_ROWS, MANY_SMALL = SHARD_ROWS // 2, 16
"""Where more than so many shards have fewer records than this, they are written again as one."""


def digests(records: pa.RecordBatch | pa.Table) -> list[bytes]:
    """16 bytes for each record, over its row hash and the bytes of its vector."""
    rows = records.column("row_sha256").to_pylist()
    column = records.column("embedding")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no rows at all
        return []
    valid, offsets = np.asarray(column.is_valid()), np.asarray(column.offsets)
    data = np.ascontiguousarray(np.asarray(column.values), np.float32).tobytes()
    found = []
    for row, one in enumerate(rows):
        vector = data[4 * offsets[row] : 4 * offsets[row + 1]] if valid[row] else b"\xff"
        found.append(hashlib.sha256(one + vector).digest()[:16])
    return found


class Index:
    """Id to digest, shard and row of a snapshot's records.

    Args:
        path: of the file, which is removed at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        remove(path)
        with sqlite_errors(path):
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;"
                "CREATE TABLE records (id TEXT PRIMARY KEY, digest BLOB NOT NULL, "
                "shard INTEGER NOT NULL, row INTEGER NOT NULL) WITHOUT ROWID"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        remove(self._path)

    def add(self, records: pa.Table, shard: int, rows: Sequence[int]) -> None:
        """Take records of a shard in, with their rows in its file."""
        ids = records.column("id").to_pylist()
        values = zip(ids, digests(records), [shard] * len(ids), rows, strict=True)
        with sqlite_errors(self._path):
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", values)
            self._db.execute("COMMIT")

    def lookup(self, ids: Sequence[str]) -> dict[str, tuple[bytes, int, int]]:
        """Digest, shard and row of those of the ids that it has."""
        found: dict[str, tuple[bytes, int, int]] = {}
        with sqlite_errors(self._path):
            for part in chunked(ids, SQL_VARIABLES):
                marks = ",".join("?" * len(part))
                rows = self._db.execute(
                    f"SELECT id, digest, shard, row FROM records WHERE id IN ({marks})",  # noqa: S608
                    part,
                )
                found.update((id, (digest, shard, row)) for id, digest, shard, row in rows)
        return found

    def pages(self) -> Iterator[list[tuple[str, bytes, int, int]]]:
        """All of it, in pages of SHARD_ROWS."""
        last = ""
        while True:
            with sqlite_errors(self._path):
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
