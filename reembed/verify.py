"""Stage 4: gates over the shadow, and the verdict.

`integrity` compares every record and vector with the run's shards; `fidelity` embeds a sample again;
`index` compares the shadow's own search with exact search; `recall` asks the old and the new model
the same questions. Everything streams over the shards, and the seed is kept, so that a verdict can
be computed again.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reembed.embedders.embedder import Embedder
from reembed.ledger import Ledger
from reembed.manifest import Verify
from reembed.progress import Progress
from reembed.quality.metrics import judged_relevant, recall_at_k
from reembed.quality.queries import JudgedQueries, judged_queries, known_item_query
from reembed.quality.search import Block, Hits, exact_search
from reembed.quality.statistics import paired_difference
from reembed.quality.verdict import Gate, Status, Verdict
from reembed.records import (
    Metric,
    Vectors,
    bad_rows,
    cosine_rows,
    fixed_array_to_vectors,
    list_array_to_vectors,
)
from reembed.rundir import RunDir, Shard
from reembed.stores.base import Store
from reembed.template import TextTemplate

STAGE = "verify"
SAMPLES = 20
FIDELITY_SAMPLE = 300
FIDELITY_COSINE = 0.999
"""Servers answer the same text with vectors up to 1.6e-4 apart, batch against single; another model,
prefix or truncation moves them much further."""
SERVED_COSINE = 0.9999
"""Stores hand a vector back within 1.5e-8 of what was loaded."""
FEWEST_QUERIES = 100
"""Fewer queries than this cannot tell two models apart."""


@dataclass
class Verification:
    """What the gates need.

    Attributes:
        old_embedder: the source's model; None where it cannot be called.
        old_model_note: why not.
    """

    run: RunDir
    store: Store
    shadow_id: str
    source_metric: Metric
    target_metric: Metric
    template: TextTemplate
    embedder: Embedder
    old_embedder: Embedder | None
    old_model_note: str
    ledger: Ledger
    settings: Verify

    def __post_init__(self) -> None:
        self.exports = self.run.shards("export")
        self.embeds = self.run.shards("embed")
        self.seed = zlib.crc32(self.run.run_id.encode())

    def verdict(self, progress: Progress) -> Verdict:
        """Check every gate, in order."""
        gates = [self.integrity(progress)]
        gates.append(self.fidelity())
        gates += self.searches()
        return Verdict(self.run.run_id, self.seed, tuple(gates))

    # Integrity

    def integrity(self, progress: Progress, stems: Sequence[str] | None = None) -> Gate:
        """Every record and vector of these shards (default: all) against the shadow.

        Checks ids, documents, metadata and uris by row hash; vectors by dimension, finiteness,
        norm and cosine with the embedded one; counts in both directions.
        """
        findings = _Findings()
        chosen = [self.embeds[stem] for stem in (self.embeds if stems is None else stems)]
        with progress.stage(STAGE, sum(shard.rows for shard in chosen)) as counter:
            for shard in chosen:
                self._check_shard(shard, findings)
                counter.update(shard.rows)
        total, quarantined = self.ledger.counts()
        count = self.store.count(self.shadow_id)
        if stems is None and count != total - quarantined:
            self._find_extra(findings)
        allowed = self.settings.allow_quarantined
        figures = {
            "records": total, "loaded": count, "quarantined": quarantined,
            "allow_quarantined": allowed, "checked": findings.checked, **findings.counts,
        }  # fmt: skip
        problems = [f"{n:,} {kind}" for kind, n in findings.counts.items() if n]
        if count != total - quarantined and not problems:
            problems.append(f"{count:,} in the shadow instead of {total - quarantined:,}")
        if quarantined > allowed:
            problems.append(f"{quarantined:,} quarantined, {allowed:,} allowed")
        message = (
            f"{'; '.join(problems)} of {total:,} records"
            if problems
            else f"all {total - quarantined:,} records equal, vectors as embedded"
            + (f"; {quarantined:,} quarantined" if quarantined else "")
        )
        return Gate("integrity", "fail" if problems else "pass", message, figures, findings.samples)

    def _check_shard(self, embed: Shard, findings: _Findings) -> None:
        export = self.exports[embed.stem]
        current = self.ledger.current(embed.stem)
        table = self.run.read_shard(embed, ["id", "embedding"])
        ids = [id for id in table.column("id").to_pylist() if id in current]
        if not ids:
            return
        mask = [id in current for id in table.column("id").to_pylist()]
        expected_vectors = fixed_array_to_vectors(table.column("embedding"))[mask]
        hashes = self.run.read_shard(export, ["id", "row_sha256"])
        expected_rows = dict(
            zip(
                hashes.column("id").to_pylist(),
                hashes.column("row_sha256").to_pylist(),
                strict=True,
            )
        )
        served = self.store.fetch(self.shadow_id, ids, vectors=True)
        served_ids = served.column("id").to_pylist()
        position = {id: row for row, id in enumerate(served_ids)}
        findings.checked += len(ids)
        findings.add("missing", [id for id in ids if id not in position])
        rows = served.column("row_sha256").to_pylist()
        findings.add(
            "changed",
            [id for id, row in zip(served_ids, rows, strict=True) if row != expected_rows[id]],
        )
        self._check_vectors(ids, expected_vectors, served_ids, served.column("embedding"), findings)

    def _check_vectors(
        self,
        ids: Sequence[str],
        expected: Vectors,
        served_ids: Sequence[str],
        column: object,
        findings: _Findings,
    ) -> None:
        try:
            vectors, present = list_array_to_vectors(column)
        except ValueError:
            findings.add("of wrong dimension", served_ids)
            return
        with_vector = [id for id, there in zip(served_ids, present, strict=True) if there]
        findings.add(
            "without a vector",
            [id for id, there in zip(served_ids, present, strict=True) if not there],
        )
        if not with_vector:
            return
        if vectors.shape[1] != expected.shape[1]:
            findings.add("of wrong dimension", with_vector)
            return
        bad = bad_rows(vectors)
        findings.add(
            "not finite or zero", [id for id, b in zip(with_vector, bad, strict=True) if b]
        )
        order = {id: row for row, id in enumerate(ids)}
        cosines = cosine_rows(vectors, expected[[order[id] for id in with_vector]])
        other = (cosines < SERVED_COSINE) & ~bad
        findings.add(
            "with another vector", [id for id, b in zip(with_vector, other, strict=True) if b]
        )

    def _find_extra(self, findings: _Findings) -> None:
        for page in self.store.list_ids(self.shadow_id):
            ids = page.to_pylist()
            known = self.ledger.lookup(ids)
            findings.add("extra", [id for id in ids if id not in known or known[id].quarantined])

    # Fidelity

    def fidelity(self) -> Gate:
        """A sample, spread over all shards, embedded again and compared with what is served."""
        sample = self._sample(FIDELITY_SAMPLE)
        if not sample:
            return Gate("fidelity", "fail", "there is no record to embed again", {"sample": 0})
        ids = list(sample)
        again = self.embedder.embed_documents(list(sample.values()))
        served = self.store.fetch(self.shadow_id, ids, vectors=True)
        position = {id: row for row, id in enumerate(served.column("id").to_pylist())}
        vectors, present = list_array_to_vectors(served.column("embedding"))
        if (
            not present.all()
            or len(position) != len(ids)
            or vectors.shape[1] != again.vectors.shape[1]
        ):
            return Gate(
                "fidelity", "fail", "sampled records are missing or have another dimension",
                {"sample": len(ids)},
            )  # fmt: skip
        cosines = cosine_rows(vectors[[position[id] for id in ids]], again.vectors)
        off = [id for row, id in enumerate(ids)
               if cosines[row] < FIDELITY_COSINE and row not in again.rejected]  # fmt: skip
        refused = [ids[row] for row in again.rejected]
        figures = {
            "sample": len(ids), "limit": FIDELITY_COSINE, "below": len(off),
            "refused_now": len(refused), "lowest_cosine": round(float(cosines.min()), 6),
            "median_cosine": round(float(np.median(cosines)), 6),
        }  # fmt: skip
        bad = off or refused
        message = (
            f"{len(off):,} of {len(ids):,} sampled records have another vector when embedded again"
            + (f", {len(refused):,} are refused now" if refused else "")
            if bad
            else f"{len(ids):,} sampled records embedded again, lowest cosine {cosines.min():.5f}"
        )
        samples = {"other vector": off[:SAMPLES], "refused": refused[:SAMPLES]}
        return Gate("fidelity", "fail" if bad else "pass", message, figures, samples)

    def _sample(self, size: int) -> dict[str, str]:
        """Id to text of up to `size` records, each shard in proportion, at least one a shard."""
        total = sum(shard.rows for shard in self.embeds.values())
        chosen: dict[str, str] = {}
        for stem, embed in self.embeds.items():
            ids = sorted(self.ledger.current(stem))
            share = min(len(ids), max(1, round(size * embed.rows / total)) if total else 0)
            generator = random.Random(f"{self.seed} {stem}")  # noqa: S311  (a sample, no secret)
            picked = set(generator.sample(ids, share))
            records = self.run.read_shard(self.exports[stem])
            texts = self.template.texts(
                *(records.column(c).to_pylist() for c in ("id", "document", "metadata", "uri"))
            )
            for id, text in zip(records.column("id").to_pylist(), texts, strict=True):
                if id in picked:
                    chosen[id] = text
        return chosen

    # Searches: index and recall

    def searches(self) -> list[Gate]:
        """The `index` and the `recall` gate, which ask the same queries."""
        judged = self._judged()
        if judged is not None:
            texts: Sequence[str] = judged.texts
        else:
            generator = random.Random(self.seed)  # noqa: S311
            sample = self._sample(self.settings.sample)
            texts = [known_item_query(text, generator) for text in sample.values()]
        new_queries = self.embedder.embed_queries(texts)
        k = self.settings.k
        new = exact_search(new_queries, self._new_blocks(), k, self.target_metric)
        gates = [self._index_gate(new_queries, new)]
        old: Hits | None = None
        if self.old_embedder is not None:
            old_queries = self.old_embedder.embed_queries(texts)
            old = exact_search(old_queries, self._old_blocks(), k, self.source_metric)
        if judged is not None:
            relevant = [judged_relevant(judged.judgements[id]) for id in judged.ids]
            scores = [_recalls(hits.ids, relevant, k) if hits else None for hits in (new, old)]
            return [*gates, self._recall_gate("judged", *scores)]
        keys = self._keys(list(sample))
        wanted = [{keys[id]} for id in sample]
        scores = [_recalls(hits.keys, wanted, k) if hits else None for hits in (new, old)]
        return [*gates, self._recall_gate("known-item", *scores)]

    def _judged(self) -> JudgedQueries | None:
        queries, qrels = self.settings.queries, self.settings.qrels
        return judged_queries(Path(queries), Path(qrels)) if queries and qrels else None

    def _new_blocks(self) -> Iterator[Block]:
        for stem, shard in self.embeds.items():
            current = self.ledger.current(stem)
            table = self.run.read_shard(shard, ["id", "text_sha256", "embedding"])
            ids = table.column("id").to_pylist()
            rows = [row for row, id in enumerate(ids) if id in current]
            keys = table.column("text_sha256").to_pylist()
            vectors = fixed_array_to_vectors(table.column("embedding"))[rows]
            yield Block([ids[row] for row in rows], [keys[row] for row in rows], vectors)

    def _old_blocks(self) -> Iterator[Block]:
        for stem, shard in self.exports.items():
            keys = self._shard_keys(stem)
            current = self.ledger.current(stem)
            table = self.run.read_shard(shard, ["id", "embedding"])
            vectors, present = list_array_to_vectors(table.column("embedding"))
            ids = [
                id
                for id, there in zip(table.column("id").to_pylist(), present, strict=True)
                if there
            ]
            rows = [row for row, id in enumerate(ids) if id in current]
            bad = bad_rows(vectors)
            rows = [row for row in rows if not bad[row]]
            yield Block([ids[r] for r in rows], [keys[ids[r]] for r in rows], vectors[rows])

    def _shard_keys(self, stem: str) -> dict[str, bytes]:
        table = self.run.read_shard(self.embeds[stem], ["id", "text_sha256"])
        return dict(
            zip(
                table.column("id").to_pylist(), table.column("text_sha256").to_pylist(), strict=True
            )
        )

    def _keys(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Text hash of each of these records."""
        stems = {entry.shard for entry in self.ledger.lookup(ids).values()}
        keys: dict[str, bytes] = {}
        for stem in self.embeds:
            if stem in stems:
                keys |= self._shard_keys(stem)
        return {id: keys[id] for id in ids}

    def _index_gate(self, queries: Vectors, exact: Hits) -> Gate:
        """Recall of the shadow's own search against exact search; equal texts count as equal."""
        k = min(self.settings.k, self.store.count(self.shadow_id))
        answers = self.store.query(self.shadow_id, queries, k)
        keys = self._keys(sorted({id for answer in answers for id in answer}))
        recalls = np.array(
            [
                _overlap([keys[id] for id in answer], [key for key in row[:k] if key])
                for answer, row in zip(answers, exact.keys, strict=True)
            ]
        )
        recall, limit = float(recalls.mean()), self.settings.index_recall
        passed = recall >= limit
        message = f"recall@{k} of the index {recall:.4f}, limit {limit}"
        if not passed:
            message += (
                "; raise it with target.index, e.g. ef_search or max_neighbors (slower queries, "
                "more memory), and run again under a new name"
            )
        figures = {"recall": round(recall, 6), "k": k, "limit": limit, "queries": len(recalls)}
        return Gate("index", "pass" if passed else "fail", message, figures)

    def _recall_gate(
        self,
        kind: str,
        new: npt.NDArray[np.float64] | None,
        old: npt.NDArray[np.float64] | None,
    ) -> Gate:
        """Non-inferiority of the new model: judged queries gate; known-item queries gate only
        where they prove the new model worse, since they are no user's queries."""
        assert new is not None
        settings, n = self.settings, len(new)
        figures: dict[str, object] = {"queries": n, "kind": kind, "k": settings.k,
                                      "new": round(float(new.mean()), 6)}  # fmt: skip
        about = f"{kind} recall@{settings.k} of the new model {new.mean():.4f}"
        if old is None:
            note = f"{about}; nothing to compare it with: {self.old_model_note}"
            return Gate("recall", "shown", note, figures)
        difference = paired_difference(new, old, settings.confidence, self.seed)
        figures |= {
            "old": round(float(old.mean()), 6), "difference": difference.to_dict(),
            "margin": settings.margin,
        }  # fmt: skip
        about += (
            f", of the old {old.mean():.4f}: difference {difference.mean:+.4f} "
            f"[{difference.low:+.4f}, {difference.high:+.4f}] over {n:,} queries"
        )
        status: Status
        if n < FEWEST_QUERIES:
            status = "shown" if kind == "known-item" else "inconclusive"
            return Gate("recall", status, f"{about}; too few to judge", figures)
        if difference.high < -settings.margin:
            status, about = "fail", f"{about}; worse by more than the margin {settings.margin}"
        elif difference.low >= -settings.margin:
            status, about = "pass", f"{about}; not worse by more than the margin {settings.margin}"
        else:
            status = "shown" if kind == "known-item" else "inconclusive"
            about = f"{about}; the interval includes the margin -{settings.margin}"
        return Gate("recall", status, about, figures)


class _Findings:
    """Counts and up to 20 sample ids of each thing found."""

    KINDS = (
        "missing", "extra", "changed", "without a vector", "of wrong dimension",
        "not finite or zero", "with another vector",
    )  # fmt: skip

    def __init__(self) -> None:
        self.checked = 0
        self.counts: dict[str, int] = dict.fromkeys(self.KINDS, 0)
        self.samples: dict[str, list[str]] = {}

    def add(self, kind: str, ids: Sequence[str]) -> None:
        if ids:
            self.counts[kind] += len(ids)
            kept = self.samples.setdefault(kind, [])
            kept += list(ids)[: SAMPLES - len(kept)]


def _recalls(
    ranked: npt.NDArray[np.object_], relevant: Sequence[Collection[Hashable]], k: int
) -> npt.NDArray[np.float64]:
    return np.array(
        [recall_at_k(list(row), items, k) for row, items in zip(ranked, relevant, strict=True)]
    )


def _overlap(found: Sequence[bytes], expected: Sequence[bytes]) -> float:
    """Share of `expected` that is in `found`, counting repeated keys as often as they stand."""
    left = list(found)
    hits = 0
    for key in expected:
        if key in left:
            left.remove(key)
            hits += 1
    return hits / len(expected) if expected else 1.0
