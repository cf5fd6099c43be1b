"""What a collection holds otherwise than the run's ledger says, found by comparing every record.

Asked in three places: catch-up before the swap (source against ledger), `sweep` after it (parked
collection), and rollback (live collection). A difference is found by row hash, so that a change of
text, metadata or uri and a deletion all count. Where the store knows what was written since a mark,
only that is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from reembed.progress import stage
from reembed.records import SHARD_ROWS, chunked, hashes_of
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger, Rows
from reembed.run.loss import Loss
from reembed.stores.collection import Collection

STAGE = "compare with the live collection"


@dataclass
class Difference:
    """What a collection holds otherwise than the ledger says.

    Attributes:
        changed: ids that are new or whose row hash differs.
        deleted: ids that the ledger knows and the collection no longer has.
        watermark: the store's, taken before the first record was read.
        compared: records read.
        token: acknowledges to the store that this is carried.
        touched: ids of all records that were written to, whether or not they differ; None where
            the store could not tell.
    """

    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    watermark: str | None = None
    compared: int = 0
    token: object = None
    touched: list[str] | None = None

    def __len__(self) -> int:
        return len(self.changed) + len(self.deleted)


@dataclass
class Carried:
    """What was copied from one collection to the other.

    Attributes:
        carried: records written to or deleted from the receiver.
        conflicts: ids that both collections have changed: the live one's version stays.
        withheld: a mass of deletions that was not carried, since nobody accepted it.
    """

    carried: int = 0
    conflicts: list[str] = field(default_factory=list)
    withheld: Loss | None = None

    def add(self, more: Carried) -> None:
        """Count what another round carried, too."""
        self.carried += more.carried
        self.conflicts = sorted({*self.conflicts, *more.conflicts})
        self.withheld = more.withheld


def find_difference(
    collection: Collection,
    ledger: Ledger,
    *,
    since: str | None = None,
    besides: object = None,
    include_quarantined: bool = True,
) -> Difference:
    """Compare every record of a collection with the ledger.

    Args:
        since: a watermark at which there was no difference; the store may know what was written
            since, and then only that is compared, and what was displaced.
        besides: the token of an earlier look; what that told may be left out.
        include_quarantined: whether quarantined records are expected in the collection: yes in the
            source, no in the shadow.
    """
    written = collection.changes_since(since, besides)
    displaced, whole = ledger.displaced(), written.ids is None
    touched = [*(written.ids or ()), *sorted(displaced.difference(written.ids or ()))]
    with stage(STAGE, ledger.counts()[0] if whole else len(touched)) as counter:
        pages = _all(collection) if whole else _some(collection, touched)
        changed, deleted, rows = ledger.compare(
            pages, counter.update, whole=whole, include_quarantined=include_quarantined
        )
    return Difference(changed, deleted, written.mark, rows, written.token, written.ids)


def _all(collection: Collection) -> Iterator[tuple[Sequence[str], Rows]]:
    for there in collection.all_hashes():
        yield list(there), there


def _some(collection: Collection, touched: Sequence[str]) -> Iterator[tuple[Sequence[str], Rows]]:
    """Records that may have been written to: what is not there and was known is deleted."""
    for ids in chunked(touched, SHARD_ROWS):
        yield ids, hashes_of(collection.fetch_page(ids, vectors=False))


def find_late(
    parked: Collection, run: RunDir, ledger: Ledger, *, since: str | None = None
) -> Difference:
    """What was written to the parked collection since it was last caught up with. What a rollback
    that did not come to its end did there is no late write: it came from the live collection."""
    found = find_difference(parked, ledger, since=since)
    ours = run.history.written_back
    found.changed = [id for id in found.changed if id not in ours]
    found.deleted = [id for id in found.deleted if id not in ours]
    foreign = run.history.foreign_stems
    if foreign:  # the parked collection never had these, so it has not deleted them
        for ids in chunked(found.deleted, SHARD_ROWS):
            merged = ledger.of_shards(ids, foreign)
            found.deleted = [id for id in found.deleted if id not in merged]
    return found


@stage("look who wrote last")
def without_conflicts(
    receiver: Collection, difference: Difference, ledger: Ledger
) -> tuple[Difference, list[str]]:
    """Leave out of a difference what the receiver has changed itself: a backfill never overwrites
    a newer row. Returns the rest, and the ids left out."""
    newer = set[str]()
    for ids in chunked([*difference.changed, *difference.deleted], SHARD_ROWS):
        newer.update(ledger.unlike(ids, receiver.hashes(ids)))
    changed = [id for id in difference.changed if id not in newer]
    deleted = [id for id in difference.deleted if id not in newer]
    return replace(difference, changed=changed, deleted=deleted, touched=None), sorted(newer)
