"""Carry what was written to the source since it was exported, until a comparison finds none."""

from __future__ import annotations

from collections.abc import Callable

from reembed.errors import (
    SourceChangedError,
)
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.run.loss import LossGuard, loss_in
from reembed.session import Session
from reembed.stores.collection import Collection
from reembed.sync.delta import carry
from reembed.sync.difference import Difference, find_difference

CATCH_UP_ROUNDS = 10
FEW_LEFT = 1_000
"""Catch-up ends with fewer differences than this, if each round finds as many as the last one did:
somebody writes all the time, and the sweep after the move carries the rest."""

MEANT = (
    "If that was meant, say so with --accept-loss, or give this run up with `reembed clean`. If "
    "not, put the records back: the export shards of {} still hold every one."
)

Carry = Callable[[Collection, Difference], list[str]]
"""`carry(collection, difference)`: export, embed and load what differs, as a delta. Returns the
ids left alone because a live shadow has newer rows."""


# Before the move


def catch_up(
    source: Collection,
    name: str,
    run: RunDir,
    ledger: Ledger,
    guard: LossGuard,
    carry: Carry,
) -> int:
    """Carry differences from the source to the shadow until a comparison finds none, or, where
    somebody writes all the time, no fewer than the one before it and at most FEW_LEFT, and none of
    the shadow's records was displaced by it.

    Returns the number of records carried. The last comparison's watermark is journalled.

    Raises:
        LossError: the source has lost most of its records, and nobody accepted it.
        SourceChangedError: it is written to faster than can be followed.
    """
    carried = 0
    before: int | None = None
    source.start_capture()
    since = run.history.compared_until
    for _ in range(CATCH_UP_ROUNDS):
        difference = find_difference(source, ledger, since=since)
        loss = loss_in(repr(name), difference.changed, difference.deleted, run, ledger)
        guard.refuse(loss, MEANT.format(run.path))
        found = len(difference)
        if difference:
            carry(source, difference)
        carried += found
        steady = before is not None and before <= 2 * found <= 2 * FEW_LEFT
        displaced = ledger.displaced() if difference else frozenset()
        steady = steady and not displaced  # the shadow lacks them, and no verdict looks for them
        if not difference or steady:
            run.history.write(events.CaughtUp(watermark=difference.watermark, carried=carried))
        source.acknowledge(difference.token)
        if not difference or steady:
            return carried
        before, since = found, difference.watermark
    waiting = f"; unique values of {len(displaced):,} move all the time" if displaced else ""
    raise SourceChangedError(
        f"{name!r} is written to faster than {CATCH_UP_ROUNDS} rounds of catch-up could follow "
        f"({carried:,} records carried{waiting})",
        "Run again when fewer writes come in, or pause the writers for the swap.",
    )


# The move


# After the move


def catch_up_source(s: Session) -> int:
    """Carry what was written to the source since. Returns the number of records carried."""
    return catch_up(
        s.old, s.source.name, s.run, s.ledger, s.loss_guard,
        lambda collection, difference: carry(s, collection, difference),
    )  # fmt: skip


def source_difference(s: Session) -> Difference:
    """What the source holds otherwise than the run knows."""
    return find_difference(s.old, s.ledger, since=s.run.history.compared_until)
