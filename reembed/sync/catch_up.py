"""Stage 5: catch up, move the live name, sweep up what late writers left behind.

The move's intent is journalled first, and a store's `exchange` is convergent, so a killed swap is
finished by the next call. What it may claim is in `swapkind.py`; the way back is in `rollback.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from reembed.cutover.hooks import run_hook
from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import Manifest, SwapKind
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stores.store import Exchange, Receipt, Store
from reembed.sync.difference import (
    Difference,
    compared_until,
    find_difference,
    find_late,
    refuse_collapse,
    without_conflicts,
)

CATCH_UP_ROUNDS = 10
FEW_LEFT = 1_000
"""Catch-up ends with fewer differences than this, if each round finds as many as the last one did:
somebody writes all the time, and the sweep after the move carries the rest."""
HOLD_SECONDS = 60.0
"""How long writers wait at most while the name moves."""
SWEEP_SECONDS = 20.0
"""How long a swap sweeps after the move while writes keep coming to the parked collection."""

Carry = Callable[[str, Difference], list[str]]
"""`carry(collection_id, difference)`: export, embed and load what differs, as a delta. Returns the
ids left alone because a live shadow has newer rows."""


@dataclass(frozen=True)
class SwapResult:
    """What a swap, rollback or sweep did.

    Attributes:
        action: swap, rollback, sweep or clean.
        run: run id.
        done: False for a dry run, which tells what would be done.
        live: the live name.
        collection: name of the collection that the live name leads to now.
        parked: name of the other one.
        kind: swap kind; empty where no name moved.
        guarantee: what the kind claims.
        gap_seconds: measured time in which the live name did not exist; None without a gap.
        caught_up: records carried before the move.
        swept: records carried after it.
        conflicts: ids that the live collection had changed itself, so they were left alone.
        lost: ids of rows that could not be carried and were accepted as lost.
        messages: what the user should know or do.
    """

    action: str
    run: str
    done: bool
    live: str
    collection: str
    parked: str
    kind: str = ""
    guarantee: str = ""
    gap_seconds: float | None = None
    caught_up: int = 0
    swept: int = 0
    conflicts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Before the move


def catch_up(
    store: Store,
    source_id: str,
    name: str,
    where: Mapping[str, Any] | str | None,
    run: RunDir,
    ledger: Ledger,
    carry: Carry,
) -> int:
    """Carry differences from the source to the shadow until a comparison finds none, or, where
    somebody writes all the time, no fewer than the one before it and at most FEW_LEFT, and none of
    the shadow's records was displaced by it.

    Returns the number of records carried. The last comparison's watermark is journalled.

    Raises:
        SourceChangedError: the source collapsed, or is written to faster than can be followed.
    """
    carried = 0
    before: int | None = None
    store.capture(source_id)
    since = compared_until(run)
    for _ in range(CATCH_UP_ROUNDS):
        difference = find_difference(store, source_id, where, ledger, since=since)
        refuse_collapse(name, len(difference.deleted), len(difference.changed), ledger)
        found = len(difference)
        if difference:
            carry(source_id, difference)
        carried += found
        steady = before is not None and before <= 2 * found <= 2 * FEW_LEFT
        displaced = ledger.displaced() if difference else frozenset()
        steady = steady and not displaced  # the shadow lacks them, and no verdict looks for them
        if not difference or steady:
            run.journal.append("caught-up", watermark=difference.watermark, carried=carried)
        store.acknowledge(source_id)
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


@contextlib.contextmanager
def writes_held(store: Store, run: RunDir, live: str, incoming_id: str) -> Iterator[None]:
    """Writers wait until `release_writes`, at the latest at the end of the block, so that nothing
    they write falls between the last comparison and the move."""
    run.journal.append("writes-held")
    grace = store.hold_writes(live, HOLD_SECONDS, incoming_id)
    if grace:
        time.sleep(grace)
    try:
        yield
    finally:
        release_writes(store, run, live)


def release_writes(store: Store, run: RunDir, live: str) -> None:
    """Let held writers go on, those too that a killed call held."""
    last = run.last("writes-held", "writes-released")
    if last is not None and last["event"] == "writes-held":
        store.release_writes(live)
        run.journal.append("writes-released")


def move_live_name(
    store: Store, run: RunDir, action: str, kind: SwapKind, exchange: Exchange
) -> Receipt:
    """Move the live name, journalled before and after.

    Args:
        action: `swap` or `rollback`.
    """
    run.journal.append(f"{action}-begun", kind=kind, exchange=asdict(exchange))
    return finish_move(store, run, action)


def pending_move(run: RunDir) -> str | None:
    """`swap` or `rollback` if one was begun and not finished, else None."""
    last = run.last("swap-begun", "swap-done", "rollback-begun", "rollback-done")
    name = last["event"] if last else ""
    return name.removesuffix("-begun") if name.endswith("-begun") else None


def last_move(run: RunDir) -> str | None:
    """`swap` or `rollback`, whichever moved the live name last; None before the first."""
    last = run.last("swap-done", "rollback-done")
    return last["event"].removesuffix("-done") if last else None


def swap_unfinished(run: RunDir) -> bool:
    """Whether the live name has moved and what follows (sweep, hook) is still to be done."""
    last = run.last("swap-begun", "swap-done", "swap-finished", "rollback-begun")
    return last is not None and last["event"] == "swap-done"


def rollback_unfinished(run: RunDir) -> bool:
    """Whether the live name has moved back and what follows (late writes, hook) is to be done."""
    last = run.last("swap-begun", "rollback-begun", "rollback-done", "rollback-finished")
    return last is not None and last["event"] == "rollback-done"


def shadow_was_live(run: RunDir) -> bool:
    """Whether a rollback left the shadow with rows that the run's shards do not know of."""
    last = run.last("swap-done", "rollback-done", "resync-begun")
    return last is not None and last["event"] == "rollback-done"


def finish_move(store: Store, run: RunDir, action: str) -> Receipt:
    """Do what is left of the newest move of this kind. Convergent, so safe after any crash."""
    begun = run.events(f"{action}-begun")[-1]
    if begun["kind"] == "config":  # no name moves: the application's configuration does
        receipt = Receipt("config")
    else:
        receipt = store.exchange(begun["kind"], Exchange(**begun["exchange"]))
    run.journal.append(f"{action}-done", receipt=receipt.to_dict(), exchange=begun["exchange"])
    return receipt


def hook_variables(
    manifest: Manifest, run: RunDir, action: str, collection: str, other: str, dimensions: int
) -> dict[str, str]:
    """What a hook is told, without the `REEMBED_` in front."""
    return {
        "ACTION": action, "NAME": manifest.name, "RUN": run.run_id, "LIVE": manifest.live,
        "COLLECTION": collection, "PARKED": other, "URL": manifest.target_url,
        "PROVIDER": manifest.model.provider, "MODEL": manifest.model.name,
        "DIMENSIONS": str(dimensions),
    }  # fmt: skip


def run_before(command: str | None, variables: Mapping[str, str]) -> None:
    """Run the `before` hook. Raises PreflightError if it fails: nothing has moved yet."""
    failure = run_hook(command, variables) if command else None
    if failure:
        raise PreflightError(
            f"the hook swap.before failed, so nothing was moved: {failure}",
            "Mend the command and run the same command again.",
        )


def run_after(command: str | None, variables: Mapping[str, str]) -> list[str]:
    """Run the `after` hook. A failure is told, with the way back: the name has moved."""
    failure = run_hook(command, variables) if command else None
    if not failure:
        return []
    return [
        f"the hook swap.after failed: {failure}. The live name has moved; run the command by hand, "
        "or go back with `reembed rollback`."
    ]


# After the move


def sweep(
    source_store: Store,
    parked_id: str,
    target_store: Store,
    live_id: str,
    where: Mapping[str, Any] | str | None,
    run: RunDir,
    ledger: Ledger,
    carry: Carry,
) -> tuple[int, list[str]]:
    """Carry writes that reached the parked collection after the catch-up into the live one.

    A record that the live collection has changed itself is left alone. Returns the number of
    records carried and the ids left alone.
    """
    since = compared_until(run)
    found = find_late(source_store, parked_id, where, run, ledger, since=since)
    kept, conflicts = without_conflicts(target_store, live_id, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(parked_id, kept)})
    if not conflicts:
        run.journal.append("caught-up", watermark=found.watermark, carried=len(kept))
        source_store.acknowledge(parked_id)
    return len(kept), conflicts


def merge_intruder(
    store: Store, name: str, live_id: str, ledger: Ledger, carry: Carry
) -> tuple[int, list[str]]:
    """Carry the records of a collection that somebody made under the live name in the gap."""
    intruder = store.describe(name)
    found = find_difference(store, intruder.id, None, ledger)
    found = Difference(changed=found.changed)  # what it lacks was never deleted
    kept, conflicts = without_conflicts(store, live_id, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(intruder.id, kept)})
    return len(kept), conflicts
