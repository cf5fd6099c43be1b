"""Carry what late writers left in the parked collection, after the live name has moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stores.store import Store
from reembed.sync.catch_up import Carry
from reembed.sync.difference import (
    Difference,
    acknowledge,
    find_difference,
    find_late,
    without_conflicts,
)

SWEEP_SECONDS = 20.0
"""How long a swap sweeps after the move while writes keep coming to the parked collection."""


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
    since = run.history.compared_until
    found = find_late(source_store, parked_id, where, run, ledger, since=since)
    kept, conflicts = without_conflicts(target_store, live_id, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(parked_id, kept)})
    if not conflicts:
        run.history.write(events.CaughtUp(watermark=found.watermark, carried=len(kept)))
        acknowledge(source_store, found)
    return len(kept), conflicts


def merge_intruder(
    store: Store, name: str, live_id: str, ledger: Ledger, carry: Carry
) -> tuple[int, list[str]]:
    """Carry the records of a collection that somebody made under the live name in the gap."""
    intruder = store.catalog.describe(name)
    found = find_difference(store, intruder.id, None, ledger)
    found = Difference(changed=found.changed)  # what it lacks was never deleted
    kept, conflicts = without_conflicts(store, live_id, found, ledger)
    if kept:
        conflicts = sorted({*conflicts, *carry(intruder.id, kept)})
    return len(kept), conflicts
