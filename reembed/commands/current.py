"""The model behind a collection today, as a rival of the candidates of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.applications.source_model import source_model
from reembed.commands.compare_task import Task
from reembed.embedders.evidence import SAMPLE, doubt, misfit
from reembed.embedders.registry import open_embedder
from reembed.errors import ReembedError
from reembed.manifest import Manifest
from reembed.quality.noninferiority import METRICS, Scores
from reembed.quality.statistics import Interval, mean_interval
from reembed.records import bad_rows, list_array_to_vectors
from reembed.stores.values import CollectionInfo

NEIGHBOURS = 16
"""HNSW's M where the index does not say; Chroma's and pgvector's default."""


@dataclass(frozen=True)
class Current:
    """The model behind the collection.

    Attributes:
        model: provider and name; empty where it is not known.
        dimensions: of its vectors; None where the store does not say.
        metrics: of each metric its mean with interval; empty where it could not be asked.
        index_bytes: of an HNSW index of all records.
        note: why it was not asked; empty where it was.
    """

    model: str
    dimensions: int | None
    metrics: dict[str, Interval]
    index_bytes: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model, "dimensions": self.dimensions, "index_bytes": self.index_bytes,
            "note": self.note,
            "metrics": {name: one.to_dict() for name, one in self.metrics.items()},
        }  # fmt: skip


def ask_current(manifest: Manifest, task: Task) -> tuple[Current, Scores | None]:
    """Ask the current model the queries of a comparison, and search the vectors that the collection
    has. Texts are not embedded again, but for a few that tell whether it is the right model.

    Returns:
        the model, and its scores; None where it could not be asked.
    """
    info = task.info
    size = index_bytes(info, info.dimensions or 0, {})
    model, note = source_model(manifest, info)
    if model is None:
        return Current("", info.dimensions, {}, size, _told(note)), None
    name = f"{model.provider} {model.name}"
    wrong = misfit(model, info.dimensions)
    if wrong:
        return Current(
            name, info.dimensions, {}, size, _told(f"the old model is given as {wrong}")
        ), None
    column = task.records.column("embedding").combine_chunks()
    usable = np.flatnonzero(np.asarray(column.value_lengths().fill_null(0)) == info.dimensions)
    try:
        with open_embedder(model, manifest.embed, manifest.base_dir) as embedder:
            if not len(usable):
                return Current(
                    name, info.dimensions, {}, size, _told("no record has a vector")
                ), None
            few = task.records.take(pa.array(usable[: 4 * SAMPLE])).combine_chunks()
            doubted = doubt(embedder, few.to_batches()[0], manifest.template())
            if doubted is not None:
                return Current(name, info.dimensions, {}, size, _told(doubted[0])), None
            queries = embedder.embed_queries(task.queries)
    except ReembedError as error:
        return Current(
            name, info.dimensions, {}, size, _told(f"it cannot be called ({error})")
        ), None
    vectors, _ = list_array_to_vectors(column.take(pa.array(usable)))
    fine = np.flatnonzero(~bad_rows(vectors))
    rows = usable[fine].tolist()
    scores = task.scores(rows, vectors[fine], queries, info.metric, manifest.verify.k)
    metrics = {one: mean_interval(scores[one], manifest.verify.confidence) for one in METRICS}
    return Current(name, info.dimensions, metrics, size), scores


def _told(why: str) -> str:
    return f"the current model was not compared: {why}"


def index_bytes(info: CollectionInfo, dimensions: int, settings: Mapping[str, Any]) -> int:
    """N · (4 d + 8 M + 12): vectors, 2 M neighbours of 4 bytes, count and label (hnswlib's level 0;
    the levels above add about 1 %).

    Args:
        settings: of the index, where they differ from the source's.
    """
    known = {**info.index, **settings}
    m = known.get("max_neighbors") or known.get("m") or NEIGHBOURS
    return int(info.count * (4 * dimensions + 8 * int(m) + 12))
