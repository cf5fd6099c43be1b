"""Metrics against pytrec_eval, the official evaluation program bound to Python."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import mean

import pytest
import pytrec_eval

from reembed.quality.metrics import (
    judged_relevant,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
    success_at_k,
)
from reembed.quality.queries import judged_queries

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
K = 10
Judgements = dict[str, dict[str, int]]


def oracle(judgements: Judgements, rankings: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """pytrec_eval on rankings. It breaks ties of scores by id, descending, and we by corpus order,
    so it gets scores without ties: minus the rank."""
    evaluator = pytrec_eval.RelevanceEvaluator(
        judgements, {"recall_10", "ndcg_cut_10", "recip_rank", "success_10"}
    )
    runs = {query: {id: -float(rank) for rank, id in enumerate(ranked)}
            for query, ranked in rankings.items()}  # fmt: skip
    found: dict[str, dict[str, float]] = evaluator.evaluate(runs)
    return found


def ours(ranked: list[str], judged: dict[str, int]) -> dict[str, float]:
    relevant = judged_relevant(judged)
    return {
        "recall_10": recall_at_k(ranked, relevant, K),
        "ndcg_cut_10": ndcg_at_k(ranked, judged, K),
        "recip_rank": reciprocal_rank(ranked, relevant, K),
        "success_10": success_at_k(ranked, relevant, K),
    }


def check(judgements: Judgements, rankings: dict[str, list[str]]) -> None:
    for query, expected in oracle(judgements, rankings).items():
        assert ours(rankings[query], judgements[query]) == pytest.approx(expected, abs=1e-9), query


def test_made_rankings_equal_pytrec_eval():
    """Graded, negative and missing judgements, short rankings, more relevant than k."""
    chance = random.Random(1)
    ids = [f"d{number}" for number in range(60)]
    judgements, rankings = {}, {}
    for number in range(400):
        query = f"q{number}"
        judged = chance.sample(ids, chance.choice([1, 3, 12, 30]))
        judgements[query] = {id: chance.choice([-1, 0, 1, 2, 4]) for id in judged}
        judgements[query][judged[0]] = chance.choice([1, 3])
        rankings[query] = chance.sample(ids, chance.choice([1, 5, 10, 10]))
    check(judgements, rankings)


@pytest.mark.parametrize("name", ["cranfield", "cisi"])
def test_rankings_of_the_collections_equal_pytrec_eval(name: str):
    if not SHARED.exists():
        pytest.skip("../shared is not beside this checkout")
    judged = judged_queries(SHARED / name / "queries.jsonl", SHARED / name / "qrels.tsv")
    lines = (SHARED / name / "corpus.jsonl").read_text("utf-8").splitlines()
    corpus = [json.loads(line)["_id"] for line in lines]
    chance = random.Random(2)
    judgements = {id: dict(judged.judgements[id]) for id in judged.ids}
    rankings = {}
    for id in judged.ids:  # half of a ranking judged, half of it anything
        some = chance.sample(sorted(judgements[id]), min(5, len(judgements[id])))
        ranked = list(dict.fromkeys([*some, *chance.sample(corpus, 8)]))
        chance.shuffle(ranked)
        rankings[id] = ranked[:K]
    check(judgements, rankings)
    assert mean(ours(rankings[id], judgements[id])["recall_10"] for id in judged.ids) > 0


def test_a_query_without_relevant_items_says_nothing():
    with pytest.raises(ValueError, match="recall"):
        recall_at_k(["a"], set(), 10)
    with pytest.raises(ValueError, match="nDCG"):
        ndcg_at_k(["a"], {"a": 0, "b": -1}, 10)


def test_a_score_of_zero_or_less_is_not_relevant():
    assert judged_relevant({"a": 1, "b": 0, "c": -1, "d": 4}) == {"a", "d"}


def test_the_cut_off_holds():
    assert reciprocal_rank(["x", "y", "a"], {"a"}, 2) == 0
    assert success_at_k(["x", "y", "a"], {"a"}, 2) == 0
    assert recall_at_k(["a", "x", "b"], {"a", "b"}, 2) == 0.5
