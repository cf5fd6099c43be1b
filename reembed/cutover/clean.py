"""`clean`: delete the collection that is not live, by object id, after a check.

Nothing is deleted unless the live name leads to a collection that holds what goes: looked up right
before, and again by a call that goes on with a killed one. A store may delete a collection record
by record, and go on with it when this process is gone. So the intent is journalled first: from then
on what the collection lacks is nobody's deletion, and only `clean` goes on with the run.
"""

from __future__ import annotations

import time
from dataclasses import replace

from reembed.cutover.last_copy import accept_all, held_elsewhere, live_now, refuse_last_copy
from reembed.cutover.move import has_moved, swap_kind
from reembed.cutover.recover import recover_for_clean
from reembed.cutover.told import outcome, told_of_clean, with_losses
from reembed.cutover.withdraw import give_up_swap
from reembed.errors import DamagedStoreError, PreflightError, SourceChangedError, UsageError
from reembed.progress import stage
from reembed.report.results import SwapResult
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.loss import Loss, loss_in
from reembed.stages.load import intended_shadow
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.sync.difference import find_late, without_conflicts
from reembed.sync.live_name import refuse_third
from reembed.sync.mend import refuse_late

OLD_DELETED = "the old collection is deleted"
LOST_IN_OLD = (
    "If the deletions were meant, `reembed sweep --accept-loss` applies them to the live "
    "collection first; if not, `reembed clean --accept-loss` ignores them."
)


def clean_run(s: Session, dry_run: bool) -> SwapResult:
    """Delete the collection that is not live."""
    if s.run.history.state == "cleaned":
        return outcome(s, "clean", True, told=["already cleaned"])
    _refuse_unfinished(s)
    if dry_run:
        return _dry_run(s)
    tried = s.run.history.pending_move == "swap" or s.run.history.swap_tried
    given_up = give_up_swap(s) if tried else []
    recover_for_clean(s)
    done, *told = _drop_old(s) if s.run.history.last_move == "swap" else _drop_shadow(s)
    s.old.stop_capture()
    if s.run.history.shadow_id is not None and s.new.describe() is not None:
        s.new.stop_capture()
    s.run.history.record(events.Cleaned(what=done))
    return outcome(s, "clean", True, told=[*given_up, done, *told])


def _refuse_unfinished(s: Session) -> None:
    """Raise UsageError where the live name has moved halfway, or what follows a move is undone. A
    swap that has moved nothing is given up with the run."""
    history = s.run.history
    pending = history.pending_move
    if not pending and not history.swap_unfinished:
        return
    if pending == "swap" and not has_moved(s):
        return
    path = s.run.shown_manifest(s.manifest)
    other = "`reembed {} {} --yes` gives it up".format(
        "swap" if pending == "rollback" else "rollback", path
    )
    raise UsageError(
        f"{s.manifest.name}: a move of the live name was begun and not finished",
        f"`reembed {pending or 'swap'} {path} --yes` finishes it, {other}; then run clean again.",
    )


def _dry_run(s: Session) -> SwapResult:
    """What would go, and what nobody but the collection to be deleted holds."""
    result = with_losses(s, outcome(s, "clean", False, told=told_of_clean(s)))
    history = s.run.history
    if history.shadow_id is None or not history.shards("embed"):
        return result
    doomed, other = (s.old.whole, s.new) if history.last_move == "swap" else (s.new, s.old.whole)
    if doomed.describe() is None:
        return result
    live = live_now(s)
    if live is None or live.id == doomed.id:
        return result
    found = held_elsewhere(s, doomed, s.collection(other.store, live.id, None, live.metric))
    return replace(result, messages=[*result.messages, *found.messages()])


def _drop_old(s: Session) -> list[str]:
    """Delete the parked collection of a swap. Returns what was done, in words.

    Raises:
        PreflightError: it is kept for longer, or holds late writes.
        SourceChangedError: the live name leads somewhere else.
        LossError: it is the last to hold some of its records.
    """
    manifest, parked, live = s.manifest, s.old, s.new
    if swap_kind(s).kind == "config":
        raise PreflightError(
            f"no name moved, so reembed cannot see which collection the application reads; "
            f"{manifest.source.collection!r} stays",
            "Once its configuration has changed, delete the old collection yourself.",
        )
    refuse_third(s)
    begun = s.run.history.dropping == parked.id
    due = s.run.history.require(events.SwapDone).t + manifest.swap.keep_old_seconds
    if time.time() < due and not begun:
        raise PreflightError(
            f"the old collection is kept until {time.strftime('%F %T', time.localtime(due))} "
            "(swap.keep_old)",
            "Run clean after that, or set swap.keep_old lower; 0d gives up the way back now: "
            "`swap.keep_old: 0d`.",
        )
    now = live_now(s)
    if now is None:
        told = accept_all(s, parked.whole) if parked.describe() is not None else []
        _drop(parked, s.run)
        return [OLD_DELETED, *told]
    if begun and now.id == parked.id and live.describe() is None:
        return [OLD_DELETED]  # its last note went before this was journalled
    if now.id != live.id:
        path = s.run.shown_manifest(manifest)
        raise SourceChangedError(
            f"{manifest.live!r} no longer serves the collection that this run swapped in",
            "Nothing was deleted. Somebody gave the name to the old one by hand. To keep it so, "
            f"rename the new one to {s.run.history.shadow_name!r} and "
            f"`reembed rollback {path} --yes`; else give the new one the name again, and clean.",
        )
    told = []
    if parked.describe() is not None:
        if not begun:
            _refuse_late_writes(s)
        told = _check_held(s, parked.whole, live, "the old collection")
        if not begun:
            _refuse_emptied_live(s)
    _drop(parked, s.run)
    return [OLD_DELETED, *told]


def _refuse_emptied_live(s: Session) -> None:
    """Raise LossError if the live collection lacks a mass of what was moved, though the old one has
    it no more, either: the shards are the last to hold it, and `clean` ends the run."""
    total, quarantined = s.ledger.counts()
    moved = total - quarantined
    loss = Loss("the live collection", moved, max(0, moved - s.new.count()))
    s.loss_guard.refuse(
        loss, "If that was meant, say so with --accept-loss; if not, put the records back first: "
        f"the export shards of {s.run.path} hold every one.", ", and the old one has them no more",
    )  # fmt: skip


def _refuse_late_writes(s: Session) -> None:
    """Raise unless all that was written to the old collection late is in the live one."""
    found = find_late(s.old, s.run, s.ledger)
    late, _ = without_conflicts(s.new, found, s.ledger)
    loss = loss_in("the old collection", found.changed, found.deleted, s.run, s.ledger)
    if late.deleted and loss.is_mass:
        s.loss_guard.refuse(loss, LOST_IN_OLD, " since the swap, which the live one still has")
        late.deleted = []
    if late:
        raise PreflightError(
            f"the old collection holds {len(late):,} late writes that are not in the live one",
            "Copy them with `reembed sweep` first.",
        )


def _drop_shadow(s: Session) -> list[str]:
    """Give up a run that is not swapped: delete its shadow, keep its shards and the source.
    Returns what was done, in words.

    Raises:
        SourceChangedError: the live name leads to the shadow.
        LossError: it is the last to hold some of its records.
    """
    id = s.run.history.shadow_id or intended_shadow(s.store, s.run)
    if id is None:
        return ["there was no shadow to delete"]
    shadow = s.collection(s.store, id, None, s.manifest.target.metric or s.source.metric)
    if not _is_there(shadow):
        _drop(shadow, s.run)
        return ["there was no shadow to delete"]
    live = live_now(s)
    if live is None:
        told = accept_all(s, shadow)
        _drop(shadow, s.run)
        return ["the shadow is deleted", *told]
    if live.id == id and s.manifest.target_url == s.manifest.source.url:
        raise SourceChangedError(
            f"{s.manifest.live!r} serves the shadow, though this run did not swap it",
            f"Nothing was deleted. Rename it to {s.run.history.shadow_name!r}, give the old one "
            "its name again, and run the same command again.",
        )
    was_live = s.run.history.dropping is None and s.run.history.shadow_was_live
    unread, told = "", []
    try:
        if was_live:
            refuse_late(s)
        there = s.collection(s.source_store, live.id, None, live.metric)
        told = _check_held(s, shadow, there, "the shadow")
    except DamagedStoreError:
        if not live.count:
            raise
        if was_live:
            unread = "; its index could not be read, so late writes to it, if any, are lost"
    _drop(shadow, s.run)
    return [f"the shadow is deleted; the live collection is untouched{unread}", *told]


def _is_there(collection: Collection) -> bool:
    """Whether the collection exists, be it one that the store cannot read."""
    try:
        return collection.describe() is not None
    except DamagedStoreError:
        return True


@stage("look who else holds the records")
def _check_held(s: Session, doomed: Collection, live: Collection, name: str) -> list[str]:
    """Look whether the live collection holds what this one holds; journal what goes. Returns what
    is to be told.

    Raises:
        LossError: see `refuse_last_copy`.
    """
    if not s.run.history.shards("embed"):
        return []
    found = held_elsewhere(s, doomed, live)
    refuse_last_copy(s, name, found, s.run.history.records_before_clean)
    checked = events.CleanChecked(id=doomed.id, live=live.id, **found.to_dict())
    s.run.history.record(checked)
    return found.messages()


@stage("delete the collection")
def _drop(collection: Collection, run: RunDir) -> None:
    if run.history.dropping != collection.id:
        run.history.record(events.CleanBegun(id=collection.id))
    collection.store.to_write().drop(collection.id)
