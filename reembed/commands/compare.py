"""Candidate models on a sample of the source, before paying for all of it. Writes nothing.

The model behind the collection is compared with them: its vectors are those that the collection
has, and it is asked for the queries where it can be called. Every candidate embeds the same records
and answers the same queries by exact search: judged ones where the first manifest names some (then
every record judged relevant is in the sample too), else known-item queries made from the records. A
sample is easier to search than the whole collection, so the figures are higher than they will be;
the differences between models are what counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from reembed.commands.compare_task import Task, make_task
from reembed.commands.current import Current, ask_current, index_bytes
from reembed.commands.recommend import Recommendation, Rival, recommend
from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, UsageError
from reembed.manifest import Manifest
from reembed.progress import Progress
from reembed.quality.noninferiority import FEWEST_QUERIES, METRICS, Kind, Scores
from reembed.quality.statistics import Interval, mean_interval, paired_difference
from reembed.records import Metric, bad_rows
from reembed.stores.registry import open_source

SAMPLE = 2_000
SEED = 1


@dataclass(frozen=True)
class Candidate:
    """One candidate's results.

    Attributes:
        manifest: its name.
        model: provider and model.
        dimensions: of its vectors.
        metrics: of each metric its mean with interval, the difference to the first candidate
            (None for the first itself), and the change from the current model (None where it could
            not be asked).
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
        current: the model behind the collection today.
        recommendation: which to take, or to stay, and why.
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
    current: Current
    recommendation: Recommendation
    notes: list[str] = field(default_factory=list)

    def recalls(self) -> dict[str, float]:
        """Mean recall of the current model, where it was asked, and of each candidate."""
        now = {"current": self.current.metrics["recall"].mean} if self.current.metrics else {}
        means = ((one.manifest, one.metrics["recall"]["mean"]) for one in self.candidates)
        return now | {name: mean.mean for name, mean in means if mean is not None}

    def to_dict(self) -> dict[str, Any]:
        rest = asdict(replace(self, candidates=[]))
        return rest | {
            "candidates": [one.to_dict() for one in self.candidates],
            "current": self.current.to_dict(), "recommendation": self.recommendation.to_dict(),
        }  # fmt: skip


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
        task = make_task(store, first, sample, seed)
    current, now = ask_current(first, task)
    scored: list[tuple[Candidate, Scores]] = []
    for manifest in manifests:
        model = manifest.new_model
        assert model is not None, "it was checked"
        base = scored[0][1] if scored else None
        with (
            progress.stage(f"{manifest.name}", task.records.num_rows) as counter,
            open_embedder(model, manifest.embed, manifest.base_dir) as embedder,
        ):
            scored.append(_candidate(manifest, embedder, task, first, base, now))
            counter.update(task.records.num_rows)
    notes = [current.note] if current.note else []
    if len(task.queries) < FEWEST_QUERIES:
        notes.append(
            f"{len(task.queries)} queries are too few to tell models apart; {FEWEST_QUERIES} at "
            "least"
        )
    rivals = [_rival(candidate, scores) for candidate, scores in scored]
    margin, confidence = first.verify.margin, first.verify.confidence
    advice = recommend(rivals, current.dimensions if now else None, margin, confidence)
    return ModelComparison(
        task.info.name, task.info.count, task.records.num_rows, task.kind, len(task.queries),
        first.verify.k, margin, seed, [candidate for candidate, _ in scored], current, advice,
        notes,
    )  # fmt: skip


def _rival(candidate: Candidate, scores: Scores) -> Rival:
    change = candidate.metrics["recall"]["change"]
    return Rival(candidate.manifest, candidate.dimensions, candidate.usd, scores.recall, change)


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


def _candidate(
    manifest: Manifest,
    embedder: Embedder,
    task: Task,
    first: Manifest,
    base: Scores | None,
    now: Scores | None,
) -> tuple[Candidate, Scores]:
    texts = manifest.template().texts_of(task.records)
    usable = [row for row, text in enumerate(texts) if text.strip()]
    embedder.check_reachable()
    start = time.perf_counter()
    embedded = embedder.embed_documents([texts[row] for row in usable])
    seconds = time.perf_counter() - start
    fine = [place for place, bad in enumerate(bad_rows(embedded.vectors)) if not bad]
    rows = [usable[place] for place in fine]
    k = first.verify.k
    queries = embedder.embed_queries(task.queries)
    metric: Metric = manifest.target.metric or task.info.metric
    scores = task.scores(rows, embedded.vectors[fine], queries, metric, k)
    confidence = first.verify.confidence
    metrics: dict[str, dict[str, Interval | None]] = {
        name: {
            "mean": mean_interval(scores[name], confidence),
            "difference": paired_difference(scores[name], base[name], confidence) if base else None,
            "change": paired_difference(scores[name], now[name], confidence) if now else None,
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
        index_bytes(task.info, embedder.dimensions, manifest.target.index), sample_tokens,
    )  # fmt: skip
    return candidate, scores
