"""An index's answers, judged by exact ones: right, missed, tied, and in another order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from reembed.quality.answers import DEEPER, Judge
from reembed.quality.search import Block, exact_search
from reembed.records import Metric, Vectors

VECTORS = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
IDS = [f"r{i:03d}" for i in range(200)]
QUERIES = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)


class Looked:
    """Looks vectors up, and remembers for what."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors, self.ids = vectors, set[str]()

    def __call__(self, ids: set[str]) -> Mapping[str, Vectors]:
        self.ids |= ids
        return {id: self.vectors[IDS.index(id)] for id in sorted(ids) if id in IDS}


def judge(
    vectors: Vectors = VECTORS, k: int = 10, metric: Metric = "cosine"
) -> tuple[Judge, Looked]:
    blocks = [Block(IDS[s : s + 64], [b""] * len(IDS[s : s + 64]), vectors[s : s + 64])
              for s in range(0, 200, 64)]  # fmt: skip
    looked = Looked(vectors)
    exact = exact_search(QUERIES, blocks, DEEPER * k, metric)
    return Judge(QUERIES, exact, metric, looked), looked


def recalls(answers: list[list[str]], vectors: Vectors = VECTORS) -> list[float]:
    judging, _ = judge(vectors)
    found = judging.of(np.arange(len(answers))).recalls(answers, 10)
    return [float(one) for one in found]


def right(k: int = 10) -> list[list[str]]:
    return judge()[0].exact.first(k).ranked_ids()


def test_the_nearest_are_right_in_any_order():
    assert recalls(right()) == [1.0] * 5
    assert recalls([row[::-1] for row in right()]) == [1.0] * 5


def test_what_is_left_out_or_unknown_is_a_miss():
    assert recalls([right()[0][:7]]) == [0.7]
    assert recalls([[*right()[0][:8], "stranger", "other"]]) == [0.8]
    assert recalls([[*right()[0][:8], *right(20)[0][10:12]]]) == [0.8]
    assert recalls([[]]) == [0.0]


def test_a_miss_is_told_without_a_look_at_its_vector():
    judging, looked = judge()
    far = [id for id in IDS if id not in right(20)[0]][:5]
    assert judging.recalls([[*right()[0][:5], *far], *right()[1:]], 10)[0] == 0.5
    assert not looked.ids


def test_equally_near_records_stand_for_each_other_however_many_they_are():
    vectors = VECTORS.copy()
    vectors[100:150] = vectors[0] = QUERIES[0]
    assert recalls([IDS[140:150]], vectors) == [1.0]
    assert recalls([[*IDS[140:149], right()[0][-1]]], vectors)[0] == pytest.approx(0.9)
    judging, looked = judge(vectors)
    judging.of(np.arange(1)).recalls([IDS[140:150]], 10)
    assert looked.ids == {*IDS[140:150]}, "the exact search did not go deep enough to know them"


def test_a_store_of_fewer_records_than_are_looked_for_has_no_ties_to_look_up():
    looked = Looked(VECTORS)
    exact = exact_search(QUERIES, [Block(IDS[:12], [b""] * 12, VECTORS[:12])], 20, "cosine")
    judging = Judge(QUERIES, exact, "cosine", looked)
    assert (
        judging.recalls([["stranger", *exact.ids[row, :9]] for row in range(5)], 10).tolist()
        == [0.9] * 5
    )
    assert not looked.ids


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_answers_of_the_same_metric_are_in_order_and_those_of_another_are_not(
    metric: Metric,
) -> None:
    judging, _ = judge(VECTORS * np.linspace(0.5, 2, 200, dtype=np.float32)[:, None], 40, metric)
    own = judging.exact.first(10).ranked_ids()
    assert judging.in_order(own)
    assert not judging.in_order([row[::-1] for row in own])
    gaps = [[row[0], "stranger", *row[1:]] for row in own]
    assert not judging.in_order(gaps), "what is further than all that are known comes last"
    assert judging.in_order([[*row[:2], "a", "b", "c"] for row in own]) is None


def test_an_empty_collection_has_nothing_to_miss():
    exact = exact_search(QUERIES, [], 20, "cosine")
    judging = Judge(QUERIES, exact, "cosine", Looked(VECTORS))
    assert judging.recalls([[] for _ in QUERIES], 0).tolist() == [1.0] * 5
