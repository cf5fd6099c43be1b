"""Manners of embedding servers, as public reports and documentation have them: statuses, bodies,
limits, cuts, delays and shapes. Each says how a run against it must end, and how many requests a
client would need that knew all of it from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.servers.embedding_server import (
    INFINITY,
    LLAMA_CPP_PYTHON,
    OPENAI,
    Behaviour,
    EmbeddingServer,
    Fault,
)

POISON = 137
"""Number of the text that some servers cannot embed."""
ISOLATE = 2 * 6 + 4
"""Requests to find one of 64 texts by halves, and to be sure of it."""

Answer = Callable[[EmbeddingServer, int, list[str]], Fault | None]
"""The misfortune of a request, by its number and texts."""


@dataclass(frozen=True)
class Manner:
    """How one server behaves.

    Attributes:
        answer: what it does instead of answering; see `Answer`.
        batch: texts that it takes in a request.
        extra: requests that its manner costs whoever knows it, to embed all texts once.
        every: one in so many requests fails, which costs whoever knows it the same.
        quarantined: whether the texts of the numbers `poison` are set aside.
        refused: what the error must say where the run is refused by name.
        again: whether a text may be embedded more than once: an answer that was lost was paid for.
        model, long: what the manifest's model has besides, and how many words a fifth of the texts
            have.
    """

    answer: Answer
    batch: int = 64
    extra: float = 0
    every: int = 0
    quarantined: bool = False
    poison: tuple[int, ...] = (POISON,)
    refused: str = ""
    again: bool = False
    behaviour: Behaviour = OPENAI
    headers: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    long: int = 0


def well(*_: object) -> None:
    """No misfortune."""


def poisoned(fault: Fault) -> Answer:
    """The fault whenever POISON is among the texts."""
    begins = f"record {POISON} "
    return lambda server, number, texts: (
        fault if any(text.startswith(begins) for text in texts) else None
    )


def above(most: int, fault: Fault) -> Answer:
    """The fault for requests of more texts."""
    return lambda server, number, texts: fault if len(texts) > most else None


def every(nth: int, fault: Fault) -> Answer:
    """The fault for every n-th request but the first ones."""
    return lambda server, number, texts: fault if number > 2 and number % nth == 0 else None


def after(number: int, fault: Fault) -> Answer:
    """The fault for every request from this number on."""
    return lambda server, now, texts: fault if now >= number else None


def tokens_above(most: int) -> Answer:
    """OpenAI's refusal of a request that is larger than a minute's allowance."""

    def answer(server: EmbeddingServer, number: int, texts: list[str]) -> Fault | None:
        sent = sum(len(server._model.ids(text)) for text in texts)
        words = (
            f"Request too large for wordllama in organization org-x on tokens per min (TPM): "
            f"Limit {most}, Requested {sent}. Visit https://platform.openai.com/account/rate-limits"
        )
        return status(429, words, code="rate_limit_exceeded") if sent > most else None

    return answer


def bytes_above(most: int) -> Answer:
    def answer(server: EmbeddingServer, number: int, texts: list[str]) -> Fault | None:
        sent = sum(len(text.encode()) for text in texts)
        return html(413, "<html><h1>413 Payload Too Large</h1></html>") if sent > most else None

    return answer


def longer_than(words: int, fault: Fault) -> Answer:
    """The fault where any text has more words."""
    return lambda server, number, texts: (
        fault if any(len(text.split()) > words for text in texts) else None
    )


def asked_for(fault: Fault, *formats: str) -> Answer:
    """The fault for requests with one of these values of encoding_format."""
    return lambda server, number, texts: (
        fault if server.requests[-1].get("encoding_format") in formats else None
    )


def status(number: int, message: str, **more: Any) -> Fault:
    return Fault("body", number, body={"error": {"message": message, "type": "x", **more}})


def html(code: int, body: str) -> Fault:
    return Fault("body", code, body=body)


GEMINI = [{"error": {
    "code": 429, "status": "RESOURCE_EXHAUSTED",
    "message": "You exceeded your current quota, please check your plan and billing details.",
}}]  # fmt: skip

MANNERS: dict[str, Manner] = {
    # A text that cannot be embedded
    "NaN as a 500": Manner(
        poisoned(status(500, "failed to encode response: json: unsupported value: NaN")),
        extra=ISOLATE, quarantined=True,
    ),
    "a text resets the connection": Manner(poisoned(Fault("reset")), extra=ISOLATE,
                                           quarantined=True),
    "a text gets 200 and an error": Manner(
        poisoned(Fault("body", 200, body={"error": "EOF"})), extra=ISOLATE, quarantined=True),
    "a text meets a firewall": Manner(poisoned(html(403, "<html>Request blocked</html>")),
                                      extra=ISOLATE, quarantined=True),
    "a text meets a 404 of a gateway": Manner(poisoned(html(404, "<html>no</html>")),
                                              extra=ISOLATE, quarantined=True),
    "a text is flagged": Manner(poisoned(status(400, "flagged by our policy")), extra=ISOLATE,
                                quarantined=True),
    "a text kills the worker": Manner(poisoned(html(502, "<html>Bad Gateway</html>")),
                                      extra=ISOLATE, quarantined=True),
    "a text is left out of the answer": Manner(poisoned(Fault("too_few")), extra=ISOLATE,
                                               quarantined=True, again=True),
    "a text spoils its whole batch": Manner(poisoned(Fault("nan", row=None)), extra=ISOLATE,
                                            quarantined=True, again=True),
    "a text hangs": Manner(poisoned(Fault("hang")), extra=ISOLATE, quarantined=True,
                           model={"options": {"timeout": 0.6}}),
    # Limits of a request
    "ten texts, as DashScope": Manner(above(10, status(
        400, "batch size is invalid, it should not be larger than 10.: input.contents")), batch=10),
    "32 texts, as TEI": Manner(above(32, Fault("body", 422, body={
        "error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"})),
        batch=32),
    "48 texts and no word": Manner(above(48, html(413, "")), batch=48, extra=3),
    "twenty texts, as a bare 500": Manner(above(20, html(500, "Internal Server Error")), batch=20,
                                          extra=4),
    "25 texts in time": Manner(above(25, html(504, "<html>504 Gateway Time-out</html>")), batch=25,
                               extra=5),
    "40 texts, then it hangs": Manner(above(40, Fault("hang")), batch=40, extra=5,
                                      model={"options": {"timeout": 1.5}}),
    "a minute's tokens": Manner(tokens_above(700), batch=20),
    "four thousand bytes": Manner(bytes_above(4_000), batch=36, extra=3),
    # What passes
    "overloaded now and then": Manner(every(4, status(529, "Overloaded")), extra=3, every=4),
    "too fast now and then": Manner(every(3, Fault("status", 429, retry_after="0.02")), extra=4,
                                    every=3),
    "a gateway in between": Manner(every(5, html(502, "<html>Bad Gateway</html>")), extra=2,
                                   every=5),
    "a slip of a 400": Manner(lambda server, number, texts: status(
        400, "This model's maximum context length is 8192 tokens") if number == 3 else None,
        extra=1),
    "headers of nonsense": Manner(well, headers={
        "x-ratelimit-remaining-requests": "\u00b2".encode().decode("latin-1"),
        "x-ratelimit-reset-requests": "1.2.3s", "x-ratelimit-remaining-tokens": "1e400",
        "x-ratelimit-reset-tokens": "soon", "retry-after": "nan"}),
    "shuffled": Manner(lambda server, number, texts: Fault("shuffled")),
    # Shapes
    "base64 brings nothing": Manner(asked_for(
        Fault("body", 200, body={"object": "list", "data": [], "model": "x"}), "base64"), extra=1),
    "base64 is a 500": Manner(asked_for(html(500, "boom"), "base64"), extra=1),
    "base64 is not implemented": Manner(asked_for(html(501, "Not Implemented"), "base64"), extra=1),
    "no encoding_format": Manner(asked_for(status(
        400, "Extra inputs are not permitted"), "base64", "float"), extra=2),
    "counts characters": Manner(well, behaviour=INFINITY),
    "counts nothing": Manner(well, behaviour=replace(OPENAI, usage="none")),
    "dimensions refused": Manner(well, behaviour=replace(OPENAI, dimensions="refused"),
                                 model={"dimensions": 256}, extra=1),
    # Long texts
    "too long in Chinese English": Manner(
        longer_than(300, status(400, "Range of input length should be [1, 300]")),
        model={"on_too_long": "mean"}, long=420, extra=60 * 3 + 1),
    "too long and no word": Manner(
        longer_than(300, html(422, "Unprocessable")), model={"on_too_long": "truncate"}, long=420,
        extra=60 * 5),
    "cuts in silence": Manner(well, behaviour=replace(LLAMA_CPP_PYTHON, max_tokens=256),
                              model={"on_too_long": "mean"}, long=420, extra=60 * 3),
    "cuts in silence and does not count": Manner(
        well, behaviour=replace(INFINITY, max_tokens=256), model={"on_too_long": "mean"}, long=420,
        extra=5),
    # What somebody must see to
    "quota, as OpenAI": Manner(after(4, status(
        429, "You exceeded your current quota", code="insufficient_quota")), refused="quota"),
    "quota, as LiteLLM": Manner(after(4, status(
        400, "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0",
        type="budget_exceeded")), refused="quota"),
    "quota, as Gemini": Manner(after(4, Fault("body", 429, body=GEMINI)), refused="quota"),
    "quota, by status": Manner(after(4, html(402, "Payment Required")), refused="quota"),
    "a key revoked": Manner(after(4, status(401, "revoked")), refused="key is refused"),
    "a model taken away": Manner(after(4, status(404, "no such model")), refused="no such model"),
    "no such address": Manner(after(0, Fault("body", 200, body={
        "error": "Unexpected endpoint or method. (POST /embeddings)"})),
        refused="Unexpected endpoint"),
    "always another shape": Manner(after(0, Fault("body", 200, body={"result": [[1.0]]})),
                                   refused="plain sentence"),
}  # fmt: skip


def ideal(manner: Manner, texts: int) -> float:
    """Requests of a client that knows the manner: the first contact, and full batches."""
    return 1 + -(-texts // manner.batch) + manner.extra


def serve(manner: Manner) -> EmbeddingServer:
    """A server of this manner, not started."""
    server = EmbeddingServer(manner.behaviour, headers=manner.headers)
    server.faults = lambda number, texts: manner.answer(server, number, texts)
    return server


def texts_for(manner: Manner, sentences: list[str]) -> list[str]:
    """Some texts, a fifth of them as long as the manner is about."""
    if not manner.long:
        return sentences
    return [
        " ".join(itertools.islice(itertools.cycle(text.split()), manner.long))
        if number % 5 == 0 else text
        for number, text in enumerate(sentences)
    ]  # fmt: skip
