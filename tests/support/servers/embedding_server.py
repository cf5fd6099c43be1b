"""An HTTP server of the tests' own that speaks OpenAI's embeddings API and Ollama's.

It answers with a real model (WordLlama, 256 dimensions), behaves as one of the servers whose
differences were measured (`BEHAVIOURS`), counts every text it gave a vector for, and injects
faults.

    with EmbeddingServer(OPENAI, faults=[Fault("status", 429), None, Fault("nan")]) as server:
        Model(provider="openai", name="wordllama", base_url=server.openai_url)

As a process of its own: `python -m tests.support.servers.embedding_server --behaviour ollama`
prints its port; GET /stats gives its counts, POST /faults takes a list of faults (JSON) for what
comes next.
With `widths` (or `--widths`) it gives vectors as wide as a named model's, made from the same real
ones, so what is near stays near.
"""

from __future__ import annotations

import argparse
import base64
import functools
import importlib.util
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tokenizers import Tokenizer

NATIVE = 256
REAL_WIDTHS = {"text-embedding-3-small": 1536, "nomic-embed-text": 768}
"""The dimensions of the models whose names an application's own configuration holds."""


class WordLlama:
    """Mean of token vectors, of length one, as a server gives them."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("wordllama")
        assert spec and spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        from safetensors.numpy import load_file

        (self._vectors,) = load_file(folder / "weights/l2_supercat_256.safetensors").values()
        self._tokenizer = Tokenizer.from_file(
            str(folder / "tokenizers/l2_supercat_tokenizer_config.json")
        )

    def ids(self, text: str) -> list[int]:
        return [1, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def vector(self, ids: Sequence[int], dimensions: int = NATIVE) -> np.ndarray:
        vector = self._vectors[np.array(ids)].astype(np.float32).mean(axis=0)[:dimensions]
        return np.asarray(vector / np.linalg.norm(vector))


@functools.cache
def _model() -> WordLlama:
    return WordLlama()


@functools.cache
def _widening(name: str, width: int) -> np.ndarray:
    """(NATIVE, width) float32 with orthonormal rows, another for every name: it keeps all angles,
    and makes two models' vectors nothing to each other."""
    chance = np.random.default_rng(zlib.crc32(name.encode()))
    columns, _ = np.linalg.qr(chance.standard_normal((width, NATIVE)))
    return np.asarray(columns.T, np.float32)


@dataclass(frozen=True)
class Behaviour:
    """Where servers disagree, as `Servers disagree: measured` records it.

    Attributes:
        too_long: of /v1: what happens above `max_tokens`: "400", "500" or "cut" (in silence).
        unknown_model: "404" or "ignored".
        empty_text: "400" or "vector".
        dimensions: "honoured", "ignored" or "refused" (even if they are its own).
        base64: whether it is honoured; floats come otherwise.
        usage: "tokens", "characters", "texts" or "none".
        batch_limit: texts above which a request gets 422.
        max_tokens, told_tokens: the limit, and what /api/show says it is.
    """

    name: str
    too_long: str = "400"
    unknown_model: str = "404"
    empty_text: str = "vector"
    empty_list: int = 400
    dimensions: str = "honoured"
    base64: bool = True
    usage: str = "tokens"
    batch_limit: int | None = None
    max_tokens: int = 512
    told_tokens: int | None = None


OPENAI = Behaviour("openai", empty_text="400", batch_limit=2048, max_tokens=8192)
LLAMA_CPP = Behaviour("llama.cpp", too_long="500", unknown_model="ignored", dimensions="ignored")
LLAMA_CPP_PYTHON = Behaviour(
    "llama-cpp-python", too_long="cut", unknown_model="ignored", dimensions="ignored",
    base64=False, empty_list=500,
)  # fmt: skip
INFINITY = Behaviour(
    "infinity", too_long="cut", unknown_model="ignored", usage="characters", batch_limit=2048,
    empty_list=422,
)  # fmt: skip
OLLAMA = Behaviour("ollama", too_long="cut")
BEHAVIOURS = {b.name: b for b in (OPENAI, LLAMA_CPP, LLAMA_CPP_PYTHON, INFINITY, OLLAMA)}


@dataclass(frozen=True)
class Fault:
    """One request's bad fortune.

    Attributes:
        kind: status, body, reset, drip, hang, truncated, cut_off, html, wrong_dimension, too_few,
            too_many, shuffled, bad_index, nan, zero, equal, bad_base64.
        status, retry_after, message: of kind `status`.
        row: the vector that `nan` and `zero` spoil; None for all.
        body: of kind `body`: what comes with `status`, a text or what becomes JSON.
    """

    kind: str
    status: int = 429
    retry_after: str | None = None
    message: str = "injected"
    row: int | None = 0
    body: Any = None


Faults = Sequence[Fault | None] | Callable[[int, list[str]], Fault | None]


class EmbeddingServer:
    """See the module. `faults`: one entry for each embedding request in turn, or a function of the
    request's number (from 0) and its texts."""

    def __init__(
        self,
        behaviour: Behaviour = OPENAI,
        *,
        faults: Faults = (),
        api_key: str | None = None,
        models: Sequence[str] = ("wordllama", "nomic-embed-text:latest"),
        version: str = "0.13.5",
        digest: str = "0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f",
        headers: dict[str, str] | None = None,
        requests_per_window: tuple[int, float] | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.faults: Faults = faults
        self.api_key = api_key
        self.widths = dict(widths or {})
        """Dimensions by model name without its tag; NATIVE for others."""
        self.models = (*models, *(name for name in self.widths if f"{name}:latest" not in models))
        self.version = version
        self.digest = digest
        self.headers = headers or {}
        self.window = requests_per_window
        self.shift = 0.0
        """Added to the first component of every vector: another model of the same name."""
        self.slow = 0.0
        """Seconds that every embedding request takes."""
        self.served: Counter[str] = Counter()
        """Texts that were given a vector, i.e. paid for, with how often."""
        self.requests: list[dict[str, Any]] = []
        """Bodies of the embedding requests."""
        self.statuses: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._recent: list[float] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._model = _model()
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> EmbeddingServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> EmbeddingServer:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", port), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._closing.set()
        if self._http:
            self._http.shutdown()
            self._http.server_close()

    @property
    def port(self) -> int:
        assert self._http
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def width(self, body: dict[str, Any]) -> int:
        """The dimensions of the model that a request names."""
        return self.widths.get(_untagged(body), NATIVE)

    def vector(self, ids: Sequence[int], body: dict[str, Any], dimensions: int) -> np.ndarray:
        """(dimensions,) float32 of length one by the model that a request names."""
        width = self.width(body)
        if width == NATIVE:
            return self._model.vector(ids, dimensions)
        wide = self._model.vector(ids) @ _widening(_untagged(body), width)
        return np.asarray(wide[:dimensions] / np.linalg.norm(wide[:dimensions]))

    def fault(self, texts: list[str], body: dict[str, Any]) -> Fault | None:
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            if self.window:
                now = time.monotonic()
                most, seconds = self.window
                self._recent = [then for then in self._recent if now - then < seconds]
                if len(self._recent) >= most:
                    return Fault("status", 429)
                self._recent.append(now)
            if callable(self.faults):
                return self.faults(number, texts)
            return self.faults[number] if number < len(self.faults) else None


def _untagged(body: dict[str, Any]) -> str:
    return str(body.get("model", "")).partition(":")[0]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class _Refusal(Exception):
    def __init__(self, status: int, body: Any, retry_after: str | None = None) -> None:
        self.status, self.body, self.retry_after = status, body, retry_after


def _openai_error(status: int, message: str, kind: str = "invalid_request_error", **more: Any):
    code = more.pop("code", None)
    return _Refusal(
        status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, **more
    )


class _Handler(BaseHTTPRequestHandler):
    owner: EmbeddingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._answer(
            {
                "/v1/models": lambda _: {"object": "list", "data": [
                    {"id": name, "object": "model"} for name in self.owner.models]},
                "/api/version": lambda _: {"version": self.owner.version},
                "/api/tags": lambda _: {"models": [
                    {"name": name, "model": name, "digest": self.owner.digest, "size": 1}
                    for name in self.owner.models]},
                "/stats": lambda _: {
                    "requests": len(self.owner.requests), "served": dict(self.owner.served),
                    "statuses": dict(Counter(self.owner.statuses)),
                    "most_at_once": self.owner.most_at_once},
            }
        )  # fmt: skip

    def do_POST(self) -> None:
        self._answer(
            {
                "/v1/embeddings": self._openai,
                "/api/embed": self._ollama,
                "/api/show": self._show,
                "/faults": self._set_faults,
            }
        )

    def _answer(self, routes: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        owner = self.owner
        with owner._lock:
            owner._at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner._at_once)
        try:
            route = routes.get(urlsplit(self.path).path)
            if route is None:
                raise _Refusal(404, "404 page not found")
            if owner.api_key and self.headers.get("authorization") != f"Bearer {owner.api_key}":
                given = self.headers.get("authorization", "").removeprefix("Bearer ")
                raise _openai_error(401, f"Incorrect API key provided: {given}. You can find your "
                                    "API key at https://platform.openai.com.")  # fmt: skip
            body = route(json.loads(raw) if raw else {})
            if body is not None:
                self._send(200, body)
        except _Refusal as refusal:
            self._send(refusal.status, refusal.body, refusal.retry_after)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            with owner._lock:
                owner._at_once -= 1

    def _send(self, status: int, body: Any, retry_after: str | None = None) -> None:
        self.owner.statuses.append(status)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        kind = "text/html" if isinstance(body, str) else "application/json"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in self.owner.headers.items():
            self.send_header(name, value)
        if retry_after is not None:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(data)

    def _set_faults(self, body: Any) -> dict[str, Any]:
        begun = [None] * len(self.owner.requests)
        self.owner.faults = begun + [fault and Fault(**fault) for fault in body]
        return {}

    def _show(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_ollama_model(body)
        return {
            "modelfile": "", "details": {"family": "llama"}, "capabilities": ["embedding"],
            "model_info": {"general.architecture": "llama",
                           "llama.context_length": self.owner.behaviour.told_tokens
                           or self.owner.behaviour.max_tokens},
        }  # fmt: skip

    def _check_ollama_model(self, body: dict[str, Any]) -> None:
        name = body.get("model", "")
        if name not in self.owner.models and f"{name}:latest" not in self.owner.models:
            raise _Refusal(404, {"error": f'model "{name}" not found, try pulling it first'})

    def _openai(self, body: dict[str, Any]) -> dict[str, Any] | None:
        behaviour = self.owner.behaviour
        texts = [body["input"]] if isinstance(body["input"], str) else list(body["input"])
        fault = self._begin(texts, body)
        if self.close_connection:
            return None
        if behaviour.unknown_model == "404" and body["model"] not in self.owner.models:
            raise _openai_error(404, f"The model `{body['model']}` does not exist or you do not "
                                "have access to it.", code="model_not_found")  # fmt: skip
        if not texts:
            raise _openai_error(behaviour.empty_list, "input is empty")
        if behaviour.batch_limit and len(texts) > behaviour.batch_limit:
            raise _Refusal(422, {"detail": [{"type": "too_long", "msg": "List should have at most "
                           f"{behaviour.batch_limit} items after validation"}]})  # fmt: skip
        if behaviour.empty_text == "400" and "" in texts:
            raise _openai_error(400, "'$.input' is invalid: an input may not be empty.")
        dimensions = width = self.owner.width(body)
        if body.get("dimensions"):
            if behaviour.dimensions == "refused":
                raise _openai_error(
                    400,
                    "Model does not support matryoshka representation, changing output "
                    "dimensions will lead to poor results.",
                )
            if behaviour.dimensions == "honoured":
                dimensions = min(width, body["dimensions"])
        vectors, tokens = self._embed(texts, body, dimensions, behaviour.too_long)
        usage = {
            "tokens": tokens, "characters": sum(map(len, texts)), "texts": len(texts), "none": 0,
        }[behaviour.usage]  # fmt: skip
        as_base64 = body.get("encoding_format") == "base64" and behaviour.base64
        vectors = self._spoil(vectors, fault)
        data = [
            {"object": "embedding", "index": index,
             "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
             if as_base64 else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]  # fmt: skip
        if fault and fault.kind == "shuffled":
            data.reverse()
        if fault and fault.kind == "bad_index":
            data[0]["index"] = len(data)
        if fault and fault.kind == "bad_base64":
            data[0]["embedding"] = base64.b64encode(b"x" * 1023).decode()
        answer: dict[str, Any] = {"object": "list", "model": body["model"], "data": data}
        if behaviour.usage != "none":
            answer["usage"] = {"prompt_tokens": usage, "total_tokens": usage}
        return self._finish(answer, fault, texts)

    def _ollama(self, body: dict[str, Any]) -> dict[str, Any] | None:
        one = isinstance(body["input"], str)
        texts = [body["input"]] if one else list(body["input"])
        fault = self._begin(texts, body)
        if self.close_connection:
            return None
        self._check_ollama_model(body)
        if texts == [""]:
            return {"model": body["model"], "embeddings": []}
        cuts = body.get("truncate", True) or self.owner.behaviour.too_long == "cut_always"
        width = self.owner.width(body)
        dimensions = min(width, body.get("dimensions") or width)
        vectors, tokens = self._embed(texts, body, dimensions, "cut" if cuts else "ollama")
        answer = {
            "model": body["model"],
            "embeddings": [vector.tolist() for vector in self._spoil(vectors, fault)],
            "total_duration": 1, "load_duration": 1, "prompt_eval_count": tokens,
        }  # fmt: skip
        return self._finish(answer, fault, texts)

    def _begin(self, texts: list[str], body: dict[str, Any]) -> Fault | None:
        """Faults that come instead of an answer."""
        fault = self.owner.fault(texts, body)
        self.owner._closing.wait(self.owner.slow)
        if fault is None:
            return None
        if fault.kind == "status":
            raise _openai_error(fault.status, fault.message, retry_after=fault.retry_after)
        if fault.kind == "body":
            raise _Refusal(fault.status, fault.body, fault.retry_after)
        if fault.kind == "html":
            raise _Refusal(200, "<html><body>502 Bad Gateway</body></html>")
        if fault.kind == "hang":
            self.owner._closing.wait(60)
            self.close_connection = True
        if fault.kind == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            raise ConnectionResetError
        return fault

    def _embed(
        self, texts: list[str], body: dict[str, Any], dimensions: int, too_long: str
    ) -> tuple[np.ndarray, int]:
        most = self.owner.behaviour.max_tokens
        rows, total = [], 0
        for text in texts:
            ids = self.owner._model.ids(text)
            if len(ids) > most:
                refusals = {
                    "400": _openai_error(
                        400,
                        f"This model's maximum context length is {most} tokens, however you "
                        f"requested {len(ids)} tokens.",
                    ),
                    "500": _openai_error(
                        500,
                        f"input ({len(ids)} tokens) is too large to process. increase the "
                        f"physical batch size (current batch size: {most})",
                        "server_error",
                    ),
                    "ollama": _Refusal(
                        400, {"error": "the input length exceeds the context length"}
                    ),
                }
                if too_long in refusals:
                    raise refusals[too_long]
                ids = ids[:most]
            total += len(ids)
            rows.append(self.owner.vector(ids, body, dimensions))
        vectors = np.stack(rows)
        vectors[:, 0] += self.owner.shift
        return vectors, total

    def _spoil(self, vectors: np.ndarray, fault: Fault | None) -> np.ndarray:
        rows = slice(None) if fault is None or fault.row is None else fault.row
        match fault and fault.kind:
            case "nan":
                vectors[rows] = np.nan
            case "zero":
                vectors[rows] = 0
            case "equal":
                vectors[:] = vectors[0]
            case "wrong_dimension":
                vectors = vectors[:, :-1]
            case "too_few":
                vectors = vectors[:-1]
            case "too_many":
                vectors = np.concatenate([vectors, vectors[:1]])
        return vectors

    def _finish(
        self, answer: dict[str, Any], fault: Fault | None, texts: list[str]
    ) -> dict[str, Any] | None:
        with self.owner._lock:
            self.owner.served.update(texts)
        if fault is None or fault.kind not in ("truncated", "cut_off", "drip"):
            return answer
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if fault.kind == "truncated":  # valid HTTP around JSON that stops in the middle
            self.send_header("content-length", str(len(data) // 2))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return None
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if fault.kind == "cut_off":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.owner._closing.wait(0.02):
                break
        self.close_connection = True
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS), default="openai")
    parser.add_argument("--dimensions", choices=("honoured", "ignored", "refused"))
    parser.add_argument("--slow", type=float, default=0.0, help="seconds a request takes")
    parser.add_argument("--api-key")
    parser.add_argument(
        "--widths", action="store_true", help="as wide as the models of REAL_WIDTHS"
    )
    arguments = parser.parse_args()
    behaviour = BEHAVIOURS[arguments.behaviour]
    if arguments.dimensions:
        behaviour = replace(behaviour, dimensions=arguments.dimensions)
    widths = REAL_WIDTHS if arguments.widths else None
    server = EmbeddingServer(behaviour, api_key=arguments.api_key, widths=widths)
    server.slow = arguments.slow
    server.start(arguments.port)
    print(server.port, flush=True)
    try:
        sys.stdin.read()  # until the parent closes it, or ends
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
