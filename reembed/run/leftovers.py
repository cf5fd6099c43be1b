"""What a killed process leaves in a state directory: temporary files, runs that never began."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from reembed.run.directory import RUN_ID, RunDir
from reembed.run.disk import write_errors

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")


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
            if RUN_ID.fullmatch(path.name) and path.is_dir() and RunDir(path).never_began():
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()


def _alive_elsewhere(pid: int) -> bool:
    """Whether another process has this number; our own, in a container, may be the dead one's."""
    if pid == os.getpid():
        return False
    with contextlib.suppress(ProcessLookupError, OverflowError):
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
        return True
    return False
