"""What a killed process leaves in a state directory: temporary files, runs that never began."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from reembed.disk import write_errors
from reembed.run.directory import RunDir

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
_RUN_ID = re.compile(r"\d{8}t\d{6}-[0-9a-f]{4}")
_MADE_FIRST = {"manifest.yaml", "journal.jsonl"}
"""What a run directory may hold before its first whole journal line."""


def remove_leftovers(state_dir: Path) -> None:
    """Remove temporary files whose process is gone, and directories of runs that never began.

    To be called by the holder of the lease. A directory that holds anything else is left alone.
    """
    with write_errors(state_dir):
        for path in state_dir.rglob(".*.tmp"):
            found = _TEMPORARY.fullmatch(path.name)
            if found and not _alive_elsewhere(int(found[1])):
                path.unlink(missing_ok=True)
        for path in state_dir.iterdir():
            if not path.is_dir() or not _RUN_ID.fullmatch(path.name):
                continue
            names = {file.name for file in path.iterdir()}
            if names <= _MADE_FIRST and _never_began(path):
                for name in names:
                    (path / name).unlink()
                path.rmdir()


def _never_began(path: Path) -> bool:
    """Whether the journal has no whole line. One that is damaged is somebody's to look at."""
    journal = RunDir(path).journal.path
    return not journal.exists() or b"\n" not in journal.read_bytes()


def _alive_elsewhere(pid: int) -> bool:
    """Whether another process has this number; our own, in a container, may be the dead one's."""
    if pid == os.getpid():
        return False
    with contextlib.suppress(ProcessLookupError, OverflowError):
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
        return True
    return False
