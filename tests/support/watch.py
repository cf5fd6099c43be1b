"""What this process reaches while it is watched: variables, files, modules, hosts, programs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reembed.stores.chroma import sqlite_process

SQLITE_PROCESS = sqlite_process.CODE
"""An argument of the process that opens chroma.sqlite3 for us, which is reembed's own."""
SECRET = "canary-8f1d-the-value-of-a-variable"


class Watch:
    """Files under `folder`, variables and modules that begin with `canary`, programs, and requests
    to a server of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reached: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        reached = self.reached

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                reached.append(f"host: {self.path} {dict(self.headers)}")
                self.send_error(401)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and str(arguments[0]).startswith(str(self.folder)):
            self.reached.append(f"file: {arguments[0]}")
        elif name == "import" and str(arguments[0]).startswith("canary"):
            self.reached.append(f"module: {arguments[0]}")
        elif name in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            if name != "subprocess.Popen" or SQLITE_PROCESS not in arguments[1]:
                self.reached.append(f"program: {arguments[0]}")
        elif name == "socket.connect" and arguments[1][1:2] == (self._server.server_port,):
            self.reached.append(f"host: {arguments[1]}")

    def variable(self, name: str) -> None:
        if name.startswith("CANARY"):
            self.reached.append(f"variable: {name}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_watches: list[Watch] = []
_hooked: list[bool] = []


def _hook(name: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch.event(name, arguments)


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Watch the block."""
    if not _hooked:
        sys.addaudithook(_hook)  # there is no way to remove one
        _hooked.append(True)
    watch = Watch(folder)
    get = os._Environ.__getitem__

    def looked_up(self: Any, key: str) -> str:
        if sys._getframe(1).f_code.co_name not in ("__iter__", "copy"):  # all of them, by name none
            watch.variable(key)
        return str(get(self, key))

    os._Environ.__getitem__ = looked_up  # type: ignore[method-assign,assignment]
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
        os._Environ.__getitem__ = get  # type: ignore[method-assign]
        watch.close()
