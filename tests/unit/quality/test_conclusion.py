"""What a verdict comes to in words: green only where it was shown to be good."""

from __future__ import annotations

from typing import Any

import pytest

from reembed.quality.conclusion import Tone, conclude, signed
from reembed.quality.remedies import remedies
from reembed.quality.verdict import Gate, Status, Verdict


def verdict(*gates: Gate) -> Verdict:
    return Verdict("r", 1, gates)


def recall(status: Status, low: float, high: float, **figures: Any) -> Gate:
    span = {"mean": round((low + high) / 2, 6), "low": low, "high": high}
    common = {"difference": span, "margin": 0.02, "queries": 300, "k": 10, "kind": "known-item",
              "old": 0.9, "new": 0.9}  # fmt: skip
    return Gate("recall", status, "", common | figures)


INTEGRITY = Gate("integrity", "pass", "", {"quarantined": 0, "records": 5, "loaded": 5})


@pytest.mark.parametrize(
    ("gate", "tone", "words"),
    [
        (recall("pass", 0.01, 0.03), "good", "safe to swap; search quality is better (+0.020)"),
        (recall("pass", -0.01, 0.02), "good",
         "safe to swap; search quality is as good as before (+0.005)"),
        (recall("pass", -0.016, -0.004), "good",
         "safe to swap; search quality is slightly worse, within the 0.02 that you allow (-0.010)"),
        (recall("shown", -0.08, -0.026), "caution",
         "safe to swap; search quality is likely a little worse (-0.053)"),
        (recall("shown", -0.3, -0.05), "caution",
         "safe to swap; search quality is likely worse (-0.175)"),
        (recall("shown", -0.05, 0.01), "caution",
         "safe to swap; search quality may be a little worse (-0.020)"),
        (recall("shown", -0.03, 0.05), "caution",
         "safe to swap; search quality is probably as good (+0.010)"),
        (recall("shown", -0.3, 0.3, queries=40), "caution",
         "safe to swap; 40 questions are too few to compare search quality"),
        (Gate("recall", "shown", "", {"old_model": "unknown"}), "caution",
         "safe to swap; search quality was not compared with the old model's"),
        (recall("pass", -0.01, 0.01, metrics={"ndcg": {"difference": {"high": -0.1}}}), "caution",
         "safe to swap; the right answers are found as often, but further down the list"),
        (recall("fail", -0.3, -0.2), "bad", "the swap is refused: search is worse than before"),
        (recall("inconclusive", -0.1, 0.1), "bad",
         "the swap is refused: it is not proven that search is as good as before"),
    ],
)  # fmt: skip
def test_search_in_words(gate: Gate, tone: Tone, words: str) -> None:
    found = conclude(verdict(INTEGRITY, gate))
    assert (found.tone, found.headline) == (tone, words)


def test_records_left_out_are_said() -> None:
    fine = recall("pass", 0.0, 0.0)
    gate = Gate("integrity", "pass", "", {"quarantined": 1200})
    found = conclude(verdict(gate, fine))
    assert found.tone == "caution"
    assert found.headline.startswith("safe to swap without 1,200 records that could not be moved; ")
    over = Gate("integrity", "fail", "", {"quarantined": 3, "allow_quarantined": 0, "records": 5,
                                          "loaded": 2})  # fmt: skip
    found = conclude(verdict(over, fine))
    assert (found.tone, found.headline) == (
        "bad", "the swap is refused: 3 records could not be moved"
    )  # fmt: skip
    assert conclude(verdict(INTEGRITY)).headline == "safe to swap"


def test_zero_has_no_sign() -> None:
    assert [signed(value) for value in (-0.0001, 0.0004, 0.0, -0.053)] == [
        "0.000", "0.000", "0.000", "-0.053"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "does", "command"),
    [
        (Gate("integrity", "fail", "", {"quarantined": 3, "allow_quarantined": 1}),
         "set verify.allow_quarantined: 3", "reembed run m.yaml"),
        (Gate("integrity", "fail", "", {"missing": 2}), "from the run's own files",
         "reembed run m.yaml"),
        (Gate("integrity", "fail", "", {"embedded from another text": 2}), "anew",
         "reembed run m.yaml --restart"),
        (Gate("opening", "fail", "", {}), "target.embedding_function: none",
         "reembed run m.yaml --restart"),
        (Gate("fidelity", "fail", "", {"tail": {"seen": False}}), "model.max_tokens",
         "reembed run m.yaml --restart"),
        (Gate("fidelity", "fail", "", {}), "embed.cache: false", "reembed run m.yaml --restart"),
        (Gate("index", "fail", "", {"limit": 0.95, "deeper": [{"asked": 40, "recall": 0.97}]}),
         "target.index.ef_search: 40", "reembed run m.yaml --restart"),
        (Gate("index", "fail", "", {"limit": 0.95, "settings": {"max_neighbors": 16}}),
         "target.index.max_neighbors: 32", "reembed run m.yaml --restart"),
        (Gate("index", "fail", "", {"limit": 0.95, "settings": {"type": "hnsw", "m": 60}}),
         "target.index.m: 100", "reembed run m.yaml --restart"),
        (Gate("index", "fail", "", {"limit": 0.95, "settings": {"type": "hnsw"},
                                    "deeper": [{"asked": 80, "recall": 0.97}]}),
         "SET hnsw.ef_search = 80", "reembed verify m.yaml"),
        (Gate("index", "fail", "", {"limit": 0.95, "settings": {"type": "ivfflat"}}),
         "set target.index.type: hnsw", "reembed run m.yaml --restart"),
        (recall("fail", -0.3, -0.2), "model.query_prefix", "reembed run m.yaml --restart"),
        (recall("inconclusive", -0.1, 0.1, queries_to_settle=900), "about 900 decide it",
         "reembed verify m.yaml"),
        (recall("inconclusive", -0.1, 0.1, queries=9), "at least 100 queries",
         "reembed verify m.yaml"),
        (Gate("recall", "inconclusive", ""), "source.model", "reembed verify m.yaml"),
        (Gate("late writes", "fail", ""), "", "reembed sweep m.yaml"),
        (Gate("verdict", "fail", ""), "", "reembed verify m.yaml"),
    ],
)  # fmt: skip
def test_a_gate_that_fails_names_what_helps(gate: Gate, does: str, command: str) -> None:
    first = remedies(verdict(gate), "m.yaml")[0]
    assert does in first.does and first.command == command
    assert first.command in str(first)


def test_a_margin_that_is_named_lets_the_same_difference_pass() -> None:
    *_, accepting = remedies(verdict(recall("fail", -0.2774, -0.15)), "m.yaml")
    assert "verify.margin: 0.278" in accepting.does


def test_a_verdict_that_passes_needs_nothing() -> None:
    assert remedies(verdict(INTEGRITY, recall("pass", 0, 0)), "m.yaml") == []
