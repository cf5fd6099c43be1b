"""Whether the live collection holds what another one holds, looked up before that one is deleted.

What the application deleted from the live collection is gone because it said so; that is counted.
What the live collection never had, or a mass of its records gone, is no deletion of the
application's that anybody could tell, so it takes a person's word.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from reembed.errors import CollectionNotFoundError, LossError
from reembed.run import events
from reembed.run.loss import Loss
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo

SHOWN = 5


@dataclass
class Difference:
    """What a collection that is to be deleted holds and the live one does not.

    Attributes:
        records: of the one to be deleted.
        gone: ids that were moved and that the live collection has no more.
        changed: number of records that the live collection holds otherwise.
        only_here: ids that the live collection never had as they are here: quarantined, or written
            here by somebody else.
    """

    records: int = 0
    gone: list[str] = field(default_factory=list)
    changed: int = 0
    only_here: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"gone": len(self.gone), "only_here": len(self.only_here)}

    def messages(self) -> list[str]:
        """What goes with the collection, for people."""
        told = []
        if self.gone:
            told.append(
                f"deleted from the live collection since: {len(self.gone):,}, "
                f"e.g. {', '.join(self.gone[:SHOWN])}"
            )
        if self.changed:
            told.append(f"changed in the live collection since: {self.changed:,}")
        if self.only_here:
            told.append(
                f"in this collection alone (quarantined, or written by somebody else): "
                f"{len(self.only_here):,}, e.g. {', '.join(self.only_here[:SHOWN])}"
            )
        return told


def live_now(s: Session) -> CollectionInfo | None:
    """The collection that the application reads now; None where it is one of several, which an
    application deletes as it pleases, and a person said that what is left of it may go.

    Raises:
        LossError: there is none.
    """
    store, live = s.source_store, s.manifest.live
    for name in dict.fromkeys((live, s.manifest.source.collection)):
        try:  # before a pointer is made, the application reads the source by its own name
            return store.resolve(name)
        except CollectionNotFoundError:
            continue
    told = (
        f"the live name {live!r} serves no collection, so what would be deleted may be the last "
        "copy; nothing was deleted"
    )
    if not s.in_group:
        raise LossError(
            told,
            "Restore the live collection first, from a backup or from the export shards of "
            f"{s.run.path}; `reembed rollback --accept-loss` gives the name back to the old "
            "collection after a swap. Delete what nobody needs any more in the store yourself.",
        )
    if not s.accept_loss:
        raise LossError(
            told,
            "If the application deleted it for good, `reembed clean --accept-loss` deletes the "
            f"rest of it. If not, restore it first: the export shards of {s.run.path} hold every "
            "record.",
        )
    return None


def held_elsewhere(s: Session, doomed: Collection, live: Collection) -> Difference:
    """Compare every record of a collection, by row hash, with the live one's."""
    found = Difference()
    for page in doomed.list_ids():
        here = doomed.hashes(page.to_pylist())
        there = live.hashes(list(here))
        other = [one for one, row in here.items() if there.get(one) != row]
        known = s.ledger.lookup(other) if other else {}
        found.records += len(here)
        for one in other:
            entry = known.get(one)
            if one not in there:
                mine = entry is None or entry.quarantined
                (found.only_here if mine else found.gone).append(one)
            elif entry is not None and there[one] == entry.row_sha256 != here[one]:
                found.only_here.append(one)
            else:  # the live one is right
                found.changed += 1
    return found


def accept_all(s: Session, doomed: Collection) -> list[str]:
    """Journal that a person lets the last copy of a collection go. Returns what is to be told."""
    had = doomed.count()
    loss = Loss("the live collection, which is gone,", had, had)
    s.run.history.record(events.LossAccepted(**loss.to_dict(), left=0))
    return [f"{s.manifest.live!r} serves no collection: with it {had:,} records are deleted"]


def refuse_last_copy(s: Session, name: str, found: Difference, before: int) -> None:
    """Raise LossError if records would be gone for good that nobody deleted on purpose, unless it
    is accepted.

    Args:
        before: records that it held when a killed call began to delete it; 0 if none did.
    """
    had = max(found.records, before)
    lost = len(found.gone) + len(found.only_here)
    loss = Loss("the live collection, compared with the one to be deleted,", had, lost)
    if not found.only_here and not loss.is_mass:
        return
    if s.accept_loss:
        s.run.history.record(events.LossAccepted(**loss.to_dict(), left=loss.left))
        return
    raise LossError(
        f"{name} is the last to hold {lost:,} of its {had:,} records: "
        f"{'; '.join(found.messages())}; nothing was deleted",
        "With --accept-loss they are deleted for good. Otherwise put what should be there back "
        "into the live collection, and run the same command again.",
    )
