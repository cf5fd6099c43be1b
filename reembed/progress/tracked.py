"""Progress that knows how far each open stage is, for whoever shows it."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from reembed.progress.told import Counter, Meter, Progress, human_time, short_time

MEASURED = 1.0
"""Seconds before which a rate of tokens says nothing."""


@dataclass(frozen=True)
class Stand:
    """How far a stage is.

    Attributes:
        stage: its name.
        total, done: records; a total of 0 where the end cannot be foreseen.
        seconds: since it began.
        per_second: records a second, the median of what was seen; None before there is one.
        seconds_left: of this stage, None where it is not known.
        tokens, usd: spent by this run on models so far, over all its calls.
        tokens_per_second: sent in this stage; None where none were.
        waiting: why nothing comes now, and for how long yet; empty where nothing is waited for.
    """

    stage: str
    total: int
    done: int
    seconds: float
    per_second: float | None = None
    seconds_left: float | None = None
    tokens: int = 0
    usd: float = 0.0
    tokens_per_second: float | None = None
    waiting: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parts(self) -> list[str]:
        """What is to be said of it, the most important first."""
        told = []
        if self.total:
            share = f" ({100 * self.done // self.total} %)"
            told.append(f"{self.done:,} of {self.total:,} records{share}")
        if self.waiting:
            told.append(self.waiting)
        if self.per_second is not None:
            told.append(f"{human_count(self.per_second)}/s")
        if self.seconds_left is not None and self.done < self.total:
            told.append(f"{human_time(self.seconds_left)} left")
        if not self.total or self.per_second is None:
            told.append(f"at work for {short_time(self.seconds)}")
        if self.tokens_per_second:
            told.append(f"{human_count(self.tokens_per_second)} tokens/s")
        if self.usd:
            told.append(f"${self.usd:,.4f} so far")
        return told

    def __str__(self) -> str:
        return f"{self.stage}: {', '.join(self.parts)}"


def human_count(number: float) -> str:
    """`1,234`, and small ones with one decimal."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


class _Open:
    """A stage that is open."""

    def __init__(self, name: str, total: int, done: int, tracked: Tracked) -> None:
        self.name, self.total, self.done = name, total, done
        self._tracked = tracked
        self.began = tracked.clock()
        self.pace = Pace(tracked.clock)
        self.tokens_at_start = tracked.spent()[0]

    def update(self, n: float | None = 1) -> None:
        with self._tracked.lock:
            self.done += int(n or 0)
            self.pace.count(n or 0)
        self._tracked.counted()


class Tracked(Progress):
    """See the module. Threads share it.

    Args:
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._open: list[_Open] = []
        self._meter: Meter | None = None
        self._wait: tuple[float, str] | None = None

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        with self.lock:
            one = _Open(name, total, done, self)
            self._open.append(one)
        self.began()
        try:
            yield one
        finally:
            with self.lock:
                stand = self._stand(one)
                self._open.remove(one)
            self.ended(stand)

    def waiting(self, seconds: float, why: str) -> None:
        with self.lock:
            until = self.clock() + seconds
            if self._wait is None or until > self._wait[0]:
                self._wait = (until, why)

    def metered(self, meter: Meter) -> None:
        self._meter = meter

    def spent(self) -> tuple[int, float]:
        """Tokens and US dollars so far."""
        return self._meter() if self._meter else (0, 0.0)

    def stands(self) -> list[Stand]:
        """How far every open stage is, the outermost first."""
        with self.lock:
            return [self._stand(one) for one in self._open]

    def _stand(self, one: _Open) -> Stand:
        seconds, rate = self.clock() - one.began, one.pace.per_second
        tokens, usd = self.spent()
        sent = tokens - one.tokens_at_start
        left = (one.total - one.done) / rate if one.total and rate else None
        return Stand(
            one.name, one.total, one.done, seconds, rate, left, tokens, usd,
            sent / seconds if sent > 0 and seconds >= MEASURED else None, self._waiting(),
        )  # fmt: skip

    def _waiting(self) -> str:
        if self._wait is None:
            return ""
        until, why = self._wait
        seconds = until - self.clock()
        if seconds <= 0:
            self._wait = None
            return ""
        return f"waiting {human_time(seconds)}: {why}"

    # What a subclass does about it

    def began(self) -> None:
        """A stage has begun."""

    def counted(self) -> None:
        """Records were counted; called from any thread, often."""

    def ended(self, stand: Stand) -> None:
        """A stage has ended, so far as this."""


SHORTEST = 0.5
"""Seconds of a window at least."""
WINDOWS = 30
"""The newest that the median is taken of; they grow with the stage, to span most of it."""


class Pace:
    """The rate of one stage, in records a second, of which the time left follows.

    A model is loaded with the first batch, batches come in bursts from many threads, and one that
    was refused takes a minute longer: a mean over all of it is wrong for most of a run. So the
    median of the rates of short windows is taken. A window ends with the first batch after its
    time, however late that comes, so that what came in one burst is shared out over the time that
    it took. The first window is left out.

    Args:
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._window_began = clock()
        self._counted = 0.0
        self._first = True
        self._rates: deque[float] = deque(maxlen=WINDOWS)

    def count(self, n: float) -> None:
        """So many records more are done."""
        self._counted += n
        now = self._clock()
        seconds = now - self._window_began
        if self._counted <= 0 or seconds < max(SHORTEST, (now - self._began) / WINDOWS):
            return
        if not self._first:
            self._rates.append(self._counted / seconds)
        self._first = False
        self._window_began, self._counted = now, 0.0

    @property
    def per_second(self) -> float | None:
        """None as long as nothing but the first window is known."""
        return statistics.median(self._rates) if self._rates else None
