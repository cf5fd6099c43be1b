"""Giving up a swap that was begun and cannot be done, or shall not be."""

from __future__ import annotations

from reembed.cutover.move import finish_move, release_writes
from reembed.run import events
from reembed.session import Session
from reembed.stages.refusals import leads_to


def withdraw(s: Session) -> None:
    """Give up a swap that was begun, where the live name has not moved yet; else finish the move,
    so that there is only the way back. From a rename's gap there is one way only."""
    if leads_to(s.source_store, s.manifest.live, s.source.id):
        release_writes(s.store, s.run, s.manifest.live)
        s.run.history.write(events.SwapWithdrawn())
    else:
        finish_move(s.store, s.run, "swap")
