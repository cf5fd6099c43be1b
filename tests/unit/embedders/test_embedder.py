"""The facade, over real local models and over a provider that only injects faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
    RejectedInputError,
    TransientError,
)
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import (
    BadVectorsError,
    InputTooLongError,
    InterruptedRunError,
    ManifestError,
    MissingExtraError,
    ModelChangedError,
    ProviderRefusedError,
    UnreachableError,
)
from reembed.manifest import Embed, Model
from reembed.records import Vectors

QUICK = RetryPolicy(attempts=4, wait=0.001, longest_wait=0.01)
TEXTS = [f"text number {number} of many" for number in range(100)]


def vectors_of(texts: Sequence[str]) -> Vectors:
    """Each text its own direction: hashed words, so that parts of a text differ from it."""
    rows = np.zeros((len(texts), 64), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            rows[row, sum(word.encode()) % 64] += 1
        rows[row, len(text) % 64] += 0.5
    return rows


class Scripted:
    """A provider that answers by `script(number, texts)`; None means a good answer. A word is a
    token."""

    price: Price | None = None
    normalizes = False
    exact_tokens = True

    def __init__(
        self, script: Callable[[int, list[str]], Any] = lambda *_: None, **limits: Any
    ) -> None:
        self.limits = Limits(**{"batch_items": 10, "concurrency": 4} | limits)
        self.script = script
        self.sent: list[list[str]] = []
        self.closed = False
        self._lock = threading.Lock()

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return np.array([len(text.split()) for text in texts], np.int32)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        with self._lock:
            number = len(self.sent)
            self.sent.append(list(texts))
        found = self.script(number, list(texts))
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Answer):
            return found
        return Answer(vectors_of(texts), sum(len(text.split()) for text in texts))

    def version(self) -> ModelVersion:
        return ModelVersion("abc", {"server": "1"})

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


def embedder(provider: Scripted, settings: Embed | None = None, **model: Any) -> Embedder:
    return Embedder(provider, Model(provider="python", name="scripted", **model), settings, QUICK)


def test_vectors_keep_the_order_of_the_texts():
    def slower_first(number: int, texts: list[str]) -> None:
        time.sleep(0.05 if number % 2 else 0)

    with embedder(Scripted(slower_first)) as model:
        embedded = model.embed_documents(TEXTS)
    assert np.array_equal(embedded.vectors, vectors_of(TEXTS))
    assert embedded.tokens.dtype == np.int32
    assert embedded.tokens.tolist() == [5] * 100
    assert not embedded.rejected


def test_each_request_is_passed_on_once_complete_and_from_the_calling_thread():
    got: dict[int, Vectors] = {}
    threads = set()

    def store(indices: Sequence[int], vectors: Vectors, tokens: Counts) -> None:
        threads.add(threading.get_ident())
        assert tokens.tolist() == [5] * len(indices)
        got.update(zip(indices, vectors, strict=True))

    with embedder(Scripted()) as model:
        model.embed_documents(TEXTS, store)
        assert model.stats.to_dict() | {"seconds_waiting": 0} == {
            "requests": 11, "texts": 100, "tokens": 500, "reported_tokens": 509,
            "retries": 0, "truncated": 0, "seconds_waiting": 0,
        }  # fmt: skip
    assert threads == {threading.get_ident()}
    assert np.array_equal(np.stack([got[index] for index in range(100)]), vectors_of(TEXTS))


def test_no_more_is_sent_than_is_in_flight_while_the_caller_keeps_what_came():
    """What was paid for and not kept when a process is killed is paid for again."""
    kept: list[int] = []

    def store(indices: Sequence[int], *_: object) -> None:
        time.sleep(0.05)  # any number of requests could be made meanwhile
        assert len(provider.sent) - 1 - len(kept) // 10 <= 2  # the first is the control text
        kept.extend(indices)

    provider = Scripted(concurrency=2)
    with embedder(provider) as model:
        model.embed_documents(TEXTS, store)
    assert len(kept) == 100


def test_no_text_makes_no_vector():
    with embedder(Scripted()) as model:
        assert model.embed_documents([]).vectors.shape == (0, 64)


def test_prefixes_differ_for_documents_and_queries():
    provider = Scripted()
    with embedder(provider, document_prefix="doc: ", query_prefix="ask: ") as model:
        model.embed_documents(["a b"])
        model.embed_queries(["c d"])
        assert model.count_tokens(["a b"]).tolist() == [3]
    assert provider.sent[1:] == [["doc: a b"], ["ask: c d"]]


def test_normalize_is_as_the_manifest_says():
    with embedder(Scripted(), normalize=True) as model:
        assert np.linalg.norm(model.embed_documents(TEXTS).vectors, axis=1) == pytest.approx(1)
    provider = Scripted()
    provider.normalizes = True
    with embedder(provider) as model:
        assert np.linalg.norm(model.embed_queries(TEXTS), axis=1) == pytest.approx(1)
    with embedder(provider, normalize=False) as model:
        assert np.array_equal(model.embed_queries(TEXTS), vectors_of(TEXTS))


def test_an_empty_text_and_broken_unicode_are_refused_without_a_request():
    provider = Scripted()
    with embedder(provider) as model:
        embedded = model.embed_documents(["fine", "", "half \ud800"])
    assert {index: r.reason for index, r in embedded.rejected.items()} == {
        1: "refused", 2: "refused",
    }  # fmt: skip
    assert provider.sent[1:] == [["fine"]]
    assert not embedded.vectors[1:].any() and not embedded.tokens[1:].any()


LONG = " ".join(f"word{number}" for number in range(25))


def test_too_long_fails_with_the_numbers():
    with embedder(Scripted(max_tokens=10)) as model:
        embedded = model.embed_documents(["short", LONG])
        assert embedded.rejected[1].reason == "too_long"
        assert embedded.rejected[1].detail == "25 tokens, the model takes 10"
        assert embedded.vectors[0].any()
        with pytest.raises(InputTooLongError, match=r"query 1 .*25 tokens"):
            model.embed_queries(["short", LONG])


def test_the_manifests_limit_goes_before_the_providers():
    with embedder(Scripted(max_tokens=10), max_tokens=25) as model:
        assert model.limits.max_tokens == 25
        assert not model.embed_documents([LONG]).rejected


def test_too_long_is_truncated_and_counted():
    provider = Scripted(max_tokens=10)
    with embedder(provider, on_too_long="truncate", document_prefix="doc: ") as model:
        embedded = model.embed_documents(["short", LONG])
        assert model.stats.truncated == 1
    kept = "doc: " + " ".join(f"word{number}" for number in range(9))
    assert kept in [text.strip() for text in provider.sent[1]]
    assert embedded.tokens.tolist() == [2, 10]


def test_the_mean_of_pieces_is_weighted_by_tokens():
    provider = Scripted(max_tokens=10)
    with embedder(provider, on_too_long="mean", normalize=True) as model:
        stored: list[int] = []
        embedded = model.embed_documents(["short", LONG], lambda i, v, t: stored.extend(i))
    pieces = [text for request in provider.sent[1:] for text in request if text != "short"]
    assert " ".join(pieces) == LONG
    weights = [len(piece.split()) for piece in pieces]
    mean = np.average(vectors_of(pieces), axis=0, weights=weights)
    assert embedded.vectors[1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert embedded.tokens.tolist() == [1, 25]
    assert sorted(stored) == [0, 1]


def too_long(most: int) -> Callable[[int, list[str]], Exception | None]:
    def script(number: int, texts: list[str]) -> Exception | None:
        if any(len(text.split()) > most for text in texts):
            return RejectedInputError("400: exceeds the context length", too_long=True)
        return None

    return script


def test_a_provider_that_calls_a_text_too_long_is_believed_after_asking_twice():
    provider = Scripted(too_long(10))
    with embedder(provider) as model:
        embedded = model.embed_documents([*TEXTS, LONG])
    assert list(embedded.rejected) == [100]
    assert embedded.rejected[100].detail == ("400: exceeds the context length (about 25 tokens)")
    assert np.array_equal(embedded.vectors[:100], vectors_of(TEXTS))


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_a_text_too_long_only_for_the_provider_is_cut_until_it_fits(policy):
    provider = Scripted(too_long(10))
    with embedder(provider, on_too_long=policy) as model:
        embedded = model.embed_documents(["short", LONG])
        assert model.stats.truncated == (policy == "truncate")
    assert not embedded.rejected
    answered = [request for request in provider.sent if len(request) == 1]
    assert len(answered[-1][0].split()) <= 10
    assert embedded.tokens[1] == (8 if policy == "truncate" else 25)


def test_an_estimate_does_not_quarantine_what_the_provider_takes():
    provider = Scripted(max_tokens=10, refuses_long=True)
    provider.exact_tokens = False
    provider.count_tokens = lambda texts: np.array(  # type: ignore[method-assign]
        [2 * len(text.split()) for text in texts], np.int32
    )
    borderline = " ".join("abcdefg")
    with embedder(provider) as model:
        embedded = model.embed_documents(["a", borderline, LONG])
    assert list(embedded.rejected) == [2]  # 25 words are more than 10 tokens in any tokenizer
    assert [borderline] in provider.sent


def test_poison_is_isolated_and_the_others_are_unharmed():
    texts = [f"text number {number}" for number in range(512)]
    poison = {17, 300, 301}

    def script(number: int, sent: list[str]) -> Exception | None:
        bad = {texts[index] for index in poison}.intersection(sent)
        return RejectedInputError("400: the input violates our policy") if bad else None

    provider = Scripted(script, batch_items=512, concurrency=1)
    with embedder(provider) as model:
        stored: list[int] = []
        embedded = model.embed_documents(texts, lambda i, v, t: stored.extend(i))
    assert {i: (r.reason, r.detail) for i, r in embedded.rejected.items()} == dict.fromkeys(
        poison, ("refused", "400: the input violates our policy")
    )
    good = [index for index in range(512) if index not in poison]
    assert np.array_equal(embedded.vectors[good], vectors_of([texts[i] for i in good]))
    assert sorted(stored) == good
    assert len(provider.sent) < 100


def test_a_spurious_refusal_is_asked_again_before_it_is_believed():
    once = iter([RejectedInputError("400: maximum context length is 8192", too_long=True)])
    provider = Scripted(lambda number, texts: next(once, None) if number else None)
    with embedder(provider) as model:
        assert not model.embed_documents(TEXTS[:10]).rejected
    assert len(provider.sent) == 3


def test_a_provider_that_refuses_everything_quarantines_nothing():
    provider = Scripted(lambda number, texts: RejectedInputError("400: no") if number else None)
    with embedder(provider) as model, pytest.raises(ProviderRefusedError, match="everything"):
        model.embed_documents(TEXTS)


def test_at_first_contact_a_refused_sentence_is_a_wrong_setting():
    provider = Scripted(lambda number, texts: RejectedInputError("400: unknown parameter"))
    with embedder(provider) as model, pytest.raises(ProviderRefusedError, match="unknown param"):
        model.check_reachable()


def test_dimensions_asked_for_are_dimensions_received():
    with embedder(Scripted(), dimensions=32) as model:
        assert model.dimensions == 32
        with pytest.raises(ProviderRefusedError, match="asked for 32 dimensions, got 64"):
            model.embed_documents(TEXTS)
    with embedder(Scripted()) as model:
        assert model.dimensions == 64


def test_transient_failures_are_retried_and_counted():
    failures = iter([TransientError("503"), TransientError("429", 0.01, rate_limited=True)])
    with embedder(Scripted(lambda *_: next(failures, None))) as model:
        assert not model.embed_documents(TEXTS).rejected
        assert model.stats.retries == 2
        assert model.stats.seconds_waiting > 0.01


def test_retries_end_and_what_is_paid_was_passed_on():
    def script(number: int, texts: list[str]) -> Exception | None:
        return TransientError("503: overloaded") if gone or TEXTS[55] in texts else None

    gone, stored = False, list[int]()
    with (
        embedder(Scripted(script)) as model,
        pytest.raises(UnreachableError, match="503: overloaded") as caught,
    ):

        def store(indices: Sequence[int], *_: object) -> None:
            nonlocal gone
            stored.extend(indices)
            gone = len(stored) >= 20

        model.embed_documents(TEXTS, store)
    assert caught.value.exit_code == 7 and "Run the same command again" in caught.value.hint
    assert not set(stored).intersection(range(50, 60))
    assert len(stored) >= 10


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda v: v[:-1], "0 vectors came back for 1 texts"),
        (lambda v: np.concatenate([v, v[:1]]), "2 vectors came back for 1 texts"),
        (lambda v: v[:, :-1], "63 dimensions came back, not 64"),
        (lambda v: np.full_like(v, np.nan), "NaN or infinity"),
        (lambda v: np.zeros_like(v), "only zeros"),
        (lambda v: np.tile(v[:1], (len(v), 1)), "the same vector came back for all of 10"),
    ],
)
def test_bad_vectors_are_asked_for_again_and_never_believed(spoil, says):
    def spoilt(number: int, texts: list[str]) -> Answer | None:
        equal = says.startswith("the same")  # which a single text cannot show
        spoils = len(texts) > 1 if equal or number < 4 else number > 0
        return Answer(spoil(vectors_of(texts))) if spoils and number < spoilt_until else None

    spoilt_until = 3
    with embedder(Scripted(spoilt)) as model:
        embedded = model.embed_documents(TEXTS)
    assert np.array_equal(embedded.vectors, vectors_of(TEXTS))
    spoilt_until = 10**9
    kind = ModelChangedError if "dimensions" in says else BadVectorsError
    with embedder(Scripted(spoilt)) as model, pytest.raises(kind, match=says):
        model.embed_documents(TEXTS)


def test_a_text_that_always_gives_nan_is_refused_alone():
    def script(number: int, texts: list[str]) -> Answer | None:
        if TEXTS[3] not in texts:
            return None
        vectors = vectors_of(texts)
        vectors[texts.index(TEXTS[3])] = np.nan
        return Answer(vectors)

    with embedder(Scripted(script)) as model:
        embedded = model.embed_documents(TEXTS)
    assert list(embedded.rejected) == [3]
    assert "NaN" in embedded.rejected[3].detail
    good = [index for index in range(100) if index != 3]
    assert np.array_equal(embedded.vectors[good], vectors_of(TEXTS)[good])


def test_texts_that_only_look_different_may_share_a_vector():
    texts = ["Hello", "hello", "HELLO", "h\u00e9llo"]
    same = Answer(np.ones((4, 64), np.float32))
    provider = Scripted(lambda number, sent: same if len(sent) == 4 else None)
    with embedder(provider) as model:
        assert not model.embed_documents(texts).rejected


def test_a_server_that_cuts_in_silence_is_given_away_by_its_count():
    def script(number: int, texts: list[str]) -> Answer:
        return Answer(vectors_of(texts), sum(min(10, len(text.split())) for text in texts))

    with embedder(Scripted(script)) as model:
        embedded = model.embed_documents([*TEXTS, LONG])
    assert list(embedded.rejected) == [100]
    assert embedded.rejected[100].reason == "too_long"
    assert "silently" in embedded.rejected[100].detail


@pytest.mark.parametrize("count", [None, 1, 1000])
def test_a_server_that_does_not_count_tokens_is_not_held_to_them(count):
    with embedder(Scripted(lambda _, texts: Answer(vectors_of(texts), count))) as model:
        assert not model.embed_documents([*TEXTS, LONG]).rejected


def test_two_threads_share_an_embedder():
    results: dict[int, Vectors] = {}

    def work(thread: int) -> None:
        texts = [f"{text} {thread}" for text in TEXTS]
        results[thread] = model.embed_documents(texts).vectors

    with embedder(Scripted(lambda *_: time.sleep(0.002))) as model:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(3):
        texts = [f"{text} {number}" for text in TEXTS]
        assert np.array_equal(results[number], vectors_of(texts))


def test_a_batch_that_failed_for_a_long_text_is_not_too_large():
    """Learnt while the first half is sent: then its second half passes without that text."""
    texts = [f"a short text {number}" for number in range(7)] + ["word " * 100]

    def script(number: int, sent: list[str]) -> RejectedInputError | None:
        if sent == texts[:4]:
            model._sizes.learn_text(50, cuts=False, refused=60)
        long = any(len(text.split()) > 50 for text in sent)
        return RejectedInputError("no") if long else None

    provider = Scripted(script)
    with embedder(provider, Embed(concurrency=1), on_too_long="truncate") as model:
        assert not model.embed_documents(texts).rejected
        assert model.limits.batch_items == provider.limits.batch_items


def test_an_error_in_on_batch_stops_the_call_and_is_raised():
    calls = []

    def store(*_: object) -> None:
        calls.append(1)
        raise OSError("disk full")

    provider = Scripted(lambda *_: time.sleep(0.01), concurrency=1)
    with embedder(provider) as model, pytest.raises(OSError, match="disk full"):
        model.embed_documents(TEXTS, store)
    assert calls == [1]
    time.sleep(0.05)
    assert len(provider.sent) < 6


def test_an_interrupt_keeps_what_is_in_flight_and_cancels_the_rest():
    stored: list[int] = []

    def store(indices: Sequence[int], *_: object) -> None:
        stored.extend(indices)
        if len(stored) == len(indices):
            raise KeyboardInterrupt

    provider = Scripted(lambda number, _: time.sleep(0.05 if number else 0), concurrency=2)
    with embedder(provider) as model:
        with pytest.raises(KeyboardInterrupt):
            model.embed_documents(TEXTS, store)
        assert len(provider.sent) <= 6


def test_closing_ends_calls_of_other_threads():
    errors: list[BaseException] = []

    def work() -> None:
        try:
            model.embed_documents(TEXTS)
        except InterruptedRunError as error:
            errors.append(error)

    provider = Scripted(lambda *_: time.sleep(0.05), concurrency=1)
    model = embedder(provider)
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.15)
    model.close()
    thread.join(5)
    assert not thread.is_alive() and len(errors) == 1 and provider.closed


def test_concurrency_is_bounded_by_the_manifest():
    running, most = [0], [0]
    lock = threading.Lock()

    def script(*_: object) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    with embedder(Scripted(script), Embed(concurrency=3)) as model:
        model.embed_documents(TEXTS)
    assert most[0] == 3


def test_rate_limits_of_the_manifest_hold():
    began = time.monotonic()
    with embedder(Scripted(), Embed(requests_per_minute=1200)) as model:
        model.embed_documents(TEXTS)  # 1 + 10 requests, 50 ms apart
    assert time.monotonic() - began > 0.45
    with embedder(Scripted(), Embed(tokens_per_minute=20)) as model:
        assert model.limits.batch_tokens == 20


def test_options_of_all_providers_and_unknown_ones():
    with pytest.raises(ManifestError, match=r"options.treads.*no such option") as caught:
        open_embedder(Model(provider="static", name="wordllama", options={"treads": 2}))
    assert caught.value.exit_code == 5
    with pytest.raises(ManifestError, match="retry_attempts: is above zero"):
        open_embedder(Model(provider="static", name="wordllama", options={"retry_attempts": 0}))
    with pytest.raises(ManifestError, match="retry_wait: is a float"):
        open_embedder(Model(provider="static", name="wordllama", options={"retry_wait": "1"}))


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(MissingExtraError, match="needs the package sentence_transf") as caught:
        open_embedder(Model(provider="sentence-transformers", name="all-MiniLM-L6-v2"))
    assert caught.value.hint == "pip install 'reembed-pipeline[sentence-transformers]'"
    with pytest.raises(MissingExtraError, match="package not_there_x is not installed"):
        open_embedder(Model(provider="onnx", name="package:not_there_x"))
