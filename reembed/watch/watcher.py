"""`reembed watch`: one cycle under the lock, what it found remembered durably."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reembed.errors import DamagedError
from reembed.run.lock import StateLock
from reembed.watch import memory as remembering
from reembed.watch.cycle import Cycle
from reembed.watch.findings import Finding, of_error
from reembed.watch.memory import Memory
from reembed.watch.result import WatchResult
from reembed.watch.subject import LOCK, Subject

Note = Callable[[str], None]


def watch(subject: Subject, *, accept: str | None = None) -> WatchResult:
    """Look at everything once.

    Args:
        accept: a person's word that what is there is meant to be so: it is journalled, and held
            against from now on.

    Raises:
        LockedError: another watch of it is at work.
        PreflightError: what is remembered cannot be read or written.
    """
    with StateLock(subject.folder / LOCK):
        memory, damaged = _load(subject)
        result = Cycle(subject, memory, accept).run()
        if damaged is not None:
            result = replace(result, findings=[damaged, *result.findings])
        remembering.save(subject.memory, memory)
        return result


def _load(subject: Subject) -> tuple[Memory, Finding | None]:
    """What is remembered. A damaged file is set aside, and told."""
    try:
        return remembering.load(subject.memory), None
    except DamagedError as error:
        aside = remembering.set_aside(subject.memory)
        told = of_error("memory", "", error)
        return Memory(), replace(told, hint=f"It lies in {aside} now. {error.hint}")
