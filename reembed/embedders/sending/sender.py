"""One request to a provider: throttled, billed, retried, its answer checked.

What is in a request is decided elsewhere (`batching`), and so is what a failure means for its texts
(`settle`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from reembed.embedders.fingerprint import model_changed
from reembed.embedders.provider import (
    Answer,
    Limits,
    Provider,
    RejectedInputError,
    TransientError,
)
from reembed.embedders.sending.batching import Piece
from reembed.embedders.sending.billing import billed
from reembed.embedders.sending.checks import (
    CONTROL_TEXT,
    check_answer,
    check_untruncated,
    least_tokens,
)
from reembed.embedders.sending.manner import AS_DOCUMENTS, Manner
from reembed.embedders.sending.outcome import Rejection, Stats
from reembed.embedders.sending.retry import (
    RESUME,
    BadAnswer,
    Retry,
    RetryPolicy,
    StillFailing,
    no_vector,
    to_mend,
    with_retries,
)
from reembed.embedders.sending.sizes import Sizes
from reembed.embedders.sending.throttle import Cancelled, Throttle
from reembed.embedders.spending import Account
from reembed.errors import (
    BadVectorsError,
    PreflightError,
    ProviderRefusedError,
    QuotaError,
    UnreachableError,
)
from reembed.progress import stage
from reembed.records import Vectors, cosine_rows
from reembed.run.guards import Pause

QUICKLY = Manner(attempts=2, strict=True)
"""How a plain sentence is sent to see whether the provider works."""
SAME_MODEL = 0.9999
"""Cosine from which the control sentence was embedded by the same model: the same call twice
differs by 1e-8, another version of a model by 0.01."""
LEAST_GUARDED = 8
"""Texts that a request may hold from which one of them may be the control sentence."""


class Receiver(Protocol):
    """The call that batches belong to. Called from worker threads."""

    cancelled: threading.Event
    manner: Manner
    fitted_to: int | None
    """Tokens of a text that its pieces were fitted to."""

    def deliver(self, pieces: Sequence[Piece], vectors: Vectors) -> None: ...

    def split(self, piece: Piece, parts: int) -> None: ...

    def reject(self, piece: Piece, rejection: Rejection) -> None: ...


@dataclass(frozen=True)
class Conduct:
    """What every request obeys on its way out.

    Attributes:
        throttle: how many leave, and how fast.
        policy: how patient they are.
        account: where each is counted, and refused if it would pass a cap.
        pause: while it lasts, none leaves.
        waiting: told of a wait: seconds, and why.
        host: who is waited for, as it is told then.
    """

    throttle: Throttle
    policy: RetryPolicy
    account: Account
    pause: Pause | None = None
    waiting: Callable[[float, str], None] = lambda seconds, why: None
    host: str = "the model"


class Sender:
    """Sends requests to one provider. Threads share it. `dimensions` is set once they are known.

    Args:
        where: names provider, model and address, for messages.
        limits: what one request may hold, by all that is known now.
    """

    def __init__(
        self,
        provider: Provider,
        where: str,
        conduct: Conduct,
        sizes: Sizes,
        limits: Callable[[], Limits],
    ) -> None:
        self._provider = provider
        self.where = where
        self._throttle = conduct.throttle
        self._policy = conduct.policy
        self._account = conduct.account
        self._pause = conduct.pause
        self._waiting, self._host = conduct.waiting, conduct.host
        self._sizes = sizes
        self.limits = limits
        self.dimensions: int | None = None
        self.stats = Stats()
        self._answered = False
        self.control: Vectors | None = None
        """The control sentence's vector `(d,)`, by the model whose vectors are wanted."""
        self._control_tokens = 0
        self._takes_two = False

    @stage("ask the model a sentence")
    def contact(self) -> int:
        """Send one known text and learn the dimension. Raises as `Embedder.check_reachable`."""
        try:
            answer = self.request([CONTROL_TEXT], threading.Event())
        except RejectedInputError as error:
            raise self._refuses_a_sentence(error) from None
        except StillFailing as failing:
            if failing.error.unknown and not failing.error.own:  # nobody knows what it says
                raise self._refuses_a_sentence(failing) from None
            raise failing.as_error(self.where, first=True) from None
        except BadRowsError as error:
            raise no_vector(self.where, str(error)) from None
        # Some servers count characters, texts or nothing: only a count that can be one of tokens
        # may later say that a text was cut.
        least = least_tokens([CONTROL_TEXT])
        self._sizes.trusts_count = answer.tokens is not None and least <= answer.tokens <= 3 * least
        self._control_tokens = answer.tokens or 0
        return int(answer.vectors.shape[1])

    def _refuses_a_sentence(self, error: Exception) -> ProviderRefusedError:
        told = f"{self.where} refuses even a plain sentence: {error}"
        if getattr(error, "own", False):
            return to_mend(told)
        return ProviderRefusedError(
            told, "Check model.name, model.base_url, model.dimensions and model.options."
        )

    def works(self, cancelled: threading.Event) -> Exception | None:
        """Whether the provider embeds a plain sentence now: None, or what it failed with.

        Raises:
            QuotaError: nothing more will come.
        """
        try:
            self.request([CONTROL_TEXT], cancelled, manner=QUICKLY)
        except QuotaError:
            raise
        except BadRowsError as error:
            return StillFailing(BadAnswer(str(error)))
        except (
            RejectedInputError, StillFailing, ProviderRefusedError, UnreachableError,
        ) as error:  # fmt: skip
            return error
        return None

    def guards(self, call: Receiver) -> bool:
        """Whether the control sentence goes with the call's requests."""
        return call.manner.guarded and self.limits().batch_items >= LEAST_GUARDED

    def ask(self, batch: Sequence[Piece], call: Receiver, attempts: int | None = None) -> Answer:
        """The answer to a batch. Where the call is guarded, the control sentence goes with it, and
        another vector of it says that another model has answered. Raises as `request`, and

        Raises:
            ModelChangedError: that is so.
            RejectedInputError: the server cut a text, as its count says.
        """
        guard = self.guards(call)
        try:
            answer = self._asked(batch, call, attempts, guard)
        except (RejectedInputError, StillFailing, ProviderRefusedError, BadRowsError) as error:
            alone = guard and len(batch) == 1 and not self._takes_two
            if not alone or isinstance(error, QuotaError):
                raise
            answer = self._asked(batch, call, attempts, False)  # the server may take one text alone
            self._sizes.takes_one()
            guard = False
        self._takes_two = self._takes_two or len(answer.vectors) > 1
        if guard:
            counted = answer.tokens - self._control_tokens if answer.tokens else None
            self._hold_against_control(answer.vectors[-1])
            answer = replace(answer, vectors=answer.vectors[:-1], tokens=counted)
        if self._sizes.trusts_count:
            self._sizes.counted(sum(piece.tokens for piece in batch), answer.tokens)
        if batch[0].alone:
            self._judge_count(answer)
        return answer

    def _asked(
        self, batch: Sequence[Piece], call: Receiver, attempts: int | None, guard: bool
    ) -> Answer:
        texts = [piece.text for piece in batch]
        tokens = sum(piece.tokens for piece in batch)
        if guard:
            texts.append(CONTROL_TEXT)
            tokens += self._control_tokens
        manner = replace(call.manner, attempts=attempts)
        return self.request(texts, call.cancelled, tokens, manner)

    def _hold_against_control(self, vector: Vectors) -> None:
        if self.control is None:
            self.control = vector.copy()
        elif cosine_rows(vector[None], self.control[None])[0] < SAME_MODEL:
            raise model_changed(
                f"{self.where}: another model answers now: it gives the control sentence another "
                "vector than when this command began. Nothing of its answer was kept"
            )

    def _judge_count(self, answer: Answer) -> None:
        """Raise RejectedInputError if a server that may cut in silence counted as many tokens as
        it takes, for a text of which we only know an estimate: it cut it, or as good as."""
        counted, limit = answer.tokens, self.limits().max_tokens
        if self._provider.limits.refuses_long or not self._sizes.trusts_count:
            return
        if counted is not None and limit is not None and counted >= limit:
            raise RejectedInputError(
                f"the server counted {counted:,} tokens, the model takes {limit:,}", too_long=True
            )

    def request(
        self,
        texts: Sequence[str],
        cancelled: threading.Event,
        tokens: int | None = None,
        manner: Manner = AS_DOCUMENTS,
    ) -> Answer:
        """One request until it is answered well.

        Args:
            tokens: of the texts, where they are counted already.

        Raises:
            BudgetError: it would pass a cap.
            RejectedInputError, ProviderRefusedError: as the provider.
            BadRowsError: some vectors stay bad.
            StillFailing: the retries are used up.
            UnreachableError: nobody is there.
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
                billed(self._account, size, cancelled, capped=manner.capped) as bill,
            ):
                self.stats.add(requests=1, seconds_waiting=waited)
                try:
                    answer = self._provider.embed(texts, query=manner.query)
                except TransientError as error:
                    if error.rate_limited or error.retry_after:
                        refused = size if error.rate_limited else 0
                        self._throttle.limited(error.retry_after, refused)
                    raise
                bill.settle(answer.tokens if self._sizes.trusts_count else None)
            last[:] = [answer]
            self.stats.add(reported_tokens=answer.tokens or 0)
            if manner.checked:
                check_answer(texts, answer, self.dimensions)
                if self._sizes.trusts_count:
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
                on_retry=self._retried,
                manner=manner,
            )
        except BadAnswer as error:
            if error.rows is not None:
                raise BadRowsError(str(error), error.rows, last[0]) from None
            if error.equal:  # halves would pass, and at last single texts, with a wrong vector each
                if self._really_equal(texts, last[0].vectors[0], cancelled, manner):
                    return last[0]  # or raises, if it tells nothing from anything
                raise BadVectorsError(f"{self.where}: {error}", RESUME) from None
            raise StillFailing(error) from None
        except TransientError as error:
            raise StillFailing(error) from None

    def _retried(self, retry: Retry) -> None:
        self.stats.add(retries=1, seconds_waiting=retry.seconds)
        self._waiting(retry.seconds, retry.why(self._host))

    def _really_equal(
        self, texts: Sequence[str], vector: Vectors, cancelled: threading.Event, manner: Manner
    ) -> bool:
        """Whether a model that tells texts apart gives `vector` for these, each sent alone. Raises
        PreflightError if it gives it for a text of another kind too."""

        def alone(text: str) -> bool:
            answer = self.request([text], cancelled, manner=Manner(query=manner.query))
            return bool(np.allclose(answer.vectors[0], vector, rtol=1e-3, atol=1e-3))

        if not (alone(texts[0]) and alone(texts[-1])):
            return False
        if alone(CONTROL_TEXT):
            # No ProviderRefusedError: that one is looked into text by text, and each would pass.
            raise PreflightError(
                f"{self.where} gives the same vector for every text, a plain sentence too",
                "What answers there is no embedding model: check model.name and model.base_url.",
            )
        return True


class BadRowsError(BadVectorsError):
    """Some vectors of an answer stay bad; `rows` of `answer`."""

    def __init__(self, message: str, rows: list[int], answer: Answer) -> None:
        super().__init__(message, RESUME)
        self.rows = rows
        self.answer = answer
