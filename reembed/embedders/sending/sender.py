"""Sends batches: throttled, retried, checked, split until the text that is to blame is found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np

from reembed.embedders.provider import Answer, Provider, RejectedInputError, TransientError
from reembed.embedders.sending.batching import Piece, beginning, cut
from reembed.embedders.sending.billing import billed
from reembed.embedders.sending.checks import (
    CONTROL_TEXT,
    check_answer,
    check_untruncated,
    least_tokens,
)
from reembed.embedders.sending.outcome import Rejection, Stats
from reembed.embedders.sending.retry import BadAnswer, RetryPolicy, with_retries
from reembed.embedders.sending.throttle import Cancelled, Throttle
from reembed.embedders.spending import Account
from reembed.errors import BadVectorsError, ProviderRefusedError, UnreachableError
from reembed.records import Vectors
from reembed.run.guards import Pause

SHORTER = 0.7
"""Share of its tokens that a text keeps when the provider says it is still too long."""
RESUME = "Run the same command again: what is finished is kept."


class Receiver(Protocol):
    """The call that batches belong to. Called from worker threads."""

    cancelled: threading.Event
    query: bool
    capped: bool

    def deliver(self, pieces: Sequence[Piece], vectors: Vectors) -> None: ...

    def reject(self, piece: Piece, rejection: Rejection) -> None: ...


class Sender:
    """Sends batches to one provider. Threads share it. `dimensions` and `max_tokens` are set once
    they are known; `trusts_count` is whether the provider's count is one of tokens.

    Args:
        where: names provider, model and address, for messages.
        on_too_long: the model's setting.
        account: where every request is counted, and refused if it would pass a cap.
        pause: while it lasts, no request leaves.
    """

    def __init__(
        self,
        provider: Provider,
        throttle: Throttle,
        policy: RetryPolicy,
        where: str,
        on_too_long: Literal["fail", "truncate", "mean"],
        account: Account,
        pause: Pause | None = None,
    ) -> None:
        self._provider = provider
        self._throttle = throttle
        self._policy = policy
        self._where = where
        self._on_too_long = on_too_long
        self._account = account
        self._pause = pause
        self.max_tokens: int | None = None
        self.dimensions: int | None = None
        self.stats = Stats()
        self._answered = False
        self.trusts_count = False

    def contact(self) -> int:
        """Send one known text and learn the dimension. Raises as `Embedder.check_reachable`."""
        try:
            answer = self._request([CONTROL_TEXT], threading.Event(), False)
        except RejectedInputError as error:
            raise ProviderRefusedError(
                f"{self._where} refuses even a plain sentence: {error}",
                "Check model.name, model.dimensions and model.options.",
            ) from None
        # Some servers count characters, texts or nothing: only a count that can be one of tokens
        # may later say that a text was cut.
        least = least_tokens([CONTROL_TEXT])
        self.trusts_count = answer.tokens is not None and least <= answer.tokens <= 3 * least
        return int(answer.vectors.shape[1])

    def settle(self, batch: Sequence[Piece], call: Receiver, *, believed: bool = False) -> None:
        """Deliver or reject every piece of `batch`.

        Args:
            believed: a refusal is known to be meant, so it is not asked for twice.

        Raises:
            ProviderRefusedError, UnreachableError, BadVectorsError: nothing more will come.
            Cancelled: the call has ended.
        """
        try:
            answer = self._ask(batch, call)
        except BadRowsError as error:
            self._isolate_rows(batch, error, call)
        except RejectedInputError as error:
            # A 400 may be a server's slip under load (openai/openai-python #2899): ask twice.
            if believed:
                self._isolate(batch, error, call)
            else:
                self.settle(batch, call, believed=True)
        else:
            call.deliver(batch, answer.vectors)

    def _isolate(self, batch: Sequence[Piece], error: RejectedInputError, call: Receiver) -> None:
        """Find the pieces of a refused batch that are to blame, by halves."""
        if len(batch) == 1:
            return self._judge(batch[0], error, call)
        if not error.too_long:
            self._control(str(error), call.cancelled)
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            self.settle(half, call, believed=len(half) > 1)

    def _control(self, words: str, cancelled: threading.Event) -> None:
        """Raise ProviderRefusedError if the provider refuses a plain sentence as well: then the
        texts are not to blame, and must not be quarantined."""
        try:
            self._request([CONTROL_TEXT], cancelled, False)
        except RejectedInputError:
            raise ProviderRefusedError(
                f"{self._where} now refuses everything: {words}", RESUME
            ) from None

    def _judge(self, piece: Piece, error: RejectedInputError, call: Receiver) -> None:
        if not error.too_long:
            self._control(str(error), call.cancelled)
            return call.reject(piece, Rejection("refused", str(error)))
        if self._on_too_long == "fail":
            limit = f", limit {self.max_tokens:,}" if self.max_tokens else ""
            detail = f"{error} (about {piece.tokens:,} tokens{limit})"
            return call.reject(piece, Rejection("too_long", detail))
        self._shorten(piece, error, call)

    def _shorten(self, piece: Piece, error: RejectedInputError, call: Receiver) -> None:
        """Cut a piece that the provider calls too long, until it takes what is left."""

        def count(body: str) -> int:
            return self._count(piece.prefix + body)

        fixed = count("")
        budget = min(piece.tokens, self.max_tokens or piece.tokens)
        while (budget := int(budget * SHORTER)) > fixed:
            if self._on_too_long == "truncate":
                bodies = [beginning(piece.body, budget, count)]
            else:
                bodies = cut(piece.body, budget, count)
            parts = [replace(piece, body=body, tokens=count(body), cut=True) for body in bodies]
            try:
                vectors = [self._ask([part], call).vectors[0] for part in parts]
            except RejectedInputError as again:
                if again.too_long:
                    continue
                return call.reject(piece, Rejection("refused", str(again)))
            except BadRowsError as rows:
                return call.reject(piece, Rejection("refused", str(rows)))
            weights = [part.tokens for part in parts]
            if self._on_too_long == "truncate":
                if not piece.cut:
                    self.stats.add(truncated=1)
                return call.deliver(parts, np.stack(vectors))
            merged = weighted_mean(np.stack(vectors), weights)
            return call.deliver([replace(piece, tokens=sum(weights))], merged[None])
        call.reject(piece, Rejection("too_long", f"{error}; no shorter piece of it was taken"))

    def _count(self, text: str) -> int:
        return int(self._provider.count_tokens([text])[0])

    def _isolate_rows(self, batch: Sequence[Piece], error: BadRowsError, call: Receiver) -> None:
        """Some vectors of an answer stay bad while the others are good."""
        if len(batch) > 1 and len(error.rows) == len(batch):
            raise BadVectorsError(f"{self._where}: {error}", RESUME)
        if len(batch) == 1:
            self._control(str(error), call.cancelled)
            return call.reject(batch[0], Rejection("refused", f"{self._where}: {error}"))
        bad = set(error.rows)
        good = [row for row in range(len(batch)) if row not in bad]
        call.deliver([batch[row] for row in good], error.answer.vectors[good])
        for row in error.rows:
            self.settle([batch[row]], call)

    def _ask(self, batch: Sequence[Piece], call: Receiver) -> Answer:
        texts = [piece.text for piece in batch]
        tokens = sum(piece.tokens for piece in batch)
        answer = self._request(texts, call.cancelled, call.query, tokens, capped=call.capped)
        if batch[0].alone:
            self._judge_count(answer)
        return answer

    def _judge_count(self, answer: Answer) -> None:
        """Raise RejectedInputError if a server that may cut in silence counted as many tokens as
        it takes, for a text of which we only know an estimate: it cut it, or as good as."""
        counted, limit = answer.tokens, self.max_tokens
        if self._provider.limits.refuses_long or not self.trusts_count:
            return
        if counted is not None and limit is not None and counted >= limit:
            raise RejectedInputError(
                f"the server counted {counted:,} tokens, the model takes {limit:,}", too_long=True
            )

    def _request(
        self,
        texts: Sequence[str],
        cancelled: threading.Event,
        query: bool,
        tokens: int | None = None,
        *,
        capped: bool = False,
    ) -> Answer:
        """One request until it is answered well.

        Args:
            tokens: of the texts, where they are counted already.
            capped: a budget may stop it; else it is only counted.

        Raises:
            BudgetError: it would pass a cap.
            RejectedInputError, ProviderRefusedError: as the provider.
            BadRowsError: some vectors stay bad.
            UnreachableError, BadVectorsError: the retries are used up.
            Cancelled: `cancelled` was set.
        """
        last: list[Answer] = []
        size = int(self._provider.count_tokens(texts).sum()) if tokens is None else tokens

        def once() -> Answer:
            if self._pause:
                self._pause.wait(cancelled)
            if cancelled.is_set():
                raise Cancelled
            with (
                self._throttle.slot(size, cancelled) as waited,
                billed(self._account, size, cancelled, capped=capped) as bill,
            ):
                self.stats.add(requests=1, seconds_waiting=waited)
                try:
                    answer = self._provider.embed(texts, query=query)
                except TransientError as error:
                    if error.rate_limited or error.retry_after:
                        self._throttle.limited(error.retry_after)
                    raise
                bill.settle(answer.tokens if self.trusts_count else None)
            last[:] = [answer]
            self.stats.add(reported_tokens=answer.tokens or 0)
            check_answer(texts, answer, self.dimensions)
            if self.trusts_count:
                check_untruncated(texts, answer)
            self._throttle.succeeded(answer.rate, size)
            self._answered = True
            return answer

        try:
            return with_retries(
                once,
                self._policy,
                cancelled,
                contacted=lambda: self._answered,
                on_retry=lambda seconds: self.stats.add(retries=1, seconds_waiting=seconds),
            )
        except BadAnswer as error:
            if error.rows is not None:
                raise BadRowsError(str(error), error.rows, last[0]) from None
            if error.equal and self._really_equal(texts, last[0].vectors[0], cancelled, query):
                return last[0]
            raise BadVectorsError(f"{self._where}: {error}", RESUME) from None
        except TransientError as error:
            asked = f"; it asks to wait {error.retry_after:,.0f} s" if error.retry_after else ""
            raise UnreachableError(f"{self._where} keeps failing: {error}{asked}", RESUME) from None

    def _really_equal(
        self, texts: Sequence[str], vector: Vectors, cancelled: threading.Event, query: bool
    ) -> bool:
        """Whether a model that tells texts apart gives `vector` for these, each sent alone."""

        def alone(text: str) -> bool:
            answer = self._request([text], cancelled, query)
            return bool(np.allclose(answer.vectors[0], vector, rtol=1e-3, atol=1e-3))

        return alone(texts[0]) and alone(texts[-1]) and not alone(CONTROL_TEXT)


class BadRowsError(BadVectorsError):
    """Some vectors of an answer stay bad; `rows` of `answer`."""

    def __init__(self, message: str, rows: list[int], answer: Answer) -> None:
        super().__init__(message, RESUME)
        self.rows = rows
        self.answer = answer


def weighted_mean(vectors: Vectors, weights: Sequence[int]) -> Vectors:
    """The token-weighted mean of `(n, d)` vectors, `(d,) float32`; of length one if they all are.

    The mean of chunks that OpenAI's cookbook gives for long texts ("Embedding texts that are longer
    than the model's maximum context length").
    """
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    if np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        mean /= max(float(np.linalg.norm(mean)), 1e-30)
    return mean.astype(np.float32)
