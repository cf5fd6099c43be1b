"""`clean`: delete the collection that is not live, by object id, after a check.

A store may delete a collection record by record, and go on with it when this process is gone. So
the intent is journalled first: from then on what the collection lacks is nobody's deletion, nothing
is compared with it any more, and only `clean` goes on with the run.
"""

from __future__ import annotations

import time
from dataclasses import replace

from reembed.cutover.move import let_writes_go, outcome, swap_kind
from reembed.errors import DamagedStoreError, PreflightError, SourceChangedError, UsageError
from reembed.results import SwapResult
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.session import Session
from reembed.stages.load import intended_shadow
from reembed.stages.refusals import leads_to
from reembed.stores.collection import Collection
from reembed.sync.difference import find_late, without_conflicts
from reembed.sync.recover import load_rest, mend_shards, refuse_late


def clean_run(s: Session, dry_run: bool) -> SwapResult:
    """Delete the collection that is not live."""
    if s.run.history.state == "cleaned":
        return replace(outcome(s, "clean", True), messages=["it is cleaned already"])
    if s.run.history.pending_move or s.run.history.swap_unfinished:
        raise UsageError(
            f"{s.manifest.name}: a move of the live name was begun and not finished",
            "Run the same command (swap or rollback) again first.",
        )
    if dry_run:
        return outcome(s, "clean", False)
    let_writes_go(s)
    done = _drop_old(s) if s.run.history.last_move == "swap" else _drop_shadow(s)
    s.old.stop_capture()
    if s.run.history.shadow_id is not None and s.new.describe() is not None:
        s.new.stop_capture()
    s.run.history.write(events.Cleaned(what=done))
    return replace(outcome(s, "clean", True), messages=[done])


def _drop_old(s: Session) -> str:
    manifest = s.manifest
    if swap_kind(s).kind == "config":
        raise PreflightError(
            f"no name moved, so reembed cannot see which collection the application reads; "
            f"{manifest.source.collection!r} stays",
            "Once its configuration has changed, delete the old collection yourself.",
        )
    if s.run.history.dropping is None:
        mend_shards(s, embedding=False)  # the old collection is what they are made from
        load_rest(s)
    return drop_old(s.old, s.new, manifest.live, s.run, s.ledger, manifest.swap.keep_old_seconds)


def _drop_shadow(s: Session) -> str:
    """Give up a run that is not swapped: delete its shadow, keep its shards and the source."""
    id = s.run.history.shadow_id or intended_shadow(s.store, s.run)
    if id is None:
        return "there was no shadow to delete"
    unread = ""
    if s.run.history.dropping is None and s.run.history.shadow_was_live:
        try:
            if s.store.catalog.describe_id(id) is not None:
                refuse_late(s)
        except DamagedStoreError:
            unread = "; its index could not be read, so what came late to it, if anything, is lost"
    same_store = s.manifest.target_url == s.manifest.source.url
    live = s.manifest.live if same_store else None
    return drop_shadow(Collection(s.store, id), s.run, live) + unread


def drop_old(
    parked: Collection, live: Collection, name: str, run: RunDir, ledger: Ledger, keep_seconds: int
) -> str:
    """Delete the parked collection of a swap. Returns what was done, in words.

    Raises:
        PreflightError: it is kept for longer, or holds late writes.
        SourceChangedError: the live name leads somewhere else.
    """
    begun = run.history.dropping == parked.id
    due = run.history.require(events.SwapDone).t + keep_seconds
    if time.time() < due and not begun:
        raise PreflightError(
            f"the old collection is kept until {time.strftime('%F %T', time.localtime(due))} "
            "(swap.keep_old)",
            "Run clean after that, or set swap.keep_old lower; 0d gives up the way back now.",
        )
    now = parked.store.resolve(name).id
    if begun and now == parked.id and live.describe() is None:
        return "the old collection is deleted"  # its last note went before this was journalled
    if now != live.id:
        raise SourceChangedError(
            f"{name!r} no longer leads to the collection that this run swapped in",
            "Another swap has happened since; nothing was deleted.",
        )
    if not begun and parked.describe() is not None:
        found = find_late(parked, run, ledger)
        late, _ = without_conflicts(live, found, ledger)
        if late:
            raise PreflightError(
                f"the old collection holds {len(late):,} late writes that the live one lacks",
                "Carry them over with `reembed sweep` first.",
            )
    _drop(parked, run)
    return "the old collection is deleted"


def drop_shadow(shadow: Collection, run: RunDir, live: str | None) -> str:
    """Delete the shadow of a run that is not swapped. Returns what was done, in words.

    Args:
        live: the live name, None where it is in another store.

    Raises:
        SourceChangedError: the live name leads to it.
    """
    if live is not None and leads_to(shadow.store, live, shadow.id):
        raise SourceChangedError(
            f"{live!r} leads to the shadow, though this run did not swap it",
            "Nothing was deleted; look at the store.",
        )
    _drop(shadow, run)
    return "the shadow is deleted; the live collection is untouched"


def _drop(collection: Collection, run: RunDir) -> None:
    if run.history.dropping != collection.id:
        run.history.write(events.CleanBegun(id=collection.id))
    collection.store.to_write().drop(collection.id)
