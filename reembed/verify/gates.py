"""Stage 4: gates over the shadow, and the verdict.

`integrity` compares every record and vector with the run's shards; what else is asked depends on
whether vectors are made (`embedded.py`) or kept (`kept.py`). What each gate computes is in
`quality/`, one file each; here it gets the run's records and the store's answers. Everything
streams over the shards, and seed and sample are kept, so that a verdict can be computed again, bit
for bit but for the latencies.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.errors import UsageError
from reembed.manifest import Verify
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress, stage
from reembed.quality.findings import Findings
from reembed.quality.integrity import KINDS, check_served, slice_bounds, slice_rows
from reembed.quality.sample import Sample, choose, token_counts
from reembed.quality.verdict import Gate, Verdict
from reembed.records import Metric
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.guards import Wait, no_wait
from reembed.run.ledger import Ledger
from reembed.run.quarantine import count_listed
from reembed.stores.collection import Collection
from reembed.verify.corpus import Corpus, Page
from reembed.verify.truth import Truth

STAGE = "verify"
Look = Callable[[Page], None]


@dataclass
class Verification:
    """What the gates need.

    Attributes:
        source: the old collection, to measure its latency; None to leave it out.
        wait: called before each shard.
        key_indexes: of the source, which the shadow must have too; None where it cannot.
        found: another one, which has found what needs no shadow; taken if it is of the same shards.
    """

    run: RunDir
    shadow: Collection
    source_metric: Metric
    target_metric: Metric
    template: TextTemplate
    ledger: Ledger
    settings: Verify
    source: Collection | None = None
    wait: Wait = no_wait
    key_indexes: Mapping[str, bool] | None = None
    found: Self | None = None

    def __post_init__(self) -> None:
        self.corpus = Corpus(self.run, self.ledger, self.template)
        if self.found is not None and self.found.corpus.made_of != self.corpus.made_of:
            self.found = None
        self.embeds = self.corpus.embeds
        self.seed = zlib.crc32(self.run.run_id.encode())

    def verdict(self, progress: Progress) -> Verdict:
        """Check every gate, in order."""
        gates = [self.integrity(progress)]
        if self.ledger.counts() != (0, 0):  # an empty member of a group has nothing to ask for
            gates += self.proofs()
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

    def proofs(self) -> list[Gate]:
        """The gates beside integrity, in order."""
        raise NotImplementedError

    @cached_property
    def truth(self) -> Truth:
        """What the index is asked, and what is right."""
        if self.found is None:
            return self._new_truth()
        return self.found.truth.on(self.corpus, self.wait)

    def _new_truth(self) -> Truth:
        raise NotImplementedError

    def find(self) -> None:
        """Find now what needs no shadow."""
        self.truth.find()

    def check_served(self, page: Page, findings: Findings) -> None:
        """Hold records as the shadow serves them against the run's shards."""
        self._compare(page, self.shadow.fetch(page.ids, vectors=True), findings)

    def _compare(self, page: Page, served: pa.RecordBatch, findings: Findings) -> None:
        """Hold records as they were served against the run's shards."""
        check_served(page.ids, page.rows, page.vectors, served, self.target_metric, findings)

    @contextlib.contextmanager
    def _looks(self, findings: Findings, figures: dict[str, Any]) -> Iterator[Look]:
        """What else is looked at for each page. What came of it is in `findings` and `figures` when
        the block has ended."""
        yield lambda page: None

    def _vectors_are(self) -> str:
        """What a good verdict says of the vectors."""
        return "vectors as embedded"

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
        more: dict[str, Any] = {}
        with (
            progress.stage(STAGE, sum(len(part) for _, part in chosen)) as counter,
            self._looks(findings, more) as look,
            ThreadPoolExecutor(1, "compare") as thread,
        ):
            compared: Future[None] | None = None
            for stem, part in chosen:
                self.wait()
                for page, served in self._served(stem, part, findings):
                    if compared is not None:
                        compared.result()
                    compared = thread.submit(self._check_page, page, served, look, findings)
                counter.update(len(part))
            if compared is not None:
                compared.result()
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
            "allow_quarantined": allowed, "checked": findings.checked, **more, **findings.counts,
        }  # fmt: skip
        problems = findings.problems() + self._other_indexes()
        if count != expected and not problems:
            problems.append(f"{count:,} in the shadow instead of {expected:,}")
        if quarantined > allowed:
            problems.append(f"{quarantined:,} quarantined, {allowed:,} allowed")
        message = (
            f"{'; '.join(problems)} of {total:,} records"
            if problems
            else f"all {findings.checked:,} records equal, {self._vectors_are()}"
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

    def _served(
        self, stem: str, rows: range, findings: Findings
    ) -> Iterator[tuple[Page, pa.RecordBatch]]:
        """The pages of a shard, and what the shadow serves of them. The store is asked by the
        caller's thread alone."""
        damaged = self.corpus.damaged(stem)
        if damaged:
            findings.add("in damaged files", damaged)
            return
        read = self.shadow.fetch if self._filled else self.shadow.fetch_page
        for page in self.corpus.pages(stem, rows):
            if page.ids:
                yield page, read(page.ids, vectors=True)

    @cached_property
    def _filled(self) -> bool:
        """Whether the shadow was filled past the store's own writes: then the store itself is asked
        for every record."""
        filled = self.run.history.all(events.FillBegun)
        return any(event.id == self.shadow.id for event in filled)

    def _check_page(
        self, page: Page, served: pa.RecordBatch, look: Look, findings: Findings
    ) -> None:
        """Compare a page, in a thread, while the next one is asked for."""
        self._compare(page, served, findings)
        look(page)

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

    # Samples

    @cached_property
    def _token_counts(self) -> npt.NDArray[np.int64]:
        return token_counts(self.corpus.tokens())

    def sample_of(self, size: int, **options: Any) -> Sample:
        return choose(self.corpus.tokens(), self._token_counts, size, self.seed, **options)
