"""The progress of the command at work, for whoever takes long deep inside of it.

A comparison of two collections is asked for from many places, and each of them may take minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from reembed.progress.told import Counter, Progress

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
