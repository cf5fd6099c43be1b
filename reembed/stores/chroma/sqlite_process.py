"""The process in which chroma.sqlite3 is read and written without Chroma.

Chroma brings its own copy of SQLite, and two copies in one process do not see each other's locks:
POSIX gives a lock to a process, and closing a file drops the locks of every copy in it
(https://www.sqlite.org/howtocorrupt.html, 2.2.1). An application's thread that wrote through Chroma
while ours read or moved a name in the same process met disk errors, deadlocks and crashes. So
whatever is done to the file is done by a small process of its own, started at the first use and
kept. It takes the name of a function (`sqlite_calls` and its like) with arguments, and does all of
it before it answers, since Chroma's writers wait for its lock and may hold Python's in ours while
they do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reembed import errors
from reembed.run.signals import held_signals

if TYPE_CHECKING:
    import subprocess

Answer = TypeVar("Answer")
_ROOT = Path(__file__).parents[3]
CODE = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from reembed.stores.chroma.sqlite_process import serve; serve()"
)


class SqliteProcess:
    """A process that calls functions of `sqlite_calls` and its like, one after the other.

    It ends with the one that started it; what that one did not live to see committed is not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def begin(self) -> None:
        """Start the process, so that it is ready when it is asked. What keeps it from starting is
        told then."""
        with self._lock, contextlib.suppress(OSError):
            if self._process is None and os.getpid() == self._owner:
                self._start()

    def call(self, function: str, *arguments: Any) -> Any:
        """What the function returned.

        Raises:
            ReembedError: the function raised it.
            sqlite3.Error: likewise, with its `sqlite_errorcode`.
            MemoryError: likewise.
            RuntimeError: it raised anything else.
            UnreachableError: the process cannot be started, or was killed.
        """
        with self._lock:
            if os.getpid() != self._owner:  # a fork: the pipes are its parent's
                self._process, self._owner = None, os.getpid()
            try:
                self._send((function, arguments))
                failed, answer = self._receive()
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                self.end()
                raise errors.UnreachableError(
                    "the process that reads chroma.sqlite3 ended "
                    f"({type(error).__name__}: {error})",
                    "Run the same command again: it resumes. Where it ends every time, look for a "
                    "limit on processes or memory.",
                ) from error
            except BaseException:  # Ctrl-C: what was asked for must not happen later
                self.end()
                raise
        if failed:
            raise _error(*answer)
        return answer

    def end(self) -> None:
        """Kill the process; SQLite undoes what it had not committed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                    pipe.close()
        process.wait()

    def _send(self, request: tuple[str, tuple[Any, ...]]) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()

    def _start(self) -> None:
        import subprocess

        command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", CODE, str(_ROOT)]
        with held_signals():
            self._process = subprocess.Popen(
                command, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def _receive(self) -> tuple[bool, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        failed, answer = pickle.load(self._process.stdout)  # noqa: S301 - our own pipe
        return bool(failed), answer


def in_thread(call: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
    """Begin a call of the other process; a thread waits for it, and the caller goes on."""
    found: Future[Answer] = Future()

    def run() -> None:
        try:
            found.set_result(call(*arguments))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="chroma.sqlite3", daemon=True).start()
    return found


def serve() -> None:
    """Answer calls from standard input until it ends."""
    from reembed.stores.chroma import sqlite_calls, sqlite_fill, sqlite_orphans, sqlite_pages

    parts = (sqlite_orphans, sqlite_pages, sqlite_fill, sqlite_calls)
    known = {name: found for part in parts for name, found in vars(part).items()}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked decides
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            function, arguments = pickle.load(requests)  # noqa: S301 - our own pipe
        except EOFError:
            return
        try:
            answer = False, known[function](*arguments)
        except Exception as error:
            answer = True, _told(error)
        pickle.dump(answer, answers)
        answers.flush()


def _told(error: Exception) -> tuple[str, str, Any]:
    if isinstance(error, errors.ReembedError):
        return type(error).__name__, error.message, error.hint
    return type(error).__name__, str(error), getattr(error, "sqlite_errorcode", None)


def _error(kind: str, message: str, more: Any) -> Exception:
    if hasattr(errors, kind):
        ours: errors.ReembedError = getattr(errors, kind)(message, more)
        return ours
    if hasattr(sqlite3, kind):
        error: sqlite3.Error = getattr(sqlite3, kind)(message)
        if more is not None:
            error.sqlite_errorcode = more
        return error
    return MemoryError(message) if kind == "MemoryError" else RuntimeError(f"{kind}: {message}")


beside = SqliteProcess()
"""The one of this process."""
atexit.register(beside.end)
