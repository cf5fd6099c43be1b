"""Whole process trees: what they take, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAUSE = 0.05
LIMIT = 1800.0
"""Seconds after which a tool is stopped."""


@dataclass(frozen=True)
class Took:
    """What a command took, from its start to its end.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        cpu_seconds: of all its processes and of the servers beside it.
        peak_mb: of its processes together, as resident sets; of a server too, if that is asked.
        output: the end of what it printed.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


@dataclass(frozen=True)
class Beside:
    """A server that works for the command.

    Attributes:
        pid: of its first process.
        memory: whether its memory counts.
    """

    pid: int
    memory: bool


def run(
    command: str, folder: Path, variables: Mapping[str, str], beside: Sequence[Beside] = (),
    kill: Callable[[float], bool] = lambda seconds: False,
) -> Took:  # fmt: skip
    """Run a command of bash in a folder.

    Args:
        variables: of the environment, besides this process's own.
        kill: looked at all the time; once it says so, all processes get SIGKILL.
    """
    before, peak = sum(_cpu(each.pid) for each in beside), 0
    log = folder / "output.txt"
    start = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, env=os.environ | variables,
            start_new_session=True,
        )  # fmt: skip
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _memory([process.pid, *(each.pid for each in beside if each.memory)]))
            seconds = time.perf_counter() - start
            if seconds > LIMIT or kill(seconds):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                kill = lambda seconds: False  # noqa: E731
            time.sleep(PAUSE)
        process.returncode = os.waitstatus_to_exitcode(status)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever outlived it
    servers = sum(_cpu(each.pid) for each in beside) - before
    return Took(
        process.returncode, time.perf_counter() - start,
        used.ru_utime + used.ru_stime + servers, peak / 2**20,
        log.read_text(errors="replace")[-1500:],
    )  # fmt: skip


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _tree(pids: Sequence[int]) -> list[int]:
    children, found = _children(), list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def _cpu(pid: int) -> float:
    """Seconds of a tree so far, those of its processes that have ended included."""
    return (
        sum(sum(map(int, fields[11:15])) for one in _tree([pid]) if (fields := _stat(one))) / TICKS
    )


def _memory(pids: Sequence[int]) -> int:
    """Bytes that a tree holds now. Pages that processes share count once for each."""
    pages = sum(int(fields[21]) for one in _tree(pids) if (fields := _stat(one)))
    return pages * os.sysconf("SC_PAGE_SIZE")
