"""A swap with a session: catch up, move, sweep; and the sweeps that can be told again later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reembed.applications.mem0.plan import prepare
from reembed.cutover import move as moving
from reembed.cutover.hooks import run_after, run_before, variables_of
from reembed.cutover.move import (
    carry_until_quiet,
    finish_move,
    leads_to,
    release_writes,
    swap_kind,
)
from reembed.cutover.recover import recover
from reembed.cutover.rollback import sweep_back
from reembed.cutover.told import (
    STILL_WRITTEN,
    WITHHELD,
    config_change,
    losses_now,
    outcome,
    told_of_late,
    told_of_open,
    told_of_swap,
    with_losses,
)
from reembed.cutover.withdraw import rollback_given_up, tell_way_out
from reembed.errors import LockedError, LossError, RefusedError, SourceChangedError
from reembed.progress.tracing import traced
from reembed.report.results import SwapResult, wrong_state
from reembed.run import events
from reembed.run.guards import guard_messages, refuse_held
from reembed.stages.old_model import old_model_missing
from reembed.stages.refusals import refuse_other
from reembed.stages.session import Session
from reembed.stages.swap_kind import SwapPlan, choose_kind
from reembed.stores.values import CollectionInfo, Receipt
from reembed.sync.difference import Carried
from reembed.sync.follow import catch_up, merge_intruder, sweep
from reembed.sync.live_name import refuse_astray, refuse_third
from reembed.verify.shadow import check_count, check_deltas, check_shadow, require_shadow
from reembed.verify.verdicts import require_verdict

DEPLOY = "deploy {} to the application now: until then it searches with the old model"


@traced("swap")
def swap_run(s: Session, dry_run: bool) -> SwapResult:
    """Catch up, move the live name, sweep; or finish a swap that was begun.

    Raises:
        ReembedError: with the way out, where the swap was begun and the name has not moved.
    """
    try:
        return _swap(s, dry_run)
    except (RefusedError, LockedError) as error:
        tell_way_out(s, error)
        raise


def _swap(s: Session, dry_run: bool) -> SwapResult:
    history = s.run.history
    if history.pending_move == "swap" or history.swap_unfinished:
        return outcome(s, "swap", False, told=["already begun"]) if dry_run else resume_swap(s)
    if history.pending_move == "rollback":
        return rollback_given_up(s, dry_run)
    if history.last_move == "swap":
        refuse_astray(s)
        return outcome(s, "swap", True, told=["already swapped"])
    if history.state == "cleaned":
        raise wrong_state(s.manifest, s.run, "cleaned")
    missing = old_model_missing(s)
    warned = [". ".join(missing)] if missing else []
    if dry_run:
        return _dry_run(s, warned)
    ready = get_ready(s)
    run_before(s, variables_of(s, "swap"))
    result = _move_held(s, ready)
    return replace(result, messages=[*warned, *ready.told, *result.messages])


def _dry_run(s: Session, warned: list[str]) -> SwapResult:
    _, kind = _may_move(s)
    held = guard_messages(s.manifest.state_dir)
    told = [*told_of_swap(s, kind.kind), *warned, *held, *told_of_open(s)]
    return with_losses(s, outcome(s, "swap", False, kind, told))


@dataclass
class Ready:
    """A run that has only to move: how, how many records were carried, and what is to be told."""

    kind: SwapPlan
    caught_up: int = 0
    told: Sequence[str] = ()

    def carry(self, s: Session) -> int:
        """Catch up, and hold what was carried against the shards. Returns the number of records."""
        carried = catch_up(s)
        check_deltas(s)
        self.caught_up += carried
        return carried


def _may_move(s: Session) -> tuple[CollectionInfo, SwapPlan]:
    """The source and the kind of its move. Raises what stands in the way."""
    require_verdict(s)
    refuse_astray(s)
    source = s.source_store.resolve(s.manifest.source.collection)
    refuse_other(source, s.source, s.run)
    return source, choose_kind(s.source_store, s.manifest, source)


def get_ready(s: Session) -> Ready:
    """All that comes before writers wait: the checks, and the first catch-up."""
    source, kind = _may_move(s)
    prepare(s.manifest, source, s.source_store, s.dimensions, s.run.path)
    s.check_model()  # it must still be the one that embedded
    require_shadow(s)
    recover(s)
    caught_up = catch_up(s)
    refuse_held(s.manifest.state_dir)
    put_back = check_shadow(s)
    check_deltas(s)
    return Ready(kind, caught_up, put_back)


def prepare_swap(s: Session, ready: Ready) -> bool:
    """Do what takes long about the move before writers are held. Returns whether there was anything
    to do."""
    return moving.prepare_move(s, ready.kind, s.new.id, lambda: ready.carry(s), ready.caught_up)


def last_look(s: Session, ready: Ready) -> None:
    """What comes right before the move, while writers wait."""
    ready.carry(s)
    check_count(s)


def _move_held(s: Session, ready: Ready) -> SwapResult:
    """Catch up and move while writers wait."""
    around = moving.Around(lambda: ready.carry(s), lambda: last_look(s, ready), lambda: sweep(s))
    receipt, swept = moving.move_held(s, "swap", ready.kind, around, ready.caught_up)
    return replace(_finish_swap(s, ready.kind, receipt, swept), caught_up=ready.caught_up)


def resume_swap(s: Session) -> SwapResult:
    """What is left of a swap that an earlier call began: move, sweep, hook.

    Neither a hold nor a budget stops it any more: half a move is worse than either.
    """
    s.spending.lift()
    left = recover(s)
    if s.run.history.pending_move == "swap":  # the name does not lead to the shadow yet
        told = check_shadow(s)
        kind = swap_kind(s)
        if leads_to(s.source_store, s.manifest.live, s.source.id):
            result = _move_held(s, Ready(kind))  # the application has written since
            return replace(result, messages=[*told, *result.messages])
        finish_move(s.store, s.run, "swap")  # from a rename's gap
    kind, receipt = swap_kind(s), moving.receipt_of(s, "swap")
    return _finish_swap(s, kind, receipt, sweep(s), left)


def _finish_swap(
    s: Session, kind: SwapPlan, receipt: Receipt, swept: Carried, left: Sequence[str] = ()
) -> SwapResult:
    """What follows the move: late writes and the hook.

    Args:
        swept: what was carried right after the move.
        left: ids of rows that recovery left alone.
    """
    s.spending.lift()
    swept, told = _sweep_rest(s, receipt, swept)
    variables = variables_of(s, "swap")
    config, after = variables.get("APPLICATION_CONFIG"), run_after(s, variables)
    s.run.history.record(events.SwapFinished(swept=swept.carried))
    told += [DEPLOY.format(config)] if config else told_of_swap(s, kind.kind)
    return replace(
        outcome(s, "swap", True, kind, [*told, *after, *told_of_open(s)]),
        gap_seconds=receipt.gap_seconds, held_seconds=receipt.held_seconds,
        swept=swept.carried, conflicts=sorted({*left, *swept.conflicts}),
    )  # fmt: skip


def _sweep_rest(s: Session, receipt: Receipt, swept: Carried) -> tuple[Carried, list[str]]:
    """Let writers go on, and carry what late ones still write to the old collection. Returns what
    was carried in all, and what is to be told of it."""
    quiet, moves = True, receipt.kind != "config"
    if moves:
        release_writes(s.store, s.run, s.manifest.live)
        quiet = carry_until_quiet(lambda: sweep(s), swept)
    merged = merge_intruder(s, receipt.intruder) if receipt.intruder else Carried()
    told = [*([] if moves else [config_change(s)]), *told_of_late(swept.withheld)]
    if not quiet:
        told.insert(0, STILL_WRITTEN.format("old", "swap"))
    if receipt.intruder:
        told.append(
            f"somebody made a collection under the live name in the gap; {merged.carried:,} "
            f"records of it were merged, and it is kept as {receipt.intruder!r}"
        )
    both = sorted({*swept.conflicts, *merged.conflicts})
    return Carried(swept.carried + merged.carried, both), told


LOST_AFTER_SWAP = (
    "If the deletions were meant, `reembed sweep --accept-loss` applies them to the live "
    "collection; if not, there is nothing to do, and `reembed clean --accept-loss` deletes the "
    "old collection and ignores them."
)


def sweep_run(s: Session, dry_run: bool = False) -> SwapResult:
    """Carry what handles opened before a move wrote to the collection that is not live now.

    Raises:
        LossError: it lacks a mass of records that the live collection has, and nobody accepted it.
            What was written to it was carried, and the live collection keeps them.
    """
    state = s.run.history.state
    back = s.run.history.shadow_was_live and state != "cleaned"
    if not back and state != "swapped":
        raise wrong_state(s.manifest, s.run, state, "swapped")
    if dry_run:
        return with_losses(s, outcome(s, "sweep", False))
    s.spending.lift()  # the live collection lacks these writes
    refuse_third(s)
    live, other = (s.old, s.new) if back else (s.new, s.old)
    if live.describe() is None:
        if back:
            refuse_astray(s)
        raise SourceChangedError(
            f"the collection that was live, {live.id}, is gone, so there is nothing to copy to",
            "Restore it, or go back with `reembed rollback --accept-loss`. The shards of "
            f"{s.run.path} hold every record that this run moved.",
        )
    refuse_astray(s)
    if other.describe() is None:
        told = "the collection that is not live is gone, so there is nothing to copy"
        return outcome(s, "sweep", True, told=[told])
    if back:
        return sweep_back(s)
    left = recover(s)
    swept = sweep(s)
    if swept.withheld is not None:
        raise LossError(
            f"{swept.withheld} since the swap; {WITHHELD}; {swept.carried:,} other late writes "
            "were copied",
            LOST_AFTER_SWAP,
        )
    conflicts = [*left, *swept.conflicts]
    messages = [
        f"{loss}. If that was not meant, put the records back before `reembed clean`: the export "
        f"shards of {s.run.path} hold every one"
        for loss in losses_now(s)
    ]
    return replace(
        outcome(s, "sweep", True, told=messages), swept=swept.carried, conflicts=conflicts
    )
