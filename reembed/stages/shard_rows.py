"""What a shard says of its records, written to a collection.

The shards are right, and the shadow follows them. Where a record of the shadow holds a value that
must be unique and that a shard gives to another one, it is displaced: noted in the journal, then
deleted. The ledger counts it as changed until the shard that speaks for it is loaded after that, so
that catch-up carries it anew; until then it is missing, and no verdict passes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reembed.errors import TakenError
from reembed.records import SHARD_ROWS, Vectors, chunked, fixed_array_to_vectors, hashes_of
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.run.ledger import Ledger
from reembed.run.quarantine import quarantined_of
from reembed.stores.collection import Collection

RECORD_COLUMNS = ("id", "document", "metadata", "uri", "row_sha256")
DISPLACING_TRIES = 3
"""How often a write is tried: all holders are told at once, and nobody else writes to a shadow."""

Write = Callable[[pa.RecordBatch, Vectors], None]
"""`Collection.add` or `Collection.overwrite`."""


@dataclass(frozen=True)
class ShardRows:
    """What an export and an embed shard of one stem hold: RECORD_COLUMNS of its records, and
    the ids and vectors of those that were embedded, in the same order."""

    export: Shard
    records: pa.Table
    embedded: pa.Table

    @property
    def ids(self) -> list[str]:
        """Of all its records, embedded or not."""
        return list(self.records.column("id").to_pylist())


def read_rows(run: RunDir, export: Shard, embed: Shard) -> ShardRows:
    """Read what loading needs of two shards; old vectors are no part of it."""
    return ShardRows(
        export, run.read_shard(export, RECORD_COLUMNS), run.read_shard(embed, ["id", "embedding"])
    )


def rows_before(
    run: RunDir, export_shards: Mapping[str, Shard], export: Shard, rows: ShardRows
) -> dict[str, bytes]:
    """The row hashes that the records of a delta had before it."""
    ids = {*rows.ids, *export.deleted}
    found: dict[str, bytes] = {}
    for earlier, shard in export_shards.items():
        if earlier == export.stem:
            break
        told = run.read_shard(shard, ["id", "row_sha256"])
        never_live = [*shard.deleted, *quarantined_of(run, earlier)]
        found |= {id: row for id, row in hashes_of(told).items() if id in ids}
        for id in never_live:
            found.pop(id, None)
    return found


def displace(shadow: Collection, run: RunDir, stem: str, ids: Sequence[str]) -> None:
    """Delete records from a shadow that is not live, noted so that they are carried anew.

    Args:
        stem: of the shard that they stand in the way of; empty where it is none.
    """
    if ids:
        run.history.record(events.Displaced(stem=stem, ids=tuple(ids)))
    for page in chunked(ids, SHARD_ROWS):
        shadow.delete(page)


def displacing(
    write: Write, shadow: Collection, run: RunDir, stem: str, spared: Container[str] = ()
) -> Write:
    """`write` into a shadow that is not live, in which the shard `stem` is right.

    Args:
        spared: ids of records that are about to be written again anyway, so that they need not be
            noted when they are displaced.
    """

    def written(batch: pa.RecordBatch, vectors: Vectors) -> None:
        for left in reversed(range(DISPLACING_TRIES)):
            try:
                write(batch, vectors)
                return
            except TakenError as error:
                if not left or not set(error.holders).isdisjoint(batch.column("id").to_pylist()):
                    raise  # two rows of the shard itself need one value
                again = [id for id in error.holders if id in spared]
                displace(shadow, run, stem, sorted({*error.holders} - {*again}))
                shadow.delete(again)

    return written


def load_shard(
    shadow: Collection,
    rows: ShardRows,
    ledger: Ledger,
    write: Write,
    *,
    replacing: bool,
    only: Set[str] | None = None,
) -> None:
    """Write one shard's records and vectors; `replacing` also deletes what it no longer holds.

    Records for which a later shard speaks are left alone, and so are those not in `only`.
    """
    current = ledger.current(rows.export.stem)
    if only is not None:
        current = current.intersection(only)
    if replacing:
        gone = ledger.gone(rows.export, rows.ids)
        for ids in chunked([id for id in gone if only is None or id in only], SHARD_ROWS):
            shadow.delete(ids)
    write_rows(write, rows, current)


def write_rows(write: Write, rows: ShardRows, ids: set[str]) -> None:
    """Write the records of these ids of one shard, with their vectors."""
    embedded = rows.embedded.column("id").to_pylist()
    mask = np.fromiter((id in ids for id in embedded), bool, len(embedded))
    if not mask.any():
        return
    vectors = fixed_array_to_vectors(rows.embedded.column("embedding"))
    records = rows.records
    if not mask.all():
        vectors = vectors[mask]
    if not mask.all() or len(records) > len(embedded):
        kept = ids.intersection(embedded)
        listed = records.column("id").to_pylist()
        records = records.filter(pa.array([id in kept for id in listed], pa.bool_()))
    (batch,) = records.combine_chunks().to_batches()
    write(batch, vectors)
