"""Exact search over the shards of a run, block by block, so that memory does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reembed.records import Metric, Vectors, unit


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
        scores: `(q, k) float32`, larger is nearer.
    """

    ids: npt.NDArray[np.object_]
    keys: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float32]


def similarity(queries: Vectors, vectors: Vectors, metric: Metric) -> npt.NDArray[np.float32]:
    """`(q, n) float32`, larger is nearer: cosine, inner product, or minus squared distance.

    For cosine both sides must have length one already.
    """
    products: npt.NDArray[np.float32] = queries @ vectors.T
    if metric != "l2":
        return products
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    # The query's own length is the same for all of its answers, so it is left out.
    distances: npt.NDArray[np.float32] = 2 * products - lengths[None, :]
    return distances


def exact_search(queries: Vectors, blocks: Iterable[Block], k: int, metric: Metric) -> Hits:
    """Search every block and keep the best k of each query, `(q, d) float32` against all."""
    if metric == "cosine":
        queries = unit(queries)
    count = len(queries)
    scores = np.full((count, k), -np.inf, np.float32)
    ids = np.full((count, k), "", object)
    keys = np.full((count, k), b"", object)
    for block in blocks:
        if not len(block.vectors):
            continue
        vectors = unit(block.vectors) if metric == "cosine" else block.vectors
        found = similarity(queries, vectors, metric)
        block_ids = np.array(block.ids, object)
        block_keys = np.empty(len(block.keys), object)
        block_keys[:] = block.keys
        kept = min(k, found.shape[1])
        near = np.argpartition(-found, kept - 1, axis=1)[:, :kept]
        near.sort(axis=1)
        all_scores = np.concatenate([scores, np.take_along_axis(found, near, axis=1)], axis=1)
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(all_scores, order, axis=1)
        ids = np.take_along_axis(np.concatenate([ids, block_ids[near]], axis=1), order, axis=1)
        keys = np.take_along_axis(np.concatenate([keys, block_keys[near]], axis=1), order, axis=1)
    return Hits(ids, keys, scores)
