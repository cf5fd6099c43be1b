"""Whether an application can open a collection: asked of a process that knows nothing of reembed.

In this process the function `reembed` is registered, so here every way of opening works. The
process is started at the first question, lives as long as this one, and has nothing open between
two questions.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from reembed.errors import UnreachableError
from reembed.redaction import read_variable
from reembed.run.signals import held_signals
from reembed.stores.chroma.address import API_PATH, Address

SCRIPT = Path(__file__).with_name("as_application.py")
WAYS = {
    "plain": "get_collection(name) and a search by vector",
    "or create": "get_or_create_collection(name)",
    "configuration": "collection.configuration, which LangChain's relevance scores read",
    "own": "get_collection(name, embedding_function=...) with a function of the application's own",
}
"""Ways of opening, as `as_application` names them, in words."""


def opened(address: Address, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What came of opening each of these collections in every way of `WAYS`; see `Store.opening`.

    Raises:
        UnreachableError: the process does not answer, or cannot reach the store.
    """
    answer = _other_process().ask(_request(address) | {"names": list(names)})
    if "opened" not in answer or answer["reembed"]:
        raise UnreachableError(
            f"a plain Chroma client of another process cannot open the store: {answer}",
            "Run the same command again to resume. If it stays so, open the collection in a script "
            "with Chroma's own client: what that says is the cause.",
        )
    return {
        name: {WAYS[way]: why for way, why in ways.items()}
        for name, ways in answer["opened"].items()
    }


def _request(address: Address) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "tenant": address.tenant,
        "database": address.database,
        "headers": dict(address.headers or {}),
        "verify": None if address.verify is True else address.verify,
        "environment": {key: os.environ[key] for key in os.environ if key.startswith("CHROMA_")},
    }
    if address.path is not None:
        return asked | {"path": str(address.path)}
    asked |= {"port": address.port, "tls": address.tls}
    if address.cloud:
        return asked | {"key": read_variable("CHROMA_API_KEY"), "cloud_host": address.host}
    return asked | {"host": f"{address.base}{API_PATH}" if address.prefix else address.base}


class _Process:
    """The other process; one question at a time."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            running = self._start()
            try:
                cast(IO[str], running.stdin).write(json.dumps(request) + "\n")
                cast(IO[str], running.stdin).flush()
                line = cast(IO[str], running.stdout).readline()
            except OSError as error:
                line = ""
                told = str(error)
            else:
                told = "it ended without an answer"
            if not line:
                self.end()
                return {"error": told}
            answer: dict[str, Any] = json.loads(line)
            return answer

    def _start(self) -> subprocess.Popen[str]:
        if self._running is None or self._running.poll() is not None:
            command = [sys.executable, "-P", "-W", "ignore", str(SCRIPT)]
            with held_signals():
                self._running = subprocess.Popen(
                    command, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
        return self._running

    def end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            for pipe in (running.stdin, running.stdout):
                if pipe is not None:
                    pipe.close()
            running.terminate()
            running.wait()


@lru_cache(maxsize=1)
def _other_process() -> _Process:
    return _Process()
