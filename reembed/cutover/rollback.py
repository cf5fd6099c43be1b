"""The way back with a session: carry what was written since, move, carry what came late."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reembed.cutover import move as moving
from reembed.cutover.hooks import run_after, run_before, variables_of
from reembed.cutover.move import (
    carry_until_quiet,
    exchange_of,
    finish_move,
    has_moved,
    is_to_move_back,
    move_live_name,
    release_writes,
    swap_kind,
)
from reembed.cutover.recover import recover_for_way_back
from reembed.cutover.told import STILL_WRITTEN, WITHHELD, outcome, told_of_late, with_losses
from reembed.cutover.withdraw import swap_given_up
from reembed.errors import LossError, PreflightError, ReembedError
from reembed.progress.tracing import traced
from reembed.records import SHARD_ROWS, chunked
from reembed.report.results import SwapResult
from reembed.run import events
from reembed.run.loss import Loss, loss_in, worst
from reembed.stages.session import Session
from reembed.stages.swap_kind import SwapPlan
from reembed.stores.values import Receipt
from reembed.sync.carry_back import CarriedBack, WayBack
from reembed.sync.difference import find_late
from reembed.sync.live_name import refuse_third
from reembed.sync.mend import LOST_AFTER_ROLLBACK, way_back_of
from reembed.verify.parked import check_parked, parked_is_off


@dataclass
class ReadyBack:
    """A run that has only to move back.

    Attributes:
        kind: how its name moves.
        before: what was carried to the old collection so far.
        told: what is to be told of the old collection.
        seen: what was carried of what the store logs.
    """

    kind: SwapPlan
    before: CarriedBack = field(default_factory=CarriedBack)
    told: list[str] = field(default_factory=list)
    seen: object = None

    def carry(self, s: Session) -> int:
        """Carry what was written to the new collection and not carried yet. Returns the number of
        records."""
        way_back = way_back_of(s)
        way_back.seen = self.seen
        more = way_back.carry()
        self.before.add(more)
        self.seen = way_back.seen
        return more.carried


def ready_back(s: Session) -> ReadyBack | None:
    """All that comes before writers wait on a common way back: the checks, and what was written so
    far. None where there is nothing to move, or no new collection whose writers could wait.

    Raises:
        ReembedError: why this name cannot go back.
    """
    s.spending.lift()
    if not is_to_move_back(s) or s.new.describe() is None:
        return None
    refuse_third(s)
    _refuse_gone(s)
    recover_for_way_back(s)
    ready = ReadyBack(swap_kind(s))
    _look_at_old(s, ready)
    ready.carry(s)
    return ready


def prepare_back(s: Session, ready: ReadyBack, *, again: bool = False) -> bool:
    """Do what takes long about a move back before writers are held. Adds to what was carried.

    Args:
        again: whether time has passed since that was done, so that more is to be carried first.

    Returns:
        whether there was anything to do.
    """
    carried = ready.carry(s) if again else ready.before.carried
    return moving.prepare_move(s, ready.kind, s.old.id, lambda: ready.carry(s), carried)


def last_look_back(s: Session, ready: ReadyBack) -> None:
    """What comes right before the move back, while writers wait. Adds to what was carried."""
    ready.carry(s)
    _refuse_fewer(s, ready.kind)


def _refuse_gone(s: Session) -> None:
    if s.old.describe() is None:
        raise PreflightError(
            f"the old collection (id {s.old.id}) is gone, so there is nothing to go back to",
            f"The export shards of {s.run.path} still hold every record with its old vector.",
        )


def _look_at_old(s: Session, ready: ReadyBack) -> None:
    refuse_emptied_old(s)
    ready.told = check_parked(s)


@traced("rollback")
def rollback_run(s: Session, dry_run: bool, ready: ReadyBack | None = None) -> SwapResult:
    """Carry back what was written since, and move the live name to the old collection.

    It is the emergency exit: no hold, no pause and no budget stops it.

    Args:
        ready: what was carried ahead of a move that several names made together.
    """
    s.spending.lift()
    history = s.run.history
    if history.last_move == "rollback" and not (
        history.pending_move or history.rollback_unfinished or history.swap_tried
    ):
        return outcome(s, "rollback", True, told=["already rolled back"])
    if s.run.history.pending_move == "swap" or s.run.history.swap_tried:
        if s.run.history.pending_move is None or not has_moved(s):
            return swap_given_up(s, dry_run)
        if not dry_run:
            finish_move(s.store, s.run, "swap")
    kind = swap_kind(s)
    refuse_third(s)
    if dry_run:
        return _dry_run(s, kind)
    _refuse_gone(s)
    if s.new.describe() is None:
        return _back_without_new(s, kind)
    recover_for_way_back(s)
    way_back, ready = way_back_of(s), ready or ReadyBack(kind)
    before = ready.before
    if s.run.history.rollback_unfinished:
        receipt = moving.receipt_of(s, "rollback")
        late = way_back.carry_late()
    elif not is_to_move_back(s):  # in a rename's gap
        refuse_emptied_old(s)
        receipt = finish_move(s.store, s.run, "rollback")
        late = way_back.carry_late()
    else:
        _look_at_old(s, ready)
        if s.run.history.pending_move is None:
            run_before(s, variables_of(s, "rollback"))
        receipt, late = _move_back_held(s, kind, way_back, before)
    release_writes(s.store, s.run, s.manifest.live)
    quiet = carry_until_quiet(way_back.carry_late, late)
    told = [*ready.told, *([] if quiet else [STILL_WRITTEN.format("new", "rollback")])]
    told += told_of_late(late.withheld, late.left)
    told += run_after(s, variables_of(s, "rollback"))
    s.run.history.record(events.RollbackFinished(carried=late.carried))
    return replace(
        outcome(s, "rollback", True, kind, told), caught_up=before.carried, lost=before.lost,
        swept=late.carried, conflicts=sorted({*before.conflicts, *late.conflicts}),
        gap_seconds=receipt.gap_seconds, held_seconds=receipt.held_seconds,
    )  # fmt: skip


def _dry_run(s: Session, kind: SwapPlan) -> SwapResult:
    result = with_losses(s, outcome(s, "rollback", False, kind))
    try:
        return replace(result, messages=[*result.messages, *parked_is_off(s)])
    except ReembedError as error:
        told = f"the old collection's vectors could not be looked at: {error.message}"
        return replace(result, messages=[*result.messages, told])


def _back_without_new(s: Session, kind: SwapPlan) -> SwapResult:
    """The way back where somebody deleted the live collection: on a person's word, the name goes to
    the old one as it is. Nobody can write to what is not there, so no writer waits."""
    total, quarantined = s.ledger.counts()
    count = s.old.count()
    loss = Loss("the live collection, which is gone,", total - quarantined, total - quarantined)
    if not s.run.history.rollback_unfinished:
        s.loss_guard.refuse(
            loss, f"With --accept-loss the live name goes back to the old collection as it is, "
            f"with {count:,} records; what was written since the swap is lost.",
        )  # fmt: skip
        if s.run.history.pending_move is None:
            run_before(s, variables_of(s, "rollback"))
        exchange = exchange_of(s, "rollback", kind)  # as it is now, whatever was begun
        move_live_name(s.store, s.run, "rollback", kind.kind, exchange)
    release_writes(s.store, s.run, s.manifest.live)
    told = run_after(s, variables_of(s, "rollback"))
    s.run.history.record(events.RollbackFinished(carried=0))
    return outcome(s, "rollback", True, kind, told)


def _move_back_held(
    s: Session, kind: SwapPlan, way_back: WayBack, before: CarriedBack
) -> tuple[Receipt, CarriedBack]:
    """Carry what was written, and move back while writers wait. Adds to `before` what was carried
    ahead of the move; returns what was carried after it."""

    def carry() -> int:
        more = way_back.carry()
        before.add(more)
        return more.carried

    def look() -> None:
        if before.carried or way_back.logged:  # what came meanwhile
            before.add(way_back.carry())
        _refuse_fewer(s, kind)

    around = moving.Around(carry, look, way_back.carry_late)
    return moving.move_held(s, "rollback", kind, around, carry())


OLD_LOST = (
    "Nothing is lost: the live name stays where it is. To have the old collection whole again, "
    "restore what is missing (the export shards of {} hold every record with its old vector); with "
    "--accept-loss the live name goes back to it as it is."
)


def refuse_emptied_old(s: Session) -> None:
    """Raise LossError if the old collection has lost a mass of records that are in the live one,
    or that the run knows, since it was caught up with; and nobody accepted it."""
    found = find_late(s.old, s.run, s.ledger, since=s.run.history.compared_until)
    if not found.deleted:
        return
    pages = chunked(found.deleted, SHARD_ROWS)
    kept = sum(len(s.new.fetch(ids, vectors=False)) for ids in pages)
    loss = worst(
        loss_in("the old collection", found.changed, found.deleted, s.run, s.ledger),
        Loss("the old collection", s.new.count(), kept),
    )
    s.loss_guard.refuse(loss, OLD_LOST.format(s.run.path), " since the swap")


def _refuse_fewer(s: Session, kind: SwapPlan) -> None:
    """The last look before the name moves, while writers wait."""
    if kind.kind == "config":  # no name moves
        return
    old, new = s.old.count(), s.new.count()
    loss = Loss("the old collection, compared with the live one,", new, max(0, new - old))
    s.loss_guard.refuse(loss, OLD_LOST.format(s.run.path))


def sweep_back(s: Session) -> SwapResult:
    """After a rollback: what handles that were held wrote to the new collection.

    Raises:
        LossError: it lacks a mass of records that the live collection has. What was written to it
            was carried, and the live collection keeps them.
    """
    recover_for_way_back(s)
    late = way_back_of(s).carry_late()
    if late.withheld is not None:
        raise LossError(
            f"{late.withheld}; {WITHHELD}; {late.carried:,} other late writes were copied",
            LOST_AFTER_ROLLBACK,
        )
    return replace(
        outcome(s, "sweep", True, told=told_of_late(late.withheld, late.left)),
        swept=late.carried, conflicts=late.conflicts,
    )  # fmt: skip
