from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from reembed.quality import search
from reembed.quality.search import (
    Block,
    Question,
    exact_search,
    exact_searches,
)
from reembed.records import Metric


def made(n: int = 300, d: int = 8, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    chance = np.random.default_rng(seed)
    return chance.normal(size=(n, d)).astype(np.float32), [f"r{i:03d}" for i in range(n)]


def blocks(vectors: np.ndarray, ids: list[str], size: int) -> list[Block]:
    return [
        Block(ids[s : s + size], [i.encode() for i in ids[s : s + size]], vectors[s : s + size])
        for s in range(0, len(ids), size)
    ]


def distances(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return np.asarray(((q[:, None] - v[None]) ** 2).sum(axis=2))
    dots = np.asarray(q @ v.T)
    if metric == "cosine":
        dots /= np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(v, axis=1)[None]
    return -dots


@pytest.mark.parametrize("metric", get_args(Metric))
@pytest.mark.parametrize("size", [7, 300])
def test_it_finds_the_nearest_by_every_metric(metric: Metric, size: int):
    vectors, ids = made()
    queries, _ = made(20, seed=2)
    hits = exact_search(queries, blocks(vectors, ids, size), 10, metric)
    order = np.argsort(distances(queries, vectors, metric), axis=1)[:, :10]
    assert hits.ranked_ids() == [[ids[place] for place in row] for row in order]
    assert hits.ranked_keys()[0][0] == hits.ranked_ids()[0][0].encode()


@pytest.mark.parametrize("size", [1, 3, 50])
def test_ties_come_in_corpus_order_however_it_is_cut(size: int):
    vectors = np.ones((50, 4), np.float32)
    vectors[20:] *= 2  # the same direction
    ids = [f"r{i:02d}" for i in range(50)]
    hits = exact_search(vectors[:1], blocks(vectors, ids, size), 10, "cosine")
    assert hits.ranked_ids() == [ids[:10]]


def test_the_parts_of_a_block_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    vectors, ids = made()
    whole = exact_search(vectors[:9], blocks(vectors, ids, 300), 5, "l2")
    monkeypatch.setattr(search, "CELLS", 9 * 11)
    parts = exact_search(vectors[:9], blocks(vectors, ids, 300), 5, "l2")
    assert whole.ranked_ids() == parts.ranked_ids()


def test_a_small_corpus_leaves_places_empty():
    vectors, ids = made(3)
    hits = exact_search(vectors, blocks(vectors, ids, 2), 10, "ip")
    assert [len(row) for row in hits.ranked_ids()] == [3, 3, 3]
    assert np.isneginf(hits.scores[:, 3:]).all()
    assert exact_search(vectors, [], 4, "ip").ranked_ids() == [[], [], []]


def test_several_questions_read_every_block_once():
    vectors, ids = made()
    queries, _ = made(4, seed=4)
    read: list[int] = []

    def once() -> Iterator[Block]:
        for block in blocks(vectors, ids, 50):
            read.append(len(block.ids))
            yield block

    questions = [Question(queries, 7, metric) for metric in get_args(Metric)]
    found = exact_searches(once(), questions)
    assert len(read) == 6
    for question, hits in zip(questions, found, strict=True):
        alone = exact_search(queries, [Block(ids, [b""] * 300, vectors)], 7, question.metric)
        assert hits.ranked_ids() == alone.ranked_ids()
