"""Retrieval metrics, as trec_eval defines them. One query each; average over queries yourself.

All take a ranking that was cut at some depth: what is not in it was not found. Judgements are
graded; a score above zero is relevant, a record without a judgement is not. Gains are linear, as in
trec_eval (the exponential gain of Burges et al. 2005 weighs top grades more). Rankings come in the
order of `search.exact_search`: by score, ties by corpus order; trec_eval breaks ties by id,
descending, so a comparison with it has to hand it scores without ties.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from math import log2
from typing import Any


def recall_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Share of the relevant items among the first k: |top-k ∩ relevant| / |relevant|.

    Raises:
        ValueError: if nothing is relevant, since the query then says nothing.
    """
    if not relevant:
        raise ValueError("a query without relevant items has no recall")
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant))


def success_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """1.0 if any relevant item is among the first k, else 0.0."""
    return float(not set(relevant).isdisjoint(ranked[:k]))


def reciprocal_rank(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """1 / rank of the first relevant item among the first k, 0.0 without one.

    Its mean over queries is MRR@k (Voorhees 1999, "The TREC-8 question answering track report").
    """
    wanted = set(relevant)
    for rank, item in enumerate(ranked[:k], start=1):
        if item in wanted:
            return 1.0 / rank
    return 0.0


def ndcg_at_k(ranked: Sequence[Hashable], judgements: Mapping[Any, int], k: int) -> float:
    """Discounted cumulative gain of the first k over the best possible one, in 0..1.

    DCG@k = Σ_{i=1..k} gain_i / log2(i + 1) (Järvelin and Kekäläinen 2002, "Cumulated gain-based
    evaluation of IR techniques"), with gain = score, and 0 for scores below zero.

    Raises:
        ValueError: if nothing is relevant.
    """
    ideal = sorted((score for score in judgements.values() if score > 0), reverse=True)
    if not ideal:
        raise ValueError("a query without relevant items has no nDCG")
    gains = (max(judgements.get(item, 0), 0) for item in ranked[:k])
    return _dcg(gains) / _dcg(ideal[:k])


def _dcg(gains: Iterable[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def judged_relevant(judgements: Mapping[str, int]) -> set[str]:
    """Ids judged relevant: a score above zero, as in trec_eval."""
    return {id for id, score in judgements.items() if score > 0}
