"""How much two rankings of the same query agree. Shown, never gating: a good migration changes most
of the top 10 (MiniLM and WordLlama share 4 of 10 on Cranfield)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

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
