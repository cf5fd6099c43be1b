"""Stage 2: an export shard becomes an embed shard of new vectors.

For each record the template gives the text; equal texts are embedded once; texts that an earlier
call paid for come from the cache; the rest goes to the model in batches, and every batch is kept in
the cache before anything else happens. Records without a usable text go to quarantine with a
reason. Two shards are in work at a time, so that the model is not idle at the end of each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.embedders.embedder import Embedder
from reembed.embedders.spending import cost
from reembed.errors import BudgetError
from reembed.manifest.template import TextTemplate
from reembed.progress import Counter, Progress
from reembed.records import Vectors, embed_schema, text_hash, vectors_to_fixed_array
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.run.guards import Wait, no_wait
from reembed.run.quarantine import Reason, lists_all, quarantine_rows, write_quarantine
from reembed.run.vector_cache import Known, VectorCache
from reembed.stages.batched import Batched
from reembed.stages.engines.engine import Engine
from reembed.stages.engines.local import LocalEngine
from reembed.stages.estimate import tokens_left, verify_tokens
from reembed.stages.kept import Keeping
from reembed.stages.session import Session

STAGE = "embed"
SHARDS_IN_WORK = 2

NO_TEXT = ("no_text", "the template gives no text for it")


@dataclass
class Embedding:
    """What embedding a shard needs, shared by the shards of a run."""

    run: RunDir
    embedder: Embedder
    template: TextTemplate
    cache: VectorCache
    counter: Counter = field(init=False)
    _claims: dict[bytes, Future[None]] = field(default_factory=dict)
    _rejected: dict[bytes, Reason] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def shard(self, source: Shard) -> Shard:
        """Embed one export shard and write the embed shard; see the module's docstring."""
        records = self.run.read_shard(source)
        texts = self.template.texts(
            *(records.column(name).to_pylist() for name in ("id", "document", "metadata", "uri"))
        )
        hashes = [text_hash(text) for text in texts]
        usable = [bool(text.strip()) for text in texts]
        self.counter.update(len(texts) - sum(usable))
        wanted = {key: text for key, text, ok in zip(hashes, texts, usable, strict=True) if ok}
        known = self._vectors(wanted, _multiplicity(hashes))

        kept = [row for row, key in enumerate(hashes) if key in known]
        reasons = {
            row: self._rejected[key] if usable[row] else NO_TEXT
            for row, key in enumerate(hashes)
            if key not in known
        }
        quarantine_rows(self.run, source.stem, records, reasons)
        return self._write_shard(source, records, kept, hashes, known)

    def _vectors(
        self, wanted: dict[bytes, str], multiplicity: dict[bytes, int]
    ) -> dict[bytes, tuple[Vectors, int]]:
        """Hash to vector and tokens of these texts; rejected ones are missing (see `_rejected`)."""
        mine, others = self._claim(list(wanted))
        try:  # after the claim, or a text that another shard finishes just now is paid for twice
            known = dict(self.cache.get(mine))
            known |= self._borrowed([key for key in mine if key not in known], wanted)
            self.counter.update(sum(multiplicity[key] for key in known))
            new = [key for key in mine if key not in known]
            known |= self._embed(new, [wanted[key] for key in new], multiplicity)
        except BaseException as error:
            with self._lock:
                for key in mine:
                    self._claims.pop(key).set_exception(error)
            raise
        with self._lock:
            for key in mine:
                self._claims.pop(key).set_result(None)
        for claim in others.values():
            claim.result()
        self.counter.update(sum(multiplicity[key] for key in others))
        return known | dict(self.cache.get([*others]))

    def _borrowed(self, keys: list[bytes], texts: dict[bytes, str]) -> Known:
        if not keys or not self.cache.lenders:
            return {}
        tokens = self.embedder.count_tokens([texts[key] for key in keys])
        return self.cache.borrow(keys, tokens.tolist())

    def _claim(self, keys: Sequence[bytes]) -> tuple[list[bytes], dict[bytes, Future[None]]]:
        """Of these texts, the ones for this shard to see to, and those another has in work."""
        with self._lock:
            others = {key: self._claims[key] for key in keys if key in self._claims}
            mine = [key for key in keys if key not in others and key not in self._rejected]
            self._claims.update((key, Future()) for key in mine)
        return mine, others

    def _embed(
        self, keys: Sequence[bytes], texts: Sequence[str], multiplicity: dict[bytes, int]
    ) -> dict[bytes, tuple[Vectors, int]]:
        """Hash to vector and tokens of these texts; what comes is kept before anything else."""
        found: dict[bytes, tuple[Vectors, int]] = {}
        if not keys:
            return found

        def keep(indices: Sequence[int], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
            done = [keys[i] for i in indices]
            self.cache.put(done, vectors, tokens)
            found.update(zip(done, zip(vectors, tokens.tolist(), strict=True), strict=True))
            self.counter.update(sum(multiplicity[key] for key in done))

        embedded = self.embedder.embed_documents(texts, on_batch=keep)
        with self._lock:
            for index, rejection in embedded.rejected.items():
                self._rejected[keys[index]] = (rejection.reason, rejection.detail)
        return found

    def _write_shard(
        self,
        source: Shard,
        records: pa.Table,
        kept: Sequence[int],
        hashes: Sequence[bytes],
        known: dict[bytes, tuple[Vectors, int]],
    ) -> Shard:
        d = self.embedder.dimensions
        vectors = np.empty((len(kept), d), np.float32)
        for position, row in enumerate(kept):
            vectors[position] = known[hashes[row]][0]
        table = pa.table(
            [
                records.column("id").take(pa.array(kept, pa.int64())),
                pa.array([hashes[row] for row in kept], pa.binary(32)),
                pa.array([known[hashes[row]][1] for row in kept], pa.int32()),
                vectors_to_fixed_array(vectors),
            ],
            schema=embed_schema(d),
        )
        return self.run.write_shard(STAGE, source.stem, table, source=source.sha256)


def embed(
    export_shards: dict[str, Shard],
    work: Embedding,
    engine: Engine,
    progress: Progress,
    wait: Wait = no_wait,
) -> dict[str, Shard]:
    """Embed every export shard whose embed shard is not there whole. Returns all by stem.

    Raises:
        BudgetError: a cap is reached. As after any other error, what is paid for is in the cache.
    """
    shards = work.run.shards(STAGE)
    todo = not_embedded(work.run, export_shards)
    for shard in todo:
        if shard.stem in shards:
            progress.note(
                f"embed/{shard.stem}.parquet is damaged, gone or outdated: making it again"
            )
    total = sum(shard.rows for shard in export_shards.values())
    with progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter:
        work.counter = counter
        begun = _each(todo, wait)
        made = engine.map(work.shard, begun, workers=SHARDS_IN_WORK, stop=work.embedder.cancel)
        for shard in made:
            shards[shard.stem] = shard
    return {stem: shards[stem] for stem in export_shards}


def _each(shards: Sequence[Shard], wait: Wait) -> Iterator[Shard]:
    for shard in shards:
        wait()
        yield shard


def not_embedded(run: RunDir, export_shards: dict[str, Shard]) -> list[Shard]:
    """The export shards whose embed shard, or whose list of quarantined records, is not there
    whole, in order."""
    shards = run.shards(STAGE)
    return [s for s in export_shards.values() if not _is_done(s, shards.get(s.stem), run)]


def _is_done(source: Shard, shard: Shard | None, run: RunDir) -> bool:
    return (
        shard is not None
        and shard.source == source.sha256
        and run.is_whole(shard)
        and lists_all(run, source.stem, source.rows - shard.rows)
    )


def _multiplicity(hashes: Sequence[bytes]) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for key in hashes:
        counts[key] = counts.get(key, 0) + 1
    return counts


def embed_shards(s: Session) -> None:
    """Stage 2 for every export shard that is not embedded, then ledger and quarantine.

    Raises:
        BudgetError: a cap is reached; says how much more is needed.
    """
    if s.manifest.keeps:
        _keep_vectors(s)
    else:
        _embed_texts(s)
    s.ledger.fold()
    write_quarantine(s.run, s.ledger)


def _keep_vectors(s: Session) -> None:
    exports = s.run.shards("export")
    todo = not_embedded(s.run, exports)
    work = Keeping(s.run, s.template, s.dimensions)
    total = sum(shard.rows for shard in exports.values())
    with s.progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter:
        for shard in _each(todo, s.pause.wait):
            work.shard(shard)
            counter.update(shard.rows)


def _embed_texts(s: Session) -> None:
    try:
        _embed_by_batch(s)
        work = Embedding(s.run, s.embedder, s.template, s.cache)
        embed(s.run.shards("export"), work, LocalEngine(), s.progress, s.pause.wait)
    except BudgetError as error:  # what was in flight has ended, so what is left can be told
        raise budget_stop(
            s, max(error.tokens, _needed(s)), "embedding and verifying the rest"
        ) from None


def _embed_by_batch(s: Session) -> None:
    """What the provider's batch API can be waited for: nothing once the live name has moved."""
    if s.embedder.batches is not None and s.run.history.last_move != "swap":
        Batched(
            s.run, s.embedder, s.embedder.batches, s.template, s.cache, s.spending, s.progress,
            s.pause.wait,
        ).embed(not_embedded(s.run, s.run.shards("export")))  # fmt: skip


def _needed(s: Session) -> int:
    """About how many tokens the rest of the run takes."""
    exports = s.run.shards("export")
    todo = not_embedded(s.run, exports)
    left, each = tokens_left(todo, s.run, s.template, s.embedder, s.paid_for)
    records = sum(shard.rows for shard in exports.values())
    return left + verify_tokens(each, records, s.manifest.verify.sample)


def budget_stop(s: Session, needed: int, what: str) -> BudgetError:
    """The error that ends a call at the budget; journalled, for the report.

    Args:
        needed: tokens that `what` takes.
    """
    spent = s.spending.spent
    s.run.history.write(events.BudgetReached(tokens=spent.tokens, usd=spent.usd, needed=needed))
    return s.spending.refusal(cost(needed, s.embedder.price), what)
