"""Shards of snapshots: written under the hash of their bytes, and read only where it is right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.backup.snapshot import ANOTHER_DISK, ShardFile, Snapshot
from reembed.errors import DamagedError
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS
from reembed.run.disk import write_atomic
from reembed.run.files import RunFile, damaged, read
from reembed.run.shards import encoding

SHARD_BYTES = 64 << 20
"""A shard of long documents or vectors has fewer rows than SHARD_ROWS."""
SHARD = RunFile(
    "", "a shard of snapshots",
    "The disk or another program changed it. Snapshots that share it cannot be restored whole; "
    "`reembed check` names them, and the next `reembed backup` writes its records again.",
)  # fmt: skip


class ShardWriter:
    """Collects records and writes them as shards.

    Args:
        folder: where the shards go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self.written: list[ShardFile] = []

    def add(self, records: pa.RecordBatch) -> None:
        """Take records in; write a shard when there are enough of them."""
        if not records.num_rows:
            return
        self._waiting.append(records)
        self._rows += records.num_rows
        self._bytes += records.nbytes
        while self._rows >= SHARD_ROWS or (self._bytes >= SHARD_BYTES and self._rows):
            self._write(min(self._rows, SHARD_ROWS))

    def finish(self) -> None:
        """Write what is left."""
        if self._rows:
            self._write(self._rows)

    def _write(self, rows: int) -> None:
        table = pa.Table.from_batches(self._waiting, EXPORT_SCHEMA)
        rest = table.slice(rows)
        self._waiting = rest.to_batches()
        self._rows, self._bytes = rest.num_rows, rest.nbytes
        self.written.append(write_shard(self._folder, table.slice(0, rows)))


def write_shard(folder: Path, table: pa.Table) -> ShardFile:
    """Write a table of `EXPORT_SCHEMA` as a shard, whole and durable, under its hash."""
    out = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), out, **encoding(table.schema))
    content = out.getvalue()
    shard = ShardFile(hashlib.sha256(content).hexdigest(), table.num_rows, 0, content.size)
    write_atomic(folder / shard.name, content, ANOTHER_DISK)
    return shard


def read_shard(folder: Path, shard: ShardFile) -> pa.Table:
    """A shard's rows, all of them. Raises DamagedError where its bytes are not those written."""

    def parse(path: Path) -> pa.Table:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise ValueError("its bytes are not those that were written")
        return pq.read_table(pa.BufferReader(content))

    found = read(folder / shard.name, SHARD, parse)
    if found is None:
        raise damaged(folder / shard.name, SHARD, "it is gone")
    return found


def records_of(snapshot: Snapshot, folder: Path) -> Iterator[pa.RecordBatch]:
    """A snapshot's records, a batch a shard, in `EXPORT_SCHEMA`. Raises DamagedError."""
    for shard, alive in zip(snapshot.shards, snapshot.alive(), strict=True):
        if alive.any():
            table = read_shard(folder, shard).filter(pa.array(alive)).combine_chunks()
            yield from table.to_batches()


def damage_of(folder: Path, shard: ShardFile) -> str:
    """What is wrong with a shard's file, in words; empty if it is whole. Reads every byte."""
    try:
        read_shard(folder, shard)
    except DamagedError as error:
        return error.message
    return ""
