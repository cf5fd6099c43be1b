"""Ollama's own API, /api/embed, with `truncate: false`: what is too long is refused, not cut.

https://docs.ollama.com/api/embed. The server's version and the model's digest go into the
fingerprint: the same name has given other vectors after an update (ollama/ollama #13942, #15609).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import numpy as np
import ollama

from reembed.embedders.failures import failure
from reembed.embedders.options import Options
from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
    RejectedInputError,
    TransientError,
)
from reembed.embedders.providers import http as wire
from reembed.embedders.providers.model_files import find
from reembed.embedders.providers.tokens import TextTokenizer, estimate_tokens
from reembed.embedders.redact import redact
from reembed.embedders.sending.retry import BadAnswer
from reembed.errors import ProviderRefusedError, UnreachableError
from reembed.manifest import Model
from reembed.records import Vectors
from reembed.redaction import read_variable, remember_url, shown_url

T = TypeVar("T")

DEFAULT_HOST = "http://127.0.0.1:11434"
TIMEOUT = 300.0
"""Seconds. The first request loads the model, from a slow disk too."""
KNOWN_MAX_TOKENS = {"nomic-embed-text": 2_048}
"""Where a server does not tell `context_length`."""


class OllamaProvider:
    """See the module.

    `options`: `timeout` (seconds, 300), `batch_items` (64), `tokenizer` (path of the model's
    tokenizer.json, for exact counts), `keep_alive` and `runtime` (passed on as `options`, such as
    `{num_ctx: 8192}`).
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        self._model = model
        host = model.base_url or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
        remember_url(host)
        self._where = f"ollama {model.name} at {shown_url(host)}"
        options = Options(model)
        timeout = options.take_positive("timeout", float, TIMEOUT)
        items = options.take_positive("batch_items", int, 64)
        tokenizer = options.take("tokenizer", str, "")
        self._keep_alive = options.take("keep_alive", str, "") or None
        self._runtime = options.take("runtime", dict, {})
        options.finish()
        self._tokenizer = (
            TextTokenizer(find(tokenizer, base_dir, "model.options.tokenizer"))
            if tokenizer
            else None
        )
        self.limits = Limits(items, concurrency=2, refuses_long=True, anonymous=True)
        self.address = shown_url(host)
        self._asked_limit = False
        self.price: Price | None = None
        self.normalizes = False  # /api/embed gives vectors of length one
        self._deadline = wire.Deadline(timeout, httpx.ReadTimeout)
        key = read_variable(model.api_key_env) if model.api_key_env else ""
        if model.api_key_env and not key:
            raise ProviderRefusedError(
                f"{self._where}: there is no key in the environment variable {model.api_key_env}"
            )
        read_variable("OLLAMA_API_KEY")  # the client sends it of its own accord
        self._client = ollama.Client(
            host,
            timeout=httpx.Timeout(timeout, connect=wire.CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            event_hooks=self._deadline.hooks(),
            **_credentials(host),
        )

    @property
    def _family(self) -> str:
        """The model's name without registry, namespace and tag."""
        return self._model.name.rpartition("/")[2].partition(":")[0]

    def _ask_limit(self) -> None:
        """Learn from /api/show how many tokens the model takes, at the first request."""
        info = self._call(lambda: self._client.show(self._model.name)).modelinfo or {}
        told = [value for key, value in info.items() if key.endswith(".context_length")]
        known = KNOWN_MAX_TOKENS.get(self._family)
        self.limits = replace(self.limits, max_tokens=told[0] if told else known)
        self._asked_limit = True

    @property
    def exact_tokens(self) -> bool:
        return self._tokenizer is not None

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return self._tokenizer.count(texts) if self._tokenizer else estimate_tokens(texts)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        if not self._asked_limit:
            self._ask_limit()
        response = self._call(
            lambda: self._client.embed(
                model=self._model.name,
                input=list(texts),
                truncate=False,
                dimensions=self._model.dimensions,
                options=self._runtime or None,
                keep_alive=self._keep_alive,
            )
        )
        if not response.embeddings and texts:  # what /api/embed answers to "" alone
            raise RejectedInputError("the server gave no embedding at all")
        try:
            with np.errstate(over="ignore"):  # what is too large is infinite, and found to be
                vectors: Vectors = np.array(response.embeddings, np.float32)
        except ValueError:
            sizes = sorted({len(row) for row in response.embeddings})
            raise BadAnswer(
                f"vectors of {', '.join(map(str, sizes))} dimensions came back"
            ) from None
        return Answer(vectors, response.prompt_eval_count or None)

    def _call(self, send: Callable[[], T]) -> T:
        """`send()` of the client, its failures as the Provider protocol names them."""
        try:
            return send()
        except Exception as error:  # the client, and the one below it, raise what they like
            failed = self._failure(error)
        raise failed  # here, not above: the client's error may quote a key, so it is let go

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, ollama.ResponseError):
            return self._status_failure(error)
        words = redact(f"{type(error).__name__}: {error}")
        if isinstance(error, ConnectionError | httpx.ConnectTimeout):
            return UnreachableError(
                f"{self._where}: nobody answers",
                "Start it with `ollama serve`, or set model.base_url or OLLAMA_HOST.",
            )
        if isinstance(error, httpx.HTTPError):
            return TransientError(f"the connection broke or timed out ({words})")
        return TransientError(f"the answer is no list of embeddings: {words}", unknown=True)

    def _status_failure(self, error: ollama.ResponseError) -> Exception:
        words = redact(wire.body_words(error.error))
        if error.status_code == 404:
            return ProviderRefusedError(
                f"{self._where}: {words}", f"ollama pull {self._model.name}"
            )
        return failure(
            error.status_code,
            words,
            self._deadline.headers,
            self._where,
            self._model.api_key_env or "OLLAMA_API_KEY",
        )

    def version(self) -> ModelVersion:
        """The digest is the server's own, of the tag; empty if it does not list the model."""
        server = self._call(self._server_version)
        names = {self._model.name, f"{self._model.name}:latest"}
        listed = self._call(self._client.list).models
        digests = [entry.digest for entry in listed if entry.model in names and entry.digest]
        return ModelVersion(
            digests[0] if digests else "", {"ollama": server, "address": self.address}
        )

    def _server_version(self) -> str:
        # The client has no call for /api/version; its own HTTP client knows address and headers.
        response = self._client._client.get("/api/version")
        if response.status_code == 404:
            return "unknown"
        if response.status_code >= 400:
            raise ollama.ResponseError(response.text, response.status_code)
        return str(json.loads(response.text).get("version", "unknown"))

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]


def _credentials(host: str) -> dict[str, Any]:
    """User, password and query of an address, which the client leaves out of it."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    found: dict[str, Any] = {}
    if parts.username is not None:
        found["auth"] = (unquote(parts.username), unquote(parts.password or ""))
    if parts.query:
        found["params"] = dict(parse_qsl(parts.query))
    return found


def open_provider(model: Model, base_dir: Path) -> OllamaProvider:
    """See `registry.open_provider`."""
    return OllamaProvider(model, base_dir)
