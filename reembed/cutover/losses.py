"""What the collections of a run have lost, seen before anything is done: by `status`, `plan` and
dry runs. Nothing is written, not even into the run's books."""

from __future__ import annotations

from dataclasses import replace

from reembed.errors import ReembedError
from reembed.progress import stage
from reembed.report.results import SwapResult
from reembed.run.counts import count_records
from reembed.run.loss import Loss
from reembed.stages.session import Session
from reembed.stores.collection import Collection


def with_losses(s: Session, result: SwapResult) -> SwapResult:
    """A dry run's result with what is lost; if it cannot be seen, with the reason why."""
    try:
        return replace(result, losses=losses_now(s, by_ids=True))
    except ReembedError as error:
        told = f"what is lost could not be seen: {error.message}"
        return replace(result, messages=[*result.messages, told])


@stage("look whether records were lost")
def losses_now(s: Session, *, by_ids: bool = False) -> list[Loss]:
    """The collections of the run that lack all, or more than half, of what it knows of them.

    Args:
        by_ids: look for every id that the run knows; else count the records, which is fast.
    """
    if not s.begun:
        return []
    history = s.run.history
    if not history.shards("embed") or history.state in ("cleaning", "cleaned"):
        return []
    total, quarantined = s.ledger.counts() if by_ids else count_records(s.run, [])
    swapped = history.last_move == "swap"
    looks = [_look(s, s.old, swapped, total, by_ids)]
    if history.shadow_id is not None and history.state not in ("created", "exported", "embedded"):
        looks.append(_look(s, s.new, not swapped, total - quarantined, by_ids))
    return [loss for loss in looks if loss.is_mass]


def _look(s: Session, collection: Collection, parked: bool, known: int, by_ids: bool) -> Loss:
    role = "not live now" if parked else "live now"
    info = collection.describe()
    if info is None:
        return Loss(f"the collection {collection.id}, {role}, is gone and", known, known)
    there = info.count
    if by_ids:
        there = sum(len(s.ledger.lookup(page.to_pylist())) for page in collection.list_ids())
    return Loss(f"{info.name!r}, {role},", known, max(0, known - there))
