"""Programs as processes of their own that cost a fork: a server has imported everything once.

What a program does to itself, and how it is killed, frozen or ends, is as in any process. What it
would do at its very start (imports, warnings, the terminal) is not: tests of that start Python.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from pathlib import Path
from subprocess import TimeoutExpired

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["reembed.cli.app", "reembed.cli.text", "reembed.migration", "reembed.stores.chroma.store",
     "reembed.stores.postgres.store"]
)  # fmt: skip


class Forked:
    """A running program, with the part of Popen's interface that tests use.

    Args:
        program: the source of a module.
        folder: where its output goes until somebody asks for it.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._out, self._err = folder / ".stdout", folder / ".stderr"
        self._process = context.Process(
            target=_run, args=(program, self._out, self._err, dict(os.environ), Path.cwd())
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs, -9 once it was killed by SIGKILL."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to stdout and stderr until its end. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired("a forked program", timeout)
        return self._out.read_text("utf-8"), self._err.read_text("utf-8")


def _run(
    program: str, out: Path, err: Path, environment: dict[str, str], folder: Path
) -> None:  # fmt: skip
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), "utf-8", write_through=True)
        for number in (1, 2)
    )
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
