"""Stage 4: gates over the shadow, and the verdict.

`integrity` compares every record and vector with the run's shards; `fidelity` embeds a sample
again; `index` compares the shadow's own search with exact search; `recall` asks the old and the new
model the same questions; what follows is shown. What each gate computes is in `quality/`, one file
each; here it gets the run's records and the store's answers. Everything streams over the shards,
and seed and sample are kept, so that a verdict can be computed again, bit for bit but for the
latencies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from reembed.embedders.embedder import Embedder
from reembed.errors import UsageError
from reembed.manifest import Verify
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress, stage
from reembed.quality.fidelity import Anew, fidelity_gate
from reembed.quality.findings import Findings
from reembed.quality.integrity import KINDS, check_served, check_texts, slice_bounds, slice_rows
from reembed.quality.sample import LEAST, Sample, choose, token_counts
from reembed.quality.tail import probe_tail
from reembed.quality.twins import TwinFinder, Twins
from reembed.quality.verdict import Gate, Verdict
from reembed.records import Metric, cosine_rows
from reembed.run.directory import RunDir
from reembed.run.guards import Wait, no_wait
from reembed.run.ledger import Ledger
from reembed.run.quarantine import count_listed
from reembed.stores.collection import Collection
from reembed.verify.corpus import Corpus
from reembed.verify.search_gates import Searches

STAGE = "verify"
TWINS_CHECKED = 50
"""Equal vectors of different texts that are held against the model itself."""
TWIN_COSINE = 0.99999


@dataclass
class Verification:
    """What the gates need.

    Attributes:
        old_embedder: the source's model; None where it cannot be called.
        old_model_note: why not.
        source: the old collection, to measure its latency; None to leave it out.
        wait: called before each shard.
        key_indexes: of the source, which the shadow must have too; None where it cannot.
    """

    run: RunDir
    shadow: Collection
    source_metric: Metric
    target_metric: Metric
    template: TextTemplate
    embedder: Embedder
    old_embedder: Embedder | None
    old_model_note: str
    ledger: Ledger
    settings: Verify
    source: Collection | None = None
    wait: Wait = no_wait
    key_indexes: Mapping[str, bool] | None = None

    def __post_init__(self) -> None:
        self.corpus = Corpus(self.run, self.ledger, self.template)
        self.embeds = self.corpus.embeds
        self.seed = zlib.crc32(self.run.run_id.encode())

    def verdict(self, progress: Progress) -> Verdict:
        """Check every gate, in order."""
        gates = [self.integrity(progress)]
        if self.ledger.counts() != (0, 0):  # an empty member of a group has nothing to ask for
            gates += [self.fidelity(), *self.searches()]
        return Verdict(self.run.run_id, self.seed, tuple(gates))

    def slice_verdict(self, part: str, progress: Progress) -> Verdict:
        """The integrity of the n-th of t slices of the records, for `part` = `n/t`.

        It says nothing of the other gates, so it never stands for a whole verdict.

        Raises:
            UsageError: it is not n/t with 1 <= n <= t.
        """
        try:
            number, of = slice_bounds(part)
        except ValueError as error:
            raise UsageError(f"--slice: {error}") from None
        rows = slice_rows(self.corpus.rows, number, of)
        gate = self.integrity(progress, rows=rows)
        figures = gate.figures | {"slice": f"{number}/{of}", "rows": [rows.start, rows.stop]}
        message = f"slice {number} of {of}: {gate.message}"
        gate = Gate(gate.name, gate.status, message, figures, gate.samples)
        return Verdict(self.run.run_id, self.seed, (gate,))

    # Integrity

    def integrity(
        self, progress: Progress, stems: Sequence[str] | None = None, rows: range | None = None
    ) -> Gate:
        """Every record and vector of these shards (default: all) against the shadow.

        Checks ids, documents, metadata and uris by row hash; vectors by dimension, finiteness,
        length and cosine with the embedded one; the text that was embedded; equal vectors of
        different texts; counts in both directions, and quarantine.

        Args:
            stems: shards to check.
            rows: rows to check, counted over all embed shards in order.
        """
        findings = Findings(KINDS)
        chosen = list(self._chosen(stems, rows))
        with (
            progress.stage(STAGE, sum(len(part) for _, part in chosen)) as counter,
            TwinFinder() as finder,
        ):
            for stem, part in chosen:
                self.wait()
                self._check_shard(stem, part, finder, findings)
                counter.update(len(part))
            twins = self._check_twins(finder, findings)
        total, quarantined = self.ledger.counts()
        expected = total - quarantined
        count = self.shadow.count()
        if stems is None:
            if count != expected or findings.counts["missing"]:
                self._find_extra(findings)
            self._check_quarantine(quarantined, findings)
        allowed = self.settings.allow_quarantined
        figures = {
            "records": total, "loaded": count, "quarantined": quarantined,
            "allow_quarantined": allowed, "checked": findings.checked, "equal_vectors": twins,
            **findings.counts,
        }  # fmt: skip
        problems = findings.problems() + self._other_indexes()
        if count != expected and not problems:
            problems.append(f"{count:,} in the shadow instead of {expected:,}")
        if quarantined > allowed:
            problems.append(f"{quarantined:,} quarantined, {allowed:,} allowed")
        message = (
            f"{'; '.join(problems)} of {total:,} records"
            if problems
            else f"all {findings.checked:,} records equal, vectors as embedded"
            + (f"; {quarantined:,} quarantined" if quarantined else "")
        )
        return Gate("integrity", "fail" if problems else "pass", message, figures, findings.samples)

    def _other_indexes(self) -> list[str]:
        """Indexes of keys that the shadow has otherwise than the source had."""
        found = None if self.key_indexes is None else self.shadow.describe()
        if found is None or found.key_indexes == self.key_indexes:
            return []
        differing = {*found.key_indexes.items()} ^ {*(self.key_indexes or {}).items()}
        return [f"other indexes of keys ({', '.join(sorted({key for key, _ in differing}))})"]

    def _chosen(
        self, stems: Sequence[str] | None, rows: range | None
    ) -> Iterator[tuple[str, range]]:
        """Shards to check, and which of their rows."""
        start = 0
        for stem, shard in self.embeds.items():
            mine = range(shard.rows)
            if rows is not None:
                low, high = max(rows.start - start, 0), min(rows.stop - start, shard.rows)
                mine = range(low, max(low, high))
            start += shard.rows
            if (stems is None or stem in stems) and len(mine):
                yield stem, mine

    def _check_shard(self, stem: str, rows: range, finder: TwinFinder, findings: Findings) -> None:
        damaged = self.corpus.damaged(stem)
        if damaged:
            findings.add("in damaged files", damaged)
            return
        page = self.corpus.page(stem, rows)
        if not page.ids:
            return
        check_texts(page.ids, page.texts, page.keys, findings)
        served = self.shadow.fetch(page.ids, vectors=True)
        check_served(page.ids, page.rows, page.vectors, served, self.target_metric, findings)
        finder.add(page.ids, page.keys, page.vectors)

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

    @stage("verify: records too many")
    def _find_extra(self, findings: Findings) -> None:
        for page in self.shadow.list_ids():
            ids = page.to_pylist()
            known = self.ledger.lookup(ids)
            findings.add("extra", [id for id in ids if id not in known])
            findings.add(
                "quarantined but loaded",
                [id for id in ids if id in known and known[id].quarantined],
            )

    def _check_quarantine(self, quarantined: int, findings: Findings) -> None:
        """Whoever is quarantined stands in the quarantine file, with a reason."""
        told = count_listed(self.run, self.ledger)
        if told < quarantined:
            findings.counts["quarantined without a reason"] = quarantined - told

    # Fidelity

    @cached_property
    def _token_counts(self) -> npt.NDArray[np.int64]:
        return token_counts(self.corpus.tokens())

    def _sample(self, size: int, **options: Any) -> Sample:
        return choose(self.corpus.tokens(), self._token_counts, size, self.seed, **options)

    @stage("verify: a sample embedded again")
    def fidelity(self) -> Gate:
        """A sample, spread over all shards and the longest texts, embedded again and compared with
        what is served; and the tail probe."""
        sample = self._sample(max(LEAST, self.settings.sample))
        records = self.corpus.records(sample.ids)
        texts = [records[id].text for id in sample.ids]
        again = self.embedder.embed_documents(texts)
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
        sample = self._sample(self.settings.sample, long_share=0)
        return Searches(
            corpus=self.corpus, shadow=self.shadow, source=self.source,
            source_metric=self.source_metric, target_metric=self.target_metric,
            embedder=self.embedder, old_embedder=self.old_embedder,
            old_model_note=self.old_model_note, settings=self.settings, seed=self.seed,
            sample=sample.ids,
        ).gates()  # fmt: skip
