"""What a killed call or a damaged file left, made good before a command acts.

Each of these lets writers go that a killed move still holds, and journals a move that the store has
done and its call did not live to journal. What more a command needs is in its own function.
"""

from __future__ import annotations

from reembed.cutover.move import finish_moved
from reembed.stages.session import Session
from reembed.sync.follow import load_rest
from reembed.sync.mend import has_ledger, mend_shards, resync_shadow
from reembed.verify.shadow import require_shadow


def recover(s: Session) -> list[str]:
    """Before a move of the name, or a sweep: everything is embedded and loaded, and a shadow that
    was live before a rollback is what the shards say.

    Returns the ids of rows left alone because a live shadow has newer ones.
    """
    finish_moved(s)
    mend_shards(s)
    if s.run.history.resync_due:
        resync_shadow(s)
    return load_rest(s)


def recover_for_stages(s: Session) -> None:
    """Before the stages of a run, which make and load shards themselves."""
    finish_moved(s)
    if s.run.history.resync_due:
        require_shadow(s)
        mend_shards(s, embedding=False)
        resync_shadow(s)


def recover_for_way_back(s: Session) -> None:
    """Before a rollback, or a sweep after one. The new model is asked only if there is no other
    way: what is not embedded yet, the ledger does not know, and the next comparison finds it."""
    finish_moved(s)
    if _has_both(s):
        if s.run.history.not_loaded(s.run.shards("embed")) or not has_ledger(s):
            mend_shards(s, embedding=False)
        load_rest(s)


def recover_for_clean(s: Session) -> None:
    """Before a collection is deleted: shards are made again while the old one is still there."""
    finish_moved(s)
    if _has_both(s) and s.run.history.dropping is None:
        mend_shards(s, embedding=False)
        load_rest(s)


def _has_both(s: Session) -> bool:
    """Whether the live name is at the shadow, and both collections are there to copy from."""
    swapped = s.run.history.last_move == "swap"
    return swapped and s.old.describe() is not None and s.new.describe() is not None
