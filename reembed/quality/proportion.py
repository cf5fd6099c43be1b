"""A share of a collection that a sample shows, with its interval, and how large one must be."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, lgamma, log, log1p
from typing import Any

import numpy as np

STEPS = 60
"""Halvings of the interval in which a bound is searched: to 1e-18."""


@dataclass(frozen=True)
class Share:
    """How many of all records are so, by a random sample of them.

    Attributes:
        found: in the sample.
        sample: its size.
        low, high: bounds of the share, 0 to 1.
        confidence: of both bounds together.
    """

    found: int
    sample: int
    low: float
    high: float
    confidence: float

    def of(self, records: int) -> tuple[int, int]:
        """The bounds as numbers of records, never below what was seen."""
        return max(self.found, int(self.low * records)), min(records, ceil(self.high * records))

    def to_dict(self) -> dict[str, Any]:
        return {
            "found": self.found, "sample": self.sample, "low": round(self.low, 6),
            "high": round(self.high, 6), "confidence": self.confidence,
        }  # fmt: skip


def share(found: int, sample: int, population: int, confidence: float = 0.95) -> Share:
    """The exact interval of Clopper and Pearson 1934, "The use of confidence or fiducial limits";
    one point where the sample is the population."""
    if not sample or sample >= population:
        point = found / sample if sample else 0.0
        return Share(found, sample, point if sample else 0.0, point if sample else 1.0, confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if not found else _bound(found - 1, sample, 1 - tail)
    high = 1.0 if found == sample else _bound(found, sample, tail)
    return Share(found, sample, low, high, confidence)


def sample_for(rare: float, certainty: float, population: int) -> int:
    """Records of a random sample that holds one of a share `rare` of them with this probability:
    (1 - rare)^n <= 1 - certainty."""
    return min(population, ceil(log(1 - certainty) / log1p(-rare)))


def _bound(most: int, sample: int, chance: float) -> float:
    """The share at which at most `most` of the sample are found with this probability."""
    counts = np.arange(most + 1, dtype=np.float64)
    ways = np.array(
        [lgamma(sample + 1) - lgamma(k + 1) - lgamma(sample - k + 1) for k in range(most + 1)]
    )
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if middle in (0.0, 1.0):
            break
        terms = ways + counts * log(middle) + (sample - counts) * log1p(-middle)
        if float(np.exp(terms).sum()) > chance:
            low = middle
        else:
            high = middle
    return (low + high) / 2
