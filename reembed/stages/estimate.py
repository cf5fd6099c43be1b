"""What embedding a source will take, from a sample: tokens, cost, time, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reembed.embedders.embedder import Embedder
from reembed.embedders.spending import cost
from reembed.errors import BudgetError
from reembed.manifest.template import TEXT_COLUMNS, TextTemplate
from reembed.progress import stage
from reembed.records import text_hash
from reembed.run.directory import RunDir, Shard
from reembed.stages.session import Session
from reembed.stages.texts import TextFindings, examine_texts
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo

SAMPLE = 500
TIMED_TEXTS = 32
SHARDS_SAMPLED = 20
MOST_PACKED = 20_000
"""Texts that are packed into requests to count those."""
CHROMA_TEXT_FACTOR = 5
"""Bytes in chroma.sqlite3 for each byte of text: the text, its trigram index, and the queue."""

Known = Callable[[Sequence[bytes], Sequence[int]], set[bytes]]
"""Which of these texts, by hash and tokens, have a vector that is paid for."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take, from a sample.

    Attributes:
        sampled: records in the sample.
        tokens: of all texts together.
        new_tokens: of those whose vectors are not paid for yet.
        verify_tokens: what a verification embeds again and asks.
        requests: for `new_tokens`, about.
        exact_tokens: whether the model's own tokenizer counted.
        without_text: share of records that the template gives no text for.
        too_long: share of records longer than the model takes.
        left_out: records of the sample that will be quarantined for certain.
        usd: for `new_tokens` at the listed price; None where unknown or free.
        price_as_of: day of that price.
        seconds: to embed `new_tokens`, from the speed of a few texts; None where nothing was timed.
        state_bytes: for the run directory, cache included.
        store_bytes: for the shadow, where the store is on this machine.
        text_bytes: of all records: ids, documents, metadata, uris.
        stage_seconds, memory_bytes: see `Forecast`.
    """

    sampled: int
    tokens: int
    new_tokens: int
    verify_tokens: int
    requests: int
    exact_tokens: bool
    without_text: float
    too_long: float
    left_out: int
    usd: float | None
    price_as_of: str | None
    seconds: float | None
    state_bytes: int
    store_bytes: int
    text_bytes: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: int = 0


@dataclass(frozen=True)
class Sampled:
    """A sample of the source's texts, for what is estimated and what is timed.

    Attributes:
        texts: those that can be embedded.
        tokens: of each, `(n,) int32`.
        paid: of each, whether its vector is paid for.
        found: what is to be said of them.
    """

    texts: list[str]
    tokens: np.ndarray[Any, Any]
    paid: list[bool]
    found: TextFindings


@stage("estimate tokens and time")
def make_estimate(s: Session, source: CollectionInfo, records: int) -> tuple[Estimate, Sampled]:
    """What a run will take but for its time, which costs something to learn: see `timed`."""
    manifest, store, embedder = s.manifest, s.source_store, s.embedder
    template = s.template
    rows = Collection(store, source.id, manifest.source.where).some(SAMPLE, vectors=False)
    columns = [rows.column(name).to_pylist() for name in ("id", "document", "metadata", "uri")]
    texts = template.texts(*columns)
    usable = [text for text in texts if text.strip()]
    counts = embedder.count_tokens(usable) if usable else np.zeros(0, np.int32)
    limit = embedder.limits.max_tokens
    sampled = max(1, len(texts))
    long = int((counts > limit).sum()) if limit else 0
    fails = embedder.model.on_too_long == "fail"
    refused = embedder.too_long(usable, counts) if long and fails else 0
    each = float(counts.sum()) / sampled
    paid = _paid(usable, counts, s.paid_for)
    new_tokens = round(int(counts[~np.array(paid, bool)].sum()) / sampled * records)
    bytes_per_record = sum(
        len(str(value).encode()) for column in columns for value in column if value
    )
    text_bytes = round(bytes_per_record / sampled * records)
    new_vectors = records * embedder.dimensions * 4
    price = embedder.price
    estimate = Estimate(
        sampled=len(texts),
        tokens=round(each * records),
        new_tokens=new_tokens,
        verify_tokens=verify_tokens(each, records, manifest.verify.sample),
        requests=_requests(embedder, counts, records / sampled, new_tokens),
        exact_tokens=embedder.exact_tokens,
        without_text=(len(texts) - len(usable)) / sampled,
        too_long=long / sampled,
        left_out=len(texts) - len(usable) + refused,
        usd=cost(new_tokens, price).usd if price else None,
        price_as_of=price.as_of if price else None,
        seconds=None,
        state_bytes=text_bytes + records * (source.dimensions or 0) * 4 + 2 * new_vectors,
        store_bytes=(
            CHROMA_TEXT_FACTOR * text_bytes + 2 * new_vectors
            if s.store.catalog.capabilities.local_path
            else 0
        ),
        text_bytes=text_bytes,
    )
    return estimate, Sampled(usable, counts, paid, examine_texts(manifest, texts, *columns[1:3]))


def _requests(
    embedder: Embedder, counts: np.ndarray[Any, Any], each: float, new_tokens: int
) -> int:
    """About how many requests it takes to embed what is not paid for yet.

    Args:
        counts: tokens of the sample's texts.
        each: records for one in the sample.
    """
    total = float(counts.sum()) * each
    if not total or not new_tokens:
        return 0
    repeated = np.resize(counts, max(len(counts), min(MOST_PACKED, round(len(counts) * each))))
    packed = embedder.requests_for(repeated.tolist())
    return max(1, round(packed * new_tokens / float(repeated.sum())))


def _paid(texts: Sequence[str], counts: np.ndarray[Any, Any], known: Known) -> list[bool]:
    """Of each text whether it is paid for."""
    keys = [text_hash(text) for text in texts]
    paid = known(keys, counts.tolist())
    return [key in paid for key in keys]


def verify_tokens(each: float, records: int, sample: int) -> int:
    """About what a verification takes: the sample embedded again, and as many questions, which are
    mostly shorter.

    Args:
        each: mean tokens of a record.
        sample: the manifest's `verify.sample`.
    """
    return round(2 * each * min(records, sample))


def timed(embedder: Embedder, sampled: Sampled, tokens: int) -> float | None:
    """Seconds for `tokens`, from the time that a few texts take; None where there is none to time,
    or the budget does not allow it."""
    counts = sampled.tokens
    new = [row for row in range(len(counts)) if not sampled.paid[row]]
    if not new:
        return None
    middle = float(np.median(counts[new]))
    chosen = [row for row in new if counts[row] <= 2 * middle][:TIMED_TEXTS]
    few = int(counts[chosen].sum())
    if not few:
        return None
    start = time.perf_counter()
    try:
        embedder.embed_documents([sampled.texts[row] for row in chosen])
    except BudgetError:
        return None
    return (time.perf_counter() - start) / few * tokens


def tokens_left(
    shards: Sequence[Shard], run: RunDir, template: TextTemplate, embedder: Embedder, known: Known
) -> tuple[int, float]:
    """About how many tokens embedding these export shards still takes, and those of a record."""
    chosen = shards[:: max(1, -(-len(shards) // SHARDS_SAMPLED))]
    rows = sampled = left = total = 0
    for shard in chosen:
        table = run.read_shard(shard, TEXT_COLUMNS)
        step = max(1, table.num_rows * len(chosen) // (4 * SAMPLE))
        table = table.take(list(range(0, table.num_rows, step)))
        texts = [text for text in template.texts_of(table) if text.strip()]
        counts = embedder.count_tokens(texts) if texts else np.zeros(0, np.int32)
        rows += shard.rows
        sampled += table.num_rows
        left += int(counts[~np.array(_paid(texts, counts, known), bool)].sum()) * step
        total += int(counts.sum())
    all_rows = sum(shard.rows for shard in shards)
    return round(left * all_rows / max(1, rows)), total / max(1, sampled)
