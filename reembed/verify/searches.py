"""The part of `verify` that asks models questions: index, recall, and what is shown of both.

One set of queries goes to the new model and, where it can be called, to the old one; exact search
answers both from the run's shards, and the shadow's own index answers the new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from reembed.embedders.embedder import Embedder
from reembed.errors import BudgetError, ReembedError
from reembed.progress import stage
from reembed.quality.findings import SAMPLES
from reembed.quality.groups import group_table
from reembed.quality.metrics import judged_relevant
from reembed.quality.noninferiority import Comparison, Scores, recall_gate, score
from reembed.quality.search import Hits
from reembed.quality.sidebyside import (
    ANSWERS,
    TEXT_LENGTH,
    TextOf,
    overlap_gate,
    shorten,
    side_by_side,
)
from reembed.quality.verdict import Gate
from reembed.records import Vectors, cosine_rows
from reembed.verify.questions import Questions, make_questions
from reembed.verify.search_gates import SearchGates
from reembed.verify.truth import Truth

COUNT = 3
"""Queries to look at."""


def examples(
    questions: Questions, new: Hits, old: Hits, new_scores: Scores, old_scores: Scores,
    texts: TextOf,
) -> list[dict[str, Any]]:  # fmt: skip
    """One query that both models answer, the one that gained most, and the one that lost most; as
    many as there are, and filled up to three.

    Returns:
        Entries as of `side_by_side`, in which an answer that is right is `expected`; beside them
        `expected`, the records that should be found, each with its text, and `old_rank` and
        `new_rank`, the place of the first right answer among the first k, None where there is none.
    """
    change = new_scores.ndcg - old_scores.ndcg
    order = np.lexsort((np.arange(len(change)), change))
    both = np.flatnonzero((new_scores.mrr == 1) & (old_scores.mrr == 1))
    found = np.flatnonzero((new_scores.success > 0) & (old_scores.success > 0))
    wanted = [*both[:1], *found[:1], order[-1], order[0], *order[::-1]] if len(order) else []
    if len(both):
        wanted.pop(1)
    places = list(dict.fromkeys(int(place) for place in wanted))[:COUNT]
    entries = side_by_side(places, questions.texts, new, old, texts, {})
    known = texts(sorted({id for place in places for id in questions.records[place]}))
    for place, entry in zip(places, entries, strict=True):
        right = judged_relevant(questions.judgements[place])
        for side, hits in (("old", old), ("new", new)):
            entry[f"{side}_rank"] = _rank(questions, hits, place, right)
            values = hits.ids if questions.kind == "judged" else hits.keys
            shown = [value for value, id in zip(values[place][:ANSWERS], hits.ids[place],
                                                strict=False) if id]  # fmt: skip
            for answer, value in zip(entry[side], shown, strict=True):
                answer["expected"] = value in right
        entry["expected"] = [
            {"id": id, "text": shorten(known.get(id, ""), TEXT_LENGTH)}
            for id in questions.records[place][:ANSWERS]
        ]
    return entries


def _rank(questions: Questions, hits: Hits, place: int, right: Any) -> int | None:
    ranked = questions.rankings(hits.rows(slice(place, place + 1)))[0]
    return next((rank for rank, one in enumerate(ranked, start=1) if one in right), None)


OLD_MODEL_SAMPLE = 50
NO_SEARCH = "no record of the source has a vector, so there was no search that could get worse"
STRANGER, RELATIVE = 0.5, 0.99
"""Median cosine of the old model's vectors with the source's, below which it is another model, and
below which it was called in another way (prefix, template)."""
MOST_PAIRS = 20_000
"""Pairs of query and right answer in the tables by metadata key."""


@dataclass
class AskedModels(Truth):
    """Queries that both models are asked.

    Attributes:
        old_embedder: the source's model; None where it cannot be called.
        old_model_note: why not.
    """

    embedder: Embedder
    old_embedder: Embedder | None
    old_model_note: str

    @cached_property
    def questions(self) -> Questions:
        return make_questions(self.corpus, self.settings, self.sample, self.seed)

    @cached_property
    def texts(self) -> list[str]:
        """Of the queries."""
        return [*self.questions.texts, *self.questions.log]

    @cached_property
    @stage("verify: the questions, with the new model")
    def queries(self) -> Vectors:
        return self.embedder.embed_queries(self.texts)

    @cached_property
    @stage("verify: the questions, with the old model")
    def _old(self) -> tuple[Vectors | None, str]:
        """The old model's vectors of the queries, and what is to be said of them or why not."""
        if not self.corpus.has_old_vectors():
            return None, NO_SEARCH
        if self.old_embedder is None:
            return None, self.old_model_note
        try:
            note = self._old_model_differs(self.old_embedder)
            if note.startswith("not"):
                return None, note
            return self.old_embedder.embed_queries(self.texts), note
        except BudgetError:  # no fault of the old model's
            raise
        except ReembedError as error:
            return None, f"the old model cannot be called ({error})"

    @property
    def old_queries(self) -> Vectors | None:
        return self._old[0]

    @property
    def note(self) -> str:
        """What is to be said of the old model."""
        return self._old[1]

    def _old_model_differs(self, old: Embedder) -> str:
        """Whether the old model gives some records the vectors that the source holds."""
        ids = list(self.sample[:: max(1, len(self.sample) // OLD_MODEL_SAMPLE)])
        _, held = self.held
        stored = {id: held[id] for id in ids if id in held}
        records = self.corpus.records(stored)
        if not stored:
            return "not one old vector is usable, so there is nothing to search in"
        again = old.embed_documents([records[id].text for id in stored])
        fine = [row for row in range(len(stored)) if row not in again.rejected]
        if not fine:
            return ""
        served = np.stack(list(stored.values()))
        cosine = float(np.median(cosine_rows(served[fine], again.vectors[fine])))
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

    def find(self) -> None:
        if self.texts:
            super().find()


@dataclass
class Searches(SearchGates):
    """See the module."""

    truth: AskedModels

    def gates(self) -> list[Gate]:
        """`index`, `recall`, then what is shown."""
        truth, questions, texts = self.truth, self.truth.questions, self.truth.texts
        if not texts:
            message = questions.figures.get("reason", "there is no record to ask for")
            return [Gate("index", "fail", message), Gate("recall", "inconclusive", message)]
        k = min(self.settings.k, self.shadow.count())
        gates = [self.index(k)]
        new, old = truth.new, truth.old
        judged = slice(0, len(questions.texts))
        free = slice(len(questions.texts), None) if questions.log else judged
        gates.append(self._recall(new.rows(judged), old.rows(judged) if old else None))
        if old is not None:
            source = "log" if questions.log else questions.kind
            gates.append(overlap_gate(texts[free], new.rows(free), old.rows(free), self.settings.k,
                                      self.texts_of, source))  # fmt: skip
        gates.append(self.vectors(new, old))
        gates.append(self.latency(truth.old_queries, k))
        return gates

    @stage("verify: old against new")
    def _recall(self, new: Hits, old: Hits | None) -> Gate:
        settings, k, truth = self.settings, self.settings.k, self.truth
        questions, note = truth.questions, truth.note

        def scores(hits: Hits | None) -> Scores | None:
            return (
                None if hits is None else score(questions.rankings(hits), questions.judgements, k)
            )

        new_scores = scores(new)
        assert new_scores is not None
        old_scores = scores(old)
        comparison = Comparison(
            questions.kind, k, settings.margin, settings.confidence, new_scores, old_scores, note,
            before=note != NO_SEARCH,
        )  # fmt: skip
        asked = {"new": truth.embedder.model.to_dict()}
        if old is not None and truth.old_embedder is not None:
            asked["old"] = truth.old_embedder.model.to_dict()
        extra: dict[str, Any] = {**questions.figures, "old_model": note, "asked": asked,
                                 "groups": self._groups(questions, new, old)}  # fmt: skip
        samples: dict[str, list[str]] = {}
        if old is not None and old_scores is not None:
            change = new_scores.recall - old_scores.recall
            order = np.lexsort((np.arange(len(change)), new_scores.ndcg - old_scores.ndcg, change))
            worst = [int(row) for row in order[:SAMPLES] if change[row] < 0]
            extra["worst"] = side_by_side(
                worst, questions.texts, new, old, self.texts_of,
                {"difference": change, "old_recall": old_scores.recall,
                 "new_recall": new_scores.recall},
            )  # fmt: skip
            extra["examples"] = examples(questions, new, old, new_scores, old_scores, self.texts_of)
            if worst:
                samples["lost most"] = [shorten(questions.texts[row], 100) for row in worst]
        return recall_gate(comparison, extra, samples)

    def _groups(
        self, questions: Questions, new: Hits, old: Hits | None
    ) -> dict[str, list[dict[str, Any]]]:
        pairs = [(row, id) for row, ids in enumerate(questions.records) for id in ids][:MOST_PAIRS]
        records = self.truth.corpus.records(id for _, id in pairs)
        pairs = [(row, id) for row, id in pairs if id in records]

        def found(hits: Hits) -> list[bool]:
            ranked = [set(row) for row in questions.rankings(hits)]
            by_key = questions.kind == "known-item"
            return [(records[id].key if by_key else id) in ranked[row] for row, id in pairs]

        metadatas = [records[id].metadata for _, id in pairs]
        return group_table(metadatas, found(new), found(old) if old else None)
