"""Giving up a move that was begun and cannot be done, or shall not be.

An application may change its tables while a swap waits for its moment, so that it can never be
done. Where the live name has not moved, nothing is lost by leaving it where it is: what the move
had prepared is taken out again, and the application is started again as it was.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reembed.cutover.hooks import run_after, variables_of, was_stopped
from reembed.cutover.move import finish_move, has_moved, leads_to, release_writes
from reembed.cutover.told import outcome
from reembed.errors import PreflightError, ReembedError
from reembed.report.results import SwapResult
from reembed.run import events
from reembed.run.steps import shown_path
from reembed.stages.session import Session

GIVEN_UP = "the swap is given up: {!r} has not moved"
STAYS = "the way back is given up: {!r} serves the new collection, as before"


def withdraw(s: Session) -> bool:
    """Give up a swap whose live name has not moved yet: let writers go, and take out what was
    prepared. One that has moved is finished, so that there is the way back alone. Returns whether
    it was given up."""
    pending = s.run.history.pending_move == "swap"
    if pending and has_moved(s):
        finish_move(s.store, s.run, "swap")
        return False
    release_writes(s.store, s.run, s.manifest.live)
    _take_out_prepared(s)
    if pending:
        s.run.history.record(events.SwapWithdrawn())
    return True


def _take_out_prepared(s: Session) -> None:
    if s.store.withdraw is not None and s.run.history.shadow_id is not None:
        s.store.withdraw([s.old.id, s.new.id])


def give_up_swap(s: Session) -> list[str]:
    """Withdraw a swap that has not moved, and start the application again as it was where its hook
    has stopped it. Returns what is to be told."""
    withdraw(s)
    stopped = was_stopped(s.run, "swap")
    told = run_after(s, variables_of(s, "rollback")) if stopped else []
    s.run.history.record(events.RollbackFinished())
    return [GIVEN_UP.format(s.manifest.live), *told]


def swap_given_up(s: Session, dry_run: bool) -> SwapResult:
    """`rollback` of a swap that has not moved."""
    would = "the live name has not moved: what the swap prepared would be taken out again"
    told = [would] if dry_run else give_up_swap(s)
    return stayed(s, told, done=not dry_run)


def stayed(s: Session, told: list[str], *, done: bool = True) -> SwapResult:
    """The outcome of a way back where no swap has moved the name: it serves what it did."""
    return replace(outcome(s, "rollback", done, told=told), collection=s.source.name)


def rollback_given_up(s: Session, dry_run: bool) -> SwapResult:
    """`swap` after a rollback that was begun and has not moved: the new collection stays live.

    Raises:
        PreflightError: the name has moved back, so only the way back is left.
    """
    refuse_gone_back(s)
    if dry_run:
        return outcome(s, "swap", False, told=["the rollback that was begun would be given up"])
    release_writes(s.store, s.run, s.manifest.live)
    _take_out_prepared(s)
    stopped = was_stopped(s.run, "rollback")
    told = run_after(s, variables_of(s, "swap")) if stopped else []
    if stopped:
        s.run.history.record(events.SwapFinished())
    s.run.history.record(events.RollbackWithdrawn())  # last: a call that is killed is given again
    return outcome(s, "swap", True, told=[STAYS.format(s.manifest.live), *told])


def refuse_gone_back(s: Session, told_as: Path | None = None) -> None:
    """Raise PreflightError unless the live name still serves the new collection.

    Args:
        told_as: the manifest that the commands name, where that is a group's.
    """
    live, path = s.manifest.live, shown_path(told_as or s.run.manifest_file(s.manifest))
    if s.run.history.last_move != "swap" or not leads_to(s.store, live, s.new.id):
        raise PreflightError(
            f"a rollback was begun, and {live!r} no longer serves the new collection",
            f"`reembed rollback {path} --yes` finishes it; then swap again.",
        )


def tell_way_out(s: Session, error: ReembedError) -> None:
    """Add to the hint of a swap's error how it is given up, where the name has not moved."""
    if s.run.history.swap_tried:
        path = s.run.shown_manifest(s.manifest)
        told = f"`reembed rollback {path} --yes` gives the swap up."
        error.hint = f"{error.hint} {told}" if error.hint else told
