"""What a killed call or a damaged file left, made good: once a command, before it acts."""

from __future__ import annotations

from typing import Literal

from reembed.cutover.move import finish_move, release_writes
from reembed.session import Session
from reembed.stages.refusals import leads_to
from reembed.sync.follow import load_rest
from reembed.sync.mend import has_ledger, mend_shards, resync_shadow
from reembed.verify.shadow import require_shadow

Ahead = Literal["stages", "move", "way back", "clean"]


def recover(s: Session, ahead: Ahead) -> list[str]:
    """Let writers go that a killed move still holds; journal a move that the store has done and
    its call did not live to journal; make shards again that are damaged or gone; make a shadow that
    was live before a rollback what the shards say; load what is embedded.

    Args:
        ahead: what the command goes on with. The `stages` of a run make and load shards themselves.
            A `move` of the name, or a sweep, needs everything embedded and loaded. The `way back`
            asks the new model only if there is no other way: what is not embedded yet, the ledger
            does not know, and the next comparison finds it again. Before a `clean` shards are made
            again while the old collection, from which they are made, is still there.

    Returns the ids of rows left alone because a live shadow has newer ones.
    """
    history = s.run.history
    release_writes(s.store, s.run, s.manifest.live)
    _journal_move(s)
    if ahead == "stages":
        if history.resync_due:
            require_shadow(s)
            mend_shards(s, embedding=False)
            resync_shadow(s)
        return []
    if ahead == "move":
        mend_shards(s)
        if history.resync_due:
            resync_shadow(s)
        return load_rest(s)
    if history.last_move != "swap" or history.dropping is not None:
        return []  # the shadow is left as it is
    if s.old.describe() is None or s.new.describe() is None:
        return []  # the command says so
    if ahead == "clean" or history.not_loaded(s.run.shards("embed")) or not has_ledger(s):
        mend_shards(s, embedding=False)
    return load_rest(s)


def _journal_move(s: Session) -> None:
    action = s.run.history.pending_move
    if action is None:
        return
    store, id = (s.store, s.new.id) if action == "swap" else (s.source_store, s.old.id)
    if leads_to(store, s.manifest.live, id):
        finish_move(s.store, s.run, action)
