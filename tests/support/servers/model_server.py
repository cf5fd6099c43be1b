"""OpenAI's embeddings API over the models of this program's own providers, for applications that
shall embed with the model that a manifest names."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.manifest import Model
from reembed.records import Vectors


class Models:
    """Models by the names that they are asked for with, each opened once.

    Args:
        settings: of each, as a manifest has them.
        folder: where their modules and relative paths are.
    """

    def __init__(self, settings: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._lock = threading.Lock()
        self._open: dict[str, Embedder] = {}

    def vectors(self, name: str, texts: list[str]) -> Vectors:
        with self._lock:
            if name not in self._open:
                model = Model.model_validate(self._settings[name])
                self._open[name] = open_embedder(model, base_dir=self._folder)
            return self._open[name].embed_queries(texts)

    def close(self) -> None:
        for embedder in self._open.values():
            embedder.close()


@contextmanager
def model_server(settings: Mapping[str, Mapping[str, Any]], folder: Path) -> Iterator[str]:
    """Serve these models until the end of the block; the base URL of the API."""
    models = Models(settings, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = asked["input"]
            texts = [texts] if isinstance(texts, str) else texts
            packed = asked.get("encoding_format") == "base64"
            made = [
                base64.b64encode(vector.tobytes()).decode() if packed else vector.tolist()
                for vector in models.vectors(asked["model"], texts)
            ]
            body = json.dumps({
                "object": "list", "model": asked["model"],
                "data": [{"object": "embedding", "index": index, "embedding": vector}
                         for index, vector in enumerate(made)],
                "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
            }).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        models.close()
