"""G2: the store's own search against exact search over the run's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reembed.quality.answers import Recalls
from reembed.quality.statistics import histogram
from reembed.quality.verdict import Gate, Status
from reembed.records import Metric

CLEARLY = 0.02
"""How much better another metric must explain the answers to be named."""


@dataclass(frozen=True)
class Deeper:
    """What the index finds when it is asked for more than is kept, which makes HNSW look at more.

    Attributes:
        asked: records asked for; of HNSW's search list, the least it then has.
        recall: of the first k of its answers.
    """

    asked: int
    recall: float


@dataclass(frozen=True)
class Baseline:
    """What the source's own index finds, and the shadow's, each asked with the same records' own
    vectors.

    Attributes:
        queries: records.
        old, new: mean recall@k.
    """

    queries: int
    old: float
    new: float

    @property
    def as_good(self) -> bool:
        """Whether the shadow's index finds as much as the one it replaces."""
        return self.new >= self.old - CLEARLY


@dataclass(frozen=True)
class Index:
    """The index that is judged.

    Attributes:
        metric: that the store says it has.
        scheme: of the store's URL, for advice.
        settings: for advice.
    """

    metric: Metric
    scheme: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Looks:
    """What closer looks at an index found.

    Attributes:
        explained_by: a metric that explains its answers better than the target's.
        deeper: what it finds when asked for more.
        baseline: what the source's own index finds; given only where it may excuse: vectors that
            are hard to search are no fault of the migration.
        needless: the store answers applications without the index, from every record, so exactly,
            and is quick at it.
    """

    explained_by: Metric | None = None
    deeper: Sequence[Deeper] = ()
    baseline: Baseline | None = None
    needless: bool = False


NO_LOOKS = Looks()


def other_metric(recalls: Mapping[Metric, float], target: Metric) -> Metric | None:
    """The metric that explains the answers clearly better than the target's, if one does."""
    best = max(recalls, key=lambda metric: recalls[metric])
    return best if recalls[best] > recalls[target] + CLEARLY else None


def index_gate(
    recalls: Recalls,
    k: int,
    limit: float,
    target: Metric,
    index: Index,
    looks: Looks = NO_LOOKS,
) -> Gate:
    """Whether the index finds what is nearest, by the metric it should have.

    Args:
        recalls: of each query, `(q,)`.
        limit: mean recall it must reach.
        looks: what closer looks found, where recall is below the limit.
    """
    deeper, baseline = looks.deeper, looks.baseline
    recall = float(recalls.mean())
    figures = {
        "recall": round(recall, 6), "k": k, "limit": limit, "queries": len(recalls),
        "queries_below": int((recalls < limit).sum()), "metric": index.metric,
        "target_metric": target,
        "histogram": histogram(recalls, 10, 0.0, 1.0), "settings": dict(index.settings),
        "deeper": [asdict(one) for one in deeper],
        "baseline": asdict(baseline) if baseline else None, "without_index": looks.needless,
    }  # fmt: skip
    about = f"recall@{k} of the index {recall:.4f} over {len(recalls):,} queries, limit {limit}"
    wrong = index.metric if index.metric != target else looks.explained_by
    if wrong is not None:
        return Gate(
            "index", "fail",
            f"the index ranks by {wrong}, and the target's metric is {target} ({about}); set "
            "target.metric and run again under a new name",
            figures,
        )  # fmt: skip
    if recall >= limit:
        return Gate("index", "pass", about, figures)
    if baseline is not None:
        about += (
            f"; the source's own index finds {baseline.old:.4f}, the shadow's {baseline.new:.4f} "
            f"of what is nearest to {baseline.queries} records"
        )
        if baseline.as_good:
            about += " (as good as what it replaces, so it passes at the default limit)"
    if looks.needless:
        about += (
            "; it passes, since the store answers applications without the index now, from every "
            "record, and quickly. Once it takes the index, answers will lack what that misses"
        )
    excused = looks.needless or (baseline is not None and baseline.as_good)
    status: Status = "pass" if excused else "fail"
    raised = advice(k, limit, deeper, index.scheme, index.settings)
    return Gate("index", status, f"{about}; {raised}", figures)


def advice(
    k: int,
    limit: float,
    deeper: Sequence[Deeper],
    scheme: str = "",
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Which setting raises recall, how far, and what it costs."""
    settings = settings or {}
    if settings.get("type") == "ivfflat":
        return (
            "set target.index: {type: hnsw} and run again under a new name; or let each search "
            "read more of the index's lists (ivfflat.probes, 1 by default), as by ALTER DATABASE "
            ".. SET ivfflat.probes = 10, and verify again"
        )
    enough = next((one for one in deeper if one.recall >= limit), None)
    now = f" (now {settings['ef_search']})" if "ef_search" in settings else ""
    if enough is not None:
        return (
            f"with an ef_search of {enough.asked}{now} it finds {enough.recall:.4f} (measured): "
            f"{_how(scheme, enough.asked)}. It costs time in proportion, about "
            f"{enough.asked / max(k, 1):.0f} times as many distances a query as an ef_search of k, "
            "and no memory"
        )
    best = deeper[-1] if deeper else None
    tried = (
        f"even with an ef_search of {best.asked}{now} it finds only {best.recall:.4f} (measured), "
        "so the graph itself is too thin: "
        if best
        else ""
    )
    return (
        f"{tried}raise {neighbours_key(settings)} (M; memory and disk grow by about 8 bytes a "
        "neighbour and record) and ef_construction (a slower build, nothing later) in target.index "
        "and run again under a new name; the cache keeps the vectors"
    )


def neighbours_key(settings: Mapping[str, Any]) -> str:
    """What the store calls HNSW's M: Postgres, which alone tells an index's type, or Chroma."""
    return "m" if "type" in settings else "max_neighbors"


def _how(scheme: str, asked: int) -> str:
    if scheme.startswith("chroma"):
        return (
            "set target.index.ef_search, or modify the collection's configuration, and load it "
            "again (a new client or a restarted server; an open one keeps the old value), then "
            "verify again"
        )
    return (
        "set hnsw.ef_search for the application's sessions, as by ALTER DATABASE .. SET "
        f"hnsw.ef_search = {asked}, then verify again"
    )
