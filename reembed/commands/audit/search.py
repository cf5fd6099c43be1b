"""Finds the records whose vectors are not the model's: a random sample, then where their vectors
and their place say that more are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reembed.commands.audit import screening
from reembed.commands.audit.held import Held, Rows
from reembed.commands.audit.judge import NEARLY, OTHER, SAME, UNASKED, Judge
from reembed.commands.audit.places import Place, places
from reembed.quality.proportion import sample_for

RARE, CERTAINTY = 0.01, 0.999
"""A share that the first sample shows with this certainty."""
BATCH = 100
"""Records that are asked for at a time where more are sought."""
MOST_ROUNDS = 40
QUIET = 2
"""Batches in a row that bring nothing, after which the search ends."""
NOTHING = 0.03
"""Share of a batch that is nothing."""
SURE = 0.97
"""Share of a random batch that must be bad, for the others to be named by their vectors."""
CHECKED = 200
MOST_CAUSES = 4
"""Places that are looked at."""


@dataclass
class Search:
    """One search.

    Attributes:
        sample: the random sample, on which shares rest.
        drifted: whether nearly the same counts as the same: all are a little off.
        by_vectors: rows that are named by their vectors alone.
    """

    judge: Judge
    held: Held
    rng: np.random.Generator
    sample: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    drifted: bool = False
    by_vectors: Rows = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def good(self) -> Rows:
        """Rows that the model made."""
        return self.judge.rows(SAME, NEARLY) if self.drifted else self.judge.rows(SAME)

    @property
    def bad(self) -> Rows:
        """Rows that it did not, as it says itself."""
        return self.judge.rows(OTHER) if self.drifted else self.judge.rows(OTHER, NEARLY)

    def draw(self, size: int | None, *, every: bool) -> Rows:
        """Choose the sample; nothing is asked yet."""
        rows = self.held.judgeable
        most = sample_for(RARE, CERTAINTY, len(rows)) if size is None else min(size, len(rows))
        count = len(rows) if every else most
        self.sample = np.sort(self.rng.choice(rows, count, replace=False))
        return self.sample

    def unasked(self) -> Rows:
        rows = self.held.judgeable
        return np.asarray(rows[self.judge.state[rows] == UNASKED])

    def spread(self) -> None:
        """Ask beyond the sample, where bad ones are likely."""
        rest = self.unasked()
        if not len(rest) or not len(self.good):
            return
        self._ask(rest, screening.far_from(self.held, self.good))
        rounds, quiet, most = 0, 0, max(2_000, 2 * len(self.sample))
        begun = self.judge.asked
        while len(self.bad) and rounds < MOST_ROUNDS and self.judge.asked - begun < most:
            rest = self.unasked()
            if not len(rest):
                break
            # Of few bad ones little can be learnt, so what is merely strange gets its turn too.
            strange = rounds % 2 == 1 and len(self.bad) < 30
            scale = (screening.far_from(self.held, self.good) if strange
                     else screening.sides(self.held, self.good, self.bad))  # fmt: skip
            quiet = quiet + 1 if self._ask(rest, scale) <= NOTHING else 0
            rounds += 1
            if quiet >= QUIET:
                break
        else:
            self._name_by_vectors()
        self._places()

    def _ask(self, rest: Rows, scale: screening.Scale) -> float:
        """Ask for those of the highest scores. Returns the share of them that is bad."""
        strangest = np.argsort(-scale.of(self.held, rest), kind="stable")
        batch = rest[strangest[: max(BATCH, len(rest) // 200)]]
        before = len(self.bad)
        self.judge.ask(np.sort(batch))
        return (len(self.bad) - before) / len(batch)

    def _name_by_vectors(self) -> None:
        """Where very many are bad: name the rest by their vectors, if that proves right."""
        rest = self.unasked()
        if not len(rest) or len(self.bad) < BATCH:
            return
        scale = screening.sides(self.held, self.good, self.bad)
        limit = float(np.quantile(scale.of(self.held, self.good), 0.999))
        there = rest[scale.of(self.held, rest) > limit]
        if not len(there):
            return
        check = np.sort(self.rng.choice(there, min(CHECKED, len(there)), replace=False))
        self.judge.ask(check)
        if np.isin(check, self.bad).mean() >= SURE:
            self.by_vectors = np.setdiff1d(there, check)

    def _places(self) -> None:
        """Ask for all records of a place where most are bad, and then of another one: what went
        wrong twice has two."""
        elsewhere = self.bad
        for _ in range(MOST_CAUSES):
            best = self.locate(elsewhere)[:1]
            if not best or best[0].inside_bad * 2 < best[0].inside:
                return
            rows = best[0].rows
            if len(rows) > 0.5 * self.held.count:
                return
            self.judge.ask(np.setdiff1d(np.intersect1d(self.unasked(), rows), self.by_vectors))
            elsewhere = np.setdiff1d(self.bad, rows)

    def locate(self, bad: Rows) -> list[Place]:
        """Where these are."""
        good = np.intersect1d(self.sample, self.good)
        return places(self.held, bad, good, self.rng)
