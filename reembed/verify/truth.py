"""What the gates know before they ask a store: the queries, and what is nearest to them.

All of it comes from the run's shards and from the models, none of it from a store. So it can be
found beside the load of the shadow (`ahead.py`); each part is found when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from reembed.manifest import Verify
from reembed.quality.answers import DEEPER, Judge
from reembed.quality.search import Block, Hits, Question, exact_searches
from reembed.records import Metric, Vectors
from reembed.verify.corpus import Corpus

OWN_QUERIES = 100
"""Records whose own vectors the source's index and the shadow's are compared by."""

Held = dict[str, Vectors]
"""Record ids to vectors `(d,) float32`, of those that have a usable one."""


@dataclass
class Truth:
    """See the module.

    Attributes:
        sample: ids of the records that queries are made from.
        seed: of what is drawn.
        wait: called before each shard; may end it by an exception.
    """

    corpus: Corpus
    settings: Verify
    source_metric: Metric
    target_metric: Metric
    sample: Sequence[str]
    seed: int
    wait: Callable[[], None]

    # What is asked

    @cached_property
    def queries(self) -> Vectors:
        """`(q, d) float32`, in the new space."""
        raise NotImplementedError

    @cached_property
    def old_queries(self) -> Vectors | None:
        """`(q, d) float32`, the same in the old space; None where there are none."""
        raise NotImplementedError

    @cached_property
    def held(self) -> tuple[Held, Held]:
        """New and old vectors of the sample."""
        return self.corpus.vectors(self.sample)

    @cached_property
    def own(self) -> list[str]:
        """Some of the sample, spread over it, that have a usable vector in both spaces."""
        new, old = self.held
        ids = [id for id in self.sample if id in new and id in old]
        return ids[:: max(1, len(ids) // OWN_QUERIES)][:OWN_QUERIES]

    @cached_property
    def own_queries(self) -> tuple[Vectors, Vectors]:
        """The new and the old vectors of `own`; at least one record."""
        new, old = self.held
        return np.stack([new[id] for id in self.own]), np.stack([old[id] for id in self.own])

    # What is right

    @cached_property
    def _of_new(self) -> list[Hits]:
        asked = [self.queries, *([self.own_queries[0]] if self.own else [])]
        return self._nearest(self.corpus.new_blocks(), asked, self.target_metric)

    @cached_property
    def _of_old(self) -> list[Hits]:
        asked = [] if self.old_queries is None else [self.old_queries]
        asked += [self.own_queries[1]] if self.own else []
        return self._nearest(self.corpus.old_blocks(), asked, self.source_metric) if asked else []

    def _nearest(
        self, blocks: Iterable[Block], asked: Sequence[Vectors], metric: Metric
    ) -> list[Hits]:
        depth = DEEPER * self.settings.k
        return exact_searches(self._each(blocks), [Question(one, depth, metric) for one in asked])

    def _each(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            self.wait()
            yield block

    @property
    def new(self) -> Hits:
        """The first k of `queries`."""
        return self._of_new[0].first(self.settings.k)

    @property
    def old(self) -> Hits | None:
        """The first k of `old_queries`."""
        return None if self.old_queries is None else self._of_old[0].first(self.settings.k)

    def judge(self) -> Judge:
        """Of the shadow's answers to `queries`."""
        return self._judge_new(self.queries, self._of_new[0])

    def own_judges(self) -> tuple[Judge, Judge]:
        """Of the shadow's answers to `own_queries`, and of the source's."""
        new, old = self.own_queries
        of_old = Judge(old, self._of_old[-1], self.source_metric, self._old_vectors)
        return self._judge_new(new, self._of_new[-1]), of_old

    def _judge_new(self, queries: Vectors, exact: Hits) -> Judge:
        return Judge(queries, exact, self.target_metric, self._new_vectors)

    def _new_vectors(self, ids: set[str]) -> Held:
        return vectors_in(self.corpus.new_blocks(ids))

    def _old_vectors(self, ids: set[str]) -> Held:
        return vectors_in(self.corpus.old_blocks(ids))

    def on(self, corpus: Corpus, wait: Callable[[], None]) -> Self:
        """The same, of an equal corpus."""
        self.corpus, self.wait = corpus, wait
        return self

    def find(self) -> None:
        """Find all of it now."""
        _ = self._of_new, self._of_old


def vectors_in(blocks: Iterable[Block]) -> Held:
    """The vector of each record of these blocks."""
    return {
        id: vector for block in blocks for id, vector in zip(block.ids, block.vectors, strict=True)
    }
