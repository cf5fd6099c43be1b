"""G3: is the new model's search at least as good as the old one's, but for a margin?

Both models answer the same queries by exact search, so that the index has no part in it. The gate
is on recall@k, as the manifest's `margin` says; nDCG@k, MRR@k and success@k are shown beside it
with their own intervals. It passes if the whole interval of the paired difference lies above
-margin, fails if it lies below, and is inconclusive between: a non-inferiority test (Piaggio et al.
2012, CONSORT statement). With a 95 % interval a model that is worse by the margin passes with a
probability of at most 2.5 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reembed.quality.metrics import (
    judged_relevant,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
    success_at_k,
)
from reembed.quality.statistics import (
    Interval,
    Values,
    histogram,
    mean_interval,
    paired_difference,
    queries_to_settle,
)
from reembed.quality.verdict import Gate, Status

FEWEST_QUERIES = 100
"""Fewer queries than this cannot tell two models apart."""
KNOWN_ITEM_LOSS = 0.1
"""Recall on known items that must be proven lost before they fail a model. They share words with
their record and so favour models that match words: on docstrings, where judged queries prefer
MiniLM to WordLlama by far, known items prefer WordLlama by 0.03. A model called in a wrong way
(no prefix, another pooling) loses several times this."""
METRICS = ("recall", "ndcg", "mrr", "success")
Kind = Literal["judged", "known-item"]


@dataclass(frozen=True)
class Scores:
    """The four metrics of each query, `(q,) float64` each."""

    recall: Values
    ndcg: Values
    mrr: Values
    success: Values

    def __getitem__(self, metric: str) -> Values:
        values: Values = getattr(self, metric)
        return values


def score(
    rankings: Sequence[Sequence[Hashable]], judgements: Sequence[Mapping[Any, int]], k: int
) -> Scores:
    """Metrics of rankings (best first, no item twice) against graded judgements, query by query."""
    rows = []
    for ranked, judged in zip(rankings, judgements, strict=True):
        relevant = judged_relevant(judged)
        rows.append(
            (
                recall_at_k(ranked, relevant, k),
                ndcg_at_k(ranked, judged, k),
                reciprocal_rank(ranked, relevant, k),
                success_at_k(ranked, relevant, k),
            )
        )
    columns = np.array(rows, np.float64).reshape(len(rows), len(METRICS)).T
    return Scores(*columns)


@dataclass(frozen=True)
class Comparison:
    """What is known of two models' answers to the same queries.

    Attributes:
        kind: judged queries, or known-item queries made from the records.
        new: scores of the new model.
        old: of the old one; None where it could not be asked.
        note: why it could not, or what else to know of it.
        before: whether there was a search at all; False where no record of the source has a vector.
        margin: how much recall the new model may lose.
        confidence: level of the intervals.
        k: cut-off.
    """

    kind: Kind
    k: int
    margin: float
    confidence: float
    new: Scores
    old: Scores | None
    note: str = ""
    before: bool = True

    @property
    def queries(self) -> int:
        return len(self.new.recall)

    def difference(self, metric: str = "recall") -> Interval:
        """New minus old with its interval."""
        assert self.old is not None, "there is no old model to compare with"
        return paired_difference(self.new[metric], self.old[metric], self.confidence)


def recall_gate(
    c: Comparison, extra: Mapping[str, Any] | None = None,
    samples: Mapping[str, list[str]] | None = None,
) -> Gate:  # fmt: skip
    """The gate of a comparison.

    Judged queries always gate, but where there was no search before that could be lost. Known-item
    queries are no user's queries, and a collection too small for many of them must still be
    movable, so they gate only where at least 100 of them prove that the new model is not worse by
    more than the margin, or that it loses KNOWN_ITEM_LOSS; else they are shown, and the message
    says that the question is open and what would settle it.

    Args:
        extra: more figures.
        samples: queries for whoever looks into it.
    """
    figures = _figures(c) | dict(extra or {})
    about = f"{c.kind} recall@{c.k} of the new model {c.new.recall.mean():.4f}"
    shown = dict(samples or {})
    if c.old is None:
        unproven = c.kind == "judged" and c.before
        status: Status = "inconclusive" if unproven else "shown"
        message = f"{about}; nothing to compare it with: {c.note}"
        if unproven:
            message += (
                ". Give source.model so that the old model can be asked, or take verify.qrels "
                "out of "
                "the manifest to go on without this proof"
            )
        return Gate("recall", status, message, figures, shown)
    difference = c.difference()
    message = (
        f"{about}, of the old {c.old.recall.mean():.4f}: difference {difference.mean:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}] over {c.queries:,} queries"
    )
    status, conclusion = _conclude(c, difference)
    message += f"; {conclusion}"
    ranking = c.difference("ndcg")
    if ranking.high < -c.margin:
        about = f"{ranking.mean:+.4f} [{ranking.low:+.4f}, {ranking.high:+.4f}]"
        message += f"; nDCG@{c.k} is worse, {about}"
        if status == "pass":
            message += ": what is right is found, but further down"
    if c.note:
        message += f" ({c.note})"
    return Gate("recall", status, message, figures, shown)


def _conclude(c: Comparison, difference: Interval) -> tuple[Status, str]:
    undecided: Status = "inconclusive" if c.kind == "judged" else "shown"
    if c.queries < FEWEST_QUERIES:
        return undecided, f"too few to judge by, at least {FEWEST_QUERIES} are needed"
    least_loss = c.margin if c.kind == "judged" else max(c.margin, KNOWN_ITEM_LOSS)
    if difference.high < -least_loss:
        return "fail", f"worse by more than {least_loss}"
    if difference.high < -c.margin:
        return undecided, (
            f"worse by more than the margin {c.margin}, but known items favour models that match "
            "words; judged queries (verify.queries and qrels) would decide"
        )
    if difference.low >= -c.margin:
        return "pass", f"not worse by more than the margin {c.margin}"
    needed = queries_to_settle(difference, c.margin)
    many = f"about {needed:,} queries" if needed else "more than a million queries"
    return undecided, (
        f"inconclusive: the difference lies between {difference.low:+.4f} and "
        f"{difference.high:+.4f}, the margin is -{c.margin}; {many} would decide it"
        + ("" if c.kind == "judged" else ", and judged ones (verify.queries and qrels) would count")
    )


def _figures(c: Comparison) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "queries": c.queries, "kind": c.kind, "k": c.k, "margin": c.margin,
        "new": round(float(c.new.recall.mean()), 6),
        "metrics": {
            name: {"new": mean_interval(c.new[name], c.confidence).to_dict()} for name in METRICS
        },
    }  # fmt: skip
    if c.old is None:
        return figures
    for name in METRICS:
        figures["metrics"][name] |= {
            "old": mean_interval(c.old[name], c.confidence).to_dict(),
            "difference": c.difference(name).to_dict(),
        }
    difference = c.difference()
    change = c.new.recall - c.old.recall
    return figures | {
        "old": round(float(c.old.recall.mean()), 6), "difference": difference.to_dict(),
        "better": int((change > 0).sum()), "equal": int((change == 0).sum()),
        "worse": int((change < 0).sum()), "differences": histogram(change, 20, -1.0, 1.0),
        "queries_to_settle": queries_to_settle(difference, c.margin),
    }  # fmt: skip
