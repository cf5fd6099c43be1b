"""Candidate models on a sample of the source, before paying for all of it. Writes nothing.

Every candidate embeds the same records and answers the same queries by exact search: judged ones
where the first manifest names some (then every record judged relevant is in the sample too), else
known-item queries made from the records. A sample is easier to search than the whole collection, so
the figures are higher than they will be; the differences between candidates are what counts.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, PreflightError, UsageError
from reembed.manifest import Manifest
from reembed.progress import Progress
from reembed.quality.metrics import judged_relevant
from reembed.quality.noninferiority import FEWEST_QUERIES, METRICS, Kind, Scores, score
from reembed.quality.queries import JudgedQueries, judged_queries, known_item_query
from reembed.quality.search import Block, exact_search
from reembed.quality.statistics import Interval, mean_interval, paired_difference
from reembed.records import SHARD_ROWS, Metric, bad_rows, chunked, text_hash
from reembed.stages.refusals import refuse_empty
from reembed.stores.registry import open_source
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

SAMPLE = 2_000
MOST_QUERIES = 1_000
SEED = 1
NEIGHBOURS = 16
"""HNSW's M where the index does not say; Chroma's and pgvector's default."""


@dataclass(frozen=True)
class Candidate:
    """One candidate's results.

    Attributes:
        manifest: its name.
        model: provider and model.
        dimensions: of its vectors.
        metrics: of each metric its mean with interval, and the difference to the first candidate
            (None for the first itself).
        rejected: sampled records that it could not embed; they count as not found.
        tokens: of all records' texts, from the sample.
        usd: for all records at the listed price; None where unknown or free.
        price_as_of: day of that price.
        seconds: to embed all records at the speed of the sample, queries left out.
        index_bytes: of an HNSW index of all records.
        sample_tokens: what this comparison itself took.
    """

    manifest: str
    model: str
    dimensions: int
    metrics: dict[str, dict[str, Interval | None]]
    rejected: int
    tokens: int
    usd: float | None
    price_as_of: str | None
    seconds: float
    index_bytes: int
    sample_tokens: int

    def to_dict(self) -> dict[str, Any]:
        metrics = {
            name: {side: one.to_dict() if one else None for side, one in sides.items()}
            for name, sides in self.metrics.items()
        }
        return asdict(replace(self, metrics={})) | {"metrics": metrics}


@dataclass(frozen=True)
class ModelComparison:
    """What `compare` found.

    Attributes:
        collection: the source's name.
        records: in the source.
        sampled: in the sample.
        kind: judged or known-item queries.
        queries: how many.
        k: cut-off.
        margin: of the first manifest, to read the differences by.
        seed: of sample and queries.
        candidates: in the order given.
        notes: what the reader should know.
    """

    collection: str
    records: int
    sampled: int
    kind: Kind
    queries: int
    k: int
    margin: float
    seed: int
    candidates: list[Candidate]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        rest = asdict(replace(self, candidates=[]))
        return rest | {"candidates": [one.to_dict() for one in self.candidates]}


@dataclass(frozen=True)
class _Task:
    """What every candidate is given: records, and queries with the answers that are right."""

    info: CollectionInfo
    records: pa.Table
    keys: list[bytes]
    kind: Kind
    queries: list[str]
    judgements: list[Mapping[Any, int]]


def compare(
    manifests: Sequence[Manifest],
    *,
    sample: int = SAMPLE,
    seed: int = SEED,
    progress: Progress | None = None,
) -> ModelComparison:
    """Compare the models of several manifests of one source.

    Args:
        sample: records to compare on, beside those that are judged relevant.
        seed: of the choice of records and of known-item queries.

    Raises:
        UsageError: fewer than two manifests, or an impossible sample.
        ManifestError: they have different sources, or one that is several collections.
        PreflightError: the source is empty, or judged queries and source do not fit.
    """
    progress = progress or Progress()
    first = _check(manifests, sample)
    with closing(open_source(first)) as store:
        task = _task(store, first, sample, seed)
    scored: list[tuple[Candidate, Scores]] = []
    for manifest in manifests:
        model = manifest.new_model
        assert model is not None, "it was checked"
        base = scored[0][1] if scored else None
        with (
            progress.stage(f"{manifest.name}", task.records.num_rows) as counter,
            open_embedder(model, manifest.embed, manifest.base_dir) as embedder,
        ):
            scored.append(_candidate(manifest, embedder, task, first, base))
            counter.update(task.records.num_rows)
    notes = []
    if len(task.queries) < FEWEST_QUERIES:
        notes.append(
            f"{len(task.queries)} queries are too few to tell models apart; {FEWEST_QUERIES} at "
            "least"
        )
    return ModelComparison(
        task.info.name, task.info.count, task.records.num_rows, task.kind, len(task.queries),
        first.verify.k, first.verify.margin, seed, [candidate for candidate, _ in scored], notes,
    )  # fmt: skip


def _check(manifests: Sequence[Manifest], sample: int) -> Manifest:
    if len(manifests) < 2:
        raise UsageError(
            "compare takes two manifests or more", "Write one for each candidate model."
        )
    if sample < FEWEST_QUERIES:
        raise UsageError(f"--sample {sample}: too few to compare on, {FEWEST_QUERIES} at least")
    first = manifests[0]
    for one in manifests:
        if one.keeps:
            raise ManifestError(
                f"{one.name}: model is keep, so there is no model to compare",
                "Give it the candidate model.",
            )
        if one.is_group:
            raise ManifestError(
                f"{one.name}: source.collections names several collections, and models are "
                "compared on the records of one",
                "Write source.collection: NAME instead, with one that is like the others; the "
                "largest tells most.",
            )
    for other in manifests[1:]:
        for key in ("url", "collection", "where"):
            if getattr(other.source, key) != getattr(first.source, key):
                raise ManifestError(
                    f"{other.name}: source.{key} differs from that of {first.name}",
                    "Models are compared on the records of one source.",
                )
    return first


def _task(store: Store, manifest: Manifest, sample: int, seed: int) -> _Task:
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
    batches = [store.reader.fetch(info.id, part, vectors=False, where=where)
               for part in chunked(ids, SHARD_ROWS)]  # fmt: skip
    records = pa.Table.from_batches(batches)
    texts = _texts(manifest, records)
    keys = [text_hash(text) for text in texts]
    if judged is not None:
        return _judged_task(info, records, keys, judged)
    generator = random.Random(seed)  # noqa: S311  (a sample, no secret)
    usable = [row for row, text in enumerate(texts) if text.strip()]
    asked = sorted(generator.sample(usable, min(len(usable), MOST_QUERIES)))
    queries = [known_item_query(texts[row], generator).text for row in asked]
    return _Task(info, records, keys, "known-item", queries, [{keys[row]: 1} for row in asked])


def _judged_task(
    info: CollectionInfo, records: pa.Table, keys: list[bytes], judged: JudgedQueries
) -> _Task:
    here = set(records.column("id").to_pylist())
    kept = [row for row, id in enumerate(judged.ids)
            if here & judged_relevant(judged.judgements[id])]  # fmt: skip
    if not kept:
        raise PreflightError(
            f"no record judged relevant is in {info.name!r}",
            "Check that verify.qrels uses the ids of this collection.",
        )
    return _Task(
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


def _texts(manifest: Manifest, records: pa.Table) -> list[str]:
    columns = ("id", "document", "metadata", "uri")
    return manifest.template().texts(*(records.column(c).to_pylist() for c in columns))


def _candidate(
    manifest: Manifest, embedder: Embedder, task: _Task, first: Manifest, base: Scores | None
) -> tuple[Candidate, Scores]:
    texts = _texts(manifest, task.records)
    ids = task.records.column("id").to_pylist()
    usable = [row for row, text in enumerate(texts) if text.strip()]
    embedder.check_reachable()
    start = time.perf_counter()
    embedded = embedder.embed_documents([texts[row] for row in usable])
    seconds = time.perf_counter() - start
    fine = [place for place, bad in enumerate(bad_rows(embedded.vectors)) if not bad]
    rows = [usable[place] for place in fine]
    block = Block([ids[row] for row in rows], [task.keys[row] for row in rows],
                  embedded.vectors[fine])  # fmt: skip
    k = first.verify.k
    queries = embedder.embed_queries(task.queries)
    metric: Metric = manifest.target.metric or task.info.metric
    hits = exact_search(queries, [block], k, metric)
    rankings: list[list[Any]]
    if task.kind == "judged":
        rankings = [list(row) for row in hits.ranked_ids()]
    else:
        rankings = [list(dict.fromkeys(row)) for row in hits.ranked_keys()]
    scores = score(rankings, task.judgements, k)
    confidence = first.verify.confidence
    metrics: dict[str, dict[str, Interval | None]] = {
        name: {
            "mean": mean_interval(scores[name], confidence),
            "difference": paired_difference(scores[name], base[name], confidence) if base else None,
        }
        for name in METRICS
    }
    share = task.info.count / max(1, len(texts))
    sample_tokens = int(embedded.tokens.sum())
    tokens = round(sample_tokens * share)
    price = embedder.price
    candidate = Candidate(
        manifest.name, f"{embedder.model.provider} {embedder.model.name}", embedder.dimensions,
        metrics, len(texts) - len(rows), tokens,
        round(tokens / 1e6 * price.usd_per_million_tokens, 6) if price else None,
        price.as_of if price else None, round(seconds * share, 3),
        _index_bytes(manifest, task.info, embedder.dimensions), sample_tokens,
    )  # fmt: skip
    return candidate, scores


def _index_bytes(manifest: Manifest, info: CollectionInfo, dimensions: int) -> int:
    """N · (4 d + 8 M + 12): vectors, 2 M neighbours of 4 bytes, count and label (hnswlib's level 0;
    the levels above add about 1 %)."""
    settings = info.index | manifest.target.index
    m = settings.get("max_neighbors") or settings.get("m") or NEIGHBOURS
    return int(info.count * (4 * dimensions + 8 * int(m) + 12))
