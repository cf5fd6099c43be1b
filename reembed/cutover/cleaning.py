"""`clean` with a session: delete the collection that is not live, and all traces of the run."""

from __future__ import annotations

from dataclasses import replace

from reembed.cutover.clean import drop_old, drop_shadow, dropping
from reembed.cutover.move import let_writes_go, outcome, swap_kind
from reembed.errors import DamagedStoreError, PreflightError, UsageError
from reembed.results import run_state
from reembed.session import Session
from reembed.stages.load import intended_shadow, shadow_id
from reembed.sync.catch_up import (
    SwapResult,
    last_move,
    pending_move,
    shadow_was_live,
    swap_unfinished,
)
from reembed.sync.recover import both_ids, load_rest, mend_shards, refuse_late


def clean_run(s: Session, dry_run: bool) -> SwapResult:
    """Delete the collection that is not live."""
    if run_state(s.run) == "cleaned":
        return replace(outcome(s, "clean", True), messages=["it is cleaned already"])
    if pending_move(s.run) or swap_unfinished(s.run):
        raise UsageError(
            f"{s.manifest.name}: a move of the live name was begun and not finished",
            "Run the same command (swap or rollback) again first.",
        )
    if dry_run:
        return outcome(s, "clean", False)
    let_writes_go(s)
    done = _drop_old(s) if last_move(s.run) == "swap" else _drop_shadow(s)
    s.source_store.release_capture(s.source.id)
    shadow = shadow_id(s.run)
    if shadow is not None and s.store.describe_id(shadow) is not None:
        s.store.release_capture(shadow)
    s.run.journal.append("cleaned", what=done)
    return replace(outcome(s, "clean", True), messages=[done])


def _drop_old(s: Session) -> str:
    manifest = s.manifest
    if swap_kind(s).kind == "config":
        raise PreflightError(
            f"no name moved, so reembed cannot see which collection the application reads; "
            f"{manifest.source.collection!r} stays",
            "Once its configuration has changed, delete the old collection yourself.",
        )
    old_id, new_id = both_ids(s)
    if dropping(s.run) is None:
        mend_shards(s, embedding=False)  # the old collection is what they are made from
        load_rest(s)
    return drop_old(
        s.source_store, s.run, old_id, new_id, manifest.live, s.ledger, manifest.source.where,
        manifest.swap.keep_old_seconds,
    )  # fmt: skip


def _drop_shadow(s: Session) -> str:
    """Give up a run that is not swapped: delete its shadow, keep its shards and the source."""
    id = shadow_id(s.run) or intended_shadow(s.store, s.run)
    if id is None:
        return "there was no shadow to delete"
    unread = ""
    if dropping(s.run) is None and shadow_was_live(s.run):
        try:
            if s.store.describe_id(id) is not None:
                refuse_late(s)
        except DamagedStoreError:
            unread = "; its index could not be read, so what came late to it, if anything, is lost"
    same_store = s.manifest.target_url == s.manifest.source.url
    return drop_shadow(s.store, s.run, id, s.manifest.live if same_store else None) + unread
