"""An embedding server whose every answer is mutated: status, headers, body, framing. It echoes the
key that it was given in many ways, as some servers do.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import socketserver
import threading
from typing import Any
from urllib.parse import quote

from tests.support.servers.serving import Serving, TcpServer

STATUSES = (
    200, 200, 200, 200, 201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405,
    408, 409, 410, 413, 415, 418, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 524,
    529, 599, 999,
)  # fmt: skip
ODD = (
    "", " ", "nan", "inf", "-1", "1e999", "0", "99999999999999999999", "soon", "\u00b2", "1.2.3s",
    "Tue, 99 Foo 2026 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "5m", "0x10", ",", "\x7f",
    "12ms", "6m0s", "null", "[]", "a" * 5_000,
)  # fmt: skip
HEADERS = (
    "retry-after", "retry-after-ms", "x-ratelimit-remaining-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    "content-type", "content-encoding", "location", "date", "set-cookie", "x-should-retry",
)  # fmt: skip
LEAVES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 10**400, 1e308, 1e39, float("nan"), float("inf"), "", "x",
    "AAAA", "not base64!", [], {}, [[]], [None], {"error": None}, "\ud800", [[1, 2], [3]], "1.0",
)  # fmt: skip
WIDTH = 8


class MutatingServer(Serving):
    """Answers from a seed, so that a trial can be made again."""

    def __init__(self) -> None:
        self.chance = random.Random(0)
        self.kind = ""
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                owner._handle(self.request)

        self._server = TcpServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._lock = threading.Lock()
        self.good_first = 0
        """Requests that are answered well before the mutations begin."""

    def seed(self, number: int) -> None:
        self.chance = random.Random(number)
        self.good_first = number % 3

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65_536)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(fields.get("content-length", 0))
        while len(body) < length:
            body += connection.recv(65_536)
        texts = json.loads(body).get("input", []) if body else []
        key = fields.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            answer = self._answer(texts if isinstance(texts, list) else [texts], key)
        connection.sendall(answer)

    def _answer(self, texts: list[str], key: str) -> bytes:
        good = {
            "object": "list", "model": "m", "usage": {"prompt_tokens": 3 * len(texts)},
            "data": [{"object": "embedding", "index": row, "embedding": _vector(text)}
                     for row, text in enumerate(texts)],
        }  # fmt: skip
        if self.good_first > 0:
            self.good_first -= 1
            return _framed(200, {"content-type": "application/json"}, json.dumps(good).encode())
        chance = self.chance
        document: Any = good if chance.random() < 0.6 else self._error(key)
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            document = self._mutated(document)
        try:
            body = json.dumps(document).encode()
        except (ValueError, UnicodeEncodeError):
            body = b"{"
        if chance.random() < 0.05:
            body = b"[" * 100_000
        for _ in range(chance.choice((0, 0, 0, 1, 20))):
            if body:
                place = chance.randrange(len(body))
                body = body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :]
        if chance.random() < 0.15:
            body = body[: chance.randrange(len(body) + 1)]
        headers = {"content-type": "application/json"}
        for name in HEADERS:
            if chance.random() < 0.15:
                headers[name] = chance.choice(ODD)
        if chance.random() < 0.05:
            headers["location"] = chance.choice(("http://[", "/elsewhere", "ftp://x/", "//", key))
        if chance.random() < 0.05:
            headers["x-echo"] = key
        status = chance.choice(STATUSES) if chance.random() < 0.5 else 200
        return self._broken(_framed(status, headers, body))

    def _broken(self, answer: bytes) -> bytes:
        chance = self.chance
        if chance.random() < 0.08:
            return answer[: chance.randrange(len(answer))]
        if chance.random() < 0.04:
            return answer.replace(b"content-length: ", b"content-length: 9", 1)
        if chance.random() < 0.04:
            return answer.replace(b"content-length: ", b"transfer-encoding: chunked\r\nx: ", 1)
        if chance.random() < 0.02:
            return bytes(chance.randrange(256) for _ in range(200))
        return answer

    def _error(self, key: str) -> Any:
        chance = self.chance
        echoes = (
            key, repr(key), quote(key), json.dumps(key), base64.b64encode(key.encode()).decode(),
            f"Bearer {key}", key[:8] + "***" + key[-4:], key.upper(), "none",
        )  # fmt: skip
        words = chance.choice((
            "Incorrect API key provided: {}", "maximum context length is 512 tokens, {}",
            "You exceeded your current quota {}", "Rate limit reached for {}. Try again in 1ms",
            "batch size 64 > maximum allowed batch size {}", "{}", "unknown field {}",
            "Limit 0, Requested 99 {}", "at most 0 texts {}", "encoding_format {}",
        )).format(chance.choice(echoes))  # fmt: skip
        return chance.choice((
            {"error": {"message": words, "type": words, "code": chance.choice(LEAVES)}},
            {"error": words}, {"detail": [{"msg": words}]}, {"message": words}, words,
            [{"error": {"message": words, "status": words, "details": [words]}}],
        ))  # fmt: skip

    def _mutated(self, document: Any) -> Any:
        """A copy with one place changed, left out or doubled."""
        chance = self.chance
        if not isinstance(document, dict | list) or not document or chance.random() < 0.1:
            return chance.choice(LEAVES)
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = chance.choice(keys)
        copy = dict(document) if isinstance(document, dict) else list(document)
        deed = chance.random()
        if deed < 0.15:
            del copy[key]
        elif deed < 0.25 and isinstance(copy, list):
            copy.insert(key, copy[key])
        else:
            copy[key] = self._mutated(copy[key])
        return copy


def _vector(text: str) -> list[float]:
    chance = random.Random(text)
    return [chance.gauss(0, 1) for _ in range(WIDTH)]


def _framed(status: int, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8") + body
