"""Carry what late writers left in the parked collection, after the live name has moved."""

from __future__ import annotations

from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stores.collection import Collection
from reembed.sync.catch_up import Carry
from reembed.sync.difference import (
    Difference,
    find_difference,
    find_late,
    without_conflicts,
)

SWEEP_SECONDS = 20.0
"""How long a swap sweeps after the move while writes keep coming to the parked collection."""


def sweep(
    parked: Collection,
    live: Collection,
    run: RunDir,
    ledger: Ledger,
    carry: Carry,
) -> tuple[int, list[str]]:
    """Carry writes that reached the parked collection after the catch-up into the live one.

    A record that the live collection has changed itself is left alone. Returns the number of
    records carried and the ids left alone.
    """
    since = run.history.compared_until
    found = find_late(parked, run, ledger, since=since)
    kept, conflicts = without_conflicts(live, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(parked, kept)})
    if not conflicts:
        run.history.write(events.CaughtUp(watermark=found.watermark, carried=len(kept)))
        parked.acknowledge(found.token)
    return len(kept), conflicts


def merge_intruder(
    name: str, live: Collection, ledger: Ledger, carry: Carry
) -> tuple[int, list[str]]:
    """Carry the records of a collection that somebody made under the live name in the gap."""
    intruder = Collection(live.store, live.store.catalog.describe(name).id)
    found = find_difference(intruder, ledger)
    found = Difference(changed=found.changed)  # what it lacks was never deleted
    kept, conflicts = without_conflicts(live, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(intruder, kept)})
    return len(kept), conflicts
