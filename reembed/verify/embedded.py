"""The gates of a run whose vectors a model made.

`fidelity` embeds a sample again; `index` compares the shadow's own search with exact search;
`recall` asks the old and the new model the same questions; what follows is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from reembed.embedders.embedder import Embedder
from reembed.embedders.sending.call import Embedded
from reembed.progress import stage
from reembed.quality.fidelity import Anew, fidelity_gate
from reembed.quality.findings import Findings
from reembed.quality.integrity import check_texts
from reembed.quality.sample import LEAST, Sample
from reembed.quality.tail import probe_tail
from reembed.quality.twins import TwinFinder, Twins
from reembed.quality.verdict import Gate
from reembed.records import cosine_rows
from reembed.verify.corpus import Page
from reembed.verify.gates import Look, Verification
from reembed.verify.searches import AskedModels, Searches

TWINS_CHECKED = 50
"""Equal vectors of different texts that are held against the model itself."""
TWIN_COSINE = 0.99999


@dataclass(kw_only=True)
class EmbeddedVerification(Verification):
    """What the gates need where a model made the vectors.

    Attributes:
        old_embedder: the source's model; None where it cannot be called.
        old_model_note: why not.
    """

    embedder: Embedder
    old_embedder: Embedder | None
    old_model_note: str

    def find(self) -> None:
        _ = self.again
        super().find()

    def proofs(self) -> list[Gate]:
        return [self.fidelity(), *self.searches()]

    # Integrity: texts, and equal vectors of different texts

    @contextlib.contextmanager
    def _looks(self, findings: Findings, figures: dict[str, Any]) -> Iterator[Look]:
        with TwinFinder() as finder:

            def look(page: Page) -> None:
                check_texts(page.ids, page.texts, page.keys, findings)
                finder.add(page.ids, page.keys, page.vectors)

            yield look
            figures["equal_vectors"] = self._check_twins(finder, findings)

    @stage("verify: equal vectors")
    def _check_twins(self, finder: TwinFinder, findings: Findings) -> dict[str, int]:
        """Equal vectors of different texts are a fault, unless the model itself cannot tell the
        texts apart (another case, characters it does not know, what `on_too_long` cut off)."""
        groups = list(islice(finder.twins(), TWINS_CHECKED))
        figures = {"checked": len(groups), "by_the_model": 0}
        if not groups:
            return figures
        records = self.corpus.records(id for group in groups for id in group.ids)
        pairs = [records[id].text for group in groups for id in group.ids[:2]]
        vectors = self.embedder.embed_documents(pairs).vectors
        alike = cosine_rows(vectors[0::2], vectors[1::2]) >= TWIN_COSINE
        faulty: list[Twins] = [g for g, same in zip(groups, alike, strict=True) if not same]
        for group in faulty:
            kind = "with the vector of another text"
            findings.add(kind, group.ids)
            findings.counts[kind] += group.records - len(group.ids)
        return figures | {"by_the_model": int(alike.sum())}

    # Fidelity

    @cached_property
    def again(self) -> tuple[Sample, list[str], Embedded]:
        """A sample, its texts, and what the model gives them now."""
        if self.found is not None:
            return self.found.again
        sample = self.sample_of(max(LEAST, self.settings.sample))
        records = self.corpus.records(sample.ids)
        texts = [records[id].text for id in sample.ids]
        return sample, texts, self.embedder.embed_documents(texts)

    @stage("verify: a sample embedded again")
    def fidelity(self) -> Gate:
        """A sample, spread over all shards and the longest texts, embedded again and compared with
        what is served; and the tail probe."""
        sample, texts, again = self.again
        served = self.shadow.fetch(sample.ids, vectors=True)
        tail = probe_tail(
            self.embedder.embed_each, self.embedder.count_tokens,
            self.embedder.limits.max_tokens, sample.longest_tokens,
        )  # fmt: skip
        return fidelity_gate(
            sample,
            texts,
            Anew(again.vectors, sorted(again.rejected)),
            served,
            self.target_metric,
            tail,
        )

    # Index, recall, and what is shown

    @stage("verify: search")
    def searches(self) -> list[Gate]:
        """The `index` and the `recall` gate, which ask the same queries, and what is shown."""
        assert isinstance(self.truth, AskedModels)
        return Searches(self.truth, self.shadow, self.source).gates()

    def _new_truth(self) -> AskedModels:
        sample = self.sample_of(self.settings.sample, long_share=0)
        return AskedModels(
            self.corpus, self.settings, self.source_metric, self.target_metric, sample.ids,
            self.seed, self.wait, self.embedder, self.old_embedder, self.old_model_note,
        )  # fmt: skip
