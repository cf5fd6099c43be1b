"""`clean`: delete the collection that is not live, by object id, after a check.

A store may delete a collection record by record, and go on with it when this process is gone. So
the intent is journalled first: from then on what the collection lacks is nobody's deletion, nothing
is compared with it any more, and only `clean` goes on with the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reembed.cutover.move import let_writes_go, outcome, swap_kind
from reembed.errors import DamagedStoreError, PreflightError, SourceChangedError, UsageError
from reembed.results import SwapResult
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.session import Session
from reembed.stages.load import intended_shadow
from reembed.stages.refusals import leads_to
from reembed.stores.store import Store
from reembed.sync.difference import find_late, without_conflicts
from reembed.sync.recover import both_ids, load_rest, mend_shards, refuse_late


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
    if s.source_store.capture is not None:
        s.source_store.capture.stop(s.source.id)
    shadow = s.run.history.shadow_id
    if (
        shadow is not None
        and s.store.capture is not None
        and s.store.catalog.describe_id(shadow) is not None
    ):
        s.store.capture.stop(shadow)
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
    old_id, new_id = both_ids(s)
    if s.run.history.dropping is None:
        mend_shards(s, embedding=False)  # the old collection is what they are made from
        load_rest(s)
    return drop_old(
        s.source_store, s.run, old_id, new_id, manifest.live, s.ledger, manifest.source.where,
        manifest.swap.keep_old_seconds,
    )  # fmt: skip


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
    return drop_shadow(s.store, s.run, id, s.manifest.live if same_store else None) + unread


def drop_old(
    store: Store, run: RunDir, parked_id: str, live_id: str, live: str, ledger: Ledger,
    where: Mapping[str, Any] | str | None, keep_seconds: int,
) -> str:  # fmt: skip
    """Delete the parked collection of a swap. Returns what was done, in words.

    Raises:
        PreflightError: it is kept for longer, or holds late writes.
        SourceChangedError: the live name leads somewhere else.
    """
    begun = run.history.dropping == parked_id
    due = run.history.require(events.SwapDone).t + keep_seconds
    if time.time() < due and not begun:
        raise PreflightError(
            f"the old collection is kept until {time.strftime('%F %T', time.localtime(due))} "
            "(swap.keep_old)",
            "Run clean after that, or set swap.keep_old lower; 0d gives up the way back now.",
        )
    now = store.resolve(live).id
    if begun and now == parked_id and store.catalog.describe_id(live_id) is None:
        return "the old collection is deleted"  # its last note went before this was journalled
    if now != live_id:
        raise SourceChangedError(
            f"{live!r} no longer leads to the collection that this run swapped in",
            "Another swap has happened since; nothing was deleted.",
        )
    if not begun and store.catalog.describe_id(parked_id) is not None:
        found = find_late(store, parked_id, where, run, ledger)
        late, _ = without_conflicts(store, live_id, found, ledger)
        if late:
            raise PreflightError(
                f"the old collection holds {len(late):,} late writes that the live one lacks",
                "Carry them over with `reembed sweep` first.",
            )
    _drop(store, run, parked_id)
    return "the old collection is deleted"


def drop_shadow(store: Store, run: RunDir, shadow_id: str, live: str | None) -> str:
    """Delete the shadow of a run that is not swapped. Returns what was done, in words.

    Args:
        live: the live name, None where it is in another store.

    Raises:
        SourceChangedError: the live name leads to it.
    """
    if live is not None and leads_to(store, live, shadow_id):
        raise SourceChangedError(
            f"{live!r} leads to the shadow, though this run did not swap it",
            "Nothing was deleted; look at the store.",
        )
    _drop(store, run, shadow_id)
    return "the shadow is deleted; the live collection is untouched"


def _drop(store: Store, run: RunDir, id: str) -> None:
    if run.history.dropping != id:
        run.history.write(events.CleanBegun(id=id))
    store.to_write().drop(id)
