"""Processes that cost a fork: everything is imported once, and each child is killed for real."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import select
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.support import steps

Result = TypeVar("Result")

SHARD_ROWS = 50
"""Rows in a shard of the campaign's runs, so that a few hundred records are several shards."""
SECONDS = 240.0
"""After which a command counts as hung."""
SERVER = "REEMBED_SOAK_SERVER"
"""Where the embedding server listens."""
LOG = "checks.jsonl"
"""Where a command notes what the server had served before and after each verification."""
STEPS = ".steps"
"""Where a command notes how many steps it has made, if these are counted."""
KILLED = -signal.SIGKILL
CRASH: list[Callable[[], None]] = []
"""How to let the server crash and start it again, where a campaign does."""
CRASHED = ".crashed"
"""There if a command has done so."""


@dataclass(frozen=True)
class Kill:
    """Where a command is killed.

    Attributes:
        place: "before" the `at`-th journal line is written, with half of it written ("torn"),
            written but not yet fsynced ("unsynced"), right "after" it is on disk, at the `at`-th
            "fsync" of anything, before the `at`-th "step" (`tests/support/steps.py`; 0 for never),
            or before that step the "server" crashes and is started again, and the command goes on,
            or at a moment ("time": after `at` seconds).
        at: see `place`.
    """

    place: str
    at: float

    def __str__(self) -> str:
        return f"{self.place} {self.at:.3f}" if self.place == "time" else f"{self.place} {self.at}"


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is KILLED where it was killed."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.out)


def preload() -> None:
    """Import what commands need, so that a child has it. No client may be open when one is made."""
    import openai  # noqa: F401

    import reembed.cli.app
    import reembed.cli.text
    import reembed.embedders.providers.openai
    import reembed.live
    import reembed.migration
    import reembed.stores.chroma.store
    import reembed.stores.postgres.store  # noqa: F401


def command(folder: Path, *arguments: str, kill: Kill | None = None) -> Ended:
    """`reembed` with these arguments in `folder`, as a process of its own."""
    out, err = folder / ".stdout", folder / ".stderr"
    ready, tell = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _exit_with(lambda: _command(folder, arguments, kill, out, err, tell))
    os.close(tell)
    select.select([ready], [], [], SECONDS)
    os.close(ready)
    began = time.perf_counter()
    if kill is not None and kill.place == "time":
        time.sleep(max(0.0, kill.at))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code = _wait(pid, start + SECONDS)
    seconds = time.perf_counter() - began
    return Ended(code, out.read_text("utf-8"), err.read_text("utf-8"), seconds)


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function` in a child, because Chroma must not be open in the parent of further children."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)

        def work() -> int:
            try:
                answer: tuple[bool, Any] = (True, function(*arguments))
            except BaseException as error:
                import traceback

                answer = (False, "".join(traceback.format_exception(error)))
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
            return 0

        _exit_with(work)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _wait(pid, time.perf_counter() + SECONDS)
    done, value = pickle.loads(data)
    if not done:
        raise AssertionError(value)
    result: Result = value
    return result


def _exit_with(work: Callable[[], int]) -> None:
    code = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, deadline: float) -> int:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.perf_counter() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"a command did not end within {SECONDS:.0f} s")
        time.sleep(0.01)


# In the child


def _command(
    folder: Path, arguments: tuple[str, ...], kill: Kill | None, out: Path, err: Path, tell: int
) -> int:
    os.chdir(folder)
    with out.open("w") as stdout, err.open("w") as stderr:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), "utf-8", write_through=True)
    small_shards()
    _note_checks(folder / LOG)
    if kill is not None and kill.place == "step":
        steps.count_steps(int(kill.at), folder / STEPS)
    elif kill is not None and kill.place == "server":
        steps.count_steps(int(kill.at), folder / STEPS, lambda: _crash(folder))
    elif kill is not None and kill.place != "time":
        _hook(kill)
    from reembed.cli.entry import main

    sys.argv = ["reembed", *arguments, "--json"]
    os.close(tell)
    main()


def _crash(folder: Path) -> None:
    """Let the server crash, and nobody notice it who does not ask for something."""
    import reembed.stores.postgres.client

    reembed.stores.postgres.client.QUIET_SECONDS = 0.0  # a lost connection is opened again
    (folder / CRASHED).touch()
    CRASH[0]()


def small_shards() -> None:
    """Make shards and pages of SHARD_ROWS records in this process, and time few queries."""
    import reembed.stages.export
    import reembed.stages.load
    import reembed.sync.carry_back
    import reembed.sync.difference
    import reembed.verify.search_gates

    reembed.verify.search_gates.TIMED_QUERIES = 5
    steps.small_shards(SHARD_ROWS)

    for module in (
        reembed.sync.difference,
        reembed.stages.export,
        reembed.stages.load,
        reembed.sync.carry_back,
    ):
        module.SHARD_ROWS = SHARD_ROWS  # type: ignore[attr-defined]


def _hook(kill: Kill) -> None:
    from reembed.run.journal import Journal

    append, fsync = Journal.append, os.fsync
    lines = syncs = 0
    in_append = False

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_append(self: Journal, event: str, **fields: Any) -> None:
        nonlocal lines, in_append
        lines += 1
        due = lines == kill.at
        if due and kill.place == "before":
            die()
        if due and kill.place == "torn":
            with self.path.open("ab") as file:
                file.write(json.dumps({"event": event, **fields})[:-7].encode())
            die()
        in_append = due and kill.place == "unsynced"
        append(self, event, **fields)
        if due and kill.place == "after":
            die()

    def killed_fsync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        if in_append or (kill.place == "fsync" and syncs == kill.at):
            die()
        fsync(fd)

    Journal.append = killed_append  # type: ignore[method-assign]
    os.fsync = killed_fsync  # type: ignore[assignment]


def _note_checks(log: Path) -> None:
    """A plan, a verification, and rollback's look at the old model embed some texts on purpose.
    What they were served is told apart by what the server had served when they began and ended."""
    from reembed.migration import migration
    from reembed.sync.old_vectors import OldVectors
    from reembed.verify.gates import Verification

    depth = 0

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal depth
            depth += 1
            if depth == 1:
                note(log, "begin")
            try:
                return original(*arguments, **options)
            finally:
                depth -= 1
                if depth == 0:
                    note(log, "end")

        return wrapped

    for name in ("verdict", "integrity"):
        setattr(Verification, name, noted(getattr(Verification, name)))
    template = OldVectors.__dict__["old_template"]
    template.func = noted(template.func)
    functions = vars(migration)
    functions["make_plan"] = noted(functions["make_plan"])  # it measures the speed


def note(log: Path, what: str) -> None:
    """Note what the server has served by now."""
    with log.open("a") as file:
        file.write(json.dumps([what, served()]) + "\n")


def served() -> dict[str, int]:
    """Text to how often the embedding server gave a vector for it."""
    with urllib.request.urlopen(os.environ[SERVER] + "/stats") as answer:
        found: dict[str, int] = json.load(answer)["served"]
    return found


def billed(log: Path, before: dict[str, int], after: dict[str, int]) -> Counter[str]:
    """What was served between two looks, without what checks asked for. A check that was killed
    ends where "killed" is noted."""
    total = Counter(after)
    total.subtract(before)
    begun: dict[str, int] | None = None
    for line in log.read_text("utf-8").splitlines() if log.exists() else []:
        what, counts = json.loads(line)
        if what == "begin":
            begun = counts
        elif begun is not None:
            asked = Counter(counts)
            asked.subtract(begun)
            total.subtract(asked)
            begun = None
    return +total
