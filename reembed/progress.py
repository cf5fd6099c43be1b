"""How far a stage is: a protocol for stages, a bar for people, nothing for libraries."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from tqdm import tqdm


class Counter(Protocol):
    """One stage's count of finished records."""

    def update(self, n: float | None = 1) -> object: ...


class Progress:
    """Silent progress, the default of the Python API."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Counter]:
        """Count a stage of `total` records, `done` of which an earlier call finished."""
        yield _Silent()

    def note(self, message: str) -> None:
        """Tell the user something worth a line."""


class _Silent:
    def update(self, n: float | None = 1) -> None:
        """Count nothing."""


class TerminalProgress(Progress):
    """tqdm bars with rate and time left on stderr; plain lines where stderr is no terminal."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Counter]:
        if not sys.stderr.isatty():
            self.note(f"{name}: {total - done:,} of {total:,} records to do")
        bar = tqdm(
            desc=f"{name:<7}", total=total, initial=done, unit=" records", file=sys.stderr,
            disable=None, dynamic_ncols=True, mininterval=0.2, smoothing=0.1,
        )  # fmt: skip
        with bar:
            yield bar

    def note(self, message: str) -> None:
        tqdm.write(message, file=sys.stderr)


def human_bytes(size: float) -> str:
    """`1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
