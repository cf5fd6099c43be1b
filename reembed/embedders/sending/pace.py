"""How fast a provider lets requests through, learnt from what it refuses for coming too fast.

A quota is a bucket that fills steadily: a request is refused while there is less in it than the
request takes, and the provider says how long that lasts. So from one refusal to a later one it has
let through what flowed in meanwhile, which tells the rate. From then on requests leave at that
pace, a little below it; with time they leave faster, for a quota may be raised, or others have
stopped using it, until a refusal tells the rate anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """See the module. For whoever holds the throttle's lock.

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
