"""Give a restored collection the live name, and take it away again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from reembed.backup.carry import Carried, Side, carry, meet, write
from reembed.backup.index import Index, row_digests
from reembed.backup.restore import Job, live_now, shape_of
from reembed.backup.shards import records_of
from reembed.cutover.move import (
    SWEEP_SECONDS,
    begun_exchange,
    finish_move,
    move_live_name,
    release_writes,
    retried,
    writes_held,
)
from reembed.errors import LossError, PreflightError, SourceChangedError, UsageError
from reembed.manifest import SwapKind
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.events import Action
from reembed.run.loss import Loss
from reembed.stages.swap_kind import parked_as, wanted_kind
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo, Exchange

BEFORE, AFTER = "before.sqlite", "after.sqlite"
"""Indexes of the collection that had the name, and of the one that was restored."""


@dataclass(frozen=True)
class How:
    """How the name may move.

    Attributes:
        exact: what the live collection has new since the snapshot stays behind.
        accept_window: the name may be gone for a few milliseconds.
        accept_loss: the name may lead to less than half of the records that it leads to now.
    """

    exact: bool = False
    accept_window: bool = False
    accept_loss: bool = False


@dataclass
class Moved:
    """What a move did.

    Attributes:
        parked: name of the collection that had the live name; empty where there was none.
        carried: records that were carried from it.
    """

    kind: str = ""
    parked: str = ""
    carried: Carried = field(default_factory=Carried)
    messages: list[str] = field(default_factory=list)


def kind_of(job: Job, accept_window: bool) -> SwapKind:
    """How the live name moves here. Raises PreflightError where only with a gap, and none is
    accepted."""
    cutover = job.store.to_move()
    try:
        pointer = cutover.follow(job.live) is not None
    except SourceChangedError:  # to one that is gone
        return "pointer"
    live = live_now(job.store, job.live)
    if live is None:
        pointer = bool(job.snapshot.names.get("pointer")) and "pointer" in cutover.kinds
    if pointer:
        return "pointer"
    if live is None:  # nothing makes way, so there is no gap
        return "transaction" if "transaction" in cutover.kinds else "rename"
    try:
        return wanted_kind("auto", cutover.kinds, accept_window, is_pointer=False)
    except PreflightError as error:
        raise PreflightError(
            error.message,
            "--accept-window lets it be gone for a few milliseconds. Without one: stop the "
            "application, rename or delete the live collection yourself, and restore again.",
        ) from error


def refuse_mixing(job: Job, live: CollectionInfo | None, how: How) -> None:
    """Raise PreflightError where what is new in the live collection could not be carried."""
    if live is None or how.exact or not live.count:
        return
    was = job.snapshot.info
    other = [
        f"{what} {now!r}, and the snapshot's {then!r}"
        for what, now, then in (
            ("dimensions are", live.dimensions, was.dimensions),
            ("model is", _named(live.model), _named(job.snapshot.model)),
        )
        if now is not None and then is not None and now != then
    ]
    if other:
        raise PreflightError(
            f"{job.live!r} has vectors of another kind now: its {'; its '.join(other)}, so what "
            "was written since the snapshot cannot be copied into it",
            "--exact restores the snapshot alone. The collection of now is kept beside it, and the "
            "way back is open.",
        )


def _named(model: dict[str, object] | None) -> str | None:
    return f"{model.get('provider')} {model.get('name')}" if model else None


def swap(job: Job, run: RunDir, made: Collection, how: How) -> Moved:
    """Give the restored collection the live name, with what was written meanwhile. Does what is
    left of it when called again.

    Raises:
        LossError: the collection that has the name was wiped while it was looked at.
        LockedError: another session is in the way of the move.
        SourceChangedError: the name was taken by a third collection meanwhile.
    """
    release_writes(job.store, run, job.live)
    _settle(job, run, made)
    with _sides(job, run, made) as after:
        if run.history.last_move != "swap":
            _begin(job, run, after, how)
        return _finish(job, run, after)


def _settle(job: Job, run: RunDir, made: Collection) -> None:
    """Finish a move that was begun and has happened; withdraw one that has not."""
    if run.history.pending_move != "swap":
        return
    if _leads_to(job, made):
        finish_move(job.store, run, "swap")
    else:
        run.history.record(events.SwapWithdrawn())


@contextlib.contextmanager
def _sides(job: Job, run: RunDir, made: Collection) -> Iterator[Side]:
    """The restored collection with the index of what was put into it."""
    with Index(run.path / AFTER, keep=True, digests=row_digests) as index:
        if not index.complete:
            index.begin()
            for batch in records_of(job.snapshot, job.folder.shards):
                index.add(batch)
            index.finish()
        yield Side(made, index)


def _begin(job: Job, run: RunDir, after: Side, how: How) -> None:
    kind = kind_of(job, how.accept_window)
    live = live_now(job.store, job.live)
    refuse_mixing(job, live, how)
    if live is not None and how.exact:
        refuse_loss(job.live, live.count, after.index.count(), how)
    model = job.snapshot.model
    parked = parked_as(job.store.to_move(), job.live, run.run_id)
    if live is None:
        shape = shape_of(job)
        exchange = Exchange(job.live, after.collection.id, None, parked, model, shape)
        move_live_name(job.store, run, "swap", kind, exchange)
        return
    job.store.to_move().check(job.live, parked, live.id)
    outgoing = Collection(job.store, live.id)
    exchange = Exchange(job.live, after.collection.id, live.id, parked, model)
    with Index(run.path / BEFORE, keep=True, digests=row_digests) as index:
        before = Side(outgoing, index)
        outgoing.start_capture()
        carried = meet(before, after, exact=how.exact)
        _move(run, job, ("swap", kind, exchange), (before, after), carried)
        run.history.record(events.CaughtUp(watermark=before.mark, carried=carried.records))


def _move(
    run: RunDir, job: Job, what: tuple[Action, SwapKind, Exchange], sides: tuple[Side, Side],
    carried: Carried,
) -> None:  # fmt: skip
    """Carry and move while writers wait, again if another session is in the way."""
    giver, receiver = sides

    def once() -> None:
        _carry(giver, receiver, carried)
        with writes_held(job.store, run, job.live, what[2].incoming_id):
            _carry(giver, receiver, carried)
            move_live_name(job.store, run, *what)

    retried(once)


def _carry(giver: Side, receiver: Side, carried: Carried) -> None:
    more = carry(giver, receiver)
    carried.add(more)
    if more.withheld:
        raise LossError(
            f"{more.withheld:,} records were deleted from the live collection while it was "
            "compared, which is more than half of them",
            "Nothing was moved. See who does that, and run the same command again.",
        )


def _finish(job: Job, run: RunDir, after: Side) -> Moved:
    """What follows the move: late writes to the collection that had the name, and an end to the
    log of writes."""
    done = run.history.require(events.SwapDone)
    exchange = begun_exchange(run, "swap")
    moved = Moved(kind=str(done.receipt.get("kind", "")))
    caught = run.history.last(events.CaughtUp)
    if caught is not None:
        moved.carried.records = caught.carried
    outgoing = Collection(job.store, exchange.outgoing_id) if exchange.outgoing_id else None
    there = outgoing.describe() if outgoing is not None else None
    if outgoing is not None and there is not None:
        moved.parked = there.name
        with Index(run.path / BEFORE, keep=True, digests=row_digests) as index:
            before = Side(outgoing, index, caught.watermark if caught else None)
            _sweep(before, after, moved.carried)
        intruder = done.receipt.get("intruder")
        if intruder:
            moved.messages.append(_merge(job, str(intruder), after, moved.carried))
        outgoing.stop_capture()
        after.collection.stop_capture()
    run.history.record(events.SwapFinished(swept=moved.carried.records))
    return moved


def _sweep(giver: Side, receiver: Side, carried: Carried) -> None:
    deadline = time.monotonic() + SWEEP_SECONDS
    while True:
        more = carry(giver, receiver)
        carried.add(more)
        if not more.records or time.monotonic() > deadline:
            return


def _merge(job: Job, name: str, after: Side, carried: Carried) -> str:
    """Carry the records of a collection that somebody made under the live name in the gap."""
    intruder = Collection(job.store, job.store.catalog.describe(name).id)
    more = Carried()
    for page in intruder.list_ids():
        known = after.index.lookup(page.to_pylist())
        rows = intruder.fetch([id for id in page.to_pylist() if id not in known], vectors=True)
        more.add(write(rows, after))
    carried.add(more)
    return (
        f"somebody made a collection under the live name in the gap; {more.records:,} records of "
        f"it were merged, and it is kept as {name!r}"
    )


def refuse_loss(live: str, now: int, then: int, how: How) -> None:
    """Raise LossError where a live name would lead to all too few records."""
    loss = Loss(repr(live), now, max(0, now - then))
    if loss.is_mass and not how.accept_loss:
        raise LossError(
            f"{live!r} leads to {now:,} records, and would lead to {then:,}",
            "Nothing was moved. If that is meant, run it again with --accept-loss.",
        )


def go_back(job: Job, run: RunDir, made: Collection, how: How) -> Moved:
    """Give the name back to the collection that had it, with what was written since.

    Raises:
        LossError: the name would lead to less than half of the records, and nobody accepted it.
        UsageError: the restored collection does not have the name, or there was none before.
        SourceChangedError: a collection is gone, or the name leads elsewhere.
    """
    release_writes(job.store, run, job.live)
    exchange = run.history.last(events.SwapDone) and begun_exchange(run, "swap")
    if not exchange or (run.history.last_move == "rollback" and not _back_pending(run)):
        raise UsageError(
            f"{job.live}: no restore has the live name, so there is no way back",
            "`reembed restore DIR --yes` gives it one.",
        )
    outgoing = Collection(job.store, exchange.outgoing_id) if exchange.outgoing_id else None
    if outgoing is None or outgoing.describe() is None:
        raise UsageError(
            f"{job.live}: there was no collection before the restore, or it is gone",
            "The restored one stays. Earlier snapshots can be restored with --snapshot ID.",
        )
    moved = Moved(kind=str(run.history.require(events.SwapDone).receipt.get("kind", "")))
    with (
        _sides(job, run, made) as after,
        Index(run.path / BEFORE, keep=True, digests=row_digests) as index,
    ):
        before = Side(outgoing, index)
        if not _back_pending(run) or _leads_to(job, made):
            refuse_loss(job.live, made.count(), outgoing.count(), how)
            back = Exchange(job.live, outgoing.id, made.id, job.name,
                            _model_before(outgoing.describe()))  # fmt: skip
            kind = run.history.require(events.SwapBegun).kind
            made.start_capture()
            _move(run, job, ("rollback", kind, back), (after, before), moved.carried)
        elif run.history.pending_move == "rollback":
            finish_move(job.store, run, "rollback")
        _sweep(after, before, moved.carried)
        outgoing.stop_capture()
        made.stop_capture()
    run.history.record(events.RollbackFinished(carried=moved.carried.records))
    left = made.describe()
    moved.parked = left.name if left else ""
    return moved


def _back_pending(run: RunDir) -> bool:
    return run.history.pending_move == "rollback" or run.history.rollback_unfinished


def _leads_to(job: Job, made: Collection) -> bool:
    live = live_now(job.store, job.live)
    return live is not None and live.id == made.id


def _model_before(info: CollectionInfo | None) -> dict[str, object] | None:
    return info.model if info else None
