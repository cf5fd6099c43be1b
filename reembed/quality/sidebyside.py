"""G4: both models' answers side by side, and how much they agree. Shown, never gating: a good
migration changes most of the top 10 (MiniLM and WordLlama share 4 of 10 on Cranfield)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from reembed.quality.findings import SAMPLES
from reembed.quality.search import Hits, Scores
from reembed.quality.statistics import Values, histogram, quantiles
from reembed.quality.verdict import Gate
from reembed.records import Metric

PERSISTENCE = 0.9
"""RBO's p: the first 10 ranks carry 86 % of the weight."""


def jaccard(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Shared items over all items, 1.0 for two empty rankings."""
    first, second = set(a), set(b)
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def rank_biased_overlap(
    a: Sequence[Hashable], b: Sequence[Hashable], p: float = PERSISTENCE
) -> float:
    """RBO of two rankings, extrapolated from the depth seen, in 0..1.

    RBO_ext = X_k / k · p^k + (1 - p) / p · Σ_{d=1..k} X_d / d · p^d, where X_d is the overlap of
    the first d (Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings", eq.
    30). Rankings of unlike length are compared to the depth of the shorter one; 1.0 for two empty
    ones.
    """
    depth = min(len(a), len(b))
    if not depth:
        return 1.0 if len(a) == len(b) else 0.0
    seen_a: set[Hashable] = set()
    seen_b: set[Hashable] = set()
    overlap = 0
    total = 0.0
    for d, (x, y) in enumerate(zip(a[:depth], b[:depth], strict=True), start=1):
        if x == y:
            overlap += x not in seen_a and x not in seen_b
        else:
            overlap += (x in seen_b and x not in seen_a) + (y in seen_a and y not in seen_b)
        seen_a.add(x)
        seen_b.add(y)
        total += overlap / d * p**d
    return overlap / depth * p**depth + (1 - p) / p * total


ANSWERS = 5
"""Answers of each model that are shown for a query."""
QUERY_LENGTH, TEXT_LENGTH = 200, 100
"""Characters that are shown."""

TextOf = Callable[[Sequence[str]], Mapping[str, str]]
"""Record ids to their texts, as far as they are known."""


def overlap_gate(
    queries: Sequence[str], new: Hits, old: Hits, k: int, texts: TextOf, source: str
) -> Gate:
    """Jaccard@k and RBO of the answers, and the queries whose answers changed most.

    Records of equal text count as the same answer.

    Args:
        source: where the queries come from: judged, log or known-item.
    """
    pairs = list(zip(new.ranked_keys(), old.ranked_keys(), strict=True))
    shared = np.array([jaccard(a[:k], b[:k]) for a, b in pairs])
    biased = np.array([rank_biased_overlap(_once(a[:k]), _once(b[:k])) for a, b in pairs])
    changed = np.lexsort((np.arange(len(shared)), biased, shared))[:SAMPLES]
    figures = {
        "queries": len(pairs), "source": source, "k": k,
        "jaccard": quantiles(shared), "jaccard_histogram": histogram(shared, 10, 0.0, 1.0),
        "rbo": quantiles(biased), "rbo_p": PERSISTENCE,
        "most_changed": side_by_side(changed.tolist(), queries, new, old, texts,
                                     {"jaccard": shared, "rbo": biased}),
    }  # fmt: skip
    return Gate(
        "overlap", "shown",
        f"top-{k} answers overlap {shared.mean():.3f} (Jaccard), {biased.mean():.3f} (RBO) over "
        f"{len(pairs):,} {source} queries",
        figures,
    )  # fmt: skip


def side_by_side(
    places: Sequence[int],
    queries: Sequence[str],
    new: Hits,
    old: Hits,
    texts: TextOf,
    figures: Mapping[str, Values],
) -> list[dict[str, Any]]:
    """For each of these queries its text, its figures, and the first answers of both models."""
    wanted = {
        id for hits in (new, old) for place in places for id in hits.ids[place][:ANSWERS] if id
    }
    known = texts(sorted(wanted))

    def answers(hits: Hits, place: int) -> list[dict[str, Any]]:
        return [
            {"id": id, "text": shorten(known.get(id, ""), TEXT_LENGTH),
             "score": round(float(value), 4)}
            for id, value in zip(hits.ids[place][:ANSWERS], hits.scores[place], strict=False) if id
        ]  # fmt: skip

    return [
        {"query": shorten(queries[place], QUERY_LENGTH),
         **{name: round(float(values[place]), 6) for name, values in figures.items()},
         "old": answers(old, place), "new": answers(new, place)}
        for place in places
    ]  # fmt: skip


def score_figures(scores: Scores, metric: Metric) -> dict[str, Any]:
    """Distribution of the similarity of first and of all answers; l2 as minus squared distance up
    to the query's own length."""
    first = scores[:, 0].astype(np.float64)
    everything = scores[np.isfinite(scores)].astype(np.float64)
    return {
        "metric": metric, "first": quantiles(first[np.isfinite(first)]),
        "first_histogram": histogram(first[np.isfinite(first)]),
        "all_histogram": histogram(everything),
    }  # fmt: skip


def shorten(text: str, length: int) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _once(items: Sequence[bytes]) -> list[bytes]:
    return list(dict.fromkeys(items))
