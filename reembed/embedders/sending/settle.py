"""What becomes of a batch: delivered, rejected text by text, or put back to be sent in smaller
requests.

A failure belongs to the provider, to a text, or to the request's size, and no status or wording is
believed alone. Where a plain sentence is embedded at the same time, the provider is well: the batch
is halved until the text that fails alone is found. Where both halves of a batch pass that did not
pass whole, its size was to blame. Where the sentence fails as well, no text is.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Literal

from reembed.embedders.failures import POLICY
from reembed.embedders.provider import Provider, RejectedInputError, Told
from reembed.embedders.sending.batching import Piece, Queue
from reembed.embedders.sending.outcome import Rejection
from reembed.embedders.sending.retry import BadAnswer, StillFailing, bad_vectors, refuses_all
from reembed.embedders.sending.sender import (
    BadRowsError,
    Receiver,
    Sender,
)
from reembed.embedders.sending.shorten import Shortener
from reembed.embedders.sending.sizes import Sizes
from reembed.embedders.sending.throttle import TICK, Cancelled
from reembed.errors import ProviderRefusedError, QuotaError, UnreachableError

HURRIED = 2
"""Tries of a batch before a plain sentence shows whether the provider or the batch is to blame."""
CONFIRMED = 3
"""Tries of a single text in doubt, before the last one, which follows the plain sentence."""
MAY_BE_LONG = 32
"""Tokens from which a text that is refused for no known reason may be too long."""
_SLOW = re.compile(r"timed? ?out|not complete after", re.IGNORECASE)


class Doubt(Enum):
    """How far a failing batch was looked at."""

    NONE = 0
    ASKED = 1
    """It was asked twice."""
    SPLIT = 2
    """It is a part of a batch that fails while the provider works."""


Failure = RejectedInputError | StillFailing | ProviderRefusedError


class Settler:
    """See the module. Threads share it."""

    def __init__(
        self,
        sender: Sender,
        sizes: Sizes,
        provider: Provider,
        on_too_long: Literal["fail", "truncate", "mean"],
    ) -> None:
        self._sender = sender
        self._sizes = sizes
        self._provider = provider
        self._on_too_long = on_too_long
        self._shortener = Shortener(sender, sizes, provider, on_too_long)
        self._trial = threading.Lock()

    def next(self, queue: Queue, call: Receiver) -> bool:
        """Take a batch and settle it. False if none was left.

        Raises:
            ProviderRefusedError, UnreachableError, BadVectorsError, ModelChangedError: nothing more
                will come.
            Cancelled: the call has ended.
        """
        batch = self._take(queue, call)
        if not batch:
            return False
        if self._sizes.proven(batch):
            self._settle(batch, queue, call)
            return True
        with self._alone(call):  # the first of its size
            queue.put_back(batch)
            batch = self._take(queue, call)
            if batch:
                self._settle(batch, queue, call)
        return True

    def _take(self, queue: Queue, call: Receiver) -> list[Piece]:
        if call.cancelled.is_set():
            raise Cancelled
        limits = self._sender.limits()
        if self._sender.guards(call):
            limits = replace(limits, batch_items=limits.batch_items - 1)
        limit, likely = limits.max_tokens, self._sizes.likely
        if limit is not None and call.fitted_to != limit:
            call.fitted_to = limit
            for piece, parts in queue.refit(partial(self._shortener.cut, limit=limit)):
                call.split(piece, parts)
        if limit is None or self._provider.exact_tokens or likely(queue.longest) <= limit:
            return queue.take(limits)
        return queue.take(limits, lambda piece: not piece.cut and likely(piece.tokens) > limit)

    @contextlib.contextmanager
    def _alone(self, call: Receiver) -> Iterator[None]:
        while not self._trial.acquire(timeout=TICK):
            if call.cancelled.is_set():
                raise Cancelled
        try:
            yield
        finally:
            self._trial.release()

    def _settle(
        self, batch: Sequence[Piece], queue: Queue, call: Receiver, doubt: Doubt = Doubt.NONE
    ) -> bool:
        """Deliver, reject or put back every piece. True if all were delivered at once."""
        whole = len(batch)
        if doubt is Doubt.SPLIT:  # its other half may have taught something
            batch = self._without_long(batch, queue, call)
            if not batch:
                return False
            if len(batch) > self._sender.limits().batch_items:
                queue.put_back(batch)
                return False
        try:
            answer = self._sender.ask(batch, call, self._patience(batch, doubt))
        except BadRowsError as error:
            self._settle_bad_rows(batch, error, queue, call)
            return False
        except QuotaError:
            raise
        except (RejectedInputError, StillFailing, ProviderRefusedError) as error:
            return self._failed(batch, error, queue, call, doubt)
        self._sizes.passed(batch)
        call.deliver(batch, answer.vectors)
        return len(batch) == whole

    def _without_long(
        self, batch: Sequence[Piece], queue: Queue, call: Receiver
    ) -> Sequence[Piece]:
        """The batch without texts that are known by now to be too long; what they are cut into
        waits again."""
        limit = self._sender.limits().max_tokens
        if limit is None or not any(self._sizes.surely_long(piece.tokens) for piece in batch):
            return batch
        kept = []
        for piece in batch:
            parts = self._shortener.cut(piece, limit)
            if parts is None:
                kept.append(piece)
            else:
                call.split(piece, len(parts))
                queue.put_back(parts)
        return kept

    @staticmethod
    def _patience(batch: Sequence[Piece], doubt: Doubt) -> int | None:
        if len(batch) == 1:
            return CONFIRMED if doubt is Doubt.SPLIT else None
        return 1 if doubt is Doubt.SPLIT else HURRIED

    def _failed(
        self, batch: Sequence[Piece], error: Failure, queue: Queue, call: Receiver, doubt: Doubt
    ) -> bool:
        rejected = isinstance(error, RejectedInputError)
        if len(batch) > 1 and self._is_too_large(batch, error):
            told = error.told if isinstance(error, RejectedInputError) else Told()
            self._sizes.too_large(batch, told)
            queue.put_back(batch)
            return False
        known = self._sizes.text_tokens is not None and _is_too_long(error)
        if (
            rejected
            and not known
            and doubt is not Doubt.ASKED
            and (doubt is Doubt.NONE or len(batch) == 1)
        ):
            # A 400 may be a server's slip under load (openai/openai-python #2899): ask twice.
            return self._settle(batch, queue, call, Doubt.ASKED)
        if len(batch) == 1:
            return self._judge(batch[0], error, queue, call)
        if doubt is not Doubt.SPLIT and not _is_too_long(error):
            down = self._sender.works(call.cancelled)
            if down is not None:
                return self._wait(batch, error, down, queue, call)
            passing = isinstance(error, StillFailing) and not _SLOW.search(str(error))
            if passing and self._once_more(batch, call):
                return False
        return self._halve(batch, error, queue, call)

    def _once_more(self, batch: Sequence[Piece], call: Receiver) -> bool:
        """Whether a batch that failed is taken now: then it was chance."""
        try:
            answer = self._sender.ask(batch, call, 1)
        except QuotaError:
            raise
        except (RejectedInputError, StillFailing, ProviderRefusedError, BadRowsError):
            return False
        self._sizes.passed(batch)
        call.deliver(batch, answer.vectors)
        return True

    def _is_too_large(self, batch: Sequence[Piece], error: Failure) -> bool:
        """Whether a refusal says so, or a limit is being searched for and this is above it."""
        if isinstance(error, RejectedInputError) and error.too_large:
            return True
        if isinstance(error, ProviderRefusedError) or not self._sizes.suspects(batch):
            return False
        return not (isinstance(error, StillFailing) and error.error.rate_limited)

    def _halve(self, batch: Sequence[Piece], error: Failure, queue: Queue, call: Receiver) -> bool:
        middle = len(batch) // 2
        halves = batch[:middle], batch[middle:]
        passed = [self._settle(half, queue, call, Doubt.SPLIT) for half in halves]
        if all(passed):
            self._sizes.too_large(batch, Told(), slow=bool(_SLOW.search(str(error))))
        return False

    def _wait(
        self, batch: Sequence[Piece], error: Failure, down: Exception, queue: Queue, call: Receiver
    ) -> bool:
        """The provider fails on a plain sentence as well, so no text is to blame: wait for it as
        long as the policy allows."""
        if isinstance(down, RejectedInputError | ProviderRefusedError):
            if isinstance(error, ProviderRefusedError):
                raise error
            if isinstance(error, StillFailing):
                raise error.as_error(self._sender.where)
            if isinstance(down, ProviderRefusedError):
                raise down
            raise refuses_all(self._sender.where, error)
        if isinstance(error, StillFailing) and error.error.rate_limited:
            raise error.as_error(self._sender.where)  # it was waited for already
        try:
            answer = self._sender.ask(batch, call)
        except StillFailing as failing:
            if self._sender.works(call.cancelled) is not None:
                raise failing.as_error(self._sender.where) from None
            error = failing
        except (RejectedInputError, BadRowsError) as refused:
            error = refused if isinstance(refused, RejectedInputError) else error
        else:
            self._sizes.passed(batch)
            call.deliver(batch, answer.vectors)
            return False
        if len(batch) == 1:
            return self._judge(batch[0], error, queue, call)
        return self._halve(batch, error, queue, call)

    def _judge(self, piece: Piece, error: Failure, queue: Queue, call: Receiver) -> bool:
        """A text that fails alone, as often as it was to be asked for."""
        if _is_too_long(error):
            self._shortener.too_long(piece, error, call)
            return False
        down = self._sender.works(call.cancelled)
        if down is not None:
            return self._wait([piece], error, down, queue, call)
        if not isinstance(error, RejectedInputError):
            if isinstance(error, StillFailing) and error.error.rate_limited:
                raise error.as_error(self._sender.where)  # too fast is never what a text is
            if self._once_more([piece], call):
                return False
        words = str(error)
        if piece.tokens > MAY_BE_LONG and self._on_too_long != "fail" and not POLICY.search(words):
            self._shortener.maybe_too_long(piece, words, call)
        else:
            call.reject(piece, Rejection("refused", words))
        return False

    def _settle_bad_rows(
        self, batch: Sequence[Piece], error: BadRowsError, queue: Queue, call: Receiver
    ) -> None:
        """Some vectors of an answer stay bad while the others are good."""
        bad = set(error.rows).intersection(range(len(batch)))
        if len(batch) == 1 or len(bad) == len(batch):
            down = self._sender.works(call.cancelled)
            if isinstance(down, UnreachableError):
                raise down
            if down is not None:
                raise bad_vectors(f"{self._sender.where}: {error}")
            if len(batch) == 1:
                words = f"{self._sender.where}: {error}"
                return call.reject(batch[0], Rejection("refused", words))
            self._halve(batch, StillFailing(BadAnswer(str(error))), queue, call)
            return None
        good = [row for row in range(len(batch)) if row not in bad]
        call.deliver([batch[row] for row in good], error.answer.vectors[good])
        for row in sorted(bad):
            self._settle([batch[row]], queue, call, Doubt.SPLIT)
        return None


def _is_too_long(error: Failure) -> bool:
    return isinstance(error, RejectedInputError) and (error.too_long or error.too_large)
