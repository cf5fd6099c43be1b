"""How fast requests leave: pacing, pauses a provider asks for, adaptive concurrency.

A quota is a bucket that fills steadily: a request is refused while there is less in it than the
request takes, and the provider says how long that lasts. So from one refusal to a later one it has
let through what flowed in meanwhile, which tells the rate. From then on requests leave at that
pace, a little below it; with time they leave faster, for a quota may be raised, or others have
stopped using it, until a refusal tells the rate anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from reembed.embedders.provider import RateState

LONGEST_PAUSE = 120.0
"""Seconds; a rate header that asks for more is not believed, the next request will tell."""
TICK = 0.2
"""Seconds after which a waiting thread looks whether its call was cancelled."""
WORTH_A_WORD = 1.0
"""Seconds; a shorter wait is not told."""


class Cancelled(Exception):
    """The call that this request belongs to has ended."""


class _Pacer:
    """Evenly paced costs: after a cost of c the next may start c / rate seconds later.

    Over any minute at most the rate plus one request passes.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_second = per_minute / 60 if per_minute else None
        self.free_at = 0.0

    def pay(self, now: float, cost: float) -> None:
        if self._per_second:
            self.free_at = max(now, self.free_at) + cost / self._per_second


class Throttle:
    """Lets requests pass, from all threads of an embedder.

    Concurrency is additive-increase, multiplicative-decrease (as in TCP; Chiu and Jain 1989): a
    rate-limit answer halves it and holds all requests for a while, every success adds 1/n, so that
    it settles under a limit instead of hammering it. A quota's rate is learnt: see `LearntPace`.

    Args:
        wait: seconds all requests pause after a rate-limit answer that does not say how long;
            doubled from one to the next, halved by every success.
        waiting: told of a wait that is worth a word: seconds, and why.
    """

    def __init__(
        self,
        concurrency: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        wait: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        waiting: Callable[[float, str], None] = lambda seconds, why: None,
    ) -> None:
        self._most = concurrency
        self._allowed = float(concurrency)
        self._running = 0
        self._requests = _Pacer(requests_per_minute)
        self._tokens = _Pacer(tokens_per_minute)
        self._learnt = LearntPace()
        self._mine = threading.local()
        """Of each thread: when its request left."""
        self._paused_until = 0.0
        self._wait = self._shortest_wait = wait
        self._clock = clock
        self._waiting = waiting
        self._changed = threading.Condition()

    @property
    def allowed(self) -> int:
        """Requests that may run at once now."""
        return max(1, int(self._allowed))

    @contextmanager
    def slot(self, tokens: int, cancelled: threading.Event) -> Iterator[float]:
        """Hold a place for one request of `tokens` tokens; yields the seconds it waited.

        Raises:
            Cancelled: `cancelled` was set while waiting.
        """
        began = self._clock()
        with self._changed:
            while True:
                if cancelled.is_set():
                    raise Cancelled
                now = self._clock()
                ready = max(
                    self._paused_until, self._requests.free_at, self._tokens.free_at,
                    self._learnt.free_at,
                )  # fmt: skip
                if ready - now >= WORTH_A_WORD:
                    self._waiting(ready - now, self._why(ready))
                if self._running < self.allowed and now >= ready:
                    break
                self._changed.wait(min(TICK, max(0.001, ready - now)) if now < ready else TICK)
            self._running += 1
            self._requests.pay(now, 1)
            self._tokens.pay(now, tokens)
            self._learnt.sent(now, tokens)
            self._mine.left = now
        try:
            yield now - began
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _why(self, ready: float) -> str:
        if ready == self._paused_until:
            return "the provider asked for it"
        if ready == self._learnt.free_at:
            return "the provider's limit, as its refusals told"
        if ready == self._requests.free_at:
            return "embed.requests_per_minute"
        return "embed.tokens_per_minute"

    def succeeded(self, rate: RateState | None, tokens: int) -> None:
        """A request was answered; `rate` is what the provider's headers said about the next."""
        with self._changed:
            self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)
            self._wait = max(self._shortest_wait, self._wait / 2)
            if rate:
                self._pause(rate.reset_requests if rate.remaining_requests == 0 else None)
                remaining = rate.remaining_tokens
                self._pause(
                    rate.reset_tokens if remaining is not None and remaining < tokens else None
                )
            self._changed.notify_all()

    def limited(self, retry_after: float | None, tokens: int = 0) -> None:
        """The provider said that requests come too fast; all wait `retry_after` seconds.

        Args:
            tokens: of the request that it refused because of a quota; 0 where it is only busy.
        """
        with self._changed:
            if tokens and retry_after is not None:
                now = self._clock()
                left = getattr(self._mine, "left", now)
                self._learnt.refused(now, tokens, retry_after, left)
            if self._clock() >= self._paused_until:  # one burst of refusals counts once
                self._allowed = max(1.0, self._allowed / 2)
                self._wait = min(LONGEST_PAUSE, self._wait * 2)
            self._pause(self._wait / 2 if retry_after is None else retry_after)

    def _pause(self, seconds: float | None) -> None:
        if seconds:
            until = self._clock() + min(seconds, LONGEST_PAUSE)
            self._paused_until = max(self._paused_until, until)


SHARE = 0.98
"""Of the rate that was found."""
LEAST_SECONDS = 2.0
"""Between two refusals from which the rate is told."""
GROWS_EVERY = 30.0
"""Seconds without a refusal after which it is tried faster."""
FIRST_STEP, LARGEST_STEP = 0.01, 0.25
"""By how much then; each step is twice the last."""


@dataclass(frozen=True)
class _Refusal:
    at: float
    passed: float
    """Tokens that were sent and not refused until then."""
    tokens: int
    wait: float


class LearntPace:
    """The rate of a quota, learnt from what is refused. For whoever holds the throttle's lock.

    Attributes:
        free_at: when the next request may leave; 0 while no rate is known.
    """

    def __init__(self) -> None:
        self.free_at = 0.0
        self._rate: float | None = None
        self._passed = 0.0
        self._last: _Refusal | None = None
        self._changed = 0.0
        self._step = FIRST_STEP

    def sent(self, now: float, tokens: int) -> None:
        """A request leaves."""
        self._passed += tokens
        if self._rate is None:
            return
        if now - self._changed >= GROWS_EVERY:
            self._rate *= 1 + self._step
            self._step = min(LARGEST_STEP, 2 * self._step)
            self._changed = now
        self.free_at = max(now, self.free_at) + tokens / self._rate

    def refused(self, now: float, tokens: int, wait: float, left: float) -> None:
        """One that left then was refused now, and may be sent again after `wait` seconds."""
        self._passed -= tokens
        if self._last is not None and left < self._last.at:  # it was on its way then
            self._last = replace(self._last, passed=self._last.passed - tokens)
            return
        this, last = _Refusal(now, self._passed, tokens, wait), self._last
        if last is None:
            self._last = this
        elif now - last.at >= LEAST_SECONDS:
            # What is left in the bucket at a refusal is `tokens` less what flows in during `wait`.
            through = this.passed - last.passed + this.tokens - last.tokens
            seconds = now - last.at + this.wait - last.wait
            if through > 0 and seconds > 0:
                self._rate = SHARE * through / seconds
                self._changed, self._step = now, FIRST_STEP
            self._last = this
