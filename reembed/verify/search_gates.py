"""Gates over answers to queries, whoever made these: the index, and what is shown.

Exact search answers from the run's shards, and the shadow's own index beside it. All of it can be
computed again, bit for bit, but for the latencies and what a store does otherwise each time it
opens an index (Chroma builds the part of HNSW that it has not synced anew, with several threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from reembed.errors import ReembedError
from reembed.manifest import Verify
from reembed.progress import stage
from reembed.quality.answers import DEEPER, Judge, Recalls
from reembed.quality.index import Baseline, Deeper, Index, Looks, index_gate, other_metric
from reembed.quality.integrity import SERVED_LENGTH
from reembed.quality.neighbours import vector_figures
from reembed.quality.search import Hits, Question, exact_searches
from reembed.quality.sidebyside import score_figures
from reembed.quality.statistics import paired_difference, quantiles
from reembed.quality.verdict import Gate
from reembed.records import Metric, Vectors, lengths_of
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo
from reembed.verify.truth import Truth

TIMED_QUERIES = 50
TIMED_SECONDS, LEAST_TIMED = 0.5, 3
"""Queries are timed for so long, but so many at least."""
QUICK_MS = 20
"""A search that reads every record and takes no longer needs no index."""
TAIL_FROM = 20
"""Times of which the slowest twentieth is worth a word."""
DEEPER_TIMES = (2, 4, 8, 16)
"""Times its present ef_search (or k) that a weak index is asked for, to measure what a larger one
would give: HNSW's search list is never shorter than what is asked for."""
PGVECTOR = 40
"""The least ef_search of pgvector, where nobody has set less."""
DEEPER_QUERIES = 32
"""So many of the queries, since each costs up to 16 times what it did."""
PART = 250
"""Queries that an index is asked at a time."""
CERTAIN = 0.999
"""Confidence that its mean recall is above or below the limit, at which no more are asked."""
METRIC_QUERIES = 100
"""So many of the queries tell by which metric an index ranks."""
DEFAULT_INDEX_RECALL = Verify().index_recall

Rows = npt.NDArray[np.intp]


@dataclass
class SearchGates:
    """See the module.

    Attributes:
        truth: what is asked, and what is right.
        source: the old collection; None to leave it out.
    """

    truth: Truth
    shadow: Collection
    source: Collection | None

    @property
    def settings(self) -> Verify:
        return self.truth.settings

    # Gates

    def index(self, k: int) -> Gate:
        """Whether the shadow's index finds what is nearest to the queries."""
        with stage("verify: the questions, asked of the new collection"):
            asked, answers, recalls = self._asked(k)
        return self._judged(asked, answers, recalls, k)

    def _asked(self, k: int) -> tuple[Rows, list[list[str]], Recalls]:
        """Ask the queries in parts, each drawn from all of them, until it is certain on which side
        of the limit the mean recall is, or all are asked. Returns their rows, the answers, and the
        recall of each."""
        judge, limit = self.truth.judge(), self.settings.index_recall
        total = len(judge.queries)
        order = np.random.default_rng(self.truth.seed).permutation(total)
        rows, answers, recalls = np.zeros(0, np.intp), list[list[str]](), np.zeros(0)
        for mine in np.array_split(order, max(1, total // PART)):
            found = self.shadow.query(judge.queries[mine], k) if k else [[] for _ in mine]
            rows, answers = np.append(rows, mine), [*answers, *found]
            recalls = np.append(recalls, judge.of(mine).recalls(found, k))
            beyond = paired_difference(recalls, np.full(len(recalls), limit), CERTAIN)
            if beyond.low > 0 or beyond.high < 0:
                break
        return rows, answers, recalls

    @stage("verify: the index")
    def _judged(
        self, asked: Rows, answers: Sequence[Sequence[str]], recalls: Recalls, k: int
    ) -> Gate:
        info, target = self.shadow.describe(), self.truth.target_metric
        real = info.metric if info else target
        limit = self.settings.index_recall
        looks = Looks()
        if k and real == target and recalls.mean() < limit:
            explained = self._other_metric(asked, answers, k)
            looks = Looks(explained) if explained else self._closer(asked, k, info)
        scheme = self.shadow.store.url.partition(":")[0]
        index = Index(real, scheme, info.index if info else {})
        return index_gate(recalls, k, limit, target, index, looks)

    def _other_metric(self, asked: Rows, answers: Sequence[Sequence[str]], k: int) -> Metric | None:
        """The metric by which the index ranks, if it is clearly another. Vectors of one length have
        the same neighbours by all of them, and what comes in order ranks by the target's."""
        truth, target = self.truth, self.truth.target_metric
        few = spread(len(asked), METRIC_QUERIES)
        judge, answers = truth.judge().of(asked[few]), [answers[place] for place in few.tolist()]
        if judge.in_order(answers):
            return None
        new, _ = truth.held
        lengths = lengths_of(np.stack(list(new.values()))) if new else np.ones(1)
        if lengths.max() - lengths.min() <= SERVED_LENGTH * lengths.max():
            return None
        others: list[Metric] = [one for one in get_args(Metric) if one != target]
        questions = [Question(judge.queries, DEEPER * k, metric) for metric in others]
        hits = exact_searches(truth.corpus.new_blocks(), questions)
        recalls = {
            metric: float(replace(judge, exact=one, metric=metric).recalls(answers, k).mean())
            for metric, one in zip(others, hits, strict=True)
        }
        recalls[target] = float(judge.recalls(answers, k).mean())
        return other_metric(recalls, target)

    def _closer(self, asked: Rows, k: int, info: CollectionInfo | None) -> Looks:
        """What the index finds when it is asked for more, and what the source's finds."""
        judge = self.truth.judge().of(asked[spread(len(asked), DEEPER_QUERIES)])
        default = self.settings.index_recall == DEFAULT_INDEX_RECALL
        return Looks(
            deeper=self._deeper(judge, k, info), baseline=self.baseline(k) if default else None,
            needless=self._needs_no_index(),
        )  # fmt: skip

    @cached_property
    def _times(self) -> dict[str, Any]:
        """How long searches of the shadow take, as an application has them."""
        return _timed(self.shadow, self.truth.queries, min(self.settings.k, self.shadow.count()))

    def _needs_no_index(self) -> bool:
        """Whether the store leaves the index out, and is quick without: where that is slow,
        somebody will make it take the index, and nothing of the verdict would hold any more."""
        times = self._times
        return bool(times.get("without_index") and times.get("median", np.inf) <= QUICK_MS)

    def baseline(self, k: int) -> Baseline | None:
        """What the source's index and the shadow's find, asked with the same records' vectors. None
        where the source's cannot be asked: it excuses nothing then."""
        if self.source is None or not self.truth.own:
            return None
        new, old = self.truth.own_queries
        try:
            before = self.source.query(old, k)
        except ReembedError:
            return None
        judge, old_judge = self.truth.own_judges()
        mine = self.shadow.query(new, k)
        return Baseline(
            len(new), old=_mean(old_judge.recalls(before, k)), new=_mean(judge.recalls(mine, k))
        )

    def _deeper(self, judge: Judge, k: int, info: CollectionInfo | None) -> list[Deeper]:
        """What the index has among the first k when it is asked for more and more."""
        count, index = self.shadow.count(), info.index if info else {}
        now = max(k, int(index.get("ef_search", PGVECTOR if "type" in index else k)))
        found = list[Deeper]()
        for asked in sorted({min(now * times, count) for times in DEEPER_TIMES}):
            answers = [row[:k] for row in self.shadow.query(judge.queries, asked)]
            found.append(Deeper(asked, _mean(judge.recalls(answers, k))))
            if found[-1].recall >= self.settings.index_recall:
                break
        return found

    @stage("verify: the vectors")
    def vectors(self, new: Hits, old: Hits | None) -> Gate:
        new_vectors, old_vectors = self.truth.held
        figures: dict[str, Any] = {"new": {}, "old": {}}
        for name, vectors, hits, metric in (
            ("new", new_vectors, new, self.truth.target_metric),
            ("old", old_vectors, old, self.truth.source_metric),
        ):
            if vectors:
                figures[name] = vector_figures(np.stack(list(vectors.values())))
            if hits is not None:
                figures[name]["scores"] = score_figures(hits.scores, metric)
        hubness = [f"{name} {figures[name]['hubness']:.2f}" for name in ("new", "old")
                   if "hubness" in figures[name]]  # fmt: skip
        return Gate("vectors", "shown", f"hubness of {len(self.truth.sample):,} records: "
                    + (", ".join(hubness) or "too few vectors"), figures)  # fmt: skip

    @stage("verify: how fast search is")
    def latency(self, old_queries: Vectors | None, k: int) -> Gate:
        """Milliseconds a query, one after the other, on both collections, as an application has
        them; never the same twice."""
        figures: dict[str, Any] = {"k": k, "unit": "ms"}
        figures["new"] = self._times
        if self.source is not None and old_queries is not None:
            try:
                figures["old"] = _timed(self.source, old_queries, k)
            except ReembedError as error:
                figures["old_note"] = str(error)
        parts = [
            f"{name} {_in_words(times)}" for name in ("new", "old") if (times := figures.get(name))
        ]
        return Gate("latency", "shown", "the store's own search: " + "; ".join(parts), figures)

    def texts_of(self, ids: Sequence[str]) -> dict[str, str]:
        return {id: record.text for id, record in self.truth.corpus.records(ids).items()}


def spread(count: int, most: int) -> Rows:
    """Up to `most` of so many places, at even distances."""
    return np.arange(0, count, max(1, count // most))[:most]


def _mean(recalls: Recalls) -> float:
    return round(float(recalls.mean()), 6)


def _timed(collection: Collection, queries: Vectors, k: int) -> dict[str, Any]:
    if not k:
        return {}
    collection.query(queries[:1], k, freely=True)  # the first one loads the index
    times, began = list[float](), perf_counter()
    for row in range(min(TIMED_QUERIES, len(queries))):
        start = perf_counter()
        if row >= LEAST_TIMED and start - began > TIMED_SECONDS:
            break
        collection.query(queries[row : row + 1], k, freely=True)
        times.append((perf_counter() - start) * 1000)
    without = collection.leaves_index_out(queries[:1], k)
    return {"queries": len(times), "without_index": without, **quantiles(times)}


def _in_words(times: dict[str, Any]) -> str:
    tail = f", p95 {times['p95']:.1f} ms" if times["queries"] >= TAIL_FROM else ""
    without = ", answered without the index, as the store chooses" if times["without_index"] else ""
    return f"median {times['median']:.1f} ms{tail} of {times['queries']}{without}"
