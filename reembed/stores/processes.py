"""Which other processes have a store's files open, as far as this machine shows it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from reembed.redaction import redacted

_SHOWN = 80


@dataclass(frozen=True)
class Holders:
    """Other processes that have a file of a folder open.

    Attributes:
        processes: process id to command, e.g. `python app.py`; without further arguments, which may
            hold secrets.
        unseen: what could not be looked at, in words; empty if nothing.
    """

    processes: dict[int, str]
    unseen: str = ""

    def __str__(self) -> str:
        return ", ".join(self.lines())

    def lines(self) -> tuple[str, ...]:
        """`pid 123 (python app.py)` for each."""
        return tuple(f"pid {pid} ({command})" for pid, command in self.processes.items())


def holders(folder: Path) -> Holders:
    """Other processes that have a file in `folder`, or below it, open now.

    Linux tells by `/proc/<pid>/fd`: for processes of this user, for root of all users, in this
    container. Processes on other machines that share the folder are never seen.
    """
    if not sys.platform.startswith("linux"):
        return Holders({}, "this system does not tell which processes have it open")
    found: dict[int, str] = {}
    hidden = 0
    inside = f"{folder.resolve()}/"
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        if int(process.name) == os.getpid():
            continue
        try:
            fd = f"{process}/fd"  # no Path for each: there are tens of thousands
            links = [os.readlink(f"{fd}/{number}") for number in os.listdir(fd)]  # noqa: PTH115, PTH208
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it has just ended, or closed a file
            links = []
        if any(link.startswith(inside) for link in links):
            found[int(process.name)] = _command(process)
    return Holders(
        found, f"processes of other users cannot be looked at: {hidden}" if hidden else ""
    )


def _command(process: Path) -> str:
    """The program's name, and for an interpreter the script or module that it runs."""
    try:
        name = (process / "comm").read_text("utf-8", "replace").strip()
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "ended meanwhile"
    script = ""
    if name.startswith("python"):
        script = _script(words[1:])
    shown = f"{name} {script}".strip()
    return redacted("".join(letter for letter in shown if letter.isprintable()))[:_SHOWN]


def _script(arguments: list[str]) -> str:
    """`app.py` or `-m app`, after the interpreter's own options; empty for `-c` and stdin."""
    while arguments and arguments[0].startswith("-"):
        option, *arguments = arguments
        if option == "-m":
            return f"-m {arguments[0]}" if arguments else ""
        if option in ("-c", "-"):
            return ""
        if option in ("-W", "-X"):
            arguments = arguments[1:]
    return Path(arguments[0]).name if arguments else ""
