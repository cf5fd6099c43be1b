"""The facade that all stages use: texts in, checked vectors or reasons out, whatever the provider.

`prefix -> count -> too long? -> pack -> send (throttle, retry, check, isolate) -> normalise`
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from reembed.embedders.base import (
    Counts,
    Limits,
    Price,
    Provider,
)
from reembed.embedders.batching import Piece, beginning, cut, pack
from reembed.embedders.calls import Call, Embedded, OnBatch
from reembed.embedders.checks import least_tokens
from reembed.embedders.fingerprint import PROBES, Fingerprint, compare
from reembed.embedders.ratelimit import Throttle
from reembed.embedders.retry import RetryPolicy
from reembed.embedders.sender import Rejection, Sender, Stats
from reembed.errors import (
    InputTooLongError,
    ProviderRefusedError,
)
from reembed.manifest import Embed, Model
from reembed.records import Vectors

LONG_WORDS, LONG_FOR_A_SERVER = 250, 4_000
"""Tokens, by estimate, from which a text goes alone where its server might cut it in silence and
the count in its answer would tell: in a batch, short texts would hide what a long one lost. The
first where nothing is known of the server's limit, the second where it is told (a limit of 8,192
was told and 2,048 served: ollama/ollama #14259)."""


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
        self._settings = settings
        self._workers = (
            provider.limits.concurrency if settings.concurrency == "auto" else settings.concurrency
        )
        self._normalize = (
            provider.normalizes if model.normalize == "auto" else bool(model.normalize)
        )
        self._where = f"{model.provider} {model.name}"
        if model.base_url:
            self._where += f" at {model.base_url}"
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="embed")
        policy = retry or RetryPolicy()
        throttle = Throttle(
            self._workers, settings.requests_per_minute, settings.tokens_per_minute, policy.wait
        )
        self._sender = Sender(
            provider,
            throttle,
            policy,
            where=self._where,
            on_too_long=model.on_too_long,
        )
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
        told = self._provider.limits
        per_minute = self._settings.tokens_per_minute
        if per_minute:  # a request larger than a minute's allowance could never be sent
            told = replace(told, batch_tokens=min(told.batch_tokens or per_minute, per_minute))
        return replace(told, max_tokens=self.model.max_tokens or told.max_tokens)

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
        limits = self.limits
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
                self._sender.max_tokens = self.limits.max_tokens
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
        limit = self.limits.max_tokens
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
        call = Call(len(texts), dimensions, query, self._normalize, self.stats)
        pieces = self._pieces(texts, prefix, call)
        batches = pack(pieces, self.limits, self._workers)
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

    def _work(self, batch: Sequence[Piece], call: Call) -> None:
        try:
            self._sender.settle(batch, call)
        except BaseException as error:  # whatever it is, the calling thread raises it
            call.end(error)
        else:
            call.end(None)

    def _pieces(self, texts: Sequence[str], prefix: str, call: Call) -> list[Piece]:
        """Texts as pieces to send; those that cannot be sent are rejected."""
        usable = [index for index, text in enumerate(texts) if self._usable(index, text, call)]
        counts = self._provider.count_tokens([prefix + texts[index] for index in usable])
        limit = self.limits.max_tokens
        watch: int | None = None
        if self._sender.trusts_count and not self.exact_tokens:
            watch = LONG_WORDS if limit is None else LONG_FOR_A_SERVER
        pieces = []
        for index, tokens in zip(usable, counts.tolist(), strict=True):
            if limit is None or tokens <= limit:
                alone = watch is not None and tokens > watch
                pieces.append(Piece(index, prefix, texts[index], tokens, alone=alone))
            else:
                pieces += self._fitted(index, prefix, texts[index], tokens, limit, call)
        return pieces

    def _usable(self, index: int, text: str, call: Call) -> bool:
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

    def _fitted(
        self, index: int, prefix: str, text: str, tokens: int, limit: int, call: Call
    ) -> list[Piece]:
        """A text above `limit` as pieces, by `on_too_long`; where only an estimate says so and the
        server refuses what is really too long, as it is."""
        whole = Piece(index, prefix, text, tokens)
        judges = self.limits.refuses_long and not self.exact_tokens
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
