"""OpenAI's Batch API as documented (files, batches), beside its embeddings API, over real HTTP.

A batch ends at the second look at it. What it does to which text, and where a call fails, a test
says; every text that was given a vector is counted, by batch or singly.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tests.support.servers.serving import Serving, send_json

DIMENSIONS = 16
Answered = tuple[int, bytes]


def vector_of(text: str) -> np.ndarray:
    """A vector that only this text has."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


class BatchServer(Serving):
    """See the module.

    Attributes:
        expires: whether a text is left undone when its batch, the n-th from 0, expires.
        fails: whether a text of a batch gets an error instead of a vector.
        broken: for every request in turn, a status to answer with instead; None to answer.
        refuses: batches fail their validation.
    """

    def __init__(self) -> None:
        self.expires: Callable[[int, str], bool] = lambda batch, text: False
        self.fails: Callable[[str], bool] = lambda text: False
        self.broken: Callable[[str, str], int | None] = lambda method, path: None
        self.refuses = False
        self.by_batch: Counter[str] = Counter()
        self.singly: Counter[str] = Counter()
        self.batches: dict[str, dict[str, Any]] = {}
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, method: str, path: str, body: bytes, kind: str) -> Answered:
        status = self.broken(method, path)
        if status is not None:
            return status, b'{"error": {"message": "try again"}}'
        with self._lock:
            return self._answer(method, path.partition("?")[0], body, kind)

    def _answer(self, method: str, path: str, body: bytes, kind: str) -> Answered:
        if path == "/v1/embeddings":
            return self._embeddings(json.loads(body))
        if path == "/v1/files":
            return self._upload(body, kind)
        if path == "/v1/batches" and method == "POST":
            return self._create(json.loads(body))
        if path == "/v1/batches":
            data = [self._shown(one) for one in reversed(self.batches.values())]
            return _json({"object": "list", "data": data, "has_more": False})
        if found := re.fullmatch("/v1/batches/([^/]+)", path):
            return _json(self._shown(self._looked(self.batches[found[1]])))
        if found := re.fullmatch("/v1/files/([^/]+)/content", path):
            return 200, self._files[found[1]]
        return 404, b"{}"

    def _embeddings(self, request: dict[str, Any]) -> Answered:
        self.singly.update(request["input"])
        return _json(_answer(request))

    def _upload(self, body: bytes, kind: str) -> Answered:
        boundary = b"--" + kind.partition("boundary=")[2].encode()
        part = next(one for one in body.split(boundary) if b'name="file"' in one)
        name = f"file-{len(self._files)}"
        self._files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return _json({"id": name, "object": "file", "bytes": 1, "created_at": 1,
                      "filename": "x", "purpose": "batch", "status": "processed"})  # fmt: skip

    def _create(self, request: dict[str, Any]) -> Answered:
        id = f"batch_{len(self.batches)}"
        self.batches[id] = {**request, "id": id, "status": "validating", "number":
                            len(self.batches)}  # fmt: skip
        return _json(self._shown(self.batches[id]))

    def _looked(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["status"] == "validating":
            batch["status"] = "failed" if self.refuses else "in_progress"
        elif batch["status"] == "in_progress":
            self._end(batch)
        return batch

    def _end(self, batch: dict[str, Any]) -> None:
        done, errors, expired = [], [], False
        for line in self._files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            (text,) = request["body"]["input"]
            row = {"id": "r", "custom_id": request["custom_id"], "response": None, "error": None}
            if self.expires(batch["number"], text):
                row["error"] = {"code": "batch_expired", "message": "not executed in time"}
                errors.append(row)
                expired = True
            elif self.fails(text):
                row["response"] = {"status_code": 400, "body": {"error": {"message": "no"}}}
                errors.append(row)
            else:
                self.by_batch[text] += 1
                row["response"] = {"status_code": 200, "body": _answer(request["body"])}
                done.append(row)
        batch["status"] = "expired" if expired else "completed"
        for key, rows in (("output_file_id", done), ("error_file_id", errors)):
            if rows:
                batch[key] = f"{key}-{batch['number']}"
                self._files[batch[key]] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    @staticmethod
    def _shown(batch: dict[str, Any]) -> dict[str, Any]:
        errors = {"object": "list", "data": [{"message": "wrong file", "code": "invalid"}]}
        return {
            "object": "batch", "created_at": 1,
            "errors": errors if batch["status"] == "failed" else None,
            "request_counts": {"total": 1, "completed": 0, "failed": 0}, **batch,
        }  # fmt: skip


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    data = []
    for index, text in enumerate(request["input"]):
        vector: Any = vector_of(text)
        coded = request.get("encoding_format") == "base64"
        shown = base64.b64encode(vector.tobytes()).decode() if coded else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    return {"object": "list", "data": data, "model": request["model"],
            "usage": {"prompt_tokens": 5 * len(data), "total_tokens": 5 * len(data)}}  # fmt: skip


def _json(document: dict[str, Any]) -> Answered:
    return 200, json.dumps(document).encode()


class _Handler(BaseHTTPRequestHandler):
    owner: BatchServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self._send(body)

    def do_GET(self) -> None:
        self._send(b"")

    def _send(self, body: bytes) -> None:
        status, data = self.owner.answer(
            self.command, self.path, body, self.headers.get("content-type") or ""
        )
        send_json(self, status, data)

    def log_message(self, *_: object) -> None:
        pass
