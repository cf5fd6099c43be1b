"""What a collection holds otherwise than the run's ledger says, found by comparing every record.

Asked in three places: catch-up before the swap (source against ledger), `sweep` after it (parked
collection), and rollback (live collection). A difference is found by row hash, so that a change of
text, metadata or uri and a deletion all count. Where the store knows what was written since a mark,
only that is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from reembed.progress import Counter, stage
from reembed.records import SHARD_ROWS, chunked, hashes_of
from reembed.run.directory import RunDir
from reembed.run.ledger import Entry, Ledger
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
    difference = Difference(watermark=written.mark, token=written.token, touched=written.ids)
    displaced = ledger.displaced()
    if written.ids is not None:
        touched = [*written.ids, *sorted(displaced.difference(written.ids))]
        with stage(STAGE, len(touched)) as counter:
            _compare_touched(collection, ledger, touched, difference, include_quarantined, counter)
        return difference
    with stage(STAGE, ledger.counts()[0]) as counter:
        ledger.begin_scan()
        for page in collection.row_hashes():
            known = ledger.lookup(page.column("id").to_pylist())
            present = _compare(page, known, difference, include_quarantined)
            ledger.mark_seen(present)
            counter.update(len(present))
        for ids in ledger.unseen(include_quarantined=include_quarantined):
            difference.deleted += ids
    return difference


def _compare_touched(
    collection: Collection,
    ledger: Ledger,
    touched: list[str],
    difference: Difference,
    include_quarantined: bool,
    counter: Counter,
) -> None:
    """Compare records that may have been written to; what is not there and was known is deleted."""
    for ids in chunked(touched, SHARD_ROWS):
        known = ledger.lookup(ids)
        rows = collection.fetch_page(ids, vectors=False)
        present = _compare(rows, known, difference, include_quarantined)
        gone = {id for id, entry in known.items() if include_quarantined or not entry.quarantined}
        difference.deleted += sorted(gone.difference(present))
        counter.update(len(ids))


def _compare(
    rows: pa.RecordBatch,
    known: Mapping[str, Entry],
    difference: Difference,
    include_quarantined: bool,
) -> list[str]:
    """Compare records with what the ledger knows, by row hash. Returns the ids of the records."""
    present: list[str] = rows.column("id").to_pylist()
    for id, row in zip(present, rows.column("row_sha256").to_pylist(), strict=True):
        entry = known.get(id)
        expected = entry is not None and (include_quarantined or not entry.quarantined)
        if not expected or entry is None or entry.row_sha256 != row:
            difference.changed.append(id)
    difference.compared += len(present)
    return present


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
            entries = ledger.lookup(ids)
            merged = {id for id, entry in entries.items() if entry.shard in foreign}
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
        there = hashes_of(receiver.fetch(ids, vectors=False))
        known = ledger.lookup(ids)
        for id in ids:
            entry = known.get(id)
            expected = None if entry is None or entry.quarantined else entry.row_sha256
            if there.get(id) != expected:
                newer.add(id)
    kept = Difference(
        changed=[id for id in difference.changed if id not in newer],
        deleted=[id for id in difference.deleted if id not in newer],
        watermark=difference.watermark,
        compared=difference.compared,
        token=difference.token,
    )
    return kept, sorted(newer)
