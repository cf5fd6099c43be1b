"""Exact search over the shards of a run, block by block, so that memory does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reembed.records import Metric, Vectors, unit

CELLS = 4_000_000
"""Scores held at a time: 16 MB of float32, and four times that to find the first best of all."""
FEW = 128
"""Records of a block that may be better than the k-th best so far, of any query, for them to be
picked out one by one."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """A part of the corpus.

    Attributes:
        ids: of its records.
        keys: hash of each record's text: records of equal text are the same answer.
        vectors: `(n, d) float32`.
    """

    ids: Sequence[str]
    keys: Sequence[bytes]
    vectors: Vectors


@dataclass(frozen=True)
class Hits:
    """The k nearest of each query, nearest first; ties by corpus order.

    Attributes:
        ids: `(q, k)` record ids; empty text where the corpus has fewer than k.
        keys: `(q, k)` text hashes.
        scores: `(q, k) float32`, larger is nearer; minus infinity where there is no record.
    """

    ids: npt.NDArray[np.object_]
    keys: npt.NDArray[np.object_]
    scores: Scores

    def rows(self, rows: slice | npt.NDArray[np.intp]) -> Hits:
        """The hits of some of the queries."""
        return Hits(self.ids[rows], self.keys[rows], self.scores[rows])

    def first(self, k: int) -> Hits:
        """The first `k` of each query."""
        return Hits(self.ids[:, :k], self.keys[:, :k], self.scores[:, :k])

    def ranked_ids(self) -> list[list[str]]:
        """The ids of each query, without the empty places of a small corpus."""
        return [[id for id in row if id] for row in self.ids]

    def ranked_keys(self) -> list[list[bytes]]:
        """The text hashes of each query, likewise."""
        return [[key for key in row if key] for row in self.keys]


def similarity(queries: Vectors, vectors: Vectors, metric: Metric) -> Scores:
    """`(q, n) float32`, larger is nearer: cosine, inner product, or minus squared distance.

    For cosine both sides must have length one already. The query's own squared length, the same for
    all of its answers, is left out of the distance.
    """
    products: Scores = queries @ vectors.T
    if metric != "l2":
        return products
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    distances: Scores = 2 * products - lengths[None, :]
    return distances


@dataclass(frozen=True)
class Question:
    """One search of several over the same blocks: `queries` is `(q, d) float32`."""

    queries: Vectors
    k: int
    metric: Metric


def exact_searches(blocks: Iterable[Block], questions: Sequence[Question]) -> list[Hits]:
    """Search every block, which is read once, and keep the best k of each query of each question:
    `(q, d) float32` against all."""
    searches = [_Search(one) for one in questions]
    by_cosine = any(search.metric == "cosine" for search in searches)
    for block in blocks:
        units = unit(block.vectors) if by_cosine else block.vectors
        for search in searches:
            vectors = units if search.metric == "cosine" else block.vectors
            step = max(1, CELLS // max(1, search.size))
            for start in range(0, len(block.ids), step):
                part = slice(start, start + step)
                search.add(block.ids[part], block.keys[part], vectors[part])
    return [search.hits() for search in searches]


def exact_search(queries: Vectors, blocks: Iterable[Block], k: int, metric: Metric) -> Hits:
    """`exact_searches` of one question."""
    (hits,) = exact_searches(blocks, [Question(queries, k, metric)])
    return hits


class _Search:
    """The best k so far."""

    def __init__(self, question: Question) -> None:
        queries, k, metric = question.queries, question.k, question.metric
        if metric == "cosine":
            queries = unit(queries)
        count = self.size = len(queries)
        self._queries, self._k, self.metric = queries, k, metric
        self._scores = np.full((count, k), -np.inf, np.float32)
        self._ids = np.full((count, k), "", object)
        self._keys = np.full((count, k), b"", object)

    def add(self, ids: Sequence[str], keys: Sequence[bytes], vectors: Vectors) -> None:
        """Search some records; for cosine their vectors have length one already."""
        found = similarity(self._queries, vectors, self.metric)
        block_ids, block_keys = _objects(ids), _objects(keys)
        near, best = self._better(found)
        scores = np.concatenate([self._scores, best], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._k]
        self._scores = np.take_along_axis(scores, order, axis=1)
        self._ids = _pick(self._ids, block_ids[near], order)
        self._keys = _pick(self._keys, block_keys[near], order)

    def _better(self, found: Scores) -> tuple[npt.NDArray[np.intp], Scores]:
        """Columns of those that may be among the best, in corpus order, and their scores. Once
        there are k for each query only what is better than the k-th counts, which few are."""
        last = self._scores[:, -1:] if self._k else self._scores
        if self._k and np.isfinite(last).all():
            rows, columns = np.nonzero(found > last)
            counts = np.bincount(rows, minlength=len(found))
            width = int(counts.max(initial=0))
            if width <= FEW:
                places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
                near = np.zeros((len(found), width), np.intp)
                best = np.full((len(found), width), -np.inf, np.float32)
                near[rows, places] = columns
                best[rows, places] = found[rows, columns]
                return near, best
        near = _first_of_best(found, min(self._k, found.shape[1]))
        return near, np.take_along_axis(found, near, axis=1)

    def hits(self) -> Hits:
        return Hits(self._ids, self._keys, self._scores)


def _first_of_best(found: Scores, kept: int) -> npt.NDArray[np.intp]:
    """Columns of the `kept` best of each row in corpus order; of equals the first in the corpus.

    `argpartition` picks among those that tie with the last one as it likes, so they are picked
    again: all that are better, then the first of the equals.
    """
    if kept == found.shape[1]:
        return np.broadcast_to(np.arange(kept), found.shape)
    near = np.argpartition(-found, kept - 1, axis=1)[:, :kept]
    near.sort(axis=1)
    last = np.take_along_axis(found, near, axis=1).min(axis=1)
    tied = (found >= last[:, None]).sum(axis=1) > kept
    for row in np.flatnonzero(tied):
        better = np.flatnonzero(found[row] > last[row])
        equal = np.flatnonzero(found[row] == last[row])[: kept - len(better)]
        near[row] = np.sort(np.concatenate([better, equal]))
    return near


def _objects(values: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _pick(
    kept: npt.NDArray[np.object_], new: npt.NDArray[np.object_], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.object_]:
    return np.take_along_axis(np.concatenate([kept, new], axis=1), order, axis=1)
