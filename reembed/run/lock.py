"""The state lock: one process at a time works on a migration's state directory, and whoever has it
clears away what killed processes left there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from reembed.errors import LockedError
from reembed.run.directory import RUN_ID, RunDir
from reembed.run.disk import (
    STATE,
    is_full,
    make_private_dir,
    named_errors,
    open_private,
    write_errors,
)


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """The lock on a migration's state directory, cleared of what killed processes left there."""
    with named_errors(), StateLock(state_dir / "lease"):
        remove_leftovers(state_dir)
        yield


TRIES = 20
"""Of a lock that nobody's name is on: it is only being looked at, by `holder`."""


def holder(path: Path) -> str | None:
    """Who holds the lock of this file, None for nobody. Writes nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 4096, 0).decode("utf-8", "replace").strip() or "unknown"
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(fd)


class StateLock:
    """The right to write into `<state>/<name>/`, held by one process at a time.

    An advisory `flock` on the file `lease` there: the kernel drops it when its owner dies, so a
    dead owner never blocks the next run. The file says who holds it.

    Args:
        instead: see `write_errors`.
    """

    def __init__(self, path: Path, instead: str = STATE) -> None:
        self.path, self._instead = path, instead
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock. Raises LockedError, naming the owner, if another process holds it."""
        if self.held:
            return
        make_private_dir(self.path.parent, self._instead)
        with write_errors(self.path, self._instead):
            fd = open_private(self.path, os.O_RDWR)
        owner = _lock(fd)
        if owner is not None:
            os.close(fd)
            raise LockedError(
                f"{self.path.parent}: another run is active: {owner}",
                "Wait until it ends, or stop it; running again then resumes where it was.",
            )
        owner = f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T %z')}"
        try:
            with write_errors(self.path, self._instead):
                os.ftruncate(fd, 0)
                os.pwrite(fd, owner.encode() + b"\n", 0)
        except BaseException as error:
            # On a full disk it is held without a name on it: a prune is what makes room there.
            if not is_full(error):
                os.close(fd)  # and the lock, or nobody could have it while this process lives
                raise
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. Does nothing if it is not held."""
        if self._fd is not None:
            with contextlib.suppress(OSError):  # a name left in it claims nothing: the lock counts
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock(fd: int) -> str | None:
    """Take the lock of an open file, or say who holds it."""
    for _ in range(TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 4096, 0).decode("utf-8", "replace").strip()
            if owner:
                return owner
            time.sleep(0.01)
        else:
            return None
    return "unknown"


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
