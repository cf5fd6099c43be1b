"""The part of `verify` that asks questions: index, recall, and what is shown of both models.

One set of queries goes to the new model and, where it can be called, to the old one; exact search
answers both from the run's shards, and the shadow's own index answers the new ones. All of it can
be computed again, bit for bit, but for the latencies and what a store does otherwise each time it
opens an index (Chroma builds the part of HNSW that it has not synced anew, with several threads).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, get_args

import numpy as np

from reembed.embedders.embedder import Embedder
from reembed.errors import BudgetError, ReembedError
from reembed.manifest import Verify
from reembed.progress import stage
from reembed.quality.findings import SAMPLES
from reembed.quality.groups import group_table
from reembed.quality.index import (
    Baseline,
    Deeper,
    Index,
    Looks,
    answer_recalls,
    index_gate,
    other_metric,
)
from reembed.quality.neighbours import vector_figures
from reembed.quality.noninferiority import Comparison, Scores, recall_gate, score
from reembed.quality.search import Block, Hits, exact_search
from reembed.quality.sidebyside import overlap_gate, score_figures, shorten, side_by_side
from reembed.quality.statistics import quantiles
from reembed.quality.verdict import Gate
from reembed.records import Metric, Vectors, cosine_rows
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo
from reembed.verify.corpus import Corpus
from reembed.verify.examples import examples
from reembed.verify.questions import Questions, make_questions

TIMED_QUERIES = 50
DEEPER = (2, 4, 8, 16)
"""Times its present ef_search (or k) that a weak index is asked for, to measure what a larger one
would give: HNSW's search list is never shorter than what is asked for."""
DEEPER_QUERIES = 100
DEFAULT_INDEX_RECALL = Verify().index_recall
OLD_MODEL_SAMPLE = 50
STRANGER, RELATIVE = 0.5, 0.99
"""Median cosine of the old model's vectors with the source's, below which it is another model, and
below which it was called in another way (prefix, template)."""
MOST_PAIRS = 20_000
"""Pairs of query and right answer in the tables by metadata key."""


@dataclass
class Searches:
    """See the module; the attributes are those of `Verification`.

    Attributes:
        sample: ids of records to make known-item queries from.
    """

    corpus: Corpus
    shadow: Collection
    source: Collection | None
    source_metric: Metric
    target_metric: Metric
    embedder: Embedder
    old_embedder: Embedder | None
    old_model_note: str
    settings: Verify
    seed: int
    sample: Sequence[str]

    def gates(self) -> list[Gate]:
        """`index`, `recall`, then what is shown."""
        questions = make_questions(self.corpus, self.settings, self.sample, self.seed)
        texts = [*questions.texts, *questions.log]
        if not texts:
            message = questions.figures.get("reason", "there is no record to ask for")
            return [Gate("index", "fail", message), Gate("recall", "inconclusive", message)]
        with stage("verify: the questions, with the new model"):
            queries = self.embedder.embed_queries(texts)
        k = min(self.settings.k, self.shadow.count())
        with stage("verify: the questions, asked of the new collection"):
            answers = self.shadow.query(queries, k) if k else [[] for _ in texts]
        new = exact_search(
            queries, self.corpus.new_blocks(), self.settings.k, self.target_metric, answers
        )
        with stage("verify: the questions, with the old model"):
            old_queries, note = self._old_queries(texts)
        old = None
        if old_queries is not None:
            old = exact_search(
                old_queries, self.corpus.old_blocks(), self.settings.k, self.source_metric
            )
        judged = slice(0, len(questions.texts))
        free = slice(len(questions.texts), None) if questions.log else judged
        gates = [self._index(queries, answers, new, k)]
        gates.append(
            self._recall(questions, new.rows(judged), old.rows(judged) if old else None, note)
        )
        if old is not None:
            source = "log" if questions.log else questions.kind
            gates.append(overlap_gate(texts[free], new.rows(free), old.rows(free), self.settings.k,
                                      self._texts, source))  # fmt: skip
        gates.append(self._vectors(new, old))
        gates.append(self._latency(queries, old_queries, k))
        return gates

    # The old model

    def _old_queries(self, texts: Sequence[str]) -> tuple[Vectors | None, str]:
        """The old model's vectors of the queries, and what is to be said of them or why not."""
        if self.old_embedder is None:
            return None, self.old_model_note
        try:
            note = self._old_model_differs(self.old_embedder)
            if note.startswith("not"):
                return None, note
            return self.old_embedder.embed_queries(texts), note
        except BudgetError:  # no fault of the old model's
            raise
        except ReembedError as error:
            return None, f"the old model cannot be called ({error})"

    def _old_model_differs(self, old: Embedder) -> str:
        """Whether the old model gives some records the vectors that the source holds."""
        ids = list(self.sample[:: max(1, len(self.sample) // OLD_MODEL_SAMPLE)])
        _, stored = self.corpus.vectors(ids)
        records = self.corpus.records(stored)
        if not stored:
            return "not one old vector is usable, so there is nothing to search in"
        again = old.embed_documents([records[id].text for id in stored])
        fine = [row for row in range(len(stored)) if row not in again.rejected]
        if not fine:
            return ""
        held = np.stack(list(stored.values()))
        cosine = float(np.median(cosine_rows(held[fine], again.vectors[fine])))
        if cosine < STRANGER:
            return (
                "not the source's: the old model gives other vectors than the source holds "
                "(median "
                f"cosine {cosine:.2f}); give the right one as source.model"
            )
        if cosine < RELATIVE:
            return (
                f"the old model's vectors differ from the source's, median cosine {cosine:.3f}: "
                "another "
                "prefix or text than it was made with"
            )
        return ""

    # Gates

    @stage("verify: the index")
    def _index(
        self, queries: Vectors, answers: Sequence[Sequence[str]], exact: Hits, k: int
    ) -> Gate:
        info = self.shadow.describe()
        real = info.metric if info else self.target_metric
        recalls = answer_recalls(exact, k)
        limit = self.settings.index_recall
        looks = Looks()
        if k and real == self.target_metric and recalls.mean() < limit:
            by_metric = {self.target_metric: float(recalls.mean())}
            for metric in get_args(Metric):
                if metric != self.target_metric:
                    hits = exact_search(queries, self.corpus.new_blocks(), k, metric, answers)
                    by_metric[metric] = float(answer_recalls(hits, k).mean())
            explained = other_metric(by_metric, self.target_metric)
            deeper = [] if explained else self._deeper(queries[:DEEPER_QUERIES], k, info)
            baseline = self._baseline(k) if limit == DEFAULT_INDEX_RECALL else None
            looks = Looks(explained, deeper, baseline)
        scheme = self.shadow.store.url.partition(":")[0]
        index = Index(real, scheme, info.index if info else {})
        return index_gate(recalls, k, limit, self.target_metric, index, looks)

    def _baseline(self, k: int) -> Baseline | None:
        """What the source's index and the shadow's find, asked with the same records' vectors."""
        if self.source is None:
            return None
        new, old = self.corpus.vectors(self.sample[:DEEPER_QUERIES])
        ids = [id for id in new if id in old]
        if not ids:
            return None

        def recall(
            asked: Collection, held: dict[str, Vectors], blocks: Iterator[Block], metric: Metric
        ) -> float:
            queries = np.stack([held[record] for record in ids])
            hits = exact_search(queries, blocks, k, metric, asked.query(queries, k))
            return round(float(answer_recalls(hits, k).mean()), 6)

        try:
            found = recall(self.source, old, self.corpus.old_blocks(), self.source_metric)
        except ReembedError:  # the source's index cannot be asked, so it excuses nothing
            return None
        blocks = self.corpus.new_blocks()
        mine = recall(self.shadow, new, blocks, self.target_metric)
        return Baseline(len(ids), old=found, new=mine)

    def _deeper(self, queries: Vectors, k: int, info: CollectionInfo | None) -> list[Deeper]:
        """What the index finds among the first k if it is asked for more."""
        found = []
        count = self.shadow.count()
        now = max(k, int(info.index.get("ef_search", k)) if info else k)
        for asked in sorted({min(now * times, count) for times in DEEPER}):
            answers = [row[:k] for row in self.shadow.query(queries, asked)]
            hits = exact_search(queries, self.corpus.new_blocks(), k, self.target_metric, answers)
            recall = round(float(answer_recalls(hits, k).mean()), 6)
            found.append(Deeper(asked, recall))
            if recall >= self.settings.index_recall:
                break
        return found

    @stage("verify: old against new")
    def _recall(self, questions: Questions, new: Hits, old: Hits | None, note: str) -> Gate:
        settings, k = self.settings, self.settings.k

        def scores(hits: Hits | None) -> Scores | None:
            return (
                None if hits is None else score(questions.rankings(hits), questions.judgements, k)
            )

        new_scores = scores(new)
        assert new_scores is not None
        old_scores = scores(old)
        comparison = Comparison(
            questions.kind, k, settings.margin, settings.confidence, new_scores, old_scores, note
        )
        asked = {"new": self.embedder.model.to_dict()}
        if old is not None and self.old_embedder is not None:
            asked["old"] = self.old_embedder.model.to_dict()
        extra: dict[str, Any] = {**questions.figures, "old_model": note, "asked": asked,
                                 "groups": self._groups(questions, new, old)}  # fmt: skip
        samples: dict[str, list[str]] = {}
        if old is not None and old_scores is not None:
            change = new_scores.recall - old_scores.recall
            order = np.lexsort((np.arange(len(change)), new_scores.ndcg - old_scores.ndcg, change))
            worst = [int(row) for row in order[:SAMPLES] if change[row] < 0]
            extra["worst"] = side_by_side(
                worst, questions.texts, new, old, self._texts,
                {"difference": change, "old_recall": old_scores.recall,
                 "new_recall": new_scores.recall},
            )  # fmt: skip
            extra["examples"] = examples(questions, new, old, new_scores, old_scores, self._texts)
            if worst:
                samples["lost most"] = [shorten(questions.texts[row], 100) for row in worst]
        return recall_gate(comparison, extra, samples)

    def _groups(
        self, questions: Questions, new: Hits, old: Hits | None
    ) -> dict[str, list[dict[str, Any]]]:
        pairs = [(row, id) for row, ids in enumerate(questions.records) for id in ids][:MOST_PAIRS]
        records = self.corpus.records(id for _, id in pairs)
        pairs = [(row, id) for row, id in pairs if id in records]

        def found(hits: Hits) -> list[bool]:
            ranked = [set(row) for row in questions.rankings(hits)]
            by_key = questions.kind == "known-item"
            return [(records[id].key if by_key else id) in ranked[row] for row, id in pairs]

        metadatas = [records[id].metadata for _, id in pairs]
        return group_table(metadatas, found(new), found(old) if old else None)

    @stage("verify: the vectors")
    def _vectors(self, new: Hits, old: Hits | None) -> Gate:
        new_vectors, old_vectors = self.corpus.vectors(self.sample)
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
    def _latency(self, queries: Vectors, old_queries: Vectors | None, k: int) -> Gate:
        """Milliseconds a query, one after the other, on both collections; never the same twice."""
        figures: dict[str, Any] = {"k": k, "unit": "ms"}
        figures["new"] = _timed(self.shadow, queries, k)
        if self.source is not None and old_queries is not None:
            try:
                figures["old"] = _timed(self.source, old_queries, k)
            except ReembedError as error:
                figures["old_note"] = str(error)
        parts = [
            f"{name} median {times['median']:.1f} ms, p95 {times['p95']:.1f} ms"
            for name in ("new", "old")
            if (times := figures.get(name))
        ]
        return Gate("latency", "shown", "the store's own search: " + "; ".join(parts), figures)

    def _texts(self, ids: Sequence[str]) -> dict[str, str]:
        return {id: record.text for id, record in self.corpus.records(ids).items()}


def _timed(collection: Collection, queries: Vectors, k: int) -> dict[str, float]:
    if not k:
        return {}
    collection.query(queries[:1], k)  # the first one loads the index
    times = []
    for row in range(min(TIMED_QUERIES, len(queries))):
        start = perf_counter()
        collection.query(queries[row : row + 1], k)
        times.append((perf_counter() - start) * 1000)
    return quantiles(times)
