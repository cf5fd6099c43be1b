"""What exceptions of other people's code mean, by the shapes of every client behind Chroma's
functions; and that nothing transient behind `provider: chroma` is taken for a text's fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from chromadb.api.types import Documents, EmbeddingFunction
from chromadb.utils.embedding_functions import (
    known_embedding_functions,
    register_embedding_function,
)

from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.embedders.providers.foreign import meaning
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ProviderRefusedError, QuotaError, UnreachableError
from reembed.manifest import Model

QUICK = RetryPolicy(attempts=3, wait=0.001, longest_wait=0.01)


def raised(message: str = "it failed", name: str = "SomeError", **attributes: Any) -> Exception:
    error: Exception = type(name, (Exception,), {})(message)
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


class Response:
    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status_code = status
        self.headers = headers or {}


class Enumerated:
    name = "RESOURCE_EXHAUSTED"


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def botocore(code: str, status: int) -> Exception:
    response = {"Error": {"Code": code, "Message": "m"},
                "ResponseMetadata": {"HTTPStatusCode": status}}  # fmt: skip
    return raised(f"An error occurred ({code})", "ClientError", response=response)


SHAPES: list[tuple[str, Exception, type[Exception]]] = [
    ("openai", raised(status_code=429), TransientError),
    ("openai, down", raised(status_code=503), TransientError),
    ("openai, key", raised(status_code=401), ProviderRefusedError),
    ("voyage", raised(http_status=429), TransientError),
    ("cohere", raised(status_code=400, message="invalid request"), RejectedInputError),
    ("httpx", raised(response=Response(502)), TransientError),
    ("requests", raised("429 Client Error: Too Many Requests for url: x"), TransientError),
    ("google, status", raised(code=429), TransientError),
    ("google, grpc", raised(code=lambda: Enumerated()), TransientError),
    ("aiohttp", raised(status=503), TransientError),
    ("bedrock, too fast", botocore("ThrottlingException", 400), TransientError),
    ("bedrock, text", botocore("ValidationException", 400), RejectedInputError),
    ("bedrock, key", botocore("AccessDeniedException", 403), ProviderRefusedError),
    ("bedrock, quota", botocore("ServiceQuotaExceededException", 400), QuotaError),
    ("gemini in a ValueError", ValueError("Error: 429 RESOURCE_EXHAUSTED. {'error': 1}"),
     TransientError),
    ("jina, words alone", RuntimeError("Rate limit exceeded, please try again"), TransientError),
    ("cloudflare", RuntimeError("Error code: 503"), TransientError),
    ("hugging face, a body for vectors", KeyError("embeddings"), TransientError),
    ("wrapped", caused(ValueError("failed to embed"), raised(status_code=503)), TransientError),
    ("a socket", ConnectionResetError("reset"), TransientError),
    ("nobody knows", raised("something odd", "OddError"), TransientError),
    ("quota in words", ValueError("Error code: 429 - insufficient_quota"), QuotaError),
    ("a status that raises", type("Odd", (Exception,), {
        "status_code": property(lambda self: 1 / 0)})("x"), TransientError),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), [shape[1:] for shape in SHAPES],
                         ids=[shape[0] for shape in SHAPES])  # fmt: skip
def test_an_exception_of_this_shape(error: Exception, kind: type[Exception]) -> None:
    assert type(meaning(error, "it")) is kind


def test_the_headers_of_a_response_say_how_long_to_wait() -> None:
    found = meaning(raised(response=Response(429, {"Retry-After": "7"})), "it")
    assert isinstance(found, TransientError) and found.retry_after == 7


class Failing(EmbeddingFunction[Documents]):
    """Fails as `script` says, given the number of the call and its texts."""

    script: Callable[[int, list[str]], Exception | None]
    calls = 0

    def __init__(self) -> None:
        Failing.calls = 0

    def __call__(self, input: Documents) -> Any:
        Failing.calls += 1
        error = Failing.script(Failing.calls, list(input))
        if error is not None:
            raise error
        return [np.array([len(text), text.count("1"), 1], np.float32) for text in input]

    @staticmethod
    def name() -> str:
        return "failing"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Failing:
        return Failing()

    def get_config(self) -> dict[str, Any]:
        return {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_embedding_function(Failing)
    yield
    known_embedding_functions.pop("failing")


TEXTS = [f"text {number}" for number in range(150)]
TRANSIENT = [shape for shape in SHAPES if shape[2] is TransientError]


@pytest.mark.parametrize("error", [shape[1] for shape in TRANSIENT],
                         ids=[shape[0] for shape in TRANSIENT])  # fmt: skip
def test_what_passes_quarantines_nothing(error: Exception) -> None:
    Failing.script = lambda call, texts: error if call in (2, 3, 5, 8, 9) else None
    with open_embedder(Model(provider="chroma", name="failing"), retry=QUICK) as model:
        assert not model.embed_documents(TEXTS).rejected
    Failing.script = lambda call, texts: error if call > 2 else None
    with (
        open_embedder(Model(provider="chroma", name="failing"), retry=QUICK) as model,
        pytest.raises(UnreachableError),
    ):
        model.embed_documents(TEXTS)


def test_a_text_that_always_fails_is_found() -> None:
    def script(call: int, texts: list[str]) -> Exception | None:
        return RuntimeError("CUDA error: device-side assert") if TEXTS[70] in texts else None

    Failing.script = script
    with open_embedder(Model(provider="chroma", name="failing"), retry=QUICK) as model:
        embedded = model.embed_documents(TEXTS)
    assert list(embedded.rejected) == [70]
    assert "device-side assert" in embedded.rejected[70].detail
