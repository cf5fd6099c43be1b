from __future__ import annotations

import numpy as np
import pytest

from reembed.quality.noninferiority import Comparison, Kind, Scores, recall_gate, score


def scores(recall: np.ndarray, ndcg: np.ndarray | None = None) -> Scores:
    return Scores(recall, recall if ndcg is None else ndcg, recall, recall)


def compared(
    new: np.ndarray, old: np.ndarray | None, kind: Kind = "judged", note: str = ""
) -> Comparison:
    sides = scores(new), scores(old) if old is not None else None
    return Comparison(kind, 10, 0.02, 0.95, *sides, note)


def hits(share: float, n: int = 1_000, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(np.float64)


OLD = hits(0.8)


def loses(share: float, n: int = 1_000) -> tuple[np.ndarray, np.ndarray]:
    """New and old recall: the new loses a share of the queries and wins none."""
    lost = hits(share, n, seed=2).astype(bool)
    return np.where(lost, 0.0, OLD[:n]), OLD[:n]


@pytest.mark.parametrize("kind", ["judged", "known-item"])
def test_pass_and_fail_are_the_same_for_both_kinds(kind: Kind):
    assert recall_gate(compared(OLD, OLD, kind)).status == "pass"
    assert recall_gate(compared(*loses(0.2), kind)).status == "fail"


def test_known_items_alone_refuse_only_a_model_that_loses_much_of_them():
    new, old = loses(0.08)
    assert recall_gate(compared(new, old)).status == "fail"
    known = recall_gate(compared(new, old, "known-item"))
    assert known.status == "shown"
    assert "judged queries" in known.message


def test_an_open_question_says_how_many_queries_would_settle_it():
    new, old = loses(0.025, 300)
    judged = recall_gate(compared(new, old))
    assert judged.status == "inconclusive"
    assert "inconclusive: the difference lies between" in judged.message
    assert "would decide it" in judged.message
    assert judged.figures["queries_to_settle"] > 300
    known = recall_gate(compared(new, old, "known-item"))
    assert known.status == "shown"
    assert "judged ones" in known.message


def test_fewer_than_100_queries_are_refused():
    few = OLD[:99]
    assert recall_gate(compared(few, few)).status == "inconclusive"
    assert recall_gate(compared(few, few, "known-item")).status == "shown"
    assert "at least 100" in recall_gate(compared(few, few)).message


def test_without_the_old_model_nothing_is_pretended():
    judged = recall_gate(compared(OLD, None, note="the old model is gone"))
    assert judged.status == "inconclusive"
    assert "the old model is gone" in judged.message
    assert "verify.qrels" in judged.message
    assert recall_gate(compared(OLD, None, "known-item", "gone")).status == "shown"
    assert "old" not in judged.figures["metrics"]["recall"]


def test_a_worse_order_of_what_is_found_is_told():
    gate = recall_gate(
        Comparison("judged", 10, 0.02, 0.95, scores(OLD, OLD * 0.7), scores(OLD, OLD))
    )
    assert gate.status == "pass"
    assert "nDCG@10 is worse" in gate.message


def test_a_model_that_is_worse_by_the_margin_seldom_passes():
    passed = 0
    for seed in range(400):
        chance = np.random.default_rng(seed)
        change = chance.choice([-1.0, 0, 1], 225, p=[0.05, 0.92, 0.03])
        old = np.where(change < 0, 1.0, 0.0)
        passed += recall_gate(compared(old + change, old)).status == "pass"
    assert passed / 400 <= 0.05


def test_figures_are_bounded_and_complete():
    gate = recall_gate(compared(*loses(0.05)), {"more": 1}, {"lost most": ["a query"]})
    figures = gate.figures
    assert figures["better"] + figures["equal"] + figures["worse"] == figures["queries"] == 1_000
    assert sum(figures["differences"]["counts"]) == 1_000
    assert set(figures["metrics"]) == {"recall", "ndcg", "mrr", "success"}
    assert set(figures["metrics"]["mrr"]) == {"new", "old", "difference"}
    assert (figures["more"], gate.samples) == (1, {"lost most": ["a query"]})


def test_rankings_are_scored_query_by_query():
    found = score([["a", "b"], ["x"]], [{"b": 2, "c": 1}, {"x": 1}], 2)
    assert found.recall.tolist() == [0.5, 1.0]
    assert found.mrr.tolist() == [0.5, 1.0]
    assert found.success.tolist() == [1.0, 1.0]
    assert found["ndcg"][1] == 1.0
    assert len(score([], [], 10).recall) == 0
