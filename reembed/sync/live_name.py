"""Whether the live name still leads to one of a run's two collections, once it has moved.

An application may delete its collection and make it anew, or rename another one to the name. What
the run then does to its own two collections would not reach what the application reads.
"""

from __future__ import annotations

from reembed.errors import CollectionNotFoundError, SourceChangedError
from reembed.run import events
from reembed.session import Session
from reembed.stores.values import CollectionInfo


def third(s: Session) -> CollectionInfo | None:
    """The collection that the live name leads to, if it is none of this run's; None before the name
    has moved, or where no name moves."""
    history = s.run.history
    swap = history.last(events.SwapBegun)
    if history.last_move is None or history.pending_move or not swap or swap.kind == "config":
        return None
    try:
        found = s.store.resolve(s.manifest.live)
    except CollectionNotFoundError:
        return None
    return None if found.id in (s.old.id, s.new.id) else found


def lost(s: Session, found: CollectionInfo) -> SourceChangedError:
    """The refusal, with what is left of the two and the ways on."""
    live = s.manifest.live
    old, new = s.old.describe(), s.new.describe()
    left = [
        f"the {which} one is there as {info.name!r} with {info.count:,} records"
        if info else f"the {which} one is gone"
        for which, info in (("new", new), ("old", old))
    ]  # fmt: skip
    back = (
        f" To have the old one back, rename the one that is there, and then {old.name!r} to "
        f"{live!r} (Chroma: collection.modify(name=...))."
        if old
        else ""
    )
    return SourceChangedError(
        f"{live!r} serves a third collection now (id {found.id}, {found.count:,} records), "
        f"which this run did not make; of its own two {' and '.join(left)}",
        "Somebody deleted the collection and created it again, or renamed another. To move the one "
        f"that is there now, give the manifest another `name` and use `reembed run`.{back}",
    )


def refuse_third(s: Session) -> None:
    """Raise SourceChangedError if the live name leads to neither of the run's collections."""
    found = third(s)
    if found is not None:
        raise lost(s, found)
