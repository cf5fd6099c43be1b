"""Runs the applications of this folder, each in a process of its own, by the clients' interpreter.

with application("mem0_app", tmp_path) as mem0:
    mem0("open", config=config)
    mem0("search", query="tea", filters={"user_id": "ann"})
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"

needs_clients = pytest.mark.skipif(
    not PYTHON.exists(), reason="mem0, LangChain and LlamaIndex are not installed: run `make test`"
)

PATIENCE = 200
"""Seconds that an operation may take; less than a test may."""

NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not answer, for all that is not on this machine."""


class ApplicationError(Exception):
    """An application's own exception. `kind` is the name of its type there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message


class Application:
    """A running application; call it with an operation's name and its arguments."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def __call__(self, operation: str, **arguments: Any) -> Any:
        """The operation's result.

        Raises:
            ApplicationError: the operation raised there.
            RuntimeError: the process ended, or gave no answer in PATIENCE seconds.
        """
        requests, replies = self._pipes()
        try:
            requests.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
            requests.flush()
        except BrokenPipeError:
            pass  # what follows says why
        ready = select.select([replies], [], [], PATIENCE)[0]
        line = replies.readline() if ready else b""
        if not line:
            state = "ended" if ready else f"gave no answer to {operation} in {PATIENCE} s"
            raise RuntimeError(f"the application {state}; it wrote: {self.log()[-4000:]}")
        reply = json.loads(line)
        if "error" in reply:
            raise ApplicationError(reply["error"], reply["message"])
        return reply["result"]

    def log(self) -> str:
        """What the application and its libraries wrote to stderr and stdout."""
        return self._log.read_text("utf-8", errors="replace")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        requests, replies = self._process.stdin, self._process.stdout
        assert requests and replies
        return requests, replies


@contextmanager
def application(
    name: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Application]:
    """Run `tests/clients/<name>.py` until the end of the block.

    Args:
        folder: its home: what it writes beside the database lands there.
        environment: more variables; the tests' own are not passed on.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [PYTHON, "-m", f"tests.clients.{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            env=_environment(folder) | dict(environment or {}),
        )
    try:
        yield Application(process, log)
    finally:
        assert process.stdin and process.stdout
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def in_clients(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the clients' interpreter once, in `folder`; its output is text."""
    return subprocess.run(
        [str(PYTHON), *arguments],
        cwd=folder,
        env=_environment(folder) | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _environment(folder: Path) -> dict[str, str]:
    """Nothing leaves this machine, and nothing is read from the home of who runs the tests."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "CHROMADB_FROM": sysconfig.get_path("purelib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MEM0_DIR": str(folder / "mem0"),
        "MEM0_TELEMETRY": "False",
        "HF_HUB_OFFLINE": "1",
        "LANGSMITH_TRACING": "false",
        "OPENAI_API_KEY": "sk-of-the-tests",
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
    }
