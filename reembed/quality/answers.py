"""What an index answers, judged by the exact answers to the same queries.

An answer that is as near as the k-th nearest is right, whichever of equally near records it is
(equal texts have equal vectors); so counts ann-benchmarks (Aumüller, Bernhardsson and Faithfull
2020). What the index left out, or what the run does not know, is a miss.

The exact search goes deeper than k, so that nearly every answer is known by its place there, and no
vector is read to judge it. Where more records tie with the k-th than the search went deep, the
vectors of those answers are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reembed.quality.search import Hits, Scores, similarity
from reembed.records import Metric, Vectors, unit

TIE = 1e-6
"""Relative difference of scores below which two records count as equally near."""
DEEPER = 2
"""Times k that the exact search goes deep."""

Answers = Sequence[Sequence[str]]
Recalls = npt.NDArray[np.float64]
VectorsOf = Callable[[set[str]], Mapping[str, Vectors]]
"""Record ids to vectors `(d,) float32`, of those that the run knows."""


@dataclass(frozen=True)
class Judge:
    """See the module.

    Attributes:
        queries: `(q, d) float32`.
        exact: what is nearest to them, `DEEPER` times k of each.
        vectors_of: looks up the vectors of records.
    """

    queries: Vectors
    exact: Hits
    metric: Metric
    vectors_of: VectorsOf

    def of(self, rows: npt.NDArray[np.intp]) -> Judge:
        """The judge of some of the queries."""
        return replace(self, queries=self.queries[rows], exact=self.exact.rows(rows))

    def recalls(self, answers: Answers, k: int) -> Recalls:
        """Recall@k of each query's answer, `(q,)`."""
        if not k:
            return np.ones(len(self.queries))
        last = self.exact.scores[:, k - 1].astype(np.float64)
        reach = last - TIE * np.maximum(1.0, np.abs(last))
        scores, unknown = self._known(answers)
        deepest = self.exact.scores[:, -1]
        open_rows = np.flatnonzero(unknown.any(axis=1) & np.isfinite(deepest) & (deepest >= reach))
        if len(open_rows):
            self._look_up(scores, unknown, answers, open_rows)
        right = np.nan_to_num(scores.astype(np.float64), nan=-np.inf) >= reach[:, None]
        return np.asarray(np.minimum(right.sum(axis=1), k) / k)

    def in_order(self, answers: Answers) -> bool | None:
        """Whether answers come nearest first, as those of an index that ranks by this metric do;
        None where too few of them are known to tell."""
        scores, unknown = self._known(answers)
        there = np.isfinite(scores)
        if there.sum() < unknown.sum():
            return None
        deepest = np.broadcast_to(self.exact.scores[:, -1:], scores.shape)
        known = np.where(unknown, deepest, scores).astype(np.float64)
        tie = TIE * np.maximum(1.0, np.abs(known[:, 1:]))
        with np.errstate(invalid="ignore"):
            steps = np.diff(known, axis=1)
        return bool((~(steps > tie)).all())

    def _known(self, answers: Answers) -> tuple[Scores, npt.NDArray[np.bool_]]:
        """Each answer's score, `(q, a)`, NaN where there is none; and which are in no place of the
        exact search."""
        width = max(map(len, answers), default=0)
        scores = np.full((len(answers), width), np.nan, np.float32)
        unknown = np.zeros(scores.shape, bool)
        for row, answer in enumerate(answers):
            place = {id: column for column, id in enumerate(self.exact.ids[row].tolist())}
            for column, id in enumerate(answer):
                found = place.get(id)
                if found is None:
                    unknown[row, column] = True
                else:
                    scores[row, column] = self.exact.scores[row, found]
        return scores, unknown

    def _look_up(
        self, scores: Scores, unknown: npt.NDArray[np.bool_], answers: Answers,
        rows: npt.NDArray[np.intp],
    ) -> None:  # fmt: skip
        wanted = [
            (row, column, answers[row][column])
            for row in rows.tolist() for column in np.flatnonzero(unknown[row]).tolist()
        ]  # fmt: skip
        vectors = self.vectors_of({id for _, _, id in wanted})
        if not vectors:
            return
        place = {id: at for at, id in enumerate(vectors)}
        queries, found = self.queries[rows], np.stack(list(vectors.values()))
        if self.metric == "cosine":
            queries, found = unit(queries), unit(found)
        near = similarity(queries, found, self.metric)
        at_row = {row: at for at, row in enumerate(rows.tolist())}
        for row, column, id in wanted:
            if id in place:
                scores[row, column] = near[at_row[row], place[id]]
