"""How fast a stage goes, of which the time left follows.

A model is loaded with the first batch, batches come in bursts from many threads, and one that was
refused takes a minute longer: a mean over all of it is wrong for most of a run. So the median of
the rates of short windows is taken. A window ends with the first batch after its time, however late
that comes, so that what came in one burst is shared out over the time that it took. The first
window is left out.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

SHORTEST = 0.5
"""Seconds of a window at least."""
WINDOWS = 30
"""The newest that the median is taken of; they grow with the stage, to span most of it."""


class Pace:
    """The rate of one stage, in records a second.

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
