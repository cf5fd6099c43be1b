"""Ollama's own API, /api/embed, with `truncate: false`: what is too long is refused, not cut.

https://docs.ollama.com/api/embed. A server before 0.3 has /api/embeddings alone. The server's
version and the model's digest go into the fingerprint: the same name has given other vectors after
an update (ollama/ollama #13942, #15609).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import numpy as np

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
from reembed.embedders.providers.connection import Route, checked_key
from reembed.embedders.providers.model_files import find
from reembed.embedders.providers.tokens import TextTokenizer, estimate_tokens
from reembed.embedders.redact import redact
from reembed.embedders.sending.retry import BadAnswer
from reembed.errors import ProviderRefusedError, ReembedError
from reembed.manifest import Model
from reembed.records import Vectors
from reembed.redaction import remember_url, shown_url

DEFAULT_PORT = 11_434
DEFAULT_HOST = f"http://127.0.0.1:{DEFAULT_PORT}"
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

    queries_alike = True

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
        self._route = Route.find(
            _address(host, self._where), self._where,
            "Start it with `ollama serve`, or set model.base_url or OLLAMA_HOST.",
        )  # fmt: skip
        self._deadline = wire.Deadline(timeout, httpx.ReadTimeout)
        # OLLAMA_API_KEY goes to ollama.com, and to the server that OLLAMA_HOST names beside it.
        cloud = f".{urlsplit(self._route.url).hostname}".endswith(".ollama.com")
        own = "OLLAMA_API_KEY" if cloud or not model.base_url else ""
        self._key_variable = model.api_key_env or own
        key = checked_key(self._key_variable, self._where) if self._key_variable else ""
        if model.api_key_env and not key:
            raise ProviderRefusedError(
                f"{self._where}: there is no key in the environment variable {model.api_key_env}"
            )
        self._client = self._route.client(
            httpx.Client,
            base_url=self._route.url,
            timeout=httpx.Timeout(timeout, connect=wire.CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            event_hooks=self._deadline.hooks(self._route.check_redirect),
            follow_redirects=True,
            **_credentials(host),
        )
        self._new = self._old = False  # which API it is known to have

    @property
    def _family(self) -> str:
        """The model's name without registry, namespace and tag."""
        return self._model.name.rpartition("/")[2].partition(":")[0]

    def _ask_limit(self) -> None:
        """Learn from /api/show how many tokens the model takes, at the first request."""
        shown = self._asked("/api/show", {"model": self._model.name, "name": self._model.name})
        info = (shown or {}).get("model_info") or {}
        told = [
            value for key, value in info.items()
            if key.endswith(".context_length") and type(value) is int and value > 0
        ]  # fmt: skip
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
        if not self._old:
            request = {"model": self._model.name, "input": list(texts), "truncate": False}
            answer = self._asked("/api/embed", request | self._added("dimensions"))
            if answer is not None:
                self._new = True
                count = answer.get("prompt_eval_count")
                return Answer(
                    self._vectors(answer.get("embeddings"), texts),
                    count if type(count) is int and 0 < count < 2**31 else None,
                )
            # It has no way to refuse what is too long, and takes one text at a time.
            self.limits = replace(self.limits, batch_items=1, refuses_long=False, findable=True)
            self._old = True
        return Answer(np.concatenate([self._by_old_api(text) for text in texts]))

    def _by_old_api(self, text: str) -> Vectors:
        """(1, d) float32 from /api/embeddings, the API of Ollama before 0.3."""
        request = {"model": self._model.name, "prompt": text}
        answer = self._asked("/api/embeddings", request | self._added())
        if answer is None:
            raise ProviderRefusedError(
                f"{self._where}: it has neither /api/embed nor /api/embeddings",
                "Check model.base_url: it is the address of Ollama, without /v1 or /api.",
            )
        vectors = self._vectors([answer.get("embedding")], [text])
        norm = np.linalg.norm(vectors)  # of any length here, of length one from /api/embed
        return vectors / norm if norm > 0 else vectors

    def _added(self, *names: str) -> dict[str, Any]:
        """What the manifest sets besides, as a part of a request."""
        found = {
            "options": self._runtime or None, "keep_alive": self._keep_alive,
            **{name: getattr(self._model, name) for name in names},
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}

    def _vectors(self, rows: Any, texts: Sequence[str]) -> Vectors:
        if rows in ([], [[]]) and texts:  # what it answers to "" alone
            raise RejectedInputError("the server gave no embedding at all")
        try:
            with np.errstate(over="ignore"):  # what is too large is infinite, and found to be
                vectors: Vectors = np.array(rows, np.float32)
        except (ValueError, TypeError, OverflowError):
            vectors = np.zeros((0, 0, 0), np.float32)
        if vectors.ndim == 2:
            return vectors
        listed = rows if isinstance(rows, list) else []
        sizes = sorted({len(row) for row in listed if isinstance(row, list)})
        if len(sizes) > 1:
            raise BadAnswer(f"vectors of {', '.join(map(str, sizes))} dimensions came back")
        raise _unreadable(repr(rows))

    def _asked(self, path: str, request: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What the server answers to a request, None where it has no such path.

        Raises:
            as the Provider protocol says.
        """
        try:
            response = self._client.request(
                "GET" if request is None else "POST", path, json=request
            )
            body, status = response.text, response.status_code
        except Exception as error:  # the client, and the one below it, raise what they like
            failed = self._route.failure(error)
        else:
            if 200 <= status < 300:
                return _read(body)
            known = self._new and path == "/api/embed"
            if status in (404, 405) and not known and not _says_model(body):
                return None
            failed = self._status_failure(status, body)
        raise failed  # here, not above: the client's error may quote a key, so it is let go

    def _status_failure(self, status: int, body: str) -> Exception:
        if status == 404:
            return ProviderRefusedError(
                f"{self._where}: {redact(wire.body_words(body))}",
                f"ollama pull {self._model.name}",
            )
        return self._route.status_failure(status, body, self._deadline.headers, self._key_variable)

    def version(self) -> ModelVersion:
        """The digest is the server's own, of the tag; empty if it does not list the model."""
        server = (self._asked("/api/version") or {}).get("version", "unknown")
        names = {self._model.name, f"{self._model.name}:latest"}
        digests = [
            str(entry["digest"]) for entry in self.tags()
            if entry.get("digest") and names & {entry.get("model"), entry.get("name")}
        ]  # fmt: skip
        return ModelVersion(
            digests[0] if digests else "", {"ollama": str(server), "address": self.address}
        )

    def tags(self) -> list[dict[str, Any]]:
        """The models that the server has, each with `name` and `digest`. Raises as `version`."""
        listed = (self._asked("/api/tags") or {}).get("models")
        entries = listed if isinstance(listed, list) else []
        return [entry for entry in entries if isinstance(entry, dict)]

    def warnings(self) -> list[str]:
        if not self._old:
            return []
        return [
            "this Ollama has no /api/embed: texts are sent one by one, and it cuts those that are "
            "too long silently. Update it, or set model.max_tokens."
        ]

    def close(self) -> None:
        self._client.close()


def _read(body: str) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        TransientError: it is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and "error" not in found:
        return found
    raise _unreadable(body)


def _unreadable(body: str) -> TransientError:
    return TransientError(
        f"the answer is not a list of embeddings: {redact(wire.what_came(body), 100)}", unknown=True
    )


def _says_model(body: str) -> bool:
    """Whether a 404 is about the model and not about the path."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "model" in str(found.get("error", "")).lower()


def _address(host: str, where: str) -> str:
    """The URL of a host as OLLAMA_HOST may name it: `HOST`, `:PORT`, `HOST:PORT`, a URL.

    Raises:
        ProviderRefusedError: it is none.
    """
    full = "://" in host
    try:
        parts = urlsplit(host if full else f"http://{host}")
        port = parts.port or (None if full else DEFAULT_PORT)
        name = parts.hostname or "127.0.0.1"
    except ValueError as error:
        raise ProviderRefusedError(
            f"{where}: that is not an address ({redact(str(error))})",
            "Set model.base_url or OLLAMA_HOST to http://HOST:PORT.",
        ) from None
    name = f"[{name}]" if ":" in name else name
    path = parts.path.rstrip("/")
    for tail in ("/v1", "/api"):  # the address of another API of the same server
        path = path.removesuffix(tail)
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "") + path


def _credentials(host: str) -> dict[str, Any]:
    """User, password and query of an address, which its URL is freed from."""
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


def installed_models(seconds: float = 1.0) -> list[str]:
    """See `registry.installed_models`: of the Ollama that OLLAMA_HOST names, else this machine's.

    Args:
        seconds: how long to wait for it.
    """
    model = Model(provider="ollama", name="any", options={"timeout": seconds})
    try:
        provider = OllamaProvider(model, Path())
        try:
            return [name for one in provider.tags() if isinstance(name := one.get("name"), str)]
        finally:
            provider.close()
    except (ReembedError, TransientError, RejectedInputError):
        return []
