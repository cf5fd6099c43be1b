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
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.quality.findings import Findings
from reembed.quality.kept import Tally, check_kept
from reembed.quality.sidebyside import overlap_gate
from reembed.quality.verdict import Gate
from reembed.records import Vectors
from reembed.verify.corpus import Page
from reembed.verify.gates import Look, Verification
from reembed.verify.search_gates import SearchGates
from reembed.verify.truth import Truth

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
        assert isinstance(self.truth, StoredVectors)
        return KeptSearches(self.truth, self.shadow, self.source).gates()

    def _new_truth(self) -> StoredVectors:
        sample = self.sample_of(self.settings.sample, long_share=0)
        return StoredVectors(
            self.corpus, self.settings, self.source_metric, self.target_metric, sample.ids,
            self.seed, self.wait,
        )  # fmt: skip


class StoredVectors(Truth):
    """Records' own vectors are the queries, in the old space as in the new one."""

    @cached_property
    def ids(self) -> list[str]:
        """Of the sample, those that have a vector."""
        return [id for id in self.sample if id in self.held[0]]

    @cached_property
    def queries(self) -> Vectors:
        return np.stack([self.held[0][id] for id in self.ids])

    @property
    def old_queries(self) -> Vectors | None:
        return self.queries

    def find(self) -> None:
        if self.ids:
            super().find()


@dataclass
class KeptSearches(SearchGates):
    """See the module."""

    truth: StoredVectors

    def gates(self) -> list[Gate]:
        """`index`, then what is shown."""
        truth, most = self.truth, self.settings.k
        if not truth.ids:
            return [Gate("index", "shown", "no record has a vector to search by")]
        k = min(most, self.shadow.count())
        index, new, old = self.index(k), truth.new, truth.old
        assert old is not None, "the same queries are asked in both spaces"
        texts = self.texts_of(truth.ids)
        asked = [texts.get(id) or id for id in truth.ids]
        return [
            index, *self._old_index(k),
            overlap_gate(asked, new, old, most, self.texts_of, QUERIES),
            self.vectors(new, old), self.latency(truth.queries, k),
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
