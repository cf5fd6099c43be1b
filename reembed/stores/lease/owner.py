"""Who holds a lease: the record that a store keeps of it, and whether its process still lives."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

_SHOWN = 120
"""Characters of a field that a message shows: anybody who may write to the store wrote it."""

_FAR_FUTURE = 1e11
"""Seconds since 1970 that calendars still know."""


@dataclass(frozen=True)
class Owner:
    """A process at work on a live name.

    Attributes:
        token: random, so that no two claims are the same text.
        machine: within which `pid` means this process: one boot of one machine, and one container.
        started: when the process began, in the kernel's ticks since boot, because a number is given
            to another process later; empty where the system does not tell.
        manifest, run: what it works on; `run` is empty until there is one.
        since, heartbeat: when it took the lease and when it was last heard of, in seconds since
            1970 by its own clock.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    user: str
    manifest: str
    run: str
    since: float
    heartbeat: float

    @classmethod
    def this_process(cls, manifest: str, run: str = "") -> Self:
        now, pid = time.time(), os.getpid()
        return cls(
            secrets.token_hex(8), socket.gethostname(), _machine(), pid, _started(pid), _user(),
            manifest, run, now, now,
        )  # fmt: skip

    def beat(self) -> Self:
        """The same owner, heard of now."""
        return replace(self, heartbeat=time.time())

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """The owner that a text names; None if it is not one that this version writes."""
        types = {"pid": int, "since": float, "heartbeat": float}
        try:
            found = json.loads(text)
            owner = cls(**{f.name: types.get(f.name, str)(found[f.name]) for f in fields(cls)})
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        sane = owner.pid > 0 and all(0 < at < _FAR_FUTURE for at in (owner.since, owner.heartbeat))
        return owner if sane else None

    def is_gone(self) -> bool:
        """Whether the process is known to have ended. False for one that cannot be looked at."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        now = _started(self.pid)
        return bool(now and self.started and now != self.started)

    def __str__(self) -> str:
        age = time.time() - self.heartbeat
        heard = f"{age:.0f} s ago" if age > -1 else f"{-age:.0f} s ahead of this machine's clock"
        since = time.strftime("%F %T %z", time.localtime(self.since))
        return (
            f"manifest {_shown(self.manifest)}, run {_shown(self.run or 'not begun')}, by "
            f"{_shown(self.user)} on {_shown(self.host)} (pid {self.pid}) since {since}, last "
            f"heartbeat {heard}"
        )


def _shown(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:_SHOWN]


def _machine() -> str:
    """Linux: the boot, and the namespace in which process numbers count. Else a hardware address,
    which two machines do not share, and a restart does not change."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _started(pid: int) -> str:
    """When a process began; `ended` for one that only waits to be reaped; empty if unknown."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    state, *rest = line.rpartition(")")[2].split()  # a program's name may hold blanks and brackets
    return "ended" if state in "ZX" else rest[18]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user often has no name
        return str(os.getuid())
