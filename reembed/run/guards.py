"""The files by which people stop a run without killing it: `pause` and `hold`.

Both lie in `<state>/<name>/`, beside the lease, and are in force while they exist, whatever is in
them; the first line is shown as the reason.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reembed.errors import HeldError

PAUSE_FILE = "pause"
"""While it exists, `run` begins no request and no shard."""
HOLD_FILE = "hold"
"""While it exists, no swap moves the live name."""
POLL_SECONDS = 1.0
"""Between two looks at whether a pause is over."""
LONGEST_REASON = 200
"""Characters of the first line that are shown."""

Wait = Callable[[], None]
"""Called between two shards: returns when the next one may begin."""


def no_wait() -> None:
    """Go on at once."""


@dataclass(frozen=True)
class Notice:
    """A guard file that is there.

    Attributes:
        reason: its first line, without what a terminal would obey; may be empty.
        owner: the user it belongs to, empty if unknown.
        since: when it was written, seconds since the epoch; None if unknown.
    """

    path: Path
    reason: str
    owner: str
    since: float | None

    def __str__(self) -> str:
        by = f" by {self.owner}" if self.owner else ""
        on = time.strftime(" on %F %T", time.localtime(self.since)) if self.since else ""
        written = f", written{by}{on}" if by or on else ""
        return f"{self.path}{written}: {self.reason or 'no reason given'}"


def notice(path: Path) -> Notice | None:
    """The guard file at `path`, None if there is none. One that cannot be read is in force too."""
    if not (path.exists() or path.is_symlink()):
        return None
    reason, owner, since = "", "", None
    with contextlib.suppress(OSError):
        since = path.stat().st_mtime
        if path.is_file():  # no pipe, which would never end
            with path.open("rb") as file:
                line = file.read(4 * LONGEST_REASON).decode("utf-8", "replace").partition("\n")[0]
            reason = "".join(sign for sign in line if sign.isprintable())[:LONGEST_REASON].strip()
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        owner = path.owner()
    return Notice(path, reason, owner, since)


def pause_notice(state_dir: Path) -> Notice | None:
    """The pause in force on a migration, None if there is none."""
    return notice(state_dir / PAUSE_FILE)


def hold_notice(state_dir: Path) -> Notice | None:
    """The hold in force on a migration, None if there is none."""
    return notice(state_dir / HOLD_FILE)


def guard_messages(state_dir: Path) -> list[str]:
    """What is in force on a migration, for people."""
    paused, held = pause_notice(state_dir), hold_notice(state_dir)
    return [
        *([f"a pause is in force: {paused}"] if paused else []),
        *([f"a hold is in force, so nothing will be swapped: {held}"] if held else []),
    ]


def refuse_held(state_dir: Path) -> None:
    """Raise HeldError while there is a hold."""
    held = hold_notice(state_dir)
    if held:
        raise HeldError(
            f"the live name is held, so it was not moved: {held}",
            "Everything else is done. Once whoever wrote the file agrees, remove it and run the "
            "same command again.",
        )


class Pause:
    """Waits while the pause file exists. Shared by the threads of a call.

    Args:
        state_dir: `<state>/<name>`.
        note: told once when a pause begins to be obeyed, and once when it is over.
    """

    def __init__(self, state_dir: Path, note: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._note = note
        self._obeyed = False
        self._told = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def obeyed(self) -> Iterator[None]:
        """Obey the file within the block. Nowhere else is it looked at: a move of the live name, on
        which writers wait, and a rollback are not paused."""
        self._obeyed = True
        try:
            yield
        finally:
            self._obeyed = False

    def wait(self, cancelled: threading.Event | None = None) -> None:
        """Return when there is no pause, or `cancelled` is set."""
        cancelled = cancelled or threading.Event()
        while self._obeyed and not cancelled.is_set():
            paused = pause_notice(self._state_dir)
            self._tell(paused)
            if paused is None:
                return
            cancelled.wait(POLL_SECONDS)

    def _tell(self, paused: Notice | None) -> None:
        with self._lock:
            if paused and not self._told:
                self._note(f"paused, until the file is removed: {paused}")
            elif self._told and not paused:
                self._note("the pause is over: going on")
            self._told = paused is not None
