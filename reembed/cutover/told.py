"""What a person is told beside a move: what it leaves out, what it asks of the application, and
what a deletion takes."""

from __future__ import annotations

import time

from reembed.run import events, files
from reembed.stages.session import Session
from reembed.stores.collection import Collection


def told_of_swap(s: Session, kind: str) -> list[str]:
    """What has to follow a swap, and what it leaves out.

    Args:
        kind: of the swap.
    """
    _, quarantined = s.ledger.counts()
    told = []
    if quarantined:
        told.append(
            f"{quarantined:,} records are left out of the new collection, each with its reason in "
            f"{s.run.path / files.QUARANTINE.name}"
        )
    if kind == "config":  # its own message says what to change
        return told
    model, live = s.manifest.model, s.manifest.live
    if kind == "pointer":
        told.append(
            f"the application has nothing to do where it opens {live!r} through reembed.live; "
            "elsewhere it would go on reading the old collection"
        )
        return told
    again = (
        f"open {live!r} again where it holds it open"
        if s.manifest.target_url.startswith("chroma")
        else ""
    )
    if isinstance(model, str):  # the vectors are kept, and so is the model of its queries
        return [*told, f"the application has to {again}"] if again else told
    prefix = f" and the prefix {model.query_prefix!r}" if model.query_prefix else ""
    told.append(
        f"the application has to embed its queries with {model.provider} {model.name}, "
        f"{s.dimensions} dimensions{prefix}, from the swap on" + (f", and {again}" if again else "")
    )
    return told


def told_of_clean(s: Session) -> list[str]:
    """What a clean would delete, with its records, and from when it may."""
    history = s.run.history
    swapped = history.last_move == "swap"
    if history.shadow_id is None:
        return ["there is no collection to delete"]
    doomed: Collection = s.old.whole if swapped else s.new
    info = doomed.describe()
    if info is None:
        return ["the collection to delete is gone already"]
    role = "the old collection" if swapped else "the new collection, which is not live"
    told = f"would delete {info.name!r}, {role}, with {info.count:,} records"
    if not swapped:
        return [f"{told}; may be done now"]
    due = history.require(events.SwapDone).t + s.manifest.swap.keep_old_seconds
    if due <= time.time():
        return [f"{told}; may be done now"]
    when = time.strftime("%F %T", time.localtime(due))
    return [f"{told}; may be done from {when} on (swap.keep_old: {s.manifest.swap.keep_old})"]
