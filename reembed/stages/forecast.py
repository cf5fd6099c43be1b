"""How long each stage of a run will take, and how much memory, told before it begins.

The model is timed with a few texts (`estimate.timed`). The store is timed with a read of the
sample; nothing is written to it before a run. What else a store takes follows from figures that
were measured once (`docs/benchmarks.md`), by as much as that read is slower or faster here than it
was there. So it is a rough figure; the report says how far off it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter

from reembed.records import SHARD_ROWS
from reembed.stores.collection import Collection

TIMED_RECORDS = 2_000
"""Smaller collections are over before a read of them says anything."""
READS = 2
"""Of which the faster counts: the first may find the records on the disk."""
BASE_BYTES = 250_000_000
"""Of a process with its libraries loaded, and of what an exact search holds."""
DATABASE_BYTES = 100_000_000
"""Of a database in the process beside that."""
SHARDS_HELD = 6
"""Shards' worth of records that stages hold at once: read, worked on, written, in each form."""
LINKS = 16
"""Neighbours of a record in an HNSW index, as stores have it by default."""


@dataclass(frozen=True)
class Rates:
    """Seconds that a kind of store took where it was measured.

    Attributes:
        begin: of each stage, whatever the records.
        read: 500 records, by its API, without vectors.
        export, load, verify: each record; `_value`: each dimension of its vector.
        link: each dimension of a record for each doubling of the records, to build the index.
        in_process: whether this process holds the index.
    """

    begin: float
    read: float
    export: float
    export_value: float
    load: float
    load_value: float
    link: float
    verify: float
    verify_value: float
    in_process: bool = False


RATES = {
    "chroma": Rates(
        begin=0.3, read=0.017, export=10e-6, export_value=50e-9, load=250e-6, load_value=0.0,
        link=0.12e-6, verify=10e-6, verify_value=0.23e-6, in_process=True,
    ),
    "chroma, filled": Rates(
        begin=0.5, read=0.017, export=10e-6, export_value=50e-9, load=100e-6, load_value=0.0,
        link=0.02e-6, verify=10e-6, verify_value=0.23e-6, in_process=True,
    ),
    "chroma+http": Rates(
        begin=0.3, read=0.05, export=250e-6, export_value=0.4e-6, load=350e-6, load_value=0.3e-6,
        link=0.12e-6, verify=200e-6, verify_value=0.4e-6,
    ),
    "postgresql": Rates(
        begin=0.3, read=0.006, export=20e-6, export_value=10e-9, load=20e-6, load_value=20e-9,
        link=0.05e-6, verify=40e-6, verify_value=0.25e-6,
    ),
}  # fmt: skip
VERIFY_BEGIN = 2.0
"""Seconds of a verification beside its records: the questions, the ways of opening, the report."""


@dataclass(frozen=True)
class Size:
    """What is moved: records, the dimensions of their old and new vectors, and their text."""

    records: int
    old: int
    new: int
    text_bytes: int


@dataclass(frozen=True)
class Forecast:
    """See the module.

    Attributes:
        seconds: by stage; a stage whose store is not known by its speed is left out.
        memory_bytes: at most in this process.
    """

    seconds: dict[str, float]
    memory_bytes: int


def forecast(
    url: str, target: str, source: Collection, size: Size, embed: float, *, fills: bool = False
) -> Forecast:
    """What a run of this size will take.

    Args:
        url, target: of the source's store and the target's.
        embed: seconds of the model.
        fills: whether the new collection is filled as a whole.
    """
    out, into = _rates(url), RATES["chroma, filled"] if fills else _rates(target)
    slower = _slower(source, out, size.records) if out else 1.0
    n = size.records
    seconds = {}
    if out:
        each = out.export + out.export_value * size.old
        seconds["export"] = slower * (out.begin + n * each)
    seconds["embed"] = embed
    if into:
        each = into.load + (into.load_value + into.link * math.log2(max(2, n))) * size.new
        seconds["load"] = slower * (into.begin + n * each)
        each = into.verify + into.verify_value * (size.old + size.new)
        seconds["verify"] = slower * (VERIFY_BEGIN + n * each)
    return Forecast(
        {stage: round(took, 1) for stage, took in seconds.items()}, _memory(out, into, size)
    )


def _rates(url: str) -> Rates | None:
    scheme = url.partition(":")[0]
    return RATES.get({"postgres": "postgresql", "chroma+https": "chroma+http"}.get(scheme, scheme))


def _slower(source: Collection, rates: Rates, records: int) -> float:
    """How much slower this store is here than where it was measured."""
    if records < TIMED_RECORDS:
        return 1.0
    ids, took = source.some_ids(500), []
    for _ in range(READS):
        start = perf_counter()
        source.fetch(ids, vectors=False)
        took.append(perf_counter() - start)
    return min(took) / rates.read * 500 / max(1, len(ids))


def _memory(out: Rates | None, into: Rates | None, size: Size) -> int:
    """A few shards, and the indexes that a store keeps in this process: the new one is filled and
    asked, and the old one is asked."""
    text = size.text_bytes // max(1, size.records)
    rows = min(size.records, SHARD_ROWS)
    held = BASE_BYTES + SHARDS_HELD * rows * (4 * (size.old + size.new) + text)
    if any(rates is not None and rates.in_process for rates in (out, into)):
        held += DATABASE_BYTES
    for rates, dimensions in ((out, size.old), (into, size.new)):
        if rates is not None and rates.in_process:
            held += size.records * (4 * dimensions + 8 * LINKS + 12)
    return held
