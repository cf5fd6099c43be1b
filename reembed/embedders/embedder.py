"""The facade that all stages use: texts in, checked vectors or reasons out, whatever the provider.

`fit (prefix, count, too long?) -> pack -> send (throttle, retry, check, isolate) -> normalise`
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from reembed.embedders.batches import Batches
from reembed.embedders.families import prefix_warning
from reembed.embedders.fingerprint import Fingerprint, compare
from reembed.embedders.probes import probe_vectors
from reembed.embedders.provider import Counts, Limits, Price, Provider
from reembed.embedders.sending.batching import Queue, count_batches
from reembed.embedders.sending.call import Call, Embedded, OnBatch, counted
from reembed.embedders.sending.fitting import Fitter
from reembed.embedders.sending.limit_probe import LimitFinder
from reembed.embedders.sending.manner import Manner
from reembed.embedders.sending.outcome import Stats
from reembed.embedders.sending.recall import Recall
from reembed.embedders.sending.retry import RetryPolicy
from reembed.embedders.sending.sender import Conduct, Sender
from reembed.embedders.sending.settle import Settler
from reembed.embedders.sending.sizes import REQUEST_OPTIONS, Sizes
from reembed.embedders.sending.throttle import Throttle
from reembed.embedders.sending.workers import Workers
from reembed.embedders.shared import Shared
from reembed.errors import InputTooLongError, ProviderRefusedError
from reembed.manifest import Embed, Model
from reembed.records import Vectors
from reembed.redaction import shown_url

DOCUMENTS, QUERIES = Manner(capped=True), Manner(query=True, capped=True)


class Embedder:
    """One model, ready to embed. Safe to call from several threads.

    Args:
        provider: closed with the embedder.
        settings: concurrency and rate limits.
        retry: how patient requests are.
        shared: what it shares with others; default: nothing.
    """

    def __init__(
        self,
        provider: Provider,
        model: Model,
        settings: Embed | None = None,
        retry: RetryPolicy | None = None,
        shared: Shared | None = None,
    ) -> None:
        settings, shared = settings or Embed(), shared or Shared()
        self.model = model
        self._provider = provider
        self._settings = settings
        self._workers = (
            provider.limits.concurrency if settings.concurrency == "auto" else settings.concurrency
        )
        self._normalize = (
            provider.normalizes if model.normalize == "auto" else bool(model.normalize)
        )
        self._where = f"{model.provider} {model.name}"
        if model.base_url:
            self._where += f" at {shown_url(model.base_url)}"
        self._pool = Workers(self._workers)
        policy = retry or RetryPolicy()
        throttle = Throttle(
            self._workers, settings.requests_per_minute, settings.tokens_per_minute, policy.wait,
            waiting=shared.waiting,
        )  # fmt: skip
        self._account = shared.spending.account(provider.price)
        memory = shared.memory
        address = "" if model.base_url else getattr(provider, "address", "")
        key = f"{self._where} {address}".strip()
        self._sizes = Sizes(memory.learnt, key, memory.note, REQUEST_OPTIONS.get(model.provider))
        host = str(urlsplit(model.base_url or getattr(provider, "url", address)).hostname or "")
        conduct = Conduct(
            throttle, policy, self._account, shared.pause, shared.waiting, host or self._where
        )
        self._sender = Sender(provider, self._where, conduct, self._sizes, lambda: self.limits)
        self._settler = Settler(self._sender, self._sizes, provider, model.on_too_long)
        self._limit_finder = LimitFinder(self._sender, self._sizes, self._where, memory.note)
        alike = getattr(provider, "queries_alike", False)
        self._recall = Recall(self._embed, keeps=shared.recalls, alike=alike)
        self._guarded = False
        self._contact_lock = threading.Lock()
        self._calls: set[Call] = set()
        self._calls_lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Of the vectors: as asked for, else learnt by embedding one sentence. Raises as
        `check_reachable`."""
        return self.model.dimensions or self._contacted()

    @property
    def limits(self) -> Limits:
        """What one request may hold. Some servers tell `max_tokens` only when they are asked: it
        is final after `check_reachable`."""
        told = self._sizes.within(self._provider.limits)
        per_minute = self._settings.tokens_per_minute
        if per_minute:  # a request larger than a minute's allowance could never be sent
            told = replace(told, batch_tokens=min(told.batch_tokens or per_minute, per_minute))
        return replace(told, max_tokens=self.model.max_tokens or told.max_tokens)

    @property
    def price(self) -> Price | None:
        """None where it costs nothing or the price is unknown."""
        return self.batches.price if self.batches else self._provider.price

    @property
    def runs_on(self) -> str:
        """The device of a model that runs in this process, such as `cpu`; "" for a server's."""
        return str(getattr(self._provider, "runs_on", ""))

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
        if (told := prefix_warning(self.model)) is not None:
            found.append(told)
        limits = self.limits
        found += self._limit_finder.told(self.model.on_too_long)
        if (
            limits.max_tokens is None and not limits.refuses_long and self.model.base_url
            and self._sizes.cuts is None and not self._sizes.whole
        ):  # fmt: skip
            found.append(
                "it is unknown how many tokens this server takes, and some servers cut longer "
                "texts silently: set model.max_tokens."
            )
        return found

    @property
    def batches(self) -> Batches | None:
        """The provider's batch API, where the manifest asks for it (`options.batch_api`)."""
        return getattr(self._provider, "batches", None)

    @property
    def normalizes(self) -> bool:
        """Whether vectors are scaled to length one."""
        return self._normalize

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text as a document, the prefix included, `(n,) int32`."""
        prefix = self.model.document_prefix
        return self._provider.count_tokens([prefix + text for text in texts] if prefix else texts)

    def too_long(self, texts: Sequence[str], tokens: Counts) -> int:
        """How many of these documents are longer than the model takes, for certain.

        Args:
            tokens: of each, as `count_tokens` tells.
        """
        fitter, prefix = self._fitter(), self.model.document_prefix
        pairs = zip(texts, tokens.tolist(), strict=True)
        return sum(fitter.is_over(prefix + text, count) for text, count in pairs)

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
        """Vectors for documents; of those that are equal, one is embedded, and none of those that
        a call of the same command has asked for and not kept: see `Shared.recalls`.

        Args:
            on_batch: called in this thread as each request's texts are complete and checked, in
                the order of completion: the place to store paid vectors durably. Rejected texts
                are not passed. If it raises, the call ends with that error.

        Raises:
            BudgetError: a cap is reached. Without `on_batch`, where nothing would be kept of a
                part, nothing was sent then.
            UnreachableError, BadVectorsError, ProviderRefusedError: before that, every finished
                request has been passed to `on_batch`.
        """
        return self._recall.embed(texts, self.model.document_prefix, DOCUMENTS, on_batch)

    def embed_each(self, texts: Sequence[str]) -> Embedded:
        """As `embed_documents`, equal texts each for itself, to see how far two answers differ."""
        return self._embed(texts, self.model.document_prefix, DOCUMENTS)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors for queries, `(n, d) float32`.

        Raises:
            InputTooLongError, ProviderRefusedError: a query was rejected.
            BudgetError: they would pass a cap; nothing was sent.
            UnreachableError, BadVectorsError: as `embed_documents`.
        """
        embedded = self._recall.embed(texts, self.model.query_prefix, QUERIES)
        for index, rejection in sorted(embedded.rejected.items()):
            kind = InputTooLongError if rejection.reason == "too_long" else ProviderRefusedError
            raise kind(f"query {index} cannot be embedded: {rejection.detail}")
        return embedded.vectors

    def fingerprint(self) -> Fingerprint:
        """Settings, version and probe vectors of the model as it is now. Raises as
        `embed_documents`, and ProviderRefusedError if it refuses a probe."""
        dimensions = self._contacted()
        self._guarded = self._provider.limits.anonymous
        self._sender.control = None  # it comes with the probes, so both are of one model
        self._recall.forget()
        most = self._sizes.probed_at(self.limits.max_tokens)
        shorten = partial(self._fitter().shortened, limit=most)
        vectors = probe_vectors(self._embed, shorten, self.model, self._where)
        version = self._provider.version()
        return Fingerprint(
            settings=self.model.settings(),
            settings_sha256=self.model.settings_sha256(),
            dimensions=dimensions,
            vectors=vectors,
            digest=version.digest,
            details=version.details,
        )

    def verify_fingerprint(self, old: Fingerprint) -> list[str]:
        """What changed without moving a vector, such as the server's version; usually nothing.
        Raises ModelChangedError if the model is not what `old` was taken from."""
        return compare(old, self.fingerprint())

    def cancel(self) -> None:
        """Make calls that still run end soon with InterruptedRunError, from any thread. What their
        requests in flight bring is still passed to `on_batch`."""
        with self._calls_lock:
            for call in self._calls:
                call.cancel()

    def close(self) -> None:
        """End calls that still run, the threads and the provider's connections."""
        with self._calls_lock:
            for call in self._calls:
                call.cancelled.set()
        self._pool.close()
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

    def _fitter(self) -> Fitter:
        return Fitter(
            self._provider, lambda: self.limits, self.model.on_too_long, self._sizes,
            self.stats, self._limit_finder.find,
        )  # fmt: skip

    def requests_for(self, tokens: Sequence[int]) -> int:
        """About how many requests texts of so many tokens each take."""
        return count_batches(tokens, self.limits, self._workers)

    def _embed(
        self,
        texts: Sequence[str],
        prefix: str,
        manner: Manner,
        on_batch: OnBatch | None = None,
    ) -> Embedded:
        if not texts:
            return Embedded(np.zeros((0, self.dimensions), np.float32), np.zeros(0, np.int32))
        dimensions = self._contacted()
        kept = on_batch is not None or (self._recall.keeps and not manner.query)
        guarded = self._guarded and (manner.guarded or kept)
        manner = replace(manner, guarded=guarded)
        call = Call(len(texts), dimensions, self._normalize, self.stats, manner)
        fitter = self._fitter()
        pieces = (fitter.pieces if manner.fitted else fitter.whole)(texts, prefix, call.reject)
        if manner.capped and on_batch is None:
            self._account.require(sum(piece.tokens for piece in pieces))
        limits = self.limits
        call.fitted_to = limits.max_tokens
        queue = Queue(pieces, padded=limits.padded, workers=self._workers)
        workers = min(self._workers, len(pieces))
        with self._calls_lock:
            self._calls.add(call)
        try:
            call.begin(pieces, workers)
            for _ in range(workers):
                self._pool.submit(partial(self._work, queue, call))
            with counted(len(texts), on_batch) as told:
                call.collect(told)
        except BaseException:
            call.stop(on_batch)
            raise
        finally:
            with self._calls_lock:
                self._calls.discard(call)
        return call.result

    def _work(self, queue: Queue, call: Call) -> None:
        """Settle one batch, then wait in line for the next, so that calls take turns."""
        try:
            if self._settler.next(queue, call):
                call.passed_on()
                with contextlib.suppress(RuntimeError):  # closed meanwhile, which cancels the call
                    self._pool.submit(partial(self._work, queue, call))
                    return
        except BaseException as error:  # whatever it is, the calling thread raises it
            call.end(error)
        else:
            call.end(None)
