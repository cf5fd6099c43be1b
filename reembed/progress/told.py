"""What stages tell of how far they are; silent by default."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

Meter = Callable[[], tuple[int, float]]
"""Tokens and US dollars spent so far."""


class Counter(Protocol):
    """One stage's count of finished records."""

    def update(self, n: float | None = 1) -> object: ...


class Progress:
    """Silent progress, the default of the Python API."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        """Count a stage of `total` records, `done` of which an earlier call finished. A stage of no
        records is one whose end nobody can foresee; stages may lie within stages."""
        yield Uncounted()

    def note(self, message: str) -> None:
        """Tell the user something worth a line."""

    def waiting(self, seconds: float, why: str) -> None:
        """Nothing comes for so many seconds from now on; called from any thread."""

    def metered(self, meter: Meter) -> None:
        """What is spent may be asked for from now on."""


class Uncounted:
    """A counter that keeps nothing."""

    def update(self, n: float | None = 1) -> None:
        """Count nothing."""


class Later:
    """A counter of a stage that is not shown yet: what is counted is told once it is. Threads may
    share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = 0.0
        self._shown: Counter | None = None

    def update(self, n: float | None = 1) -> None:
        """Count, or keep the count."""
        with self._lock:
            if self._shown is None:
                self._counted += n or 0
                return
        self._shown.update(n)

    def show(self, counter: Counter) -> None:
        """Tell what was counted, and from now on all."""
        with self._lock:
            counted, self._counted, self._shown = self._counted, 0.0, counter
        if counted:
            counter.update(counted)


class Forwarded(Progress):
    """What is told to it, told to another: for those that change a part of it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        with self._progress.stage(name, total, done) as counter:
            yield counter

    def note(self, message: str) -> None:
        self._progress.note(message)

    def waiting(self, seconds: float, why: str) -> None:
        self._progress.waiting(seconds, why)

    def metered(self, meter: Meter) -> None:
        self._progress.metered(meter)


def human_bytes(size: float) -> str:
    """`1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_time(seconds: float) -> str:
    """`3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(1, whole)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short_time(seconds: float) -> str:
    """`0.3 s`, and from ten seconds on as `human_time`."""
    return f"{seconds:.1f} s" if seconds < 10 else human_time(seconds)


_CURRENT: ContextVar[Callable[[], Progress]] = ContextVar("progress", default=Progress)


@contextlib.contextmanager
def telling(progress: Callable[[], Progress]) -> Iterator[None]:
    """Within the block, in this thread, stages are told to what `progress` returns then."""
    token = _CURRENT.set(progress)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def stage(name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
    """A stage of the command at work; see `Progress.stage`."""
    with _CURRENT.get()().stage(name, total, done) as counter:
        yield counter


def note(message: str) -> None:
    """Something that happened by the way in the command at work; see `Progress.note`."""
    _CURRENT.get()().note(message)
