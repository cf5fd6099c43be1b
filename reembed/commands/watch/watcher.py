"""`reembed watch`: one cycle under the lock; what it found is remembered durably, then told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from reembed.commands.watch import memory as remembering
from reembed.commands.watch import metrics
from reembed.commands.watch.alerts import is_due, note_alerts, report
from reembed.commands.watch.cycle import Cycle
from reembed.commands.watch.findings import Finding, of_bug, of_error
from reembed.commands.watch.memory import Letter, Memory
from reembed.commands.watch.mending import mend
from reembed.commands.watch.notify import deliver, targets_of
from reembed.commands.watch.result import WatchResult
from reembed.commands.watch.subject import LOCK, Subject
from reembed.errors import DamagedError, ReembedError
from reembed.run.lock import StateLock


@dataclass(frozen=True)
class Orders:
    """What a person asks for besides.

    Attributes:
        accept: their word that what is there is meant to be so: it is journalled, and held against
            from now on.
        report: send the report of counts now.
        yes: their word that what the settings say may be mended.
    """

    accept: str | None = None
    report: bool = False
    yes: bool = False


def watch(subject: Subject, orders: Orders | None = None) -> WatchResult:
    """Look at everything once, remember it, and tell whom the settings name.

    Raises:
        LockedError: another watch of it is at work.
        PreflightError: what is remembered cannot be read.
    """
    orders = orders or Orders()
    with StateLock(subject.folder / LOCK):
        memory, damaged = _load(subject)
        result = _with(Cycle(subject, memory, orders.accept).run(), damaged)
        result = replace(result, undelivered=len(memory.outbox))
        # Both are tried before anybody is told, so that it is told where they fail.
        unwritten = _measure(subject, result)
        result = _with(result, [*_save(subject, memory), *unwritten])

        def tell() -> None:
            _told(subject, memory, result, asked=False)

        result = _with(result, mend(subject, memory, result, orders.yes, tell))
        result = replace(result, findings=[*map(subject.copyable, result.findings)])
        result = _told(subject, memory, result, orders.report)
        return result if unwritten else _with(result, _measure(subject, result))


def _with(result: WatchResult, found: list[Finding]) -> WatchResult:
    return replace(result, findings=[*found, *result.findings])


def _load(subject: Subject) -> tuple[Memory, list[Finding]]:
    """What is remembered. A damaged file is set aside, and told."""
    try:
        return remembering.load(subject.memory), []
    except DamagedError as error:
        aside = remembering.set_aside(subject.memory)
        told = of_error("memory", "", error)
        return Memory(), [replace(told, hint=f"It lies in {aside} now. {error.hint}")]


def _save(subject: Subject, memory: Memory) -> list[Finding]:
    """Write down what is remembered. That it cannot be is an alert like any other."""
    try:
        remembering.save(subject.memory, memory)
    except ReembedError as error:
        return [of_error("memory", "", error)]
    return []


def _told(subject: Subject, memory: Memory, result: WatchResult, asked: bool) -> WatchResult:
    """Write down what is to be told, then tell it. A disk that is full keeps nobody from being
    told."""
    settings, wrong = subject.settings, list[Finding]()
    known = any(finding.check == "memory" for finding in result.findings)

    def save() -> None:
        found = _save(subject, memory)
        if not (known or wrong):
            wrong.extend(found)

    letters = [note_alerts(memory, result, settings)]
    targets, found = targets_of(settings.notify_env)
    everybody = [*targets, *(finding.subject for finding in found)]
    if asked or is_due(memory, settings, result.t):
        letters.append(report(memory, result))
        memory.reported = result.t
    for letter in letters:
        if letter is not None and everybody:
            memory.outbox.append(_to(letter, everybody))
    save()
    found = [*found, *deliver(memory, targets, everybody, save)]
    save()
    return replace(
        result, findings=[*wrong, *found, *result.findings], undelivered=len(memory.outbox),
        standing={key: one.since for key, one in memory.standing.items()},
    )  # fmt: skip


def _to(letter: Letter, everybody: list[str]) -> Letter:
    letter.pending = list(everybody)
    return letter


def _measure(subject: Subject, result: WatchResult) -> list[Finding]:
    """Write the metrics. That they cannot be written is an alert like any other."""
    if subject.settings.metrics is None:
        return []
    try:
        metrics.write(Path(subject.settings.metrics), result)
    except ReembedError as error:
        return [of_error("metrics", "", error)]
    return []


def _failed(name: str, finding: Finding) -> WatchResult:
    """The result of a cycle that could not begin or end, for a loop that goes on."""
    return WatchResult(name, "", time.time(), findings=[finding])


def watch_every(
    seconds: float,
    subject: Callable[[], Subject],
    told: Callable[[WatchResult], None],
    stop: threading.Event | None = None,
) -> None:
    """Look again and again until `stop` is set, or for ever. What goes wrong ends nothing.

    Args:
        seconds: from the beginning of one cycle to the next, by a clock that does not jump.
        subject: reads the manifest, anew for every cycle.
        told: gets the result of every cycle.
    """
    stop = stop or threading.Event()
    name = ""
    while not stop.is_set():
        begun = time.monotonic()
        try:
            one = subject()
            name = one.name
            result = watch(one)
        except ReembedError as error:
            result = _failed(name, of_error("watch", "", error))
        except Exception as error:
            result = _failed(name, of_bug("watch", "", error))
        told(result)
        stop.wait(max(0.0, seconds - (time.monotonic() - begun)))
