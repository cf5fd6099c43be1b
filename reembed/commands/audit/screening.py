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

    mean: npt.NDArray[np.float32]
    root: npt.NDArray[np.float32]
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
    # The sphere's part makes it positive definite.
    lower = np.linalg.cholesky(trust * sample + (1 - trust) * sphere)
    root = np.linalg.inv(lower).T.astype(np.float32)
    return Population(mean.astype(np.float32), root, 2 * float(np.log(np.diag(lower)).sum()))


@dataclass(frozen=True)
class Scale:
    """What vectors are held against.

    Attributes:
        good: the vectors that the model made.
        bad: those of the other, None where no such vector is known.
    """

    good: Population
    bad: Population | None = None

    def of(self, held: Held, rows: Rows) -> Scores:
        """The higher, the stranger; with `bad`, the more like the bad ones."""
        found = np.zeros(len(rows))
        for start in range(0, len(rows), BLOCK):
            block = held.units(rows[start : start + BLOCK])
            found[start : start + BLOCK] = self.good.distance(block)
            if self.bad is not None:
                found[start : start + BLOCK] -= self.bad.distance(block)
        return found


def far_from(held: Held, good: Rows) -> Scale:
    """How far vectors lie from the good ones."""
    return Scale(population(held.units(_few(good))))


def sides(held: Held, good: Rows, bad: Rows) -> Scale:
    """On whose side vectors are.

    Where few bad ones are known, how far a vector is from the good ones counts most.
    """
    ours = held.units(_few(good))
    centred = np.asarray(ours - ours.mean(axis=0), np.float64)
    theirs = population(held.units(_few(bad)), centred.T @ centred / len(ours))
    return Scale(population(ours), theirs)


def _few(rows: Rows) -> Rows:
    step = max(1, len(rows) // MOST_FITTED)
    return rows[::step][:MOST_FITTED]
