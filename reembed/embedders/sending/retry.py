"""Retries: which failures are tried again, how often, and how long between."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from reembed.embedders.fingerprint import model_changed
from reembed.embedders.options import Options
from reembed.embedders.provider import TransientError
from reembed.embedders.sending.manner import AS_DOCUMENTS, Manner
from reembed.embedders.sending.throttle import Cancelled
from reembed.errors import (
    BadVectorsError,
    ModelChangedError,
    ProviderRefusedError,
    UnreachableError,
)

T = TypeVar("T")

_LONGEST_WHY = 80
"""Characters of a failure's words that are said with a wait."""


@dataclass(frozen=True)
class Retry:
    """A request failed and is tried again after a wait.

    Attributes:
        seconds: until then.
        error: the failure.
        attempt, most: it was this one of so many tries.
    """

    seconds: float
    error: BaseException
    attempt: int
    most: int

    def why(self, where: str) -> str:
        """`429 from api.openai.com, 3rd of 8`."""
        words = " ".join(str(self.error).split())
        status = re.match(r"\d{3}\b", words)
        told = status[0] if status else words[:_LONGEST_WHY] or "it failed without a word"
        return f"{told} from {where}, {ordinal(self.attempt)} of {self.most}"


def ordinal(number: int) -> str:
    """`3rd`."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a request is.

    Attributes:
        attempts: tries of one request; three times as many where the provider only says "slower".
        wait: seconds before the first retry; doubled each time, half of it random.
        longest_wait: seconds between two tries at most, unless the provider asks for more.
        total: seconds in all; a wait that would end later is not begun.
        first_attempts: tries while nobody has answered yet, so that a wrong address is told soon.
    """

    attempts: int = 8
    wait: float = 1.0
    longest_wait: float = 60.0
    total: float = 900.0
    first_attempts: int = 3

    @classmethod
    def from_options(cls, options: Options) -> RetryPolicy:
        """`retry_attempts`, `retry_wait` (seconds), `retry_seconds` of `model.options`.

        Raises:
            ManifestError: one of them is no number above zero.
        """
        return cls(
            attempts=options.take_positive("retry_attempts", int, cls.attempts),
            wait=options.take_positive("retry_wait", float, cls.wait),
            total=options.take_positive("retry_seconds", float, cls.total),
        )


class BadAnswer(TransientError):
    """An answer came and its vectors cannot be right; asked again, the provider may do better.

    Attributes:
        rows: the texts whose vectors are bad, while the others are good; None: all are suspect.
        equal: all are suspect because all are the same.
        another: they have other dimensions than the model's.
    """

    def __init__(
        self, message: str, rows: list[int] | None = None, equal: bool = False,
        *, another: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.rows = rows
        self.equal = equal
        self.another = another


class StillFailing(Exception):
    """A request failed in a way that may pass, as often as it was to be tried.

    Attributes:
        error: the last failure.
    """

    def __init__(self, error: TransientError) -> None:
        super().__init__(str(error))
        self.error = error

    def as_error(
        self, where: str, *, first: bool = False
    ) -> UnreachableError | ModelChangedError | ProviderRefusedError:
        """What a run ends with, where the provider answers nothing else either: refused where
        somebody has to mend it, else out of reach.

        Args:
            first: it has not embedded anything yet in this command.
        """
        if isinstance(self.error, BadAnswer) and self.error.another:
            told = f"{where}: another model answers now: {self.error}"
            return model_changed(told)
        if isinstance(self.error, BadAnswer) and first:
            return no_vector(where, str(self.error))
        if isinstance(self.error, BadAnswer):
            return bad_vectors(f"{where}: {self.error}")
        if self.error.own:
            return to_mend(f"{where} keeps failing: {self.error}")
        wait = self.error.retry_after
        asked = f"; it asks to wait {wait:,.0f} s" if wait else ""
        told = f"{where} keeps failing: {self.error}{asked}"
        if self.error.rate_limited:
            return UnreachableError(told, LATER)
        return UnreachableError(told, LOOK) if first else out_of_reach(told)


def bad_vectors(message: str) -> BadVectorsError:
    """The end of a command whose model gives vectors that cannot be right."""
    return BadVectorsError(message, RESUME)


def out_of_reach(message: str) -> UnreachableError:
    """The end of a command whose model answers nothing any more."""
    return UnreachableError(message, RESUME)


def refuses_all(where: str, error: Exception) -> ProviderRefusedError:
    """The refusal of a model that has embedded in this command, and takes nothing any more."""
    told = f"{where} now refuses everything: {error}"
    return to_mend(told) if getattr(error, "own", False) else ProviderRefusedError(told, RESUME)


def to_mend(message: str) -> ProviderRefusedError:
    """The refusal of a function of the user's that fails for a plain sentence, too."""
    return ProviderRefusedError(message, MEND)


def no_vector(where: str, why: str) -> ProviderRefusedError:
    """The refusal of a model that was asked for one plain sentence, several times."""
    return ProviderRefusedError(
        f"{where} gives no vector that can be right, even for a plain sentence: {why}",
        "The model or its server is broken: restart it, or name another build of the model. "
        "If it was started for something else, check model.base_url.",
    )


MEND = (
    "Mend the function where the message says, and run the same command again: what is finished is "
    "kept. Where it only waits for something that is away, let it raise ConnectionError or "
    "TimeoutError: then it is asked again, and exit code 7 says so."
)
RESUME = "Run the same command again: what is finished is kept."
LATER = "Wait a while, then run the same command again: what is finished is kept."
LOOK = (
    "See what its log or its status page says, and check model.base_url (http or https, port). "
    "Then run the same command again: what is finished is kept."
)
BAD_ANSWER_ATTEMPTS = 4
"""A model that gives NaN for a text gives it again: fewer tries than for a busy server."""


def with_retries(
    send: Callable[[], T],
    policy: RetryPolicy,
    cancelled: threading.Event,
    contacted: Callable[[], bool],
    on_retry: Callable[[Retry], None],
    manner: Manner = AS_DOCUMENTS,
) -> T:
    """`send()`, again while it raises TransientError or UnreachableError and `policy` allows.

    Args:
        cancelled: ends waiting at once.
        contacted: whether the provider has ever answered.
        on_retry: told of each wait before it begins.
        manner: whose `attempts` and `strict` may ask for fewer tries.

    Raises:
        TransientError, UnreachableError: the last failure.
        Cancelled: `cancelled` was set.
        Exception: whatever else `send` raises.
    """

    def most_tries(error: BaseException | None) -> int:
        most = policy.attempts
        told_soon = isinstance(error, UnreachableError) or getattr(error, "own", False)
        if told_soon and not contacted():
            most = min(most, policy.first_attempts)
        elif isinstance(error, BadAnswer):
            most = min(most, BAD_ANSWER_ATTEMPTS)
        elif isinstance(error, TransientError) and error.rate_limited:
            most *= 3
        patient = isinstance(error, UnreachableError) or getattr(error, "equal", False)
        if isinstance(error, TransientError) and error.rate_limited:
            patient = True
        if manner.attempts is not None and (manner.strict or not patient):
            most = min(most, manner.attempts)
        return most

    def give_up(state: tenacity.RetryCallState) -> bool:
        return state.attempt_number >= most_tries(_error_of(state))

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        # Half fixed, half random: never at once, and never all threads together.
        longest = min(policy.longest_wait, policy.wait * 2.0 ** (state.attempt_number - 1))
        seconds = longest / 2 + random.uniform(0, longest / 2)  # noqa: S311
        if isinstance(error, TransientError) and error.retry_after is not None:
            return error.retry_after + seconds / 10
        return seconds

    def tell(state: tenacity.RetryCallState) -> None:
        error, action = _error_of(state), state.next_action
        assert error is not None and action is not None, "it is tried again after an error"
        on_retry(Retry(action.sleep, error, state.attempt_number, most_tries(error)))

    def sleep(seconds: float) -> None:
        if cancelled.wait(seconds):
            raise Cancelled

    too_late = tenacity.stop_before_delay(policy.total)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((TransientError, UnreachableError)),
        stop=lambda state: give_up(state) or too_late(state),
        wait=wait,
        sleep=sleep,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(send)


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
