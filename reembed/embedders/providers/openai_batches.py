"""OpenAI's Batch API (https://platform.openai.com/docs/guides/batch): half the price, within 24 h.

A batch takes 50,000 embedding inputs and a file of 200 MB. Here each text is a request of its own,
so that a text that fails takes no other with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai

from reembed.embedders.batches import BatchAnswer, BatchState
from reembed.embedders.provider import Answer, Price, TransientError
from reembed.embedders.providers.connection import Route
from reembed.embedders.sending.retry import BadAnswer

ENDPOINT: Literal["/v1/embeddings"] = "/v1/embeddings"
LABEL = "reembed"
"""Key of a batch's metadata that holds its label."""
WINDOW: Literal["24h"] = "24h"
TRANSFER_SECONDS = 600.0
WORKING = ("validating", "in_progress", "finalizing", "cancelling")
REFUSED = ("failed",)

T = TypeVar("T")


def open_client(route: Route, key: str, base_url: str, query: dict[str, str]) -> openai.OpenAI:
    """OpenAI's own client, whose answers may take TRANSFER_SECONDS.

    Args:
        query: of every request.
    """
    hooks = {"response": [route.check_redirect]}
    return openai.OpenAI(
        api_key=key,
        base_url=base_url,
        default_query=query,  # the client would cut up that of a URL
        max_retries=0,  # retries are ours: two layers of them would multiply
        timeout=TRANSFER_SECONDS,
        http_client=route.client(openai.DefaultHttpxClient, event_hooks=hooks),
    )


Read = Callable[[dict[str, Any]], Answer]


class OpenAIBatches:
    """See `Batches`.

    Args:
        client: closed with it; an answer may take it TRANSFER_SECONDS.
        body: what a request holds beside its text.
        read: the vectors of a request's answer.
        failure: what an error of the client means.
    """

    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(
        self,
        client: openai.OpenAI,
        *,
        body: dict[str, Any],
        read: Read,
        failure: Callable[[Exception], Exception],
        price: Price | None,
        poll_seconds: float,
    ) -> None:
        self._client = client
        self._body = body
        self._read = read
        self._failure = failure
        self.price = None if price is None else Price(price.usd_per_million_tokens / 2, price.as_of)
        self.poll_seconds = poll_seconds

    def request(self, key: str, text: str) -> bytes:
        body = self._body | {"input": [text]}
        line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def submit(self, file: Path, label: str) -> str:
        def make() -> str:
            uploaded = self._client.files.create(file=file, purpose="batch")
            batch = self._client.batches.create(
                input_file_id=uploaded.id, endpoint=ENDPOINT, completion_window=WINDOW,
                metadata={LABEL: label},
            )  # fmt: skip
            return batch.id

        return self._asked(make)

    def find(self, label: str) -> str | None:
        def search() -> str | None:
            for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(LABEL) == label:
                    return batch.id
            return None

        return self._asked(search)

    def look(self, id: str) -> BatchState:
        batch = self._asked(lambda: self._client.batches.retrieve(id))
        counts = batch.request_counts
        said = "; ".join(str(error.message) for error in (batch.errors and batch.errors.data) or [])
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        status = batch.status
        return BatchState(
            id,
            "working" if status in WORKING else
            "refused" if status in REFUSED and not files else "ended",
            counts.total if counts else 0, counts.completed if counts else 0,
            counts.failed if counts else 0, ": ".join(filter(None, (status, said))), files,
        )  # fmt: skip

    def answers(self, state: BatchState) -> Iterator[BatchAnswer]:
        for file in state.results:
            try:
                with self._client.files.with_streaming_response.content(file) as response:
                    for line in response.iter_lines():
                        if line.strip():
                            yield self._answer(json.loads(line))
            except Exception as error:  # as in `_asked`
                failure = self._failure(error)
            else:
                continue
            raise failure

    def _answer(self, line: dict[str, Any]) -> BatchAnswer:
        key, response = str(line["custom_id"]), line.get("response") or {}
        if response.get("status_code") == 200:
            try:
                answer = self._read(response["body"])
            except (BadAnswer, TransientError, LookupError, TypeError, ValueError):
                return BatchAnswer(key)
            if len(answer.vectors) == 1:
                return BatchAnswer(key, answer.vectors, answer.tokens)
        code = str((line.get("error") or {}).get("code"))
        return BatchAnswer(key, again=code in ("batch_expired", "batch_cancelled"))

    def close(self) -> None:
        self._client.close()

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # the client, and the one below it, raise what they like
            failure = self._failure(error)
        raise failure
