"""Deltas into a collection that is live: what late writers left in the old one, after the swap.

The live collection is right. A row that the application has changed or deleted is left alone, and
so is one that needs a value which must be unique and which stays with another row there: one of the
application's, or one of another shard's, since no row is ever taken away to make room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from reembed.progress import stage
from reembed.records import hashes_of
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stages.load import ShardRows, load_shard, read_rows, rows_before
from reembed.stores.collection import Collection
from reembed.sync.grouped_writes import write_together

LIVE_ROWS = 50
"""Rows written to a live collection between two looks at what the application has written there."""


@stage("load into the live collection")
def load_into_live(live: Collection, run: RunDir, ledger: Ledger, *, resumed: bool) -> list[str]:
    """Load deltas into a shadow that is live, a few rows at a time.

    Rows that the application has changed or deleted are left alone, which is looked at right
    before each write, and so are rows that need what the application uses by now; their ids are
    returned. A shard that was loaded before and made again holds what was loaded: its rows are
    there, or the application's to change.

    Args:
        resumed: whether an earlier call may have been killed in the middle. Replacing a row deletes
            it first, so one that is missing is then written.
    """
    export_shards, embed_shards = run.shards("export"), run.shards("embed")
    left: list[str] = []
    loaded = run.history.loaded_stems
    for shard in run.history.not_loaded(embed_shards):
        if shard.stem not in loaded:
            export = export_shards[shard.stem]
            rows = read_rows(run, export, shard)
            before = rows_before(run, export_shards, export, rows)
            left += _Delta(live, rows, before, ledger, resumed).load()
        run.history.record(events.Loaded(stem=shard.stem, sha256=shard.sha256))
    return left


@dataclass
class _Delta:
    """A delta on its way into the live collection.

    Attributes:
        before: row hash that each record it tells of had before it.
        wanted: row hash of each record that it holds.
    """

    live: Collection
    rows: ShardRows
    before: dict[str, bytes]
    ledger: Ledger
    resumed: bool

    def __post_init__(self) -> None:
        self.wanted = hashes_of(self.rows.records)

    def load(self) -> list[str]:
        """Returns the ids left alone."""
        left: list[str] = []
        first = self.ledger.gone(self.rows.export, self.rows.ids)  # what goes gives up its values
        waiting = dict.fromkeys([*first, *self.wanted, *self.rows.export.deleted])
        while waiting:
            ids = list(islice(waiting, LIVE_ROWS))
            for id in ids:
                del waiting[id]
            only = self._unchanged(ids)
            _, stuck = write_together(self._write, only, waiting, self._unchanged)
            left += sorted({*ids} - only | stuck.keys())
        return left

    def _write(self, ids: set[str]) -> None:
        load_shard(
            self.live, self.rows, self.ledger, self.live.overwrite, replacing=True, only=ids
        )  # fmt: skip

    def _unchanged(self, ids: Iterable[str]) -> set[str]:
        """Those of these rows that the application has neither changed nor deleted since."""
        ids = [*ids]
        now = hashes_of(self.live.fetch(ids, vectors=False)) if ids else {}
        newer = {
            id for id, row in now.items() if row not in (self.wanted.get(id), self.before.get(id))
        }
        if not self.resumed:  # the application has deleted it
            newer |= {id for id in ids if id in self.wanted and id in self.before and id not in now}
        return {*ids} - newer
