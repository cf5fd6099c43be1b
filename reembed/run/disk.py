"""Writing to disk: whole and durable or not at all, and an error that names the path if it fails.

Every file that reembed writes goes through here, through `sqlite.py`, or through a block of
`write_errors`; `tests/unit/run/test_disk_faults.py` makes each of them fail in turn.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from reembed.errors import OutOfMemoryError, PreflightError

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
STATE = "move the folder of `state` to another disk and point `state` there"
TEMPORARY = "set TMPDIR to a folder on another disk"
_instead = ContextVar("instead", default=STATE)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_IN_THE_WAY = (
    errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
    errno.ENOENT,  # a link that leads nowhere
)  # fmt: skip
_FAILING = (errno.EIO, errno.EFBIG, errno.ESTALE, errno.ENXIO, errno.ENODEV)


@contextlib.contextmanager
def instead_of_state(words: str) -> Iterator[None]:
    """In the block, errors of files that `state` has no say in tell to do this instead."""
    token = _instead.set(words)
    try:
        yield
    finally:
        _instead.reset(token)


def is_full(error: BaseException) -> bool:
    """Whether an error of `write_errors` is that of a full disk."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


@contextlib.contextmanager
def write_errors(path: Path | str, instead: str = STATE) -> Iterator[None]:
    """Turn a full disk, a read-only directory or a failing disk into an error that says what to do.

    Args:
        instead: what the user can do in place of freeing space or giving rights.

    Raises:
        PreflightError: the file cannot be written; running again resumes.
    """
    try:
        yield
    except OSError as error:
        told = _instead.get() if instead == STATE else None
        refusal = _refusal(path, error, told or instead)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(path: Path | str, error: OSError, instead: str) -> PreflightError | None:
    """None for an error that says nothing of the disk."""
    if error.errno == errno.ENOMEM:
        return OutOfMemoryError(f"{path}: {error.strerror}")
    if error.errno in _FULL:
        return full(path, instead)
    cannot = f"{path}: cannot be written: {error.strerror}"
    if error.errno in _FORBIDDEN:
        return PreflightError(cannot, f"Give this user the right to write there, or {instead}.")
    if error.errno == errno.ENOENT and not Path(path).parent.exists():
        return PreflightError(cannot, f"Make its folder first, or {instead}.")
    if error.errno in _IN_THE_WAY:
        return PreflightError(cannot, f"Move what is in the way, or {instead}.")
    if error.errno in _FAILING:
        return PreflightError(
            cannot,
            f"Check the disk and its limits (`dmesg`, `ulimit -f`), or {instead}, and run the "
            "same command again: it resumes.",
        )
    return None


@contextlib.contextmanager
def read_errors(path: Path | str) -> Iterator[None]:
    """Turn a file that may not be read, or a failing disk, into an error that names it. That it is
    not there is left to the caller.

    Raises:
        PreflightError: it cannot be read; nothing was changed.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        hint = "Give this user the right to read it"
        if error.errno in _IN_THE_WAY:
            hint = "Move away what is in its place"
        elif error.errno not in _FORBIDDEN:
            hint = "Check the disk (`dmesg`)"
        raise PreflightError(
            f"{error.filename or path}: cannot be read: {error.strerror}",
            f"{hint}, and run the same command again.",
        ) from error


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """`read_errors` for whatever is read within: what the system says of a file that it names."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename is None:
            raise
        with read_errors(error.filename):
            raise


def full(
    path: Path | str, instead: str = STATE, why: str = "no space left on the device"
) -> PreflightError:
    """The error of a full disk."""
    return PreflightError(
        f"{path}: {why}",
        f"Free some space, or {instead}, and run the same command again: it resumes.",
    )


_NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
"""What Python and Arrow say where a thread's stack cannot be mapped."""
_NO_LIBRARY = "failed to map segment from shared object"
"""What the loader says at the end where a library cannot be mapped for want of memory; for another
reason, such as a disk that is mounted noexec, the reason follows."""


def out_of_memory(error: BaseException | None) -> OutOfMemoryError | None:
    """The error of a process that may have no more memory, if that is what `error` comes from."""
    while error is not None:
        no_thread = any(words in str(error) for words in _NO_THREAD)
        no_map = isinstance(error, OSError) and error.errno == errno.ENOMEM
        no_map |= isinstance(error, ImportError) and str(error).endswith(_NO_LIBRARY)
        if isinstance(error, MemoryError) or no_thread or no_map:
            return OutOfMemoryError(str(error) or type(error).__name__)
        error = error.__cause__ or error.__context__
    return None


def require_memory(least: int) -> None:
    """Raise OutOfMemoryError if this process may not map as much as the libraries need that would
    end it without an error."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < least:
        raise OutOfMemoryError(
            f"the limit of this process is {limit >> 20:,} MB of address space, and the libraries "
            f"that it uses take {least >> 20:,} MB or more"
        )


def fsync_dir(path: Path) -> None:
    """Make a rename in `path` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_dir(path: Path, instead: str = STATE) -> None:
    """Create `path` and those of its parents that are missing, for this user alone whatever the
    umask is."""
    with write_errors(path, instead):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
            folder.chmod(PRIVATE_DIR)  # the umask takes from what mkdir is told
        if not missing:
            path.mkdir(exist_ok=True)  # an error where it is a file


def open_private(path: Path, flags: int) -> int:
    """Open a file of reembed's own, made if it is not there, for this user alone whatever the umask
    is. Raises OSError, also where a link stands in its place: it may lead to a file of others."""
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        _make_private(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_private(fd: int, mode: int = PRIVATE_FILE) -> None:
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != mode:
        with contextlib.suppress(PermissionError):  # another user's, which we may write to
            os.fchmod(fd, mode)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is fine."""
    with write_errors(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path, instead: str = STATE) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole and durable, or not at all.

    It and the directories made for it are for this user alone.

    Args:
        instead: see `write_errors`.
    """
    make_private_dir(path.parent, instead)
    with write_errors(path, instead):
        with _replacing(path, PRIVATE_FILE) as file:
            yield file
        fsync_dir(path.parent)


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[IO[bytes]]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            _make_private(fd, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error tells more
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes, instead: str = STATE) -> None:
    """Write `data` to `path` whole and durable, or not at all."""
    with atomic_file(path, instead) as file:
        file.write(data)


def write_output(path: Path, text: str, new: int = PRIVATE_FILE) -> None:
    """Write a file that a user asked for with `-o`: whole or not at all.

    A new one is for this user alone, since it tells of a collection; what is there keeps its
    rights, and what is no plain file, such as /dev/stdout, is written into and not replaced.

    Args:
        new: the rights of a new one.

    Raises:
        PreflightError: it cannot be written.
    """
    data = text.encode()
    with write_errors(path, "choose another file with -o"):
        path = path.resolve()  # a link stays one
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else new
        with _replacing(path, mode) as file:
            file.write(data)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's temporary directory, removed at the end. Raises PreflightError."""
    try:
        where = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it tries each by writing a file
        raise PreflightError(
            f"there is no temporary directory to write to: {error.strerror}",
            f"Free some space, or {TEMPORARY}.",
        ) from error
    with (
        write_errors(where, TEMPORARY),
        tempfile.TemporaryDirectory(prefix="reembed-", ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
