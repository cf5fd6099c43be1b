"""Retrieval metrics, as trec_eval defines them. One query each; average over queries yourself."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence


def recall_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Share of the relevant items among the first k: |top-k ∩ relevant| / |relevant|.

    Raises:
        ValueError: if nothing is relevant, since the query then says nothing.
    """
    if not relevant:
        raise ValueError("a query without relevant items has no recall")
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant))


def judged_relevant(judgements: Mapping[str, int]) -> set[str]:
    """Ids judged relevant: a score above zero, as in trec_eval."""
    return {id for id, score in judgements.items() if score > 0}
