"""What a person is told of a move: its outcome, what it leaves out, what it asks of the
application, what a deletion takes, and what the collections have lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from reembed.errors import ReembedError
from reembed.progress import stage
from reembed.report.results import SwapResult
from reembed.run import events, files
from reembed.run.counts import count_records
from reembed.run.loss import Loss
from reembed.stages.session import Session
from reembed.stages.swap_kind import SwapPlan
from reembed.stores.collection import Collection

WITHHELD = "these deletions were not applied, so the live collection keeps its records"
STILL_WRITTEN = (
    "the {} collection is still written to, through handles that were opened before the {}: open "
    "them again, then copy the rest with `reembed sweep`"
)


def outcome(
    s: Session, action: str, done: bool, kind: SwapPlan | None = None, told: Sequence[str] = ()
) -> SwapResult:
    """What an action did or, as a dry run, would do.

    Args:
        told: what a person is told of it.
    """
    shadow = s.run.history.last(events.ShadowCreated)
    name, parked = shadow.name if shadow else "", s.parked_as
    back = action == "rollback" or (s.run.history.last_move == "rollback" and action != "swap")
    other = name if back else parked
    if done and action != "clean":  # a pointer leaves a collection its name unless it is live
        left = (s.new if back else s.old).describe()
        other = left.name if left else other
    return SwapResult(
        action, s.run.run_id, done, s.manifest.live,
        collection=parked if back else name, parked=other, messages=list(told),
        kind=kind.kind if kind else "", guarantee=kind.guarantee if kind else "",
    )  # fmt: skip


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


def told_of_open(s: Session) -> list[str]:
    """Which other processes have a store open that takes one writer, and what that means."""
    others = s.source_store.catalog.capabilities.open_in
    if not others:
        return []
    return [
        f"open in other processes now: {', '.join(others)}. If they write while a run does, "
        "vectors are lost without an error; and handles that they opened before a swap stay on the "
        "old collection until they open the name again"
    ]


def config_change(s: Session) -> str:
    """What the application has to change where no name moves."""
    manifest = s.manifest
    name, model = s.run.history.shadow_name, manifest.new_model
    where = (
        f"change the application's configuration: store {manifest.target_url}, collection "
        f"{name!r} instead of {manifest.live!r}"
    )
    if model is None:
        metric = manifest.target.metric or s.source.metric
        changed = "" if metric == s.source.metric else f" instead of {s.source.metric}"
        return f"{where}; its model stays as it is; the metric is {metric}{changed}"
    return (
        f"{where}, model {model.provider} {model.name} with {s.dimensions} dimensions, query "
        f"prefix {model.query_prefix!r}"
    )


def told_of_late(withheld: Loss | None, left: Sequence[str] = ()) -> list[str]:
    """What a move that is done says of late writes that it did not carry.

    Args:
        withheld: a mass of deletions.
        left: ids of rows that cannot go back.
    """
    told = []
    if withheld is not None:
        told.append(
            f"{withheld}; {WITHHELD}. If they were meant, `reembed sweep --accept-loss` applies "
            "them; if not, `reembed clean --accept-loss` deletes the other collection and ignores "
            "them"
        )
    if left:
        told.append(
            f"{len(left):,} rows written to the new collection late cannot go back and stay "
            f"there, e.g. {', '.join(left[:5])}"
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


# What the collections of a run have lost, seen before anything is done: by `status`, `plan` and dry
# runs. Nothing is written, not even into the run's books.


def with_losses(s: Session, result: SwapResult) -> SwapResult:
    """A dry run's result with what is lost; if it cannot be seen, with the reason why. Every id is
    looked for that the run knows."""
    try:
        return replace(result, losses=_lost_ids(s))
    except ReembedError as error:
        told = f"what is lost could not be seen: {error.message}"
        return replace(result, messages=[*result.messages, told])


@stage("look whether records were lost")
def losses_now(s: Session) -> list[Loss]:
    """The collections of the run that lack all, or more than half, of what it knows of them, as far
    as counts tell, which is fast."""
    if not _has_moved_records(s):
        return []
    return _losses(s, count_records(s.run, []), lambda collection, count: count)


@stage("look whether records were lost")
def _lost_ids(s: Session) -> list[Loss]:
    def known_in(collection: Collection, count: int) -> int:
        return sum(len(s.ledger.lookup(page.to_pylist())) for page in collection.list_ids())

    return _losses(s, s.ledger.counts(), known_in) if _has_moved_records(s) else []


def _has_moved_records(s: Session) -> bool:
    """Whether the run has collections that should hold what it knows."""
    if not s.begun or s.run.history.state in ("cleaning", "cleaned"):
        return False
    return bool(s.run.history.shards("embed"))


def _losses(
    s: Session, counts: tuple[int, int], there: Callable[[Collection, int], int]
) -> list[Loss]:
    """Those of the run's collections that lack a mass of records.

    Args:
        counts: records that the run knows, and how many of them are quarantined.
        there: how many of them a collection holds, of which the store counts so many.
    """
    history, (total, quarantined) = s.run.history, counts
    swapped = history.last_move == "swap"

    def look(collection: Collection, parked: bool, known: int) -> Loss:
        role = "not live now" if parked else "live now"
        info = collection.describe()
        if info is None:
            return Loss(f"the collection {collection.id}, {role}, is gone and", known, known)
        lost = max(0, known - there(collection, info.count))
        return Loss(f"{info.name!r}, {role},", known, lost)

    looks = [look(s.old, swapped, total)]
    if history.shadow_id is not None and history.state not in ("created", "exported", "embedded"):
        looks.append(look(s.new, not swapped, total - quarantined))
    return [loss for loss in looks if loss.is_mass]
