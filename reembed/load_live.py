"""Deltas into a collection that is live: what late writers left in the old one, after the swap.

The live collection is right. A row that the application has changed or deleted is left alone, and
so is one that needs a value which must be unique and which a row of the application's holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reembed.errors import TakenError
from reembed.ledger import Ledger
from reembed.records import chunked
from reembed.rundir import RunDir, Shard
from reembed.shard_rows import ShardRows, gone_of, load_shard, not_loaded, read_rows
from reembed.stores.base import Store

LIVE_ROWS = 50
"""Rows written to a live collection between two looks at what the application has written there."""
JOINED_TRIES = 2
"""How often rows that hold what a group of rows needs are written together with it. After that they
are deleted first and written in their turn, or a chain of them would be one long write."""


@dataclass
class _Delta:
    """A delta that is to be loaded.

    Attributes:
        wanted: row hash of each record that it holds.
        before: row hash of each record that it tells of, before it.
        waiting: ids of those that it tells of and that have not had their turn.
    """

    export: Shard
    embed: Shard
    wanted: dict[str, bytes]
    before: dict[str, bytes]
    waiting: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = {*self.wanted, *self.export.deleted}


def load_into_live(
    store: Store,
    live: str,
    export_shards: Mapping[str, Shard],
    embed_shards: Mapping[str, Shard],
    ledger: Ledger,
    run: RunDir,
    *,
    resumed: bool,
) -> list[str]:
    """Load deltas into a shadow that is live, a few rows at a time.

    Rows that the application has changed or deleted are left alone, which is looked at right
    before each write, and so are rows that need what the application uses by now; their ids are
    returned. A shard that was loaded before and made again holds what was loaded: its rows are
    there, or the application's to change.

    Args:
        resumed: whether an earlier call may have been killed in the middle. Replacing a row deletes
            it first, so one that is missing is then written.
    """
    loaded = {event["stem"] for event in run.events("loaded")}
    deltas: list[_Delta] = []
    for shard in not_loaded(run, embed_shards):
        if shard.stem in loaded:
            run.journal.append("loaded", stem=shard.stem, sha256=shard.sha256)
            continue
        export = export_shards[shard.stem]
        rows = run.read_shard(export, ["id", "row_sha256"]).to_pydict()
        wanted = dict(zip(rows["id"], rows["row_sha256"], strict=True))
        before = _rows_before(run, export_shards, export.stem, {*wanted, *export.deleted})
        deltas.append(_Delta(export, shard, wanted, before))
    loading = _Loading(store, live, ledger, deltas, resumed)
    left: list[str] = []
    for delta in deltas:
        left += loading.load(delta, read_rows(run, delta.export, delta.embed))
        run.journal.append("loaded", stem=delta.embed.stem, sha256=delta.embed.sha256)
    return left


@dataclass
class _Loading:
    """Deltas on their way into a live collection, in order.

    Attributes:
        displaced: ids of rows that were deleted to be written in their turn.
    """

    store: Store
    live: str
    ledger: Ledger
    deltas: Sequence[_Delta]
    resumed: bool
    displaced: set[str] = field(default_factory=set)

    def load(self, delta: _Delta, rows: ShardRows) -> list[str]:
        """Load one. Returns the ids left alone."""
        left: list[str] = []
        first = gone_of(delta.export, rows, self.ledger)  # what goes gives up its values
        for ids in chunked(list(dict.fromkeys([*first, *delta.wanted, *delta.export.deleted])),
                           LIVE_ROWS):  # fmt: skip
            left += self._load_group(delta, rows, delta.waiting.intersection(ids))
        return left

    def _load_group(self, delta: _Delta, rows: ShardRows, ids: set[str]) -> list[str]:
        left = self._newer(delta, ids)
        delta.waiting -= ids
        only, tries = ids - left, JOINED_TRIES
        while True:
            try:
                load_shard(
                    self.store, self.live, delta.export, rows, self.ledger, self.store.replace,
                    replacing=True, only=only,
                )  # fmt: skip
                return sorted(left)
            except TakenError as error:
                movable, fixed = self._holders(error.holders)
                stuck = {id for id, others in error.taken.items() if fixed.intersection(others)}
                if stuck or not (movable or tries):  # what they hold themselves stays, too
                    left |= stuck or {*error.taken}
                    only -= left
                elif tries and movable <= delta.waiting:  # with none, it has been given up
                    tries -= 1
                    only |= movable
                    delta.waiting -= movable
                else:
                    self.store.delete(self.live, sorted(movable))
                    self.displaced |= movable

    def _newer(self, delta: _Delta, ids: set[str]) -> set[str]:
        """Ids of rows that the application has changed or deleted since."""
        now = self._rows(ids)
        newer = {
            id for id, row in now.items() if row not in (delta.wanted.get(id), delta.before.get(id))
        }
        if not self.resumed:  # the application has deleted it
            ours = {id for id in ids if id in delta.wanted and id in delta.before}
            newer |= ours.difference(now, self.displaced)
        return newer

    def _holders(self, ids: Iterable[str]) -> tuple[set[str], set[str]]:
        """Of rows that hold what others need, those that will be written or deleted in their turn
        and that the application has not changed, and those that stay."""
        movable, fixed = set[str](), set[str]()
        for id, row in self._rows(ids).items():
            delta = next((delta for delta in self.deltas if id in delta.waiting), None)
            ours = delta is not None and row == delta.before.get(id)
            (movable if ours else fixed).add(id)
        return movable, fixed

    def _rows(self, ids: Iterable[str]) -> dict[str, bytes]:
        rows = self.store.fetch(self.live, sorted(ids), vectors=False)
        ids, hashes = rows.column("id").to_pylist(), rows.column("row_sha256").to_pylist()
        return dict(zip(ids, hashes, strict=True))


def _rows_before(
    run: RunDir, export_shards: Mapping[str, Shard], stem: str, ids: set[str]
) -> dict[str, bytes]:
    """The row hashes that these records had before a delta."""
    found: dict[str, bytes] = {}
    for earlier, shard in export_shards.items():
        if earlier == stem:
            break
        rows = run.read_shard(shard, ["id", "row_sha256"]).to_pydict()
        pairs = zip(rows["id"], rows["row_sha256"], strict=True)
        found |= {id: row for id, row in pairs if id in ids}
        for id in shard.deleted:
            found.pop(id, None)
    return found
