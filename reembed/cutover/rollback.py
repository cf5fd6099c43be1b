"""The way back with a session: carry what was written since, move, carry what came late."""

from __future__ import annotations

import time
from dataclasses import replace

from reembed.cutover import move as moving
from reembed.cutover.hooks import run_after, run_before
from reembed.cutover.move import (
    finish_move,
    hold_writes,
    let_writes_go,
    move,
    outcome,
    swap_kind,
    variables_of,
)
from reembed.errors import LockedError, PreflightError
from reembed.results import SwapResult
from reembed.run import events
from reembed.session import Session
from reembed.stages.refusals import leads_to
from reembed.stages.swap_kind import SwapPlan
from reembed.stores.values import Receipt
from reembed.sync.carry_back import CarriedBack, WayBack
from reembed.sync.recover import settle, way_back_of
from reembed.sync.sweep import SWEEP_SECONDS

STILL_WRITTEN_BACK = (
    "the new collection is still written to, through handles that were opened before the rollback: "
    "open them anew, then carry the rest over with `reembed sweep`"
)


def rollback_run(s: Session, dry_run: bool, accept_loss: bool) -> SwapResult:
    """Carry back what was written since, and move the live name to the old collection.

    It is the emergency exit: no hold, no pause and no budget stops it.
    """
    s.spending.lift()
    if s.run.history.last_move == "rollback" and not (
        s.run.history.pending_move or s.run.history.rollback_unfinished
    ):
        already = outcome(s, "rollback", True)
        return replace(already, messages=["it is rolled back already"])
    kind = swap_kind(s)
    if dry_run:
        return outcome(s, "rollback", False, kind)
    old_id = s.old.id
    if s.old.describe() is None:
        raise PreflightError(
            f"the old collection (id {old_id}) is gone, so there is nothing to go back to",
            "The run's export shards still hold every record with its old vector.",
        )
    variables = variables_of(s, "rollback")
    way_back, before = way_back_of(s), CarriedBack()
    if s.run.history.rollback_unfinished:
        receipt = moving.receipt_of(s, "rollback")
        late = way_back.carry_late()
    elif s.run.history.pending_move == "rollback" and not leads_to(
        s.store, s.manifest.live, s.new.id
    ):
        receipt = finish_move(s.store, s.run, "rollback")
        late = way_back.carry_late()
    else:
        if s.run.history.pending_move is None:
            run_before(s, variables)
        settle(s, embedding=False)
        receipt, late = _move_back_held(s, kind, way_back, before, accept_loss)
    let_writes_go(s)
    messages = _carry_late_until_quiet(way_back, late)
    messages += _left_messages(late) + run_after(s, variables)
    s.run.history.write(events.RollbackFinished(carried=late.carried))
    return replace(
        outcome(s, "rollback", True, kind), caught_up=before.carried, lost=before.lost,
        swept=late.carried, conflicts=sorted({*before.conflicts, *late.conflicts}),
        gap_seconds=receipt.gap_seconds,
        messages=messages,
    )  # fmt: skip


def _move_back_held(
    s: Session, kind: SwapPlan, way_back: WayBack, before: CarriedBack, accept_loss: bool
) -> tuple[Receipt, CarriedBack]:
    """Carry what was written, and move back while writers wait; again if another session is in the
    way. Adds to `before` what was carried ahead of the move; returns what was carried after it."""
    for tries_left in reversed(range(moving.MOVE_TRIES)):
        before.add(way_back.carry(accept_loss))
        try:
            with hold_writes(s, kind, s.old.id):
                if before.carried or way_back.logged:  # what came meanwhile
                    before.add(way_back.carry(accept_loss))
                if s.run.history.pending_move == "rollback":
                    receipt = finish_move(s.store, s.run, "rollback")
                else:
                    receipt = move(s, "rollback", kind)
                return receipt, way_back.carry_late()
        except LockedError:
            if not tries_left:
                raise
            time.sleep(moving.MOVE_PAUSE)
    raise AssertionError("the last try returns or raises")


def _carry_late_until_quiet(way_back: WayBack, late: CarriedBack) -> list[str]:
    """As `_sweep_until_quiet`, the other way; adds to `late`. Returns messages."""
    found, deadline = late.carried, time.monotonic() + SWEEP_SECONDS
    while found and time.monotonic() < deadline:
        more = way_back.carry_late()
        found = more.carried
        late.add(more)
    return [STILL_WRITTEN_BACK] if found else []


def sweep_back(s: Session) -> SwapResult:
    """After a rollback: what handles that were held wrote to the new collection."""
    late = way_back_of(s).carry_late()
    return replace(
        outcome(s, "sweep", True), swept=late.carried, conflicts=late.conflicts,
        messages=_left_messages(late),
    )  # fmt: skip


def _left_messages(carried: CarriedBack) -> list[str]:
    if not carried.left:
        return []
    return [
        f"{len(carried.left):,} rows written to the new collection late cannot go back and stay "
        f"there, e.g. {', '.join(carried.left[:5])}"
    ]
