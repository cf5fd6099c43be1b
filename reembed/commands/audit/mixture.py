"""Two models in one collection, told without asking any: by vectors and words.

Texts that share rare words lie near each other in any model's vectors, and no nearer than chance
where one vector is another model's. So a group is sought whose vectors lie apart from the others',
and looked at through the words of its texts. Topics and languages lie apart too, but there words
tell the groups apart as vectors do; of such groups it is said that nobody can tell. Both the
direction and the words are held against records that they were not chosen by.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reembed.commands.audit.held import Mask, Rows
from reembed.records import Vectors

Numbers = npt.NDArray[np.float64]
MOST, FEWEST = 10_000, 500
"""Records that are looked at; fewer tell nothing."""
SMALLEST = 20
"""Records of a group."""
REFERENCES, NEAREST = 2_000, 16
"""Records among which those with like words are sought, and how many of them count."""
WIDTH, WORDS = 1_024, 1 << 15
COMMON = 0.2
"""Share of texts from which a word that is in them tells nothing."""
SHRUNK = 0.1
ROUNDS = 30
APART = 3.3
"""Standard deviations between the groups, along the direction that parts them."""
AGREES = 0.35
"""What of the others' agreement of words and vectors a group of another model stays below."""
BY_WORDS = 0.62
"""Chance that words put a record of the group before one of the others; 0.5 is no sign at all."""


@dataclass(frozen=True)
class Mixture:
    """A group that lies apart.

    Attributes:
        group: which of the records that were looked at.
        apart: standard deviations between it and the others.
        agreement: of its words with the others' vectors, as a share of what the others have: the
            upper bound (3 standard errors).
        by_words: chance that words alone put one of the group before one of the others.
    """

    group: Mask
    apart: float
    agreement: float
    by_words: float

    @property
    def is_model(self) -> bool:
        """Whether another model made its vectors, as far as that can be told."""
        parted = self.apart >= APART and self.agreement <= AGREES
        return parted and 1 - BY_WORDS <= self.by_words <= BY_WORDS

    @property
    def is_unclear(self) -> bool:
        """Whether it may be another model's, or a topic's or a language's."""
        return self.apart >= APART and self.agreement <= AGREES and not self.is_model


def find_mixture(
    vectors: Vectors, texts: Sequence[str], rng: np.random.Generator
) -> Mixture | None:
    """The group that is most likely another model's; None where no group lies apart.

    Args:
        vectors: `(n, d)`, of length one.
    """
    words = lexical(texts)
    near = _Near.of(vectors, words, rng)
    whitened = vectors @ _whitening(vectors)
    found: list[Mixture] = []
    for start in _starts(near, whitened):
        group = _settled(whitened, start)
        if group.sum() >= SMALLEST:
            found.append(_looked_at(group, whitened, words, near, rng))
    likely = [one for one in found if one.is_model] or [one for one in found if one.is_unclear]
    return max(likely, key=lambda one: one.apart, default=None)


def lexical(texts: Sequence[str]) -> Vectors:
    """The rare words of each text, `(n, WIDTH) float32`: TF-IDF without counts, hashed (Weinberger
    et al. 2009, "Feature hashing for large scale multitask learning")."""
    codes = [np.unique([zlib.crc32(word.encode()) % WORDS
                        for word in re.findall(r"\w+", text.lower())] or [0])
             for text in texts]  # fmt: skip
    seen = np.bincount(np.concatenate(codes), minlength=WORDS)
    weights = np.log((len(texts) + 1) / (seen + 0.5))
    weights[seen > COMMON * len(texts)] = 0
    signs = np.where(np.arange(WORDS) * 2_654_435_761 >> 13 & 1, 1.0, -1.0)
    found = np.zeros((len(texts), WIDTH), np.float32)
    for row, code in enumerate(codes):
        np.add.at(found[row], code % WIDTH, (weights * signs)[code])
    return np.asarray(found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-9), np.float32)


@dataclass(frozen=True)
class _Near:
    """The references that share most words with each record.

    Attributes:
        rows: of the references.
        places: `(n, NEAREST)`, in `rows`.
        likeness: of the words, `(n, NEAREST)`.
        excess: cosine of the vectors beyond that with any reference.
        base: mean cosine with all references, `(n,)`.
        even: the half that groups are chosen by; the other half judges them.
    """

    rows: Rows
    places: Rows
    likeness: Numbers
    excess: Numbers
    base: Numbers
    even: Mask

    @classmethod
    def of(cls, vectors: Vectors, words: Vectors, rng: np.random.Generator) -> _Near:
        n = len(vectors)
        rows = rng.choice(n, min(REFERENCES, n), replace=False)
        likeness, cosines = words @ words[rows].T, vectors @ vectors[rows].T
        likeness[rows, np.arange(len(rows))] = -1
        base = np.asarray(cosines.mean(axis=1), np.float64)
        places = np.argpartition(-likeness, NEAREST, axis=1)[:, :NEAREST]
        return cls(
            rows, places, np.maximum(np.take_along_axis(likeness, places, 1), 0),
            np.take_along_axis(cosines, places, 1) - base[:, None], base,
            rng.random(places.shape) < 0.5,
        )  # fmt: skip

    def agreement(self, chosen: Mask, among: Mask) -> tuple[Numbers, Numbers]:
        """Excess of each record with the chosen references `among` all, and the weight of it."""
        weights = self.likeness * chosen * among[self.rows][self.places]
        total = weights.sum(axis=1)
        return (weights * self.excess).sum(axis=1) / (total + 1e-9), total


def _whitening(vectors: Vectors) -> Vectors:
    covariance = np.cov(vectors.T)
    mean = np.trace(covariance) / len(covariance)
    shrunk = (1 - SHRUNK) * covariance + SHRUNK * mean * np.eye(len(covariance))
    return np.asarray(np.linalg.cholesky(np.linalg.inv(shrunk)), np.float32)


def _starts(near: _Near, whitened: Vectors) -> Iterator[Mask]:
    """Groups to begin with: records that agree with no others by words nor by vectors; and, for
    groups so large that they make the mean, halves along the main directions."""
    everyone = np.ones(len(near.base), np.bool_)
    agreement, _ = near.agreement(near.even, everyone)
    strange = sum((one - one.mean()) / (one.std() + 1e-9) for one in (agreement, near.base))
    first = np.zeros(len(near.base), np.bool_)
    first[np.argsort(strange)[: max(SMALLEST, len(first) // 150)]] = True
    yield first
    centred = whitened - whitened.mean(axis=0)
    _, _, axes = np.linalg.svd(centred[: min(len(centred), 2_000)], full_matrices=False)
    for axis in axes[:3]:
        yield centred @ axis > 0


def _settled(whitened: Vectors, group: Mask) -> Mask:
    """The group once every record is on the side of the nearer mean; the smaller one."""
    for _ in range(ROUNDS):
        if min(group.sum(), (~group).sum()) < SMALLEST:
            break
        inside, outside = whitened[group].mean(axis=0), whitened[~group].mean(axis=0)
        middle = (inside + outside) @ (inside - outside) / 2
        moved = whitened @ (inside - outside) > middle
        if (moved == group).all():
            break
        group = moved
    return group if 2 * group.sum() <= len(group) else ~group


def _looked_at(
    group: Mask, whitened: Vectors, words: Vectors, near: _Near, rng: np.random.Generator
) -> Mixture:
    half = rng.random(len(group)) < 0.5
    apart, by_words = [], []
    for learnt, seen in ((half, ~half), (~half, half)):
        inside, outside = _along(whitened, group, learnt, seen)
        spread = np.sqrt((inside.var() + outside.var()) / 2) + 1e-12
        apart.append((inside.mean() - outside.mean()) / spread)
        by_words.append(_before(*_along(words, group, learnt, seen)))
    agreement, weight = near.agreement(~near.even, ~group)
    known = weight > 0.05
    ours, theirs = agreement[group & known], agreement[~group & known]
    if len(ours) < SMALLEST // 2 or not len(theirs) or theirs.mean() <= 0:
        return Mixture(group, float(np.mean(apart)), 1.0, float(np.mean(by_words)))
    upper = ours.mean() + 3 * ours.std() / np.sqrt(len(ours))
    return Mixture(
        group, float(np.mean(apart)), float(upper / theirs.mean()), float(np.mean(by_words))
    )


def _along(space: Vectors, group: Mask, learnt: Mask, seen: Mask) -> tuple[Numbers, Numbers]:
    """Where the group and the others lie in one half, on the line of the means of the other."""
    line = space[group & learnt].mean(axis=0) - space[~group & learnt].mean(axis=0)
    found = np.asarray(space @ line, np.float64)
    return found[group & seen], found[~group & seen]


def _before(inside: Numbers, outside: Numbers) -> float:
    """Chance that one inside is greater than one outside (Mann and Whitney 1947)."""
    ranks = np.argsort(np.argsort(np.concatenate([inside, outside])))[: len(inside)]
    most = len(inside) * (len(inside) - 1) / 2
    return float((ranks.sum() - most) / (len(inside) * len(outside)))
