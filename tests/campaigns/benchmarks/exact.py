"""Exact search of 1,000 queries over all vectors, against bare numpy over the same files.

    python -m tests.campaigns.benchmarks.exact [--records 1000000] [--dimensions 384] [--keep]

The bare limit multiplies each block by the queries and keeps ten columns of the product by
`argpartition`; it knows no ids, no ties and no texts that are equal, which a verdict needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work

Array = np.ndarray[Any, Any]
BLOCK = 2_000
QUERIES = 1_000
K = 10


def build(work: Work) -> None:
    """Vectors of length one in files of `BLOCK` rows, and queries."""
    chance = np.random.default_rng(0)
    for start in range(0, work.records, BLOCK):
        np.save(work.folder / f"block-{start}.npy", _vectors(chance, BLOCK, work.dimensions))
    np.save(work.folder / "queries.npy", _vectors(chance, QUERIES, work.dimensions))


def _vectors(chance: np.random.Generator, rows: int, dimensions: int) -> Array:
    vectors: Array = chance.standard_normal((rows, dimensions), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _blocks(work: Work) -> Iterator[tuple[int, Array]]:
    for start in range(0, work.records, BLOCK):
        yield start, np.load(work.folder / f"block-{start}.npy")


def bare(work: Work) -> None:
    queries = np.load(work.folder / "queries.npy")
    scores: Array = np.zeros((QUERIES, 0), np.float32)
    places: Array = np.zeros((QUERIES, 0), np.int64)
    for start, vectors in _blocks(work):
        found = queries @ vectors.T
        near = np.argpartition(-found, K - 1, axis=1)[:, :K]
        scores = np.concatenate([scores, np.take_along_axis(found, near, axis=1)], axis=1)
        places = np.concatenate([places, near + start], axis=1)
        kept = np.argsort(-scores, axis=1)[:, :K]
        scores, places = (np.take_along_axis(one, kept, axis=1) for one in (scores, places))
    np.save(work.folder / "bare.npy", places)


def exact(work: Work) -> None:
    from reembed.quality.search import Block, exact_search

    queries = np.load(work.folder / "queries.npy")

    def blocks() -> Iterator[Block]:
        for start, vectors in _blocks(work):
            names = [str(start + row) for row in range(BLOCK)]
            yield Block(names, [name.encode() for name in names], vectors)

    hits = exact_search(queries, blocks(), K, "cosine")
    found = np.array(hits.ranked_ids()).astype(np.int64)
    assert (found == np.load(work.folder / "bare.npy")).mean() > 0.999, (
        "another answer than numpy's"
    )


BENCHMARK = Benchmark(
    steps={"bare numpy": bare, "exact search": exact},
    claims=[
        Claim("exact search", f"exact search of {QUERIES:,} queries / bare numpy",
              ["exact search"], ["bare numpy"]),
        Claim("exact search, processor", f"exact search of {QUERIES:,} queries / bare numpy, CPU",
              ["exact search"], ["bare numpy"], figure="cpu_seconds"),
        Claim("exact search, peak memory", "MB of such a search", ["exact search"],
              figure="peak_mb", bar=500),
    ],
    prepare=build,
    records=1_000_000,
    imports=("numpy",),
    own_imports=("reembed.quality.search",),
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
