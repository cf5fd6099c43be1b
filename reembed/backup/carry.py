"""Two collections that exchange a live name, and what is written to either meanwhile.

Each side has an index of what it held when the two were last made to agree. What a side holds
otherwise was written to it since, and is carried to the other one, unless that one's record was
written to as well: nobody's newer record is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from reembed.backup.index import Index, row_digests
from reembed.backup.restore import add
from reembed.errors import TakenError
from reembed.records import SHARD_ROWS, chunked
from reembed.stores.collection import Collection


@dataclass
class Side:
    """A collection, what it held, and the mark until which that is known."""

    collection: Collection
    index: Index
    mark: str | None = None


@dataclass
class Carried:
    """What was carried.

    Attributes:
        records: written or deleted.
        conflicts: ids that were left alone: both sides wrote to them, or they have no vector.
        withheld: deletions that were not carried, since they are more than half of all records.
    """

    records: int = 0
    conflicts: list[str] = field(default_factory=list)
    withheld: int = 0

    def add(self, more: Carried) -> None:
        """Count what another call did."""
        self.records += more.records
        self.conflicts = sorted({*self.conflicts, *more.conflicts})
        self.withheld = more.withheld


def meet(outgoing: Side, incoming: Side, *, exact: bool) -> Carried:
    """Index what the outgoing side holds. Records of which the incoming one has no version are
    carried, unless it is to be `exact`ly what it is."""
    carried = Carried()
    outgoing.index.begin()
    outgoing.mark = outgoing.collection.changes_since(None).mark
    for page in outgoing.collection.list_ids():
        rows = outgoing.collection.fetch(page.to_pylist(), vectors=False)
        ids = rows.column("id").to_pylist()
        there = incoming.index.lookup(ids)
        new = [id for id in ids if id not in there]
        if new and not exact:
            carried.add(write(outgoing.collection.fetch(new, vectors=True), incoming))
        outgoing.index.add(rows)
    outgoing.index.finish()
    return carried


def carry(giver: Side, receiver: Side) -> Carried:
    """Carry what was written to one side since, with its vectors, to the other one."""
    written = giver.collection.changes_since(giver.mark)
    carried = Carried()
    gone: list[str] = []
    if written.ids is None:
        known = 0
        for page in giver.collection.list_ids():
            known += _carry_page(giver, receiver, page.to_pylist(), carried)
        if known < giver.index.count():
            gone = [id for ids in _known(giver.index) for id in _absent(giver, ids)]
    else:
        for ids in chunked(written.ids, SHARD_ROWS):
            _carry_page(giver, receiver, ids, carried)
            gone += _absent(giver, [*giver.index.lookup(ids)])
    if gone and 2 * len(gone) > giver.index.count():
        carried.withheld = len(gone)  # it was wiped: that is no way to carry deletions
        return carried
    for ids in chunked(gone, SHARD_ROWS):
        mine = _untouched(receiver, ids, _digests_of(receiver, ids))
        receiver.collection.delete(mine)
        for side in (receiver, giver):
            side.index.delete(mine)
        carried.records += len(mine)
        carried.conflicts += sorted({*ids} - {*mine})
    giver.mark = written.mark
    giver.collection.acknowledge(written.token)
    return carried


def _known(index: Index) -> Iterator[list[str]]:
    return ([row[0] for row in page] for page in index.pages())


def _absent(side: Side, ids: Sequence[str]) -> list[str]:
    there = {*side.collection.fetch(ids, vectors=False).column("id").to_pylist()} if ids else set()
    return [id for id in ids if id not in there]


def _carry_page(giver: Side, receiver: Side, ids: Sequence[str], carried: Carried) -> int:
    """Carry those of the ids that were written to. Returns how many of them were known."""
    known = giver.index.lookup(ids)
    changed = [
        id for id, digest in _digests_of(giver, ids).items()
        if id not in known or known[id][0] != digest
    ]  # fmt: skip
    if changed:
        rows = giver.collection.fetch(changed, vectors=True)
        ids = rows.column("id").to_pylist()
        theirs = _digests_of(receiver, ids)
        mine = {*_untouched(receiver, ids, theirs)}
        free = np.asarray([id in mine for id in ids], np.bool_)
        now = zip(ids, row_digests(rows), strict=True)
        done = np.asarray([theirs.get(id) == digest for id, digest in now], np.bool_)
        carried.add(write(rows.filter(pa.array(free & ~done)), receiver))
        # Written by a call that was killed before it could note so.
        receiver.index.add(rows.filter(pa.array(done)))
        carried.conflicts += rows.filter(pa.array(~free & ~done)).column("id").to_pylist()
        giver.index.add(rows.filter(pa.array(free | done)))
    return len(known)


def write(rows: pa.RecordBatch, receiver: Side) -> Carried:
    """Write records to the receiver, and note that it holds them."""
    if not rows.num_rows:
        return Carried()
    try:
        left = {*add(receiver.collection, rows, replace=True)}
    except TakenError as error:
        return Carried(conflicts=sorted({*error.taken, *rows.column("id").to_pylist()}))
    written = rows.filter(pa.array([id not in left for id in rows.column("id").to_pylist()]))
    receiver.index.add(written)
    return Carried(written.num_rows, sorted(left))


def _digests_of(side: Side, ids: Sequence[str]) -> dict[str, bytes]:
    rows = side.collection.fetch(ids, vectors=False)
    return dict(zip(rows.column("id").to_pylist(), row_digests(rows), strict=True))


def _untouched(side: Side, ids: Sequence[str], now: Mapping[str, bytes]) -> list[str]:
    """Those of the ids whose record is what the index says, there or not there.

    Args:
        now: digests of what is there.
    """
    known = side.index.lookup(ids)
    return [id for id in ids if now.get(id) == (known[id][0] if id in known else None)]
