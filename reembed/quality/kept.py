"""Vectors that were moved as they are, one by one: bit for bit, or rounded as the store does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.quality.findings import Findings
from reembed.quality.integrity import comparable, match_served
from reembed.records import Metric, Vectors, unit

ROUNDING = 1e-5
"""Distance to what was moved, relative to its length, that a store may make: Chroma hands a vector
out a unit in the last place (1e-7) off, by whether it is in the index already."""


@dataclass
class Tally:
    """How vectors were kept.

    Attributes:
        metric: of the new collection: with cosine a store may keep vectors at length one.
        exact: bit for bit.
        rounded: within a unit or so in the last place.
        halved: rounded to 16 bits, by a column of type halfvec.
        scaled: scaled to length one, where only directions are compared.
        furthest: largest distance, relative to the vector's length, of those that are not exact.
    """

    metric: Metric
    exact: int = 0
    rounded: int = 0
    halved: int = 0
    scaled: int = 0
    furthest: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"vectors_exact": self.exact, "vectors_rounded": self.rounded,
                "vectors_halved": self.halved, "vectors_scaled": self.scaled,
                "vectors_furthest": self.furthest}  # fmt: skip

    def __str__(self) -> str:
        told = [f"{self.exact:,} vectors bit for bit"]
        if self.rounded:
            told.append(f"{self.rounded:,} within the store's last digit")
        if self.halved:
            told.append(f"{self.halved:,} rounded to 16 bits (halfvec)")
        if self.scaled:
            told.append(f"{self.scaled:,} scaled to length one")
        off = "" if len(told) == 1 else f", at most {self.furthest:.1e} of their length off"
        return ", ".join(told) + off


def check_kept(
    ids: Sequence[str], rows: Sequence[bytes], vectors: Vectors, served: pa.RecordBatch,
    findings: Findings, tally: Tally,
) -> None:  # fmt: skip
    """As `integrity.check_served`, for vectors `(n, d) float32` that were moved as they are, zero
    ones too."""
    there = match_served(ids, rows, served, findings)
    kept, expected, found = comparable(there.ids, vectors[there.places], there.vectors, findings)
    other = _others(kept, expected, found, tally) if kept else []
    findings.add("with another vector", other)
    findings.add("changed", [id for id in there.changed if id not in set(other)])


def _others(ids: Sequence[str], expected: Vectors, found: Vectors, tally: Tally) -> list[str]:
    """Count how vectors were kept. Returns the ids of those that were not."""
    exact = np.equal(expected, found).all(axis=1)
    with np.errstate(over="ignore"):
        halved = np.equal(expected.astype(np.float16).astype(np.float32), found).all(axis=1)
    off = _distance(expected, found)
    rounded = off <= ROUNDING
    scaled = np.zeros(len(ids), bool)
    if tally.metric == "cosine":
        scaled = (_distance(_directions(expected), found) <= ROUNDING) & expected.any(axis=1)
    kinds = np.select([exact, rounded, halved, scaled], [0, 1, 2, 3], 4)
    counts = np.bincount(kinds, minlength=5)
    tally.exact += int(counts[0])
    tally.rounded += int(counts[1])
    tally.halved += int(counts[2])
    tally.scaled += int(counts[3])
    if (near := off[(kinds == 1) | (kinds == 2)]).size:
        tally.furthest = max(tally.furthest, float(near.max()))
    return [ids[row] for row in np.flatnonzero(kinds == 4).tolist()]


def _distance(expected: Vectors, found: Vectors) -> np.ndarray[Any, np.dtype[np.float64]]:
    wide = expected.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    apart = np.linalg.norm(found.astype(np.float64) - wide, axis=1)
    off = np.divide(apart, lengths, out=np.full(len(apart), np.inf), where=lengths > 0)
    return np.asarray(np.nan_to_num(off, nan=np.inf))


def _directions(vectors: Vectors) -> Vectors:
    zero = ~np.asarray(vectors.any(axis=1))
    return unit(np.where(zero[:, None], np.float32(1), vectors))
