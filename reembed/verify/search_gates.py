"""Gates over answers to queries, whoever made these: the index, and what is shown.

Exact search answers from the run's shards, and the shadow's own index beside it. All of it can be
computed again, bit for bit, but for the latencies and what a store does otherwise each time it
opens an index (Chroma builds the part of HNSW that it has not synced anew, with several threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any, get_args

import numpy as np

from reembed.errors import ReembedError
from reembed.manifest import Verify
from reembed.progress import stage
from reembed.quality.index import (
    TIE,
    Baseline,
    Deeper,
    Index,
    Looks,
    answer_recalls,
    index_gate,
    other_metric,
)
from reembed.quality.integrity import SERVED_LENGTH
from reembed.quality.neighbours import vector_figures
from reembed.quality.search import (
    Hits,
    Question,
    exact_search,
    exact_searches,
    joined,
    parted,
)
from reembed.quality.sidebyside import score_figures
from reembed.quality.statistics import quantiles
from reembed.quality.verdict import Gate
from reembed.records import Metric, Vectors, lengths_of
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo
from reembed.verify.corpus import Corpus

TIMED_QUERIES = 50
TIMED_SECONDS, LEAST_TIMED = 0.5, 3
"""Queries are timed for so long, but so many at least."""
QUICK_MS = 20
"""A search that reads every record and takes no longer needs no index."""
TAIL_FROM = 20
"""Times of which the slowest twentieth is worth a word."""
DEEPER = (2, 4, 8, 16)
"""Times its present ef_search (or k) that a weak index is asked for, to measure what a larger one
would give: HNSW's search list is never shorter than what is asked for."""
PGVECTOR = 40
"""The least ef_search of pgvector, where nobody has set less."""
DEEPER_QUERIES = 50
"""So many of the queries, since each costs up to 16 times what it did."""
BASELINE_QUERIES = 100
METRIC_QUERIES = 100
"""So many of the queries tell by which metric an index ranks."""
DEFAULT_INDEX_RECALL = Verify().index_recall


@dataclass
class SearchGates:
    """See the module; the attributes are those of `Verification`.

    Attributes:
        sample: ids of records to make known-item queries from.
    """

    corpus: Corpus
    shadow: Collection
    source: Collection | None
    source_metric: Metric
    target_metric: Metric
    settings: Verify
    seed: int
    sample: Sequence[str]

    # Gates

    @stage("verify: the index")
    def index(
        self, queries: Vectors, answers: Sequence[Sequence[str]], exact: Hits, k: int
    ) -> Gate:
        info = self.shadow.describe()
        real = info.metric if info else self.target_metric
        recalls = answer_recalls(exact, k)
        limit = self.settings.index_recall
        looks = Looks()
        if k and real == self.target_metric and recalls.mean() < limit:
            explained = self._other_metric(queries, answers, exact, k)
            looks = Looks(explained) if explained else self._closer(queries, exact, k, info)
        scheme = self.shadow.store.url.partition(":")[0]
        index = Index(real, scheme, info.index if info else {})
        return index_gate(recalls, k, limit, self.target_metric, index, looks)

    @cached_property
    def held(self) -> tuple[dict[str, Vectors], dict[str, Vectors]]:
        """New and old vectors of the sample, as `Corpus.vectors` gives them."""
        return self.corpus.vectors(self.sample)

    def _other_metric(
        self, queries: Vectors, answers: Sequence[Sequence[str]], exact: Hits, k: int
    ) -> Metric | None:
        """The metric by which the index ranks, if it is clearly another. Vectors of one length have
        the same neighbours by all of them, and what comes in order ranks by the target's."""
        few = slice(METRIC_QUERIES)
        scores = exact.asked[few].astype(np.float64)
        tie = TIE * np.maximum(1.0, np.abs(scores[:, 1:]))
        if scores.shape[1] > 1 and (np.diff(scores, axis=1) <= tie).all():
            return None
        new, _ = self.held
        lengths = lengths_of(np.stack(list(new.values()))) if new else np.ones(1)
        if lengths.max() - lengths.min() <= SERVED_LENGTH * lengths.max():
            return None
        others: list[Metric] = [one for one in get_args(Metric) if one != self.target_metric]
        questions = [Question(queries[few], k, metric, answers[few]) for metric in others]
        hits = exact_searches(self.corpus.new_blocks(), questions)
        recalls = {
            metric: float(answer_recalls(one, k).mean())
            for metric, one in zip(others, hits, strict=True)
        }
        recalls[self.target_metric] = float(answer_recalls(exact.rows(few), k).mean())
        return other_metric(recalls, self.target_metric)

    def _closer(self, queries: Vectors, exact: Hits, k: int, info: CollectionInfo | None) -> Looks:
        """What the index finds when it is asked for more, and what the source's finds. The new
        vectors are read once for both."""
        queries, exact = queries[:DEEPER_QUERIES], exact.rows(slice(DEEPER_QUERIES))
        depths, answers = self._deeper(queries, k, exact, info)
        questions = [Question(queries, k, self.target_metric, joined(answers))]
        default = self.settings.index_recall == DEFAULT_INDEX_RECALL
        compared = self._compared(k) if default else None
        if compared is not None:
            questions.append(compared[1])
        found, *own = exact_searches(self.corpus.new_blocks(), questions)
        deeper = []
        for asked, hits in zip(depths, parted(found, answers), strict=True):
            recall = _mean_recall(hits, k)
            deeper.append(Deeper(asked, recall))
            if recall >= self.settings.index_recall:
                break
        baseline = None
        if compared is not None:
            baseline = Baseline(len(own[0].scores), old=compared[0], new=_mean_recall(own[0], k))
        needless = self._needs_no_index(queries[:LEAST_TIMED], k)
        return Looks(deeper=deeper, baseline=baseline, needless=needless)

    def _needs_no_index(self, queries: Vectors, k: int) -> bool:
        """Whether the store leaves the index out, and is quick without: where that is slow,
        somebody will make it take the index, and nothing of the verdict would hold any more."""
        if not len(queries) or not self.shadow.leaves_index_out(queries[:1], k):
            return False
        return bool(_timed(self.shadow, queries, k).get("median", np.inf) <= QUICK_MS)

    def baseline(self, k: int) -> Baseline | None:
        """What the source's index and the shadow's find, asked with the same records' vectors."""
        compared = self._compared(k)
        if compared is None:
            return None
        old, question = compared
        (hits,) = exact_searches(self.corpus.new_blocks(), [question])
        return Baseline(len(hits.scores), old=old, new=_mean_recall(hits, k))

    def _compared(self, k: int) -> tuple[float, Question] | None:
        """The recall of the source's index, asked with records' own vectors, and what the shadow's
        index answers for the same records. None where the source's cannot be asked: it excuses
        nothing then."""
        new, old = self.held
        ids = [id for id in self.sample[:BASELINE_QUERIES] if id in new and id in old]
        if self.source is None or not ids:
            return None
        queries = np.stack([old[id] for id in ids])
        try:
            answers = self.source.query(queries, k)
        except ReembedError:
            return None
        hits = exact_search(queries, self.corpus.old_blocks(), k, self.source_metric, answers)
        mine = np.stack([new[id] for id in ids])
        question = Question(mine, k, self.target_metric, self.shadow.query(mine, k))
        return _mean_recall(hits, k), question

    def _deeper(
        self, queries: Vectors, k: int, exact: Hits, info: CollectionInfo | None
    ) -> tuple[list[int], list[list[list[str]]]]:
        """For how many the index is asked, and what it then has among the first k.

        Args:
            exact: the nearest of these queries.
        """
        count, limit = self.shadow.count(), self.settings.index_recall
        index = info.index if info else {}
        now = max(k, int(index.get("ef_search", PGVECTOR if "type" in index else k)))
        nearest = [set(row[:k]) for row in exact.ranked_ids()]
        depths, answers = list[int](), list[list[list[str]]]()
        for asked in sorted({min(now * times, count) for times in DEEPER}):
            depths.append(asked)
            answers.append([row[:k] for row in self.shadow.query(queries, asked)])
            right = sum(len(near & {*row}) for near, row in zip(nearest, answers[-1], strict=True))
            if right >= limit * k * len(queries):  # and those that tie come on top
                break
        return depths, answers

    @stage("verify: the vectors")
    def vectors(self, new: Hits, old: Hits | None) -> Gate:
        new_vectors, old_vectors = self.held
        figures: dict[str, Any] = {"new": {}, "old": {}}
        for name, vectors, hits, metric in (
            ("new", new_vectors, new, self.target_metric),
            ("old", old_vectors, old, self.source_metric),
        ):
            if vectors:
                figures[name] = vector_figures(np.stack(list(vectors.values())))
            if hits is not None:
                figures[name]["scores"] = score_figures(hits.scores, metric)
        hubness = [f"{name} {figures[name]['hubness']:.2f}" for name in ("new", "old")
                   if "hubness" in figures[name]]  # fmt: skip
        return Gate("vectors", "shown", f"hubness of {len(self.sample):,} records: "
                    + (", ".join(hubness) or "too few vectors"), figures)  # fmt: skip

    @stage("verify: how fast search is")
    def latency(self, queries: Vectors, old_queries: Vectors | None, k: int) -> Gate:
        """Milliseconds a query, one after the other, on both collections, as an application has
        them; never the same twice."""
        figures: dict[str, Any] = {"k": k, "unit": "ms"}
        figures["new"] = _timed(self.shadow, queries, k)
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
        return {id: record.text for id, record in self.corpus.records(ids).items()}


def _mean_recall(hits: Hits, k: int) -> float:
    return round(float(answer_recalls(hits, k).mean()), 6)


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
