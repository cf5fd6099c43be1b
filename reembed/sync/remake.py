"""Export shards that are damaged or gone, made again after the live name has moved.

Before a swap a shard is exported again: the source says what is to be moved. After it applications
write to both collections, and a shard holds what was moved. The ledger has the row hash of each of
its records, and whichever collection still holds that very record gives it. One that both have
changed is missing from the shard from then on, and its row hash is kept, so that a comparison still
tells who changed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, chunked, hashes_of
from reembed.run.directory import RunDir, Shard
from reembed.run.ledger import UNKNOWN, Entry
from reembed.run.shards import Besides
from reembed.stores.collection import Collection

STAGE = "export"


@dataclass(frozen=True)
class Mending:
    """The two collections of a swap, to make shards of the run again."""

    run: RunDir
    old: Collection
    new: Collection

    def remake(self, shard: Shard, known: Mapping[str, Entry]) -> int:
        """Write a shard again. Returns the number of records that are missing from it.

        Records that only the new collection still holds have no old vector in it.

        Args:
            known: what is known of each record. One with the row hash UNKNOWN is taken for moved as
                it is if both collections hold it alike.
        """
        parts = [pa.table([[]] * len(EXPORT_SCHEMA), schema=EXPORT_SCHEMA)]
        for ids in chunked(list(known), SHARD_ROWS):
            parts += self._records({id: known[id].row_sha256 for id in ids})
        table = pa.concat_tables(parts)
        missing = {**known}
        for id in table.column("id").to_pylist():
            del missing[id]
        rows = [(id, e.row_sha256.hex(), e.quarantined) for id, e in missing.items()]
        besides = Besides(shard.deleted, shard.foreign, rows)
        self.run.write_shard(STAGE, shard.stem, table, besides=besides)
        return len(missing)

    def _records(self, known: Mapping[str, bytes]) -> list[pa.Table]:
        old = self.old.fetch(list(known), vectors=True)
        new = self.new.fetch(list(known), vectors=False)
        old_rows, new_rows = hashes_of(old), hashes_of(new)
        kept = [
            id for id, row in old_rows.items()
            if row == (known[id] if known[id] != UNKNOWN else new_rows.get(id))
        ]  # fmt: skip
        rest = [id for id, row in new_rows.items() if row == known[id] and old_rows.get(id) != row]
        return [_rows(old, kept), _rows(new, rest)]


def _rows(rows: pa.RecordBatch, ids: list[str]) -> pa.Table:
    mask = pc.is_in(rows.column("id"), pa.array(ids, pa.string()))
    return pa.Table.from_batches([rows.filter(mask)])
