"""One collection follows another: what was written since is copied, as a delta.

Before the move the shadow follows the source until a comparison finds nothing (`catch_up`). After
it the live collection follows what late writers left in the old one (`sweep`). Either way the
records that differ are exported, embedded and loaded like those of the census (`carry`).

What is loaded into a live collection (`load_into_live`) finds it right. A row that the application
has changed or deleted is left alone, and so is one that needs a value which must be unique and
which stays with another row there: one of the application's, or one of another shard's, since no
row is ever taken away to make room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from reembed.errors import SourceChangedError
from reembed.progress import stage
from reembed.records import hashes_of
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.run.loss import Loss, loss_in, worst
from reembed.run.quarantine import quarantined_ids
from reembed.stages.embed import embed_shards
from reembed.stages.export import export_delta
from reembed.stages.load import ShardRows, load, load_shadow, load_shard, read_rows, rows_before
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.sync.difference import (
    Carried,
    Difference,
    find_difference,
    find_late,
    without_conflicts,
)
from reembed.sync.grouped_writes import write_together

CATCH_UP_ROUNDS = 10
FEW_LEFT = 1_000
"""Catch-up ends with fewer differences than this, if each round finds as many as the last one did:
somebody writes all the time, and the sweep after the move carries the rest."""

MEANT = (
    "If that was meant, say so with --accept-loss, or give this run up with `reembed clean`. If "
    "not, put the records back: the export shards of {} still hold every one."
)


@stage("copy what was written since")
def carry(s: Session, collection: Collection, difference: Difference) -> list[str]:
    """Export, embed and load what differs, as a delta. Returns the ids of rows left alone because
    a live shadow has newer ones."""
    filtered = replace(collection, where=s.manifest.source.where)
    export_delta(filtered, s.run, difference.changed, difference.deleted)
    embed_shards(s)
    if s.run.history.last_move == "swap":
        return load_into_live(s.new, s.run, s.ledger, resumed=False)
    load_shadow(s)
    return []


def load_rest(s: Session) -> list[str]:
    """Load what is embedded and not loaded yet. Returns the ids of rows left alone because a live
    shadow has newer ones."""
    if not s.run.history.not_loaded(s.run.shards("embed")):
        return []
    if s.run.history.last_move == "swap":
        return load_into_live(s.new, s.run, s.ledger, resumed=True)
    load(s.new, s.run, s.ledger, s.progress)
    return []


def catch_up(s: Session) -> int:
    """Carry what was written to the source until a comparison finds nothing, or, where somebody
    writes all the time, no fewer than the one before it and at most FEW_LEFT, and none of the
    shadow's records was displaced by it.

    Returns the number of records carried. The last comparison's watermark is journalled.

    Raises:
        LossError: the source has lost most of its records, and nobody accepted it.
        SourceChangedError: it is written to faster than can be followed.
    """
    source, run, name = s.old, s.run, repr(s.source.name)
    carried = 0
    before: int | None = None
    source.start_capture()
    since = run.history.compared_until
    for _ in range(CATCH_UP_ROUNDS):
        difference = find_difference(source, s.ledger, since=since)
        loss = loss_in(name, difference.changed, difference.deleted, run, s.ledger)
        s.loss_guard.refuse(loss, MEANT.format(run.path))
        found = len(difference)
        if difference:
            carry(s, source, difference)
        carried += found
        steady = before is not None and before <= 2 * found <= 2 * FEW_LEFT
        displaced = s.ledger.displaced() if difference else frozenset()
        steady = steady and not displaced  # the shadow lacks them, and no verdict looks for them
        if not difference or steady:
            run.history.record(events.CaughtUp(watermark=difference.watermark, carried=carried))
        source.acknowledge(difference.token)
        if not difference or steady:
            return carried
        before, since = found, difference.watermark
    waiting = f"; unique values of {len(displaced):,} move all the time" if displaced else ""
    raise SourceChangedError(
        f"{name} is written to faster than {CATCH_UP_ROUNDS} rounds of catch-up could follow "
        f"({carried:,} records copied{waiting})",
        "Run again when fewer writes come in, or pause the writers for the swap.",
    )


@stage("look for late writes")
def sweep(s: Session) -> Carried:
    """Carry writes that reached the old collection after the catch-up into the live one.

    A record that the live collection has changed itself is left alone. Deletions that are a mass,
    of the old collection's records or of the live one's, stay behind unless they are accepted, and
    the next sweep finds them again; what was written is carried all the same.
    """
    old, live, run = s.old, s.new, s.run
    if old.describe() is None:
        return Carried()
    found = find_late(old, run, s.ledger, since=run.history.compared_until)
    kept, conflicts = without_conflicts(live, found, s.ledger)
    withheld = None
    if kept.deleted:
        loss = worst(
            loss_in("the old collection", found.changed, found.deleted, run, s.ledger),
            Loss("the live collection", live.count(), len(kept.deleted)),
        )
        if not s.loss_guard.accepts(loss):
            withheld, kept.deleted = loss, []
    if kept:
        conflicts = sorted({*conflicts, *carry(s, old, kept)})
    if not conflicts and withheld is None:
        run.history.record(events.CaughtUp(watermark=found.watermark, carried=len(kept)))
        old.acknowledge(found.token)
    return Carried(len(kept), conflicts, withheld)


def merge_intruder(s: Session, name: str) -> Carried:
    """Carry the records of a collection that somebody made under the live name in the gap."""
    intruder = replace(s.new, id=s.new.store.catalog.describe(name).id)
    found = find_difference(intruder, s.ledger)
    found = Difference(changed=found.changed)  # what it lacks was never deleted
    kept, conflicts = without_conflicts(s.new, found, s.ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(s, intruder, kept)})
    return Carried(len(kept), conflicts)


def retry_quarantined(s: Session, left: Sequence[str] = ()) -> list[str]:
    """Export, embed and load all records in quarantine again; what fails again is quarantined
    again, with the reason of now. Returns what to tell of it.

    Args:
        left: ids of rows that recovery left alone, which are told too.
    """
    ids = quarantined_ids(s.run, s.ledger)
    if not ids:
        return ["nothing is in quarantine"]
    left = [*left, *carry(s, s.old, Difference(changed=ids))]
    known = s.ledger.lookup(ids)
    again = sum(known[id].quarantined for id in ids if id in known)
    told = [f"tried {len(ids):,} quarantined records again: {len(ids) - again:,} are moved"]
    if left:
        told.append(f"{len(left):,} were left alone: the live collection has newer ones")
    return told


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
        now = self.live.hashes(ids) if ids else {}
        newer = {
            id for id, row in now.items() if row not in (self.wanted.get(id), self.before.get(id))
        }
        if not self.resumed:  # the application has deleted it
            newer |= {id for id in ids if id in self.wanted and id in self.before and id not in now}
        return {*ids} - newer
