"""The gates of a run that moves vectors as they are. No model is asked: stored vectors are the
queries.

`integrity` compares every vector with the one that was moved; `index` compares the shadow's own
search with exact search; what follows is shown: what the old index finds of the same queries, and
how far answers by the new metric are those by the old one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.progress import stage
from reembed.quality.findings import Findings
from reembed.quality.kept import Tally, check_kept
from reembed.quality.search import exact_search
from reembed.quality.sidebyside import overlap_gate
from reembed.quality.verdict import Gate
from reembed.verify.corpus import Page
from reembed.verify.gates import Look, Verification
from reembed.verify.search_gates import SearchGates

QUERIES = "stored vector"


@dataclass(kw_only=True)
class KeptVerification(Verification):
    """What the gates need where vectors are moved as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tally = Tally(self.target_metric)

    def _compare(self, page: Page, served: pa.RecordBatch, findings: Findings) -> None:
        check_kept(page.ids, page.rows, page.vectors, served, findings, self._tally)

    @contextlib.contextmanager
    def _looks(self, findings: Findings, figures: dict[str, Any]) -> Iterator[Look]:
        self._tally = Tally(self.target_metric)
        yield lambda page: None
        figures |= self._tally.to_dict()

    def _vectors_are(self) -> str:
        return str(self._tally)

    def proofs(self) -> list[Gate]:
        sample = self.sample_of(self.settings.sample, long_share=0)
        return KeptSearches(
            corpus=self.corpus, shadow=self.shadow, source=self.source,
            source_metric=self.source_metric, target_metric=self.target_metric,
            settings=self.settings, seed=self.seed, sample=sample.ids,
        ).gates()  # fmt: skip


class KeptSearches(SearchGates):
    """See the module."""

    def gates(self) -> list[Gate]:
        """`index`, then what is shown."""
        new, _ = self.held
        ids = [id for id in self.sample if id in new]
        if not ids:
            return [Gate("index", "shown", "no record has a vector to search by")]
        queries = np.stack([new[id] for id in ids])
        k = min(self.settings.k, self.shadow.count())
        with stage("verify: the questions, asked of the new collection"):
            answers = self.shadow.query(queries, k) if k else [[] for _ in ids]
        corpus, most = self.corpus, self.settings.k
        found = exact_search(queries, corpus.new_blocks(), most, self.target_metric, answers)
        before = exact_search(queries, corpus.old_blocks(), most, self.source_metric)
        texts = self.texts_of(ids)
        asked = [texts.get(id) or id for id in ids]
        return [
            self.index(queries, answers, found, k), *self._old_index(k),
            overlap_gate(asked, found, before, most, self.texts_of, QUERIES),
            self.vectors(found, before), self.latency(queries, queries, k),
        ]  # fmt: skip

    def _old_index(self, k: int) -> list[Gate]:
        """What the index that is replaced finds of what is nearest to the same records."""
        baseline = self.baseline(k)
        if baseline is None:
            return []
        return [Gate(
            "old index", "shown",
            f"of what is nearest to {baseline.queries:,} records the old collection's index finds "
            f"{baseline.old:.4f}, the new one {baseline.new:.4f}",
            {"queries": baseline.queries, "old": baseline.old, "new": baseline.new, "k": k},
        )]  # fmt: skip
