"""The ollama provider over real HTTP, against Ollama's recorded behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.providers.ollama import open_provider
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import (
    BadVectorsError,
    ModelChangedError,
    ProviderRefusedError,
    UnreachableError,
)
from reembed.manifest import Embed, Model
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer, Fault, WordLlama

QUICK = RetryPolicy(attempts=4, wait=0.005, longest_wait=0.02, total=5.0)
TEXTS = [f"note {number} on collections and their models" for number in range(150)]
LONG = "far too many words " * 200
SECRET = "very-secret-token-value"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(OLLAMA) as running:
        yield running


def embedder(server: EmbeddingServer, settings: Embed | None = None, **model: Any) -> Embedder:
    model = {"name": "wordllama", "base_url": server.url} | model
    return open_embedder(Model(provider="ollama", **model), settings, retry=QUICK)


def test_vectors_and_requests(server):
    with embedder(server) as model:
        embedded = model.embed_documents(TEXTS)
        assert model.limits.max_tokens == 512  # as /api/show tells
        assert model.stats.reported_tokens > 0
    truth = WordLlama()
    expected = np.stack([truth.vector(truth.ids(text)) for text in TEXTS])
    assert np.abs(embedded.vectors - expected).max() < 1e-6
    assert all(body["truncate"] is False for body in server.requests)
    assert max(len(body["input"]) for body in server.requests) <= 64


def test_what_is_too_long_for_the_server_is_isolated(server):
    texts = [*TEXTS[:30], LONG, *TEXTS[30:]]
    with embedder(server) as model:
        embedded = model.embed_documents(texts)
    assert list(embedded.rejected) == [30]
    assert embedded.rejected[30].reason == "too_long"
    with embedder(server, on_too_long="mean") as model:
        assert not model.embed_documents(texts).rejected


def test_a_borderline_text_is_the_servers_to_judge(server):
    text = "abcdefghij " * 120  # 3 words of tokens by estimate, fewer by the server
    with embedder(server) as model:
        model.check_reachable()
        assert model.count_tokens([text])[0] > 480
        embedded = model.embed_documents([text, "short"])
    assert not embedded.rejected


def test_a_server_that_cuts_against_orders_is_given_away(server):
    server.behaviour = replace(OLLAMA, too_long="cut_always", max_tokens=2048, told_tokens=8192)
    with embedder(server) as model:
        embedded = model.embed_documents([*TEXTS, "far too many words " * 600])
        assert model.limits.max_tokens == 8192
    assert list(embedded.rejected) == [150]
    assert "silently" in embedded.rejected[150].detail


def test_an_unknown_model_says_what_to_pull(server):
    with (
        embedder(server, name="nope") as model,
        pytest.raises(ProviderRefusedError, match='model "nope" not found') as caught,
    ):
        model.check_reachable()
    assert caught.value.hint == "ollama pull nope"
    assert caught.value.exit_code == 5


def test_dimensions_are_asked_for_and_checked(server):
    with embedder(server, dimensions=64) as model:
        vectors = model.embed_documents(TEXTS[:5]).vectors
    assert vectors.shape == (5, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    with (
        embedder(server, dimensions=9999) as model,
        pytest.raises(ProviderRefusedError, match="asked for 9999 dimensions, got 256"),
    ):
        model.check_reachable()


def test_an_empty_list_of_embeddings_is_no_answer(server):
    with embedder(server) as model:
        provider: Any = model._provider
        from reembed.embedders.provider import RejectedInputError

        with pytest.raises(RejectedInputError, match="no embedding at all"):
            provider.embed([""])
        assert model.embed_documents([""]).rejected[0].detail == "the text is empty"


def test_the_host_comes_from_the_environment_too(server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    with open_embedder(Model(provider="ollama", name="wordllama"), retry=QUICK) as model:
        model.check_reachable()


def test_nobody_there_says_how_to_start_it():
    model = Model(provider="ollama", name="x", base_url="http://127.0.0.1:9")
    with (
        open_embedder(model, retry=QUICK) as unreachable,
        pytest.raises(UnreachableError, match="nobody answers") as caught,
    ):
        unreachable.check_reachable()
    assert "ollama serve" in caught.value.hint


def test_the_fingerprint_knows_server_and_digest(server):
    with embedder(server) as model:
        before = model.fingerprint()
        assert before.digest == server.digest
        assert before.details == {"ollama": "0.13.5", "address": server.url}
        server.version = "0.14.0"
        assert model.verify_fingerprint(before) == ["ollama was 0.13.5, now 0.14.0"]
        server.digest = "f" * 64
        with pytest.raises(ModelChangedError, match="digest was 0a109f"):
            model.verify_fingerprint(before)
        server.shift = 0.5
        with pytest.raises(ModelChangedError, match=r"english .*ollama was 0.13.5, now 0.14.0"):
            model.verify_fingerprint(before)


def test_nomic_without_its_prefixes_is_told(server):
    with embedder(server, name="nomic-embed-text") as model:
        assert "search_document: " in model.warnings()[0]
    with embedder(
        server, name="nomic-embed-text", document_prefix="search_document: ",
        query_prefix="search_query: ",
    ) as model:  # fmt: skip
        assert model.warnings() == []


PASSING = [
    Fault("status", 429, retry_after="0.05"), Fault("status", 500), Fault("status", 503),
    Fault("reset"), Fault("truncated"), Fault("cut_off"), Fault("html"), Fault("too_few"),
    Fault("too_many"), Fault("wrong_dimension"), Fault("nan"), Fault("zero"), Fault("equal"),
    Fault("status", 400, message="the input length exceeds the context length"),
]  # fmt: skip


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_a_fault_that_passes_is_survived(server, fault):
    server.faults = [None, fault, None, fault]
    with embedder(server) as model:
        embedded = model.embed_documents(TEXTS)
    assert not embedded.rejected
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("status", 500), UnreachableError),
        (Fault("html"), UnreachableError),
        (Fault("nan", row=None), BadVectorsError),
        (Fault("too_few"), BadVectorsError),
        (Fault("status", 401), ProviderRefusedError),
        (Fault("status", 404), ProviderRefusedError),
    ],
)
def test_a_fault_that_stays_ends_the_call(server, fault, kind):
    server.faults = lambda number, texts: fault if number >= 2 else None
    stored: list[int] = []
    with (
        embedder(server, Embed(concurrency=1), options={"batch_items": 20}) as model,
        pytest.raises(kind),
    ):
        model.embed_documents(TEXTS, lambda i, v, t: stored.extend(i))
    assert stored == list(range(20))


def test_a_hang_and_a_drip_end_at_the_deadline(server):
    server.faults = [None, Fault("hang"), Fault("drip")]
    with embedder(server, options={"timeout": 0.5}) as model:
        assert not model.embed_documents(TEXTS[:20]).rejected
        assert model.stats.retries >= 1


def test_a_key_is_sent_and_never_told(server, monkeypatch):
    server.api_key = SECRET
    monkeypatch.setenv("MY_KEY", SECRET)
    with embedder(server, api_key_env="MY_KEY") as model:
        model.check_reachable()
    server.api_key = "another"
    with (
        embedder(server, api_key_env="MY_KEY") as model,
        pytest.raises(ProviderRefusedError, match="key is refused") as caught,
    ):
        model.check_reachable()
    assert SECRET not in repr(caught.value.__dict__) + repr(caught.value.__context__)
    assert "MY_KEY" in caught.value.hint
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ProviderRefusedError, match="no key in the environment variable MY_KEY"):
        embedder(server, api_key_env="MY_KEY")


@pytest.mark.parametrize(
    ("url", "sent"),
    [("https://ollama.com", True), ("https://eu.ollama.com/v1", True), ("", True),
     ("https://notollama.com", False), ("https://ollama.com.example.org", False)],
)  # fmt: skip
def test_the_key_of_the_environment_goes_to_its_own_server_alone(monkeypatch, url, sent):
    monkeypatch.setenv("OLLAMA_API_KEY", SECRET)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    provider = open_provider(Model(provider="ollama", name="x", base_url=url or None), Path())
    assert ("authorization" in provider._client.headers) is sent
    provider.close()


def test_a_password_in_the_host_is_not_told(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"http://me:{SECRET}@127.0.0.1:9")
    with (
        open_embedder(Model(provider="ollama", name="x"), retry=QUICK) as model,
        pytest.raises(UnreachableError) as caught,
    ):
        model.check_reachable()
    assert SECRET not in str(caught.value)
