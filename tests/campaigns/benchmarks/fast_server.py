"""An OpenAI-like server that answers at once: every text gets a ready vector, by its length or,
with `--distinct`, by its words. With `--computing` it makes each vector from its words, as a static
model does: the mean of a row for each.

    python -m tests.campaigns.benchmarks.fast_server [--latency 0.1] [--requests N] [--tokens N]
        [--refuse-empty] [--distinct] [--computing]

Prints its port. With a quota (a minute's requests and tokens) it answers 429 as OpenAI does, with
`x-ratelimit-*` headers and `retry-after`; GET /stats tells what it has served and refused, and when
it served the first request since that was last asked.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

BUCKET = 1.0


class Quota:
    """Tokens of a bucket that fills steadily, as OpenAI documents its limits.

    Args:
        a_minute: how much flows in; a bucket holds BUCKET seconds' worth.
    """

    def __init__(self, a_minute: float) -> None:
        self._rate, self._most = a_minute / 60, a_minute / 60 * BUCKET
        self.left, self._since = self._most, time.monotonic()

    def take(self, amount: float) -> float:
        """Take it, and return 0; or the seconds until there is as much."""
        now = time.monotonic()
        self.left = min(self._most, self.left + (now - self._since) * self._rate)
        self._since = now
        if amount <= self.left:
            self.left -= amount
            return 0.0
        return (amount - self.left) / self._rate


class Server(ThreadingHTTPServer):
    """Counts what it serves."""

    daemon_threads = True
    request_queue_size = 64

    refuse_empty = distinct = computing = False

    def __init__(self, latency: float, requests: float | None, tokens: float | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.latency, self.lock = latency, threading.Lock()
        self.quotas = [Quota(each) if each else None for each in (requests, tokens)]
        self.stats = {
            "texts": 0, "requests": 0, "tokens": 0, "refused": 0, "last_refused": 0.0,
            "first_served": 0.0, "last_served": 0.0,
        }  # fmt: skip

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def admitted(self, tokens: int) -> float:
        """0, or the seconds to wait."""
        with self.lock:
            waits = [
                quota.take(amount)
                for quota, amount in zip(self.quotas, (1, tokens), strict=True)
                if quota
            ]
            wait = max(waits, default=0.0)
            if wait:
                self.stats["refused"] += 1
                self.stats["last_refused"] = time.time()
            return wait


@functools.cache
def _vector(length: int, dimensions: int) -> str:
    row = np.random.default_rng(length).normal(size=dimensions).astype(np.float32)
    return base64.b64encode((row / np.linalg.norm(row)).tobytes()).decode()


def vector_of(text: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What a server with `--distinct` answers for this text."""
    return np.frombuffer(base64.b64decode(_answer(text, dimensions, distinct=True)), np.float32)


def _answer(text: str, dimensions: int, *, distinct: bool) -> str:
    if distinct:
        return _vector(zlib.crc32(text.encode()), dimensions)
    return _vector(len(text) + sum(text.encode()) % 997, dimensions)


WORDS = 30_000


@functools.cache
def _rows(dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(2).standard_normal((WORDS, dimensions), np.float32)


def _computed(text: str, dimensions: int) -> str:
    """The vector of a static model, in base64."""
    places = [zlib.crc32(word.encode()) % WORDS for word in text.split()] or [0]
    row = _rows(dimensions)[places].mean(axis=0)
    return base64.b64encode((row / np.linalg.norm(row)).tobytes()).decode()


class Handler(BaseHTTPRequestHandler):
    """POST /v1/embeddings and GET /stats."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._send(200, self.server.stats)
        self.server.stats["first_served"] = 0.0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts, dimensions = body["input"], body.get("dimensions", 1536)
        texts = [texts] if isinstance(texts, str) else texts
        tokens = sum(len(text) for text in texts) // 4
        if self.server.refuse_empty and not all(texts):
            refusal = "'$.input' is invalid: an input must not be an empty string."
            self._send(400, {"error": {"message": refusal, "type": "invalid_request_error"}})
            return
        if wait := self.server.admitted(tokens):
            message = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
            self._send(429, message, {"retry-after-ms": str(int(wait * 1000) + 1)})
            return
        time.sleep(self.server.latency)
        as_text = body.get("encoding_format") == "base64"
        if self.server.computing:
            vectors = [_computed(text, dimensions) for text in texts]
        else:
            distinct = self.server.distinct
            vectors = [_answer(text, dimensions, distinct=distinct) for text in texts]
        data = [
            {
                "index": index, "object": "embedding",
                "embedding": vector if as_text else
                np.frombuffer(base64.b64decode(vector), np.float32).tolist(),
            }
            for index, vector in enumerate(vectors)
        ]  # fmt: skip
        with self.server.lock:
            for key, more in ("texts", len(texts)), ("requests", 1), ("tokens", tokens):
                self.server.stats[key] += more
            self.server.stats["last_served"] = time.time()
            self.server.stats["first_served"] = (
                self.server.stats["first_served"] or self.server.stats["last_served"]
            )
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._send(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def running(*options: str) -> Iterator[str]:
    """The address of one in a process of its own."""
    command = [sys.executable, "-m", __name__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--requests", type=float)
    parser.add_argument("--tokens", type=float)
    parser.add_argument("--refuse-empty", action="store_true", help="an empty text, as OpenAI")
    parser.add_argument("--distinct", action="store_true", help="a vector of its own a text")
    parser.add_argument("--computing", action="store_true", help="a vector from a text's words")
    options = parser.parse_args()
    with Server(options.latency, options.requests, options.tokens) as server:
        server.refuse_empty, server.distinct = options.refuse_empty, options.distinct
        server.computing = options.computing
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
