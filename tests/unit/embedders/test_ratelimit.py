from __future__ import annotations

import threading
import time

import pytest

from reembed.embedders.headers import rate_state, retry_after, seconds
from reembed.embedders.provider import RateState, TransientError
from reembed.embedders.sending.retry import RetryPolicy, with_retries
from reembed.embedders.sending.throttle import Cancelled, LearntPace, Throttle

ALIVE = threading.Event()


def timed(throttle: Throttle, requests: int, tokens: int = 0) -> float:
    began = time.monotonic()
    for _ in range(requests):
        with throttle.slot(tokens, ALIVE):
            pass
    return time.monotonic() - began


def test_requests_per_minute_are_spaced():
    assert 0.2 < timed(Throttle(4, requests_per_minute=600), 4) < 0.6


def test_tokens_per_minute_are_spaced_by_what_was_sent():
    assert 0.2 < timed(Throttle(4, tokens_per_minute=60_000), 4, tokens=100) < 0.6


def test_a_pause_that_the_provider_asks_for_holds_all_requests():
    throttle = Throttle(4)
    throttle.limited(0.3)
    assert 0.25 < timed(throttle, 1) < 0.7


def test_rate_headers_hold_the_next_request_until_the_reset():
    throttle = Throttle(4)
    throttle.succeeded(RateState(remaining_requests=0, reset_requests=0.2), tokens=10)
    assert 0.15 < timed(throttle, 1) < 0.6
    throttle.succeeded(RateState(remaining_tokens=5, reset_tokens=0.2), tokens=10)
    assert 0.15 < timed(throttle, 1) < 0.6
    throttle.succeeded(RateState(remaining_tokens=50, reset_tokens=9.0), tokens=10)
    assert timed(throttle, 1) < 0.1


def test_concurrency_halves_once_for_a_burst_of_refusals_and_grows_back():
    now = [100.0]
    throttle = Throttle(16, clock=lambda: now[0])
    for _ in range(10):
        throttle.limited(None)
    assert throttle.allowed == 8
    now[0] += 2
    throttle.limited(None)
    assert throttle.allowed == 4
    for _ in range(200):
        throttle.succeeded(None, 0)
    assert throttle.allowed == 16


class Quota:
    """A provider's quota of tokens a second, as a bucket or by the minute, asked one request after
    another, which it answers in 0.1 seconds; time is only counted."""

    def __init__(self, rate: float, window: float) -> None:
        self.rate, self.window, self.now = rate, window, 0.0
        self.left, self.filled = 5 * rate, 0.0
        self.pace = LearntPace()
        self.served: list[tuple[float, int]] = []
        self.refusals: list[float] = []

    def _wait(self, tokens: int) -> float:
        """0 for a request that is let through."""
        if self.window:
            begun = self.now - self.now % self.window
            used = sum(count for at, count in self.served if at >= begun)
            over = used + tokens > self.rate * self.window
            return begun + self.window - self.now if over else 0.0
        self.left = min(5 * self.rate, self.left + (self.now - self.filled) * self.rate)
        self.filled = self.now
        if tokens > self.left:
            return (tokens - self.left) / self.rate
        self.left -= tokens
        return 0.0

    def ask(self, until: float) -> None:
        while self.now < until:
            tokens = 3_000 + len(self.served) % 5 * 1_000
            self.pace.sent(self.now, tokens)
            wait = self._wait(tokens)
            if wait:
                self.refusals.append(self.now)
                self.pace.refused(self.now, tokens, wait, self.now)
            else:
                self.served.append((self.now, tokens))
            self.now = max(self.now + max(0.001, wait or 0.1), self.pace.free_at)

    def used(self, first: float, last: float) -> float:
        """Share of the quota in these seconds."""
        tokens = sum(count for at, count in self.served if first <= at < last)
        return tokens / (last - first) / self.rate


@pytest.mark.parametrize("window", [0, 60])
def test_the_rate_of_a_quota_is_learnt_from_its_refusals(window: float):
    quota = Quota(16_000, window)
    quota.ask(600)
    assert quota.used(120, 600) > 0.95
    assert len([at for at in quota.refusals if at > 120]) <= 4, "one now and then, to find more"
    quota.rate *= 2
    quota.ask(1_200)
    assert quota.used(900, 1_200) > 0.8, "it is found that there is more"


def test_a_server_that_is_only_busy_teaches_no_rate():
    throttle = Throttle(4, wait=0)
    for _ in range(3):
        throttle.limited(0.01)
        throttle.limited(None, 1_000)
    assert timed(throttle, 20, 1_000) < 1


def test_a_cancelled_call_stops_waiting_at_once():
    throttle = Throttle(1)
    throttle.limited(60)
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled), throttle.slot(0, cancelled):
        pass
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12ms", 0.012), ("1s", 1), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("", None), ("soon", None),
     ("1..2s", None)],
)  # fmt: skip
def test_durations_of_rate_headers(text, expected):
    assert seconds(text) == pytest.approx(expected)


def test_rate_headers_are_read_where_they_are():
    assert rate_state({}) is None
    assert rate_state(
        {"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"}
    ) == RateState(remaining_tokens=149984, reset_tokens=360)


def test_retry_after_is_milliseconds_seconds_or_a_date():
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "2"}) == 2
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "later"}) is None
    assert retry_after({}) is None


def attempts_of(error: Exception, policy: RetryPolicy, contacted: bool = True) -> int:
    calls = []

    def send() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        with_retries(send, policy, threading.Event(), lambda: contacted, lambda _: None)
    return len(calls)


def test_retries_are_bounded_and_more_patient_with_a_busy_provider():
    policy = RetryPolicy(attempts=3, wait=0.001)
    assert attempts_of(TransientError("500"), policy) == 3
    assert attempts_of(TransientError("429", rate_limited=True), policy) == 9


def test_a_wait_longer_than_the_patience_left_is_not_begun():
    began = time.monotonic()
    assert attempts_of(TransientError("429", retry_after=3600), RetryPolicy(total=1.0)) == 1
    assert time.monotonic() - began < 1


def test_waiting_for_a_retry_ends_when_the_call_is_cancelled():
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()

    def send() -> None:
        raise TransientError("503", retry_after=30)

    with pytest.raises(Cancelled):
        with_retries(send, RetryPolicy(), cancelled, lambda: True, lambda _: None)
