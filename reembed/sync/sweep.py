"""Carry what late writers left in the parked collection, after the live name has moved."""

from __future__ import annotations

from dataclasses import dataclass, field

from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.run.loss import Loss, LossGuard, loss_in, worst
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


@dataclass
class Swept:
    """What a sweep found.

    Attributes:
        carried: records carried into the live collection.
        conflicts: ids left alone because the live collection has changed them itself.
        withheld: a mass of deletions that was not carried, since nobody accepted it.
    """

    carried: int = 0
    conflicts: list[str] = field(default_factory=list)
    withheld: Loss | None = None

    def add(self, more: Swept) -> None:
        """Count what another sweep found, too."""
        self.carried += more.carried
        self.conflicts = sorted({*self.conflicts, *more.conflicts})
        self.withheld = more.withheld


def sweep(
    parked: Collection,
    live: Collection,
    run: RunDir,
    ledger: Ledger,
    guard: LossGuard,
    carry: Carry,
) -> Swept:
    """Carry writes that reached the parked collection after the catch-up into the live one.

    A record that the live collection has changed itself is left alone. Deletions that are a mass,
    of the parked collection's records or of the live one's, stay behind unless they are accepted,
    and the next sweep finds them again; what was written is carried all the same.
    """
    if parked.describe() is None:
        return Swept()
    found = find_late(parked, run, ledger, since=run.history.compared_until)
    kept, conflicts = without_conflicts(live, found, ledger)
    withheld = None
    if kept.deleted:
        loss = worst(
            loss_in("the old collection", found.changed, found.deleted, run, ledger),
            Loss("the live collection", live.count(), len(kept.deleted)),
        )
        if not guard.accepts(loss):
            withheld, kept.deleted = loss, []
    if kept:
        conflicts = sorted({*conflicts, *carry(parked, kept)})
    if not conflicts and withheld is None:
        run.history.write(events.CaughtUp(watermark=found.watermark, carried=len(kept)))
        parked.acknowledge(found.token)
    return Swept(len(kept), conflicts, withheld)


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
