"""Progress for people: a line that is drawn again on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from reembed.cli.logs import LOG, Log
from reembed.progress import Stand, Tracked, human_time, short_time

if TYPE_CHECKING:
    from tqdm import tqdm

DRAWN_EVERY, LOOKED_EVERY = 0.2, 0.5
"""Seconds."""
FIRST_AFTER = 0.5
"""Seconds before the first line: a command that is done by then needs none."""
LOOK_AFTER = 5.0
"""The same where nothing is drawn, for a command that is at nothing but its first look."""
LINE_EVERY = 30.0
"""Seconds between two lines where nothing is drawn again."""
WORTH_KEEPING = 2.0
"""Seconds; a terminal keeps a line of a counted stage that took longer."""


class ShownProgress(Tracked):
    """See the module. A thread of its own draws while a stage is open, so that one which tells
    nothing for minutes is seen to live.

    Args:
        log: where lines go.
        clock: seconds.
        ticks: False where nothing is drawn but when `tick` is called.
    """

    def __init__(
        self, log: Log = LOG, clock: Callable[[], float] = time.monotonic, *, ticks: bool = True
    ) -> None:
        super().__init__(clock)
        self._log, self._ticks = log, ticks
        self._bar: tqdm[Any] | None = None
        self._began = clock()
        self._said: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, message: str) -> None:
        with self.lock:
            self._erase()
            self._log.line("info", "note", message)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """In the block nothing is drawn: somebody is asked something on the same terminal."""
        with self.lock:
            self._erase()
            yield

    def waiting(self, seconds: float, why: str) -> None:
        super().waiting(seconds, why)
        with self.lock:
            self._erase()
            told = f"waiting {human_time(seconds)}: {why}"
            self._log.line("debug", "wait", told, seconds=round(seconds, 1), why=why)

    def began(self) -> None:
        with self.lock:
            if self._ticks and self._thread is None:
                self._stop.clear()
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()

    def ended(self, stand: Stand) -> None:
        thread = None
        with self.lock:
            self._erase()
            told = f"{stand.stage}: done in {short_time(stand.seconds)}"
            if stand.total:
                told = f"{stand.stage}: {stand.done:,} records in {short_time(stand.seconds)}"
            kept = self._log.bars and stand.total and stand.seconds >= WORTH_KEEPING
            self._log.line(
                "info" if kept else "debug", "stage_done", told, **_fields(stand),
            )  # fmt: skip
            if not self._open:
                thread, self._thread = self._thread, None
                self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def tick(self) -> None:
        """Draw or say how far the open stages are, if it is time to."""
        with self.lock:
            stands = self.stands()
            now = self.clock()
            if not stands or now - self._began < FIRST_AFTER:
                return
            if self._log.bars:
                self._draw(stands)
            elif len(stands) == 1 and now - self._began < LOOK_AFTER:
                return
            elif self._said is None or now - self._said >= LINE_EVERY:
                self._said = now
                self._log.line("info", "progress", told(stands), **_fields(stands[-1]))

    def _run(self) -> None:
        while not self._stop.wait(DRAWN_EVERY if self._log.bars else LOOKED_EVERY):
            self.tick()

    def _draw(self, stands: list[Stand]) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = told(stands)
        if len(line) > width:  # the innermost says most
            line = str(stands[-1])
        counted = next((one for one in reversed(stands) if one.total), None)
        with self._heard():
            if self._bar is None:
                self._bar = _bar()
            bar = self._bar
            bar.ncols, bar.bar_format = width, "{desc} {bar}" if counted else "{desc}"
            bar.total, bar.n = (counted.total, counted.done) if counted else (None, 0)
            bar.set_description_str(line[:width])

    def _erase(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            with self._heard():
                bar.close()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # the terminal is gone; the command goes on
            self._log.quiet = True


def _bar() -> tqdm[Any]:
    """A bar of no thread and no process-wide lock of its own: what it shows is told to it."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    return tqdm(file=sys.stderr, leave=False, bar_format="{desc}", nrows=20)


def told(stands: list[Stand]) -> str:
    """`run, embed: 300 of 1,000 records (30 %), 120/s, 6 s left`."""
    *outer, inner = stands
    names = [*dict.fromkeys(one.stage for one in outer[:1]), str(inner)]
    counted = next((one for one in reversed(outer) if one.total), None)
    if not inner.total and counted is not None:
        names = [names[0], f"{counted.stage}: {counted.parts[0]}", str(inner)]
    return ", ".join(dict.fromkeys(names))


def _fields(stand: Stand) -> dict[str, Any]:
    fields = stand.to_dict()
    return {key: round(value, 3) if isinstance(value, float) else value
            for key, value in fields.items()}  # fmt: skip


_SHOWN: list[ShownProgress] = []


def shown() -> ShownProgress:
    """The progress of this process's command."""
    if not _SHOWN:
        _SHOWN.append(ShownProgress())
    return _SHOWN[0]
