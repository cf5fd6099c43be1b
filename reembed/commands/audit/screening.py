"""Which vectors look like another model's: by the vectors alone, so that the model is asked of few.

Each population is a Gaussian whose covariance is shrunk towards a sphere (Friedman 1989,
"Regularized discriminant analysis"). With no bad vector known, how far a vector lies from the good
ones counts; with some, on whose side it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reembed.commands.audit.held import Held, Rows
from reembed.records import Vectors

Scores = npt.NDArray[np.float64]
MOST_FITTED = 6_000
"""Vectors of a population that its covariance is taken from."""
BLOCK = 4_096
"""Vectors that are scored at a time."""
OWN = 0.3
"""How much of a sphere a covariance of many vectors is given."""


@dataclass(frozen=True)
class Population:
    """A Gaussian.

    Attributes:
        mean: `(d,)`.
        root: `(d, d)`, of the inverse covariance: lengths after it are Mahalanobis distances.
        volume: logarithm of the covariance's determinant.
    """

    mean: npt.NDArray[np.float64]
    root: npt.NDArray[np.float64]
    volume: float

    def distance(self, vectors: Vectors) -> Scores:
        """Twice the negative logarithm of the density, but for a constant, `(n,)`."""
        moved = (vectors - self.mean) @ self.root
        return np.asarray(np.einsum("ij,ij->i", moved, moved) + self.volume, np.float64)


def population(vectors: Vectors, like: npt.NDArray[np.float64] | None = None) -> Population:
    """The Gaussian of unit vectors `(n, d)`.

    Args:
        like: covariance to lean on where they are few; default: a sphere.
    """
    n, d = vectors.shape
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = np.asarray(vectors - mean, np.float64)
    sample = centred.T @ centred / max(1, n)
    size = float(np.trace(sample)) / d or 1e-6
    sphere = np.eye(d) * size
    if like is not None:
        sphere = 0.5 * sphere + 0.5 * like * (size * d / float(np.trace(like)))
    trust = n / (n + d) * (1 - OWN)
    values, axes = np.linalg.eigh(trust * sample + (1 - trust) * sphere)
    values = np.maximum(values, 1e-9)
    return Population(mean, axes / np.sqrt(values), float(np.log(values).sum()))


def far_from(held: Held, good: Rows, rows: Rows) -> Scores:
    """How far vectors lie from the good ones: the higher, the stranger."""
    return score(held, population(held.units(_few(good))), None, rows)


def sides(held: Held, good: Rows, bad: Rows, rows: Rows) -> Scores:
    """On whose side vectors are: the higher, the more like the bad ones.

    Where few bad ones are known, how far a vector is from the good ones counts most.
    """
    ours = held.units(_few(good))
    theirs = held.units(_few(bad))
    first = population(ours)
    centred = np.asarray(ours - ours.mean(axis=0), np.float64)
    second = population(theirs, centred.T @ centred / len(ours))
    return score(held, first, second, rows)


def score(held: Held, good: Population, bad: Population | None, rows: Rows) -> Scores:
    """See `far_from` and `sides`."""
    found = np.zeros(len(rows))
    for start in range(0, len(rows), BLOCK):
        block = held.units(rows[start : start + BLOCK])
        found[start : start + BLOCK] = good.distance(block)
        if bad is not None:
            found[start : start + BLOCK] -= bad.distance(block)
    return found


def _few(rows: Rows) -> Rows:
    step = max(1, len(rows) // MOST_FITTED)
    return rows[::step][:MOST_FITTED]
