"""The facade that all stages use: texts in, checked vectors or reasons out, whatever the provider.

`prefix -> count -> too long? -> pack -> send (throttle, retry, check, isolate) -> normalise`
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np

from reembed.embedders.base import (
    Counts,
    Limits,
    Price,
    Provider,
    RejectedInputError,
    TransientError,
)
from reembed.embedders.batching import Piece, beginning, cut, pack
from reembed.embedders.checks import least_tokens
from reembed.embedders.fingerprint import PROBES, Fingerprint, compare
from reembed.embedders.ratelimit import Cancelled, Throttle
from reembed.embedders.retry import RetryPolicy
from reembed.embedders.sender import Rejection, Sender, Stats, weighted_mean
from reembed.errors import (
    InputTooLongError,
    InterruptedRunError,
    ProviderRefusedError,
    ReembedError,
)
from reembed.manifest import Embed, Model
from reembed.records import Vectors, unit

OnBatch = Callable[[Sequence[int], Vectors, Counts], None]
"""`on_batch(indices, vectors, tokens)`: results of some texts, final and paid for."""

GRACE = 10.0
"""Seconds that requests in flight get to end, and their paid vectors to be stored, after a stop."""


@dataclass
class Embedded:
    """What `embed_documents` gives.

    Attributes:
        vectors: `(n, d) float32`, row i for text i; zeros where it was rejected.
        tokens: `(n,) int32` as sent, prefix included; 0 where it was rejected.
        rejected: by index, why a text has no vector.
    """

    vectors: Vectors
    tokens: Counts
    rejected: dict[int, Rejection] = field(default_factory=dict)


class Embedder:
    """One model, ready to embed. Safe to call from several threads.

    Args:
        provider: closed with the embedder.
        settings: concurrency and rate limits.
        retry: how patient requests are.
    """

    def __init__(
        self,
        provider: Provider,
        model: Model,
        settings: Embed | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        settings = settings or Embed()
        self.model = model
        self._provider = provider
        told = provider.limits
        per_minute = settings.tokens_per_minute
        if per_minute:  # a request larger than a minute's allowance could never be sent
            told = replace(told, batch_tokens=min(told.batch_tokens or per_minute, per_minute))
        self._limits = replace(told, max_tokens=model.max_tokens or told.max_tokens)
        self._workers = told.concurrency if settings.concurrency == "auto" else settings.concurrency
        self._normalize = (
            provider.normalizes if model.normalize == "auto" else bool(model.normalize)
        )
        self._where = f"{model.provider} {model.name}"
        if model.base_url:
            self._where += f" at {model.base_url}"
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="embed")
        self._sender = Sender(
            provider,
            Throttle(self._workers, settings.requests_per_minute, per_minute),
            retry or RetryPolicy(),
            where=self._where,
            on_too_long=model.on_too_long,
            max_tokens=self._limits.max_tokens,
        )
        self._contact_lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._calls_lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Of the vectors: as asked for, else learnt by embedding one sentence. Raises as
        `check_reachable`."""
        return self.model.dimensions or self._contacted()

    @property
    def limits(self) -> Limits:
        """What one request may hold, the manifest's `max_tokens` included."""
        return self._limits

    @property
    def price(self) -> Price | None:
        """None where it costs nothing or the price is unknown."""
        return self._provider.price

    @property
    def exact_tokens(self) -> bool:
        """Whether tokens are counted with the model's own tokenizer, or estimated from above."""
        return self._provider.exact_tokens

    @property
    def stats(self) -> Stats:
        return self._sender.stats

    def warnings(self) -> list[str]:
        """What a plan should tell about this model's settings; each one sentence."""
        found = self._provider.warnings()
        limits = self._limits
        if limits.max_tokens is None and not limits.refuses_long and self.model.base_url:
            found.append(
                "it is unknown how many tokens this server takes, and some servers cut longer "
                "texts in silence: set model.max_tokens."
            )
        return found

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text as a document, the prefix included, `(n,) int32`."""
        prefix = self.model.document_prefix
        return self._provider.count_tokens([prefix + text for text in texts] if prefix else texts)

    def check_reachable(self) -> None:
        """Embed one sentence, so that a wrong address, key, name or dimension is told at once.

        Raises:
            UnreachableError: nobody answers, or not in a way that makes sense.
            ProviderRefusedError: unknown model, wrong key, other dimensions than asked for.
        """
        self._contacted()

    def _contacted(self) -> int:
        with self._contact_lock:
            if self._sender.dimensions is None:
                asked = self.model.dimensions
                received = self._sender.contact()
                if asked is not None and received != asked:
                    raise ProviderRefusedError(
                        f"{self._where}: asked for {asked} dimensions, "
                        f"got {received}: the server or model ignores `dimensions`",
                        f"Set model.dimensions to {received} or leave it out.",
                    )
                self._sender.dimensions = received
            return self._sender.dimensions

    def embed_documents(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> Embedded:
        """Vectors for documents.

        Args:
            on_batch: called in this thread as each request's texts are complete and checked, in
                the order of completion: the place to store paid vectors durably. Rejected texts
                are not passed. If it raises, the call ends with that error.

        Raises:
            UnreachableError, BadVectorsError, ProviderRefusedError: before that, every finished
                request has been passed to `on_batch`.
        """
        return self._embed(texts, self.model.document_prefix, False, on_batch)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors for queries, `(n, d) float32`.

        Raises:
            InputTooLongError, ProviderRefusedError: a query was rejected.
            UnreachableError, BadVectorsError: as `embed_documents`.
        """
        embedded = self._embed(texts, self.model.query_prefix, True, None)
        for index, rejection in sorted(embedded.rejected.items()):
            kind = InputTooLongError if rejection.reason == "too_long" else ProviderRefusedError
            raise kind(f"query {index} cannot be embedded: {rejection.detail}")
        return embedded.vectors

    def fingerprint(self) -> Fingerprint:
        """Settings, version and probe vectors of the model as it is now. Raises as
        `embed_documents`, and ProviderRefusedError if it refuses a probe."""
        dimensions = self._contacted()
        texts = [text for _, text in PROBES]
        vectors = [self._probes(texts, query=False), self._probes(texts[:1], query=True)]
        version = self._provider.version()
        return Fingerprint(
            settings=self.model.settings(),
            settings_sha256=self.model.settings_sha256(),
            dimensions=dimensions,
            vectors=np.concatenate(vectors),
            digest=version.digest,
            details=version.details,
        )

    def _probes(self, texts: Sequence[str], query: bool) -> Vectors:
        prefix = self.model.query_prefix if query else self.model.document_prefix
        limit = self._limits.max_tokens
        if limit:  # a model of few tokens gets the beginning of a long probe
            texts = [
                beginning(text, limit, lambda body: self._count(prefix + body)) for text in texts
            ]
        embedded = self._embed(texts, prefix, query, None)
        for rejection in embedded.rejected.values():
            raise ProviderRefusedError(f"{self._where} refuses a probe text: {rejection.detail}")
        return embedded.vectors

    def verify_fingerprint(self, old: Fingerprint) -> list[str]:
        """What changed without moving a vector, such as the server's version; usually nothing.

        Raises:
            ModelChangedError: the model is not what `old` was taken from.
        """
        return compare(old, self.fingerprint())

    def close(self) -> None:
        """End calls that still run, the threads and the provider's connections."""
        with self._calls_lock:
            for call in self._calls:
                call.cancelled.set()
        self._pool.shutdown(wait=False)
        self._provider.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, text: str) -> int:
        return int(self._provider.count_tokens([text])[0])

    def _embed(
        self, texts: Sequence[str], prefix: str, query: bool, on_batch: OnBatch | None
    ) -> Embedded:
        if not texts:
            return Embedded(np.zeros((0, self.dimensions), np.float32), np.zeros(0, np.int32))
        dimensions = self._contacted()
        call = _Call(len(texts), dimensions, query, self._normalize, self.stats)
        pieces = self._pieces(texts, prefix, call)
        batches = pack(pieces, self._limits, self._workers)
        with self._calls_lock:
            self._calls.add(call)
        try:
            for batch in batches:
                call.begin(batch)
            for batch in batches:
                self._pool.submit(self._work, batch, call)
            call.collect(on_batch)
        except BaseException:
            call.stop(on_batch)
            raise
        finally:
            with self._calls_lock:
                self._calls.discard(call)
        return call.result

    def _work(self, batch: Sequence[Piece], call: _Call) -> None:
        try:
            self._sender.settle(batch, call)
        except BaseException as error:  # whatever it is, the calling thread raises it
            call.end(error)
        else:
            call.end(None)

    def _pieces(self, texts: Sequence[str], prefix: str, call: _Call) -> list[Piece]:
        """Texts as pieces to send; those that cannot be sent are rejected."""
        usable = [index for index, text in enumerate(texts) if self._usable(index, text, call)]
        counts = self._provider.count_tokens([prefix + texts[index] for index in usable])
        pieces = []
        for index, tokens in zip(usable, counts.tolist(), strict=True):
            pieces += self._fitted(index, prefix, texts[index], tokens, call)
        return pieces

    def _usable(self, index: int, text: str, call: _Call) -> bool:
        """An empty text has no meaning to embed, though some servers give it a vector."""
        detail = ""
        if not text:
            detail = "the text is empty"
        else:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                detail = f"the text is no valid Unicode: {error.reason} at {error.start}"
        if detail:
            call.reject(Piece(index, "", "", 0), Rejection("refused", detail))
        return not detail

    def _fitted(self, index: int, prefix: str, text: str, tokens: int, call: _Call) -> list[Piece]:
        limit = self._limits.max_tokens
        whole = Piece(index, prefix, text, tokens)
        if limit is None or tokens <= limit:
            return [whole]
        judges = self._limits.refuses_long and not self.exact_tokens
        if judges and least_tokens([whole.text]) <= limit:
            return [replace(whole, alone=True)]
        if self.model.on_too_long == "fail" or self._count(prefix) >= limit:
            about = "" if self.exact_tokens else "about "
            detail = f"{about}{tokens:,} tokens, the model takes {limit:,}"
            call.reject(whole, Rejection("too_long", detail))
            return []

        def count(body: str) -> int:
            return self._count(prefix + body)

        if self.model.on_too_long == "truncate":
            bodies = [beginning(text, limit, count)]
            self.stats.add(truncated=1)
        else:
            bodies = cut(text, limit, count)
        counts = self._provider.count_tokens([prefix + body for body in bodies]).tolist()
        return [
            Piece(index, prefix, body, count, cut=True)
            for body, count in zip(bodies, counts, strict=True)
        ]


class _Call:
    """One call's results: workers put them into a queue, the calling thread assembles them."""

    def __init__(
        self, texts: int, dimensions: int, query: bool, normalize: bool, stats: Stats
    ) -> None:
        self.result = Embedded(np.zeros((texts, dimensions), np.float32), np.zeros(texts, np.int32))
        self.cancelled = threading.Event()
        self.query = query
        self._normalize = normalize
        self._stats = stats
        self._running = 0
        self._deaf = False
        self._missing: dict[int, int] = {}
        self._parts: dict[int, list[tuple[Vectors, int]]] = {}
        self._events: queue.SimpleQueue[Callable[[], list[int]]] = queue.SimpleQueue()

    def begin(self, batch: Sequence[Piece]) -> None:
        self._running += 1
        for piece in batch:
            self._missing[piece.index] = self._missing.get(piece.index, 0) + 1

    def deliver(self, pieces: Sequence[Piece], vectors: Vectors) -> None:
        self._events.put(lambda: self._take(pieces, vectors))

    def reject(self, piece: Piece, rejection: Rejection) -> None:
        def take() -> list[int]:
            self.result.rejected.setdefault(piece.index, rejection)
            return []

        self._events.put(take)

    def end(self, error: BaseException | None) -> None:
        def take() -> list[int]:
            self._running -= 1
            if error is not None and not isinstance(error, Cancelled):
                raise error
            return []

        self._events.put(take)

    def collect(self, on_batch: OnBatch | None) -> None:
        """Assemble until every batch has ended.

        Raises:
            InterruptedRunError: the embedder was closed meanwhile.
            Exception: the first error of a batch, or of `on_batch`.
        """
        while self._running or not self._events.empty():
            self._pass_on(self._events.get()(), on_batch)
        if self.cancelled.is_set():
            raise InterruptedRunError("the embedder was closed while it was embedding")

    def stop(self, on_batch: OnBatch | None) -> None:
        """Cancel what has not begun, and pass on what requests in flight still bring: it is paid
        for. Batches that end with an error of their own add nothing to the first error."""
        self.cancelled.set()
        until = time.monotonic() + GRACE
        while not self._deaf and (self._running or not self._events.empty()):
            try:
                take = self._events.get(timeout=max(0.0, until - time.monotonic()))
                done = take()
            except queue.Empty:
                return
            except (ReembedError, RejectedInputError, TransientError):
                continue
            self._pass_on(done, on_batch)

    def _pass_on(self, done: list[int], on_batch: OnBatch | None) -> None:
        if done and on_batch:
            self._deaf = True  # stays so if on_batch raises: it is not called again
            on_batch(done, self.result.vectors[done], self.result.tokens[done])
            self._deaf = False

    def _take(self, pieces: Sequence[Piece], vectors: Vectors) -> list[int]:
        """Put vectors in their place; the indices of texts that are complete now."""
        done = []
        for piece, vector in zip(pieces, vectors, strict=True):
            index = piece.index
            parts = self._parts.setdefault(index, [])
            parts.append((vector, piece.tokens))
            self._missing[index] -= 1
            if self._missing[index] or index in self.result.rejected:
                continue
            del self._parts[index]
            weights = [tokens for _, tokens in parts]
            if len(parts) > 1:
                vector = weighted_mean(np.stack([part for part, _ in parts]), weights)
            self.result.vectors[index] = vector
            self.result.tokens[index] = sum(weights)
            done.append(index)
        if done and self._normalize:
            self.result.vectors[done] = unit(self.result.vectors[done])
        self._stats.add(texts=len(done), tokens=int(self.result.tokens[done].sum()))
        return done
