"""A whole migration of vectors that lie in clusters, as those of real texts do.

    python -m tests.campaigns.benchmarks.whole_clusters [--records 20000] [--dimensions 384]

The steps and claims of `whole`, on other vectors. There they are random in every direction, which
an HNSW index finds worst, so the verdict looks for the reason as well. Here each text belongs to
one of 200 topics, and its vector is the topic's, random, plus what is its own: random too, of 0.7
times the length, in 32 directions that all topics share. So do embeddings of texts lie: near each
other by topic, and in far fewer directions than they have dimensions.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from tests.campaigns.benchmarks import whole
from tests.campaigns.benchmarks.measuring import Claim, Work
from tests.campaigns.benchmarks.scene import (
    PAGE,
    client,
    migration,
    stage_steps,
    texts,
    whole_step,
)

TOPICS, DIRECTIONS, OWN = 200, 32, 0.7


@functools.cache
def _space(dimensions: int) -> tuple[Any, Any]:
    """The topics' vectors, and the directions that they share, of length one each."""
    chance = np.random.default_rng(dimensions)
    found = [chance.standard_normal((rows, dimensions)) for rows in (TOPICS, DIRECTIONS)]
    topics, directions = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in found)
    return topics, directions


def clustered(written: list[str], dimensions: int) -> Any:
    """`(n, dimensions) float32`, of length one; the same for the same text."""
    topics, directions = _space(dimensions)
    seeds = [zlib.crc32(text.encode()) for text in written]
    own = np.stack([np.random.default_rng(seed).standard_normal(DIRECTIONS) for seed in seeds])
    own *= OWN / np.linalg.norm(own, axis=1, keepdims=True)
    vectors = topics[[seed % TOPICS for seed in seeds]] + own @ directions
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def embed_384(written: list[str]) -> Any:
    return clustered(written, 384)


def embed_1536(written: list[str]) -> Any:
    return clustered(written, 1536)


def build(work: Work) -> None:
    """The source `docs`, as `scene.build` has it, but for its vectors: another model's, which has a
    dimension less."""
    collection = client(work.folder).create_collection("docs", embedding_function=None)
    written = texts(work.records)
    for start in range(0, work.records, PAGE):
        rows = range(start, min(start + PAGE, work.records))
        page = [next(written) for _ in rows]
        collection.add(
            ids=[f"id{row}" for row in rows], documents=page,
            metadatas=[{"n": row, "half": row / 2} for row in rows],
            embeddings=clustered(page, work.dimensions - 1),
        )  # fmt: skip


def _moved(of: Any) -> Any:
    """`of`, by the clustered model."""

    def moved(work: Work, **changes: Any) -> Any:
        name, dimensions = f"{__spec__.name}:embed_{work.dimensions}", work.dimensions
        model = {"provider": "python", "name": name, "dimensions": dimensions}
        return of(work, model=model, **changes)

    return moved


def _named(claim: Claim) -> Claim:
    return replace(claim, key=f"clusters, {claim.key}", says=f"clustered vectors: {claim.says}")


def _whole(work: Work) -> None:
    whole_step(_moved(migration))(whole.own(work, "whole"))


BENCHMARK = replace(
    whole.BENCHMARK,
    steps={"copies": whole.copies} | stage_steps(_moved(whole.staged)) | {"whole": _whole},
    claims=[_named(claim) for claim in whole.BENCHMARK.claims if not claim.less],
    prepare=build,
)

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
