"""A webhook that alerts are sent to: what it took, and answers that are errors."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers.serving import Serving


class Webhook(Serving):
    """Takes Apprise's `json://` messages.

    Attributes:
        messages: what was taken.
        refusals: so many requests are answered with an error first.
        asked: requests in all.
    """

    def __init__(self, port: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refusals = 0
        self.asked = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                owner.asked += 1
                if owner.refusals:
                    owner.refusals -= 1
                    self.send_error(503)
                    return
                owner.messages.append(json.loads(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"json://robot:hunter2secret@127.0.0.1:{self.port}/hook"

    @property
    def text(self) -> str:
        """All that was ever sent."""
        return json.dumps(self.messages)
