"""Paired differences and their intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 5_000


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided confidence interval.

    Attributes:
        mean: over the queries.
        low: lower end.
        high: upper end.
        confidence: level, e.g. 0.95.
        n: queries.
    """

    mean: float
    low: float
    high: float
    confidence: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paired_difference(
    new: npt.NDArray[np.float64], old: npt.NDArray[np.float64], confidence: float, seed: int
) -> Interval:
    """Mean of `new - old` over queries with a percentile bootstrap interval.

    Queries are resampled, both systems together (Efron and Tibshirani 1993, chapter 13; paired by
    query as in Sakai 2006, "Evaluating evaluation metrics based on the bootstrap").
    """
    difference = new - old
    n = len(difference)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            difference[generator.integers(0, n, (count, n))].mean(axis=1)
            for count in _blocks(RESAMPLES, max(1, 2_000_000 // n))
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high), confidence, n)


def _blocks(total: int, size: int) -> list[int]:
    """`total` as parts of at most `size`, to bound memory."""
    return [min(size, total - start) for start in range(0, total, size)]
