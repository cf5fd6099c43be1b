"""Stage 2: an export shard becomes an embed shard of new vectors.

For each record the template gives the text; equal texts are embedded once; texts that an earlier
call paid for come from the cache; the rest goes to the model in batches, and every batch is kept in
the cache before anything else happens. Records without a usable text go to quarantine with a
reason. Two shards are in work at a time, so that the model is not idle at the end of each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.embedders.embedder import Embedder
from reembed.embedders.spending import cost
from reembed.errors import BudgetError, DamagedError
from reembed.manifest.template import TEXT_COLUMNS, TextTemplate
from reembed.progress import Later, Progress
from reembed.records import EXPORT_SCHEMA, Vectors, embed_schema, vectors_to_fixed_array
from reembed.run import events
from reembed.run.cached import Known
from reembed.run.directory import RunDir, Shard
from reembed.run.guards import Wait, no_wait
from reembed.run.ledger import DamagedLedgerError
from reembed.run.quarantine import Reason, lists_all, quarantine_rows, write_quarantine
from reembed.run.shards import Told, untold
from reembed.run.vector_cache import VectorCache
from reembed.stages.batched import Batched
from reembed.stages.engines import Engine, LocalEngine
from reembed.stages.estimate import tokens_left, verify_tokens
from reembed.stages.kept import Keeping
from reembed.stages.session import Session
from reembed.stages.shard_texts import ShardTexts, ShardVectors

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
    counter: Later = field(default_factory=Later)
    _claims: dict[bytes, Future[None]] = field(default_factory=dict)
    _rejected: dict[bytes, Reason] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def shard(self, source: Shard) -> Shard:
        """Embed one export shard and write the embed shard; see the module's docstring."""
        records = self.run.read_shard(source, TEXT_COLUMNS)
        texts = ShardTexts(self.template.texts_of(records))
        self.counter.update(int((texts.place < 0).sum()))
        made = self._vectors(texts)

        there = np.append(made.there, False)[texts.place]  # -1 is the last
        self._set_aside(source, texts, np.flatnonzero(~there).tolist())
        kept = np.flatnonzero(there)
        places = texts.place[kept]
        hashes = b"".join([texts.hashes[row] for row in kept.tolist()])
        table = pa.table(
            [
                records.column("id").take(pa.array(kept)),
                pa.Array.from_buffers(pa.binary(32), len(kept), [None, pa.py_buffer(hashes)]),
                pa.array(made.tokens[places], pa.int32()),
                vectors_to_fixed_array(made.of(places)),
            ],
            schema=embed_schema(self.embedder.dimensions),
        )
        return self.run.write_shard(STAGE, source.stem, table, source=source.sha256)

    def _set_aside(self, source: Shard, texts: ShardTexts, rows: Sequence[int]) -> None:
        """List the rows that get no vector, with all that was exported of them."""
        reasons = {
            row: self._rejected[texts.hashes[row]] if texts.place[row] >= 0 else NO_TEXT
            for row in rows
        }
        records = self.run.read_shard(source) if rows else EXPORT_SCHEMA.empty_table()
        quarantine_rows(self.run, source.stem, records, reasons)

    def _vectors(self, texts: ShardTexts) -> ShardVectors:
        """What these texts get; rejected ones get nothing (see `_rejected`)."""
        made, done = ShardVectors(len(texts.keys), self.embedder.dimensions), Future[None]()
        mine, others = self._claim(texts.keys, done)
        try:  # after the claim, or a text that another shard finishes just now is paid for twice
            self._recall(texts, made, self.cache.get([*mine]))
            if self.cache.lenders:
                self._recall(texts, made, self._borrowed(texts, _lacking(made, mine)))
            self._embed(texts, made, _lacking(made, mine))
        except BaseException as error:
            self._release(mine)
            done.set_exception(error)
            raise
        self._release(mine)
        done.set_result(None)
        for claim in set(others.values()):
            claim.result()
        self._recall(texts, made, self.cache.get([*others]))
        return made

    def _claim(
        self, keys: Sequence[bytes], done: Future[None]
    ) -> tuple[dict[bytes, int], dict[bytes, Future[None]]]:
        """Of these texts, those for this shard to see to, each with its place, until it is `done`;
        and those that another has in work."""
        with self._lock:
            others = {key: self._claims[key] for key in keys if key in self._claims}
            mine = {
                key: place
                for place, key in enumerate(keys)
                if key not in others and key not in self._rejected
            }
            self._claims.update(dict.fromkeys(mine, done))
        return mine, others

    def _release(self, mine: dict[bytes, int]) -> None:
        with self._lock:
            for key in mine:
                del self._claims[key]

    def _recall(self, texts: ShardTexts, made: ShardVectors, known: Known) -> None:
        """Put in what is known already."""
        if known:
            self.counter.update(int(texts.rows[made.recall(texts.keys, known)].sum()))

    def _borrowed(self, texts: ShardTexts, places: Sequence[int]) -> Known:
        if not places:
            return {}
        tokens = self.embedder.count_tokens([texts.texts[place] for place in places])
        return self.cache.borrow([texts.keys[place] for place in places], tokens.tolist())

    def _embed(self, texts: ShardTexts, made: ShardVectors, places: Sequence[int]) -> None:
        """Ask the model for these texts; what comes is kept before anything else."""
        if not places:
            return
        keys, rows = [texts.keys[place] for place in places], texts.rows[places]

        def keep(indices: Sequence[int], vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
            self.cache.put([keys[index] for index in indices], vectors, tokens)
            self.counter.update(int(rows[indices].sum()))

        embedded = self.embedder.embed_documents(
            [texts.texts[place] for place in places], on_batch=keep
        )
        made.take(places, embedded.vectors, embedded.tokens)
        with self._lock:
            for index, rejection in embedded.rejected.items():
                self._rejected[keys[index]] = (rejection.reason, rejection.detail)
                made.there[places[index]] = False


def _lacking(made: ShardVectors, mine: dict[bytes, int]) -> list[int]:
    """The places of these texts that have no vector yet."""
    places = np.fromiter(mine.values(), np.int64, len(mine))
    lacking: list[int] = places[~made.there[places]].tolist()
    return lacking


def embed(
    export_shards: dict[str, Shard],
    work: Embedding,
    engine: Engine,
    progress: Progress,
    wait: Wait = no_wait,
    embedded: Told = untold,
) -> dict[str, Shard]:
    """Embed every export shard whose embed shard is not there whole. Returns all by stem.

    Args:
        engine: may have begun on some of them.
        embedded: called for each of those that this call embeds, in order.

    Raises:
        BudgetError: a cap is reached. As after any other error, what is paid for is in the cache.
    """
    shards = work.run.shards(STAGE)
    begun = {stem for stem, shard in export_shards.items() if engine.begun(shard)}
    rest = {stem: shard for stem, shard in export_shards.items() if stem not in begun}
    left = {shard.stem for shard in not_embedded(work.run, rest)}
    tell_remade(left, shards, progress)
    todo = [shard for stem, shard in export_shards.items() if stem in begun or stem in left]
    total = sum(shard.rows for shard in export_shards.values())
    with progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter:
        work.counter.show(counter)
        each = _each(todo, wait)
        made = engine.map(work.shard, each, workers=SHARDS_IN_WORK, stop=work.embedder.cancel)
        for shard in made:
            shards[shard.stem] = shard
            embedded(shard)
    return {stem: shards[stem] for stem in export_shards}


def tell_remade(stems: Iterable[str], made: Mapping[str, Shard], progress: Progress) -> None:
    """Say which of these shards, that are about to be embedded, had been before."""
    for stem in stems:
        if stem in made:
            progress.note(f"embed/{stem}.parquet is damaged, gone or outdated: making it again")


def _each(shards: Sequence[Shard], wait: Wait) -> Iterator[Shard]:
    for shard in shards:
        wait()
        yield shard


def not_embedded(run: RunDir, export_shards: dict[str, Shard]) -> list[Shard]:
    """The export shards whose embed shard, or whose list of quarantined records, is not there
    whole, in order."""
    shards = run.shards(STAGE)
    fresh = [s for s in export_shards.values()
             if s.stem in shards and shards[s.stem].source == s.sha256]  # fmt: skip
    whole = run.whole(shards[s.stem] for s in fresh)
    done = {
        s.stem for s in fresh
        if s.stem in whole and lists_all(run, s.stem, s.rows - shards[s.stem].rows)
    }  # fmt: skip
    return [s for s in export_shards.values() if s.stem not in done]


@dataclass(frozen=True)
class Begun:
    """Embedding that was begun before its turn: the work, and the engine that is at it."""

    work: Embedding
    engine: Engine


def embed_shards(s: Session, begun: Begun | None = None, embedded: Told = untold) -> None:
    """Stage 2 for every export shard that is not embedded, then ledger and quarantine.

    Args:
        embedded: see `embed`.

    Raises:
        BudgetError: a cap is reached; says how much more is needed.
    """
    if s.manifest.keeps:
        _keep_vectors(s)
    else:
        _embed_texts(s, begun, lambda shard: _taken_in(s, shard, embedded))
    s.ledger.fold()
    write_quarantine(s.run, s.ledger)


def _taken_in(s: Session, shard: Shard, embedded: Told) -> None:
    """Tell of a shard, and take it into the ledger while others are embedded."""
    try:
        s.ledger.fold()
    except DamagedLedgerError:
        raise
    except DamagedError:  # a shard whose turn comes later is to be made again
        pass
    embedded(shard)


def _keep_vectors(s: Session) -> None:
    exports = s.run.shards("export")
    todo = not_embedded(s.run, exports)
    work = Keeping(s.run, s.template, s.dimensions)
    total = sum(shard.rows for shard in exports.values())
    with s.progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter:
        for shard in _each(todo, s.pause.wait):
            work.shard(shard)
            counter.update(shard.rows)


def _embed_texts(s: Session, begun: Begun | None, embedded: Told) -> None:
    try:
        if begun is None:
            _embed_by_batch(s)
            work = Embedding(s.run, s.embedder, s.template, s.cache)
            begun = Begun(work, LocalEngine())
        exports, wait = s.run.shards("export"), s.pause.wait
        embed(exports, begun.work, begun.engine, s.progress, wait, embedded)
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
    s.run.history.record(events.BudgetReached(tokens=spent.tokens, usd=spent.usd, needed=needed))
    return s.spending.refusal(cost(needed, s.embedder.price), what)
