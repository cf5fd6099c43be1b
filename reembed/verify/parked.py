"""The old collection right before the live name moves back to it: does it serve what was exported?

Its ids and row hashes are compared by the way back itself (`sync/difference.py`). A vector is in no
hash, so a fresh random sample of them is held against the export shards. Only records whose row is
as it was exported are looked at: another text has another vector.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reembed.embedders.evidence import SAME
from reembed.errors import LossError
from reembed.progress import stage
from reembed.records import Vectors, cosine_rows, list_array_to_vectors
from reembed.run import events
from reembed.run.directory import Shard
from reembed.stages.session import Session
from reembed.verify.shadow import SAMPLE, SHARDS, SHOWN


def check_parked(s: Session) -> list[str]:
    """Look whether the old collection still has the vectors that were exported. Where a person said
    so, those that it has otherwise are put back; returns that in words.

    Raises:
        LossError: it has others, and nobody said so. The message has the counts.
    """
    if not _sample_is_off(s):
        return []
    looked, off = 0, dict[str, list[str]]()
    for shard in _shards(s):
        there, wrong = _compare(s, _rows(s, shard))
        looked += there
        if wrong:
            off[shard.stem] = wrong
    ids = [id for members in off.values() for id in members]
    if not s.accept_loss:
        raise LossError(
            f"{len(ids):,} of {looked:,} records of the old collection have another vector than "
            f"was exported, though nothing else of them changed, e.g. "
            f"{', '.join(sorted(ids)[:SHOWN])}",
            "Nothing is lost: the live name stays where it is. With --accept-loss the exported "
            "vectors are put in their place, and the name goes back.",
        )
    for shard in _shards(s):
        if shard.stem in off:
            _put_back(s, _among(_rows(s, shard), off[shard.stem]))
    s.run.history.record(events.ParkedMended(records=len(ids)))
    return [f"put back as exported: the vectors of {len(ids):,} records of the old collection"]


def parked_is_off(s: Session) -> list[str]:
    """For a dry run: whether `check_parked` would find something, in words."""
    if s.old.describe() is None or not _sample_is_off(s):
        return []
    return ["records of the old collection have other vectors than were exported"]


def _shards(s: Session) -> list[Shard]:
    """The export shards of records that the old collection had; damaged ones tell nothing."""
    foreign = s.run.history.foreign_stems
    shards = s.run.shards("export").values()
    return [one for one in shards if one.rows and one.stem not in foreign and s.run.is_whole(one)]


def _rows(s: Session, shard: Shard) -> pa.Table:
    """The rows that a shard speaks for and that have a vector."""
    table = s.run.read_shard(shard, ["id", "row_sha256", "embedding"])
    mine = s.ledger.of_shards(table.column("id").to_pylist(), {shard.stem})
    return _among(table.filter(pc.is_valid(table.column("embedding"))), mine)


def _among(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table.column("id"), pa.array([*ids], pa.string())))


@stage("look at the old collection's vectors")
def _sample_is_off(s: Session) -> bool:
    chance, shards = random.SystemRandom(), _shards(s)
    chosen = chance.sample(shards, min(SHARDS, len(shards)))
    for shard in chosen:
        rows = _rows(s, shard)
        size = min(len(rows), -(-SAMPLE // len(chosen)))
        if size and _compare(s, rows.take(chance.sample(range(len(rows)), size)))[1]:
            return True
    return False


def _unchanged(s: Session, exported: pa.Table) -> Iterator[tuple[pa.RecordBatch, Vectors]]:
    """Records as the old collection has them whose row is as exported, and their exported vectors
    `(n, d) float32`."""
    for batch in exported.combine_chunks().to_batches():
        ids = batch.column("id").to_pylist()
        hashes = dict(zip(ids, batch.column("row_sha256").to_pylist(), strict=True))
        there = s.old.fetch(ids, vectors=True)
        names = there.column("id").to_pylist()
        same = [
            row == hashes[id]
            for id, row in zip(names, there.column("row_sha256").to_pylist(), strict=True)
        ]
        there = there.filter(pa.array(same, pa.bool_()))
        place = {id: row for row, id in enumerate(ids)}
        rows = [place[id] for id in there.column("id").to_pylist()]
        wanted, _ = list_array_to_vectors(
            batch.column("embedding").take(pa.array(rows, pa.int64()))
        )
        yield there, wanted


def _compare(s: Session, exported: pa.Table) -> tuple[int, list[str]]:
    """How many of these rows are there unchanged, and the ids of those with another vector."""
    looked, wrong = 0, list[str]()
    for there, wanted in _unchanged(s, exported):
        ids = there.column("id").to_pylist()
        served, present = list_array_to_vectors(there.column("embedding"))
        looked += len(ids)
        fine = present.copy()
        if served.shape == wanted.shape:
            fine &= _alike(s, served, wanted)
        else:
            fine[:] = False
        wrong += [id for id, ok in zip(ids, fine.tolist(), strict=True) if not ok]
    return looked, wrong


def _alike(s: Session, served: Vectors, wanted: Vectors) -> npt.NDArray[np.bool_]:
    """Whether vectors `(n, d) float32` are of the same text: what an application writes again with
    the same model differs by far less, vectors of two texts by far more."""
    zero = ~wanted.any(axis=1) & ~served.any(axis=1)
    alike = (cosine_rows(served, wanted) >= SAME) | zero
    if s.source.metric != "cosine":
        a, b = np.linalg.norm(served, axis=1), np.linalg.norm(wanted, axis=1)
        alike &= np.abs(a - b) <= (1 - SAME) * np.maximum(a, b)
    return np.asarray(alike)


def _put_back(s: Session, exported: pa.Table) -> None:
    for there, wanted in _unchanged(s, exported):
        if len(wanted):
            s.old.overwrite(there, wanted)
