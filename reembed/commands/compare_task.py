"""What every candidate of a comparison is given: records of the source, and queries with the
answers that are right."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.quality.metrics import judged_relevant
from reembed.quality.noninferiority import Kind, Scores, score
from reembed.quality.queries import JudgedQueries, judged_queries, known_item_query
from reembed.quality.search import Block, exact_search
from reembed.records import SHARD_ROWS, Metric, Vectors, chunked, text_hash
from reembed.stages.refusals import refuse_empty
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

MOST_QUERIES = 1_000


@dataclass(frozen=True)
class Task:
    """See the module.

    Attributes:
        records: as export shards have them, with their present vectors.
        keys: text hash of each record.
    """

    info: CollectionInfo
    records: pa.Table
    keys: list[bytes]
    kind: Kind
    queries: list[str]
    judgements: list[Mapping[Any, int]]

    @property
    def ids(self) -> list[str]:
        """Record ids, in the order of `records`."""
        ids: list[str] = self.records.column("id").to_pylist()
        return ids

    def scores(
        self, rows: list[int], vectors: Vectors, queries: Vectors, metric: Metric, k: int
    ) -> Scores:
        """How well exact search among these records answers the queries.

        Args:
            rows: of `records`, one for each vector.
            vectors: `(n, d) float32`.
            queries: `(q, d) float32`.
        """
        ids = self.ids
        block = Block([ids[row] for row in rows], [self.keys[row] for row in rows], vectors)
        hits = exact_search(queries, [block], k, metric)
        rankings: list[list[Any]] = (
            [list(row) for row in hits.ranked_ids()]
            if self.kind == "judged"
            else [list(dict.fromkeys(row)) for row in hits.ranked_keys()]
        )
        return score(rankings, self.judgements, k)


def make_task(store: Store, manifest: Manifest, sample: int, seed: int) -> Task:
    """Choose records, and judged queries where the manifest names some, else known items.

    Raises:
        PreflightError: the source is empty, or judged queries and source do not fit.
    """
    info = store.resolve(manifest.source.collection)
    where = manifest.source.where
    ids = _sample_ids(store, info, where, sample, seed)
    refuse_empty(info, where, len(ids))
    verify = manifest.verify
    judged: JudgedQueries | None = None
    if verify.queries and verify.qrels:
        judged = judged_queries(Path(verify.queries), Path(verify.qrels))
        relevant = {
            id for query in judged.ids for id, s in judged.judgements[query].items() if s > 0
        }
        ids = sorted({*ids, *relevant})
    batches = [store.reader.fetch(info.id, part, vectors=True, where=where)
               for part in chunked(ids, SHARD_ROWS)]  # fmt: skip
    records = pa.Table.from_batches(batches)
    texts = manifest.template().texts_of(records)
    keys = [text_hash(text) for text in texts]
    if judged is not None:
        return _judged_task(info, records, keys, judged)
    generator = random.Random(seed)  # noqa: S311  (a sample, no secret)
    usable = [row for row, text in enumerate(texts) if text.strip()]
    asked = sorted(generator.sample(usable, min(len(usable), MOST_QUERIES)))
    queries = [known_item_query(texts[row], generator).text for row in asked]
    return Task(info, records, keys, "known-item", queries, [{keys[row]: 1} for row in asked])


def _judged_task(
    info: CollectionInfo, records: pa.Table, keys: list[bytes], judged: JudgedQueries
) -> Task:
    here = set(records.column("id").to_pylist())
    kept = [row for row, id in enumerate(judged.ids)
            if here & judged_relevant(judged.judgements[id])]  # fmt: skip
    if not kept:
        raise PreflightError(
            f"no record judged relevant is in {info.name!r}",
            "Check that verify.qrels uses the ids of this collection.",
        )
    return Task(
        info, records, keys, "judged", [judged.texts[row] for row in kept],
        [judged.judgements[judged.ids[row]] for row in kept],
    )  # fmt: skip


def _sample_ids(
    store: Store,
    info: CollectionInfo,
    where: Mapping[str, Any] | str | None,
    sample: int,
    seed: int,
) -> list[str]:
    """A random sample, the same for the same seed whatever the order in which ids come."""
    salt = seed.to_bytes(8, "big", signed=True)

    def rank(id: str) -> bytes:
        return hashlib.blake2b(id.encode(), digest_size=8, salt=salt).digest()

    listed = (id for page in store.reader.list_ids(info.id, where) for id in page.to_pylist())
    return sorted(heapq.nsmallest(sample, listed, key=rank))
