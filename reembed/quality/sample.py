"""Which records to embed again: spread over the whole run, the longest texts among them.

A fault in a share p of the records is missed by n independent draws with probability (1 - p)^n:
1,000 draws see 0.5 % with 99 %. Faults are not independent, though. One that went wrong in a batch
stands in neighbouring records, so draws are at even distances (systematic sampling, Cochran 1977,
"Sampling techniques", chapter 8) and no run of faulty records as long as the distance escapes.
Truncation hits long texts alone, so a quarter of the sample is of the longest tenth, the very
longest among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reembed.quality.statistics import detectable_share

LEAST = 300
"""Records embedded again at least."""
LONG_SHARE = 4
"""One in so many of the sample is of the longest texts."""
LONGEST = 0.1
"""The longest texts: this share of all."""

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sample:
    """Records chosen, and what a sample like it can see.

    Attributes:
        ids: the records, in shard order, none twice.
        total: records that were chosen from.
        spread: how many stand at even distances over the whole run.
        long: how many more are of the longest texts.
        distance: every so manieth record was chosen; no run of faulty records this long escapes.
        longest_tokens: of the longest text of all.
        long_from: tokens from which a text is one of the longest.
    """

    ids: list[str]
    total: int
    spread: int
    long: int
    distance: int
    longest_tokens: int
    long_from: int

    def to_dict(self) -> dict[str, float | int]:
        """Figures: sizes, and what would have been seen with a probability of 99 %."""
        long_total = max(1, round(self.total * LONGEST))
        every = self.spread >= self.total
        return {
            "records": self.total, "spread": self.spread, "long": self.long,
            "distance": self.distance, "long_from_tokens": self.long_from,
            "longest_tokens": self.longest_tokens,
            "seen_from_share": 0.0 if every else round(detectable_share(self.spread), 6),
            "seen_from_share_of_long": 0.0 if self.long >= long_total or every
            else round(detectable_share(self.long), 6),
        }  # fmt: skip


Shards = Iterable[tuple[str, list[str], Tokens]]
"""For each shard its stem, the ids it speaks for, and the tokens of their texts."""


def token_counts(shards: Shards) -> npt.NDArray[np.int64]:
    """How many texts have 0, 1, 2, ... tokens."""
    counts = np.zeros(1, np.int64)
    for _, _, tokens in shards:
        found = np.bincount(tokens, minlength=len(counts)).astype(np.int64)
        found[: len(counts)] += counts
        counts = found
    return counts


def choose(
    shards: Shards,
    counts: npt.NDArray[np.int64],
    size: int,
    seed: int,
    long_share: int = LONG_SHARE,
) -> Sample:
    """About `size` records: three quarters spread evenly, at least one a shard, the rest long.

    Args:
        shards: the run, in order; read once.
        counts: its `token_counts`.
        size: records wanted; a small run is taken whole.
        long_share: one in so many is of the longest texts; 0 for none.
    """
    total = int(counts.sum())
    generator = np.random.default_rng(seed)
    wanted_long = size // long_share if long_share else 0
    step = 1.0 if total <= size else max(1.0, total / max(1, size - wanted_long))
    start = float(generator.uniform(0, step))
    long_from = _threshold(counts, max(1, round(total * LONGEST)))
    very_long = _threshold(counts, max(1, wanted_long // 2))
    long_total = int(counts[long_from:].sum())
    long_step = max(1.0, long_total / max(1, wanted_long - wanted_long // 2))
    long_start = float(generator.uniform(0, long_step))
    most_extra = max(1, size // LONG_SHARE)

    ids: list[str] = []
    spread = long = before = long_before = longest_taken = 0
    for _, shard_ids, tokens in shards:
        rows = np.arange(before, before + len(shard_ids))
        even = _at_even_distances(rows, start, step)
        if len(rows) and not even.any() and most_extra:
            even[int(generator.integers(len(rows)))] = True
            most_extra -= 1
        is_long = tokens >= long_from
        long_rows = long_before + np.cumsum(is_long) - 1
        chosen_long = (
            (wanted_long > 0) & is_long & _at_even_distances(long_rows, long_start, long_step)
        )
        if wanted_long and long_step > 1:  # not all of them anyway: the very longest too
            places = np.flatnonzero(tokens >= very_long)[: max(0, wanted_long // 2 - longest_taken)]
            chosen_long[places] = True
            longest_taken += len(places)
        chosen = even | chosen_long
        ids += [shard_ids[row] for row in np.flatnonzero(chosen)]
        spread += int(even.sum())
        long += int(chosen_long.sum())
        before += len(shard_ids)
        long_before += int(is_long.sum())
    longest = len(counts) - 1 if total else 0
    return Sample(ids, total, spread, long, int(np.ceil(step)), longest, long_from)


def _at_even_distances(
    rows: npt.NDArray[np.int_], start: float, step: float
) -> npt.NDArray[np.bool_]:
    """Whether one of start, start + step, start + 2 step, ... falls into [row, row + 1)."""
    if step <= 1:
        return np.ones(len(rows), bool)
    before = np.maximum(0, np.ceil((rows - start) / step))
    chosen: npt.NDArray[np.bool_] = np.maximum(0, np.ceil((rows + 1 - start) / step)) > before
    return chosen


def _threshold(counts: npt.NDArray[np.int64], wanted: int) -> int:
    """The most tokens t for which at least `wanted` texts have t or more; 0 if there are fewer."""
    from_here = counts[::-1].cumsum()[::-1]
    enough = np.flatnonzero(from_here >= wanted)
    return int(enough[-1]) if len(enough) else 0
