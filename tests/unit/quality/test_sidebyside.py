from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from reembed.quality.search import Block, Hits, exact_search
from reembed.quality.sidebyside import overlap_gate, score_figures, shorten

IDS = [f"r{i:02d}" for i in range(60)]


def hits(seed: int, keys: Sequence[bytes] | None = None) -> Hits:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(60, 8)).astype(np.float32)
    keys = keys or [id.encode() for id in IDS]
    queries = chance.normal(size=(30, 8)).astype(np.float32)
    return exact_search(queries, [Block(IDS, keys, vectors)], 10, "cosine")


def texts(ids: Sequence[str]) -> dict[str, str]:
    return {id: f"the text of {id} " * 50 for id in ids if id != "r00"}


def test_the_queries_that_changed_most_come_first_and_are_few():
    queries = [f"query {i}" for i in range(30)]
    gate = overlap_gate(queries, hits(1), hits(2), 10, texts, "log")
    assert gate.status == "shown"
    most = gate.figures["most_changed"]
    assert len(most) == 20
    overlaps = [one["jaccard"] for one in most]
    assert overlaps == sorted(overlaps)
    assert all(len(one["old"]) == len(one["new"]) == 5 for one in most)
    assert all(len(answer["text"]) <= 100 for one in most for answer in one["new"])
    assert len(json.dumps(gate.figures)) < 60_000


def test_equal_texts_are_the_same_answer():
    gate = overlap_gate(
        ["q"] * 30, hits(1, [b"same"] * 60), hits(2, [b"same"] * 60), 10, texts, "log"
    )
    assert gate.figures["jaccard"]["mean"] == gate.figures["rbo"]["mean"] == 1


def test_scores_are_summed_up():
    figures = score_figures(hits(1).scores, "cosine")
    assert -1 <= figures["first"]["min"] <= figures["first"]["max"] <= 1
    assert sum(figures["all_histogram"]["counts"]) == 300


def test_texts_are_shown_on_one_short_line():
    assert shorten("a\n b\t c", 10) == "a b c"
    assert shorten("word " * 100, 12) == "word word w…"
