"""Manners of embedding servers that no list of reports names: combinations, other words, other
statuses and shapes for what `manners.py` has, to see that kinds are closed and not cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.servers.embedding_server import (
    INFINITY,
    LLAMA_CPP_PYTHON,
    EmbeddingServer,
    Fault,
)
from tests.support.servers.manners import (
    ISOLATE,
    POISON,
    Answer,
    Manner,
    above,
    after,
    asked_for,
    every,
    html,
    longer_than,
    poisoned,
    status,
    well,
)

SECOND = 211
"""Number of another text that a server cannot embed."""


def body(code: int, words: Any) -> Fault:
    return Fault("body", code, body=words)


def either(*answers: Answer) -> Answer:
    """The first misfortune of these."""

    def answer(server: EmbeddingServer, number: int, texts: list[str]) -> Fault | None:
        return next((fault for one in answers if (fault := one(server, number, texts))), None)

    return answer


def first(count: int, fault: Fault) -> Answer:
    """The fault for the first requests."""
    return lambda server, number, texts: fault if number < count else None


def characters_above(most: int, fault: Fault) -> Answer:
    """The fault for requests with more characters in all."""
    return lambda server, number, texts: fault if sum(map(len, texts)) > most else None


def shaped(shape: Any) -> Answer:
    """Good vectors in another shape; `shape(rows, texts)` of a list of lists of floats gives the
    document, or None for what is usual."""

    def answer(server: EmbeddingServer, number: int, texts: list[str]) -> Fault | None:
        request = server.requests[-1]
        ids = [server._model.ids(text) for text in texts]
        rows = [server.vector(one, request, server.width(request)).tolist() for one in ids]
        document = shape(rows, texts)
        if document is None:
            return None
        server.served.update(texts)
        return body(200, document)

    return answer


def entries(rows: list[Any]) -> dict[str, Any]:
    data = [{"embedding": row, "index": place} for place, row in enumerate(rows)]
    return {"object": "list", "data": data}


def spoilt(value: Any) -> Answer:
    """The vector of POISON is `value`, or what it makes of the vector."""

    def shape(rows: list[Any], texts: list[str]) -> Any:
        bad = [place for place, text in enumerate(texts) if text.startswith(f"record {POISON} ")]
        if not bad:
            return None
        rows[bad[0]] = value(rows[bad[0]]) if callable(value) else value
        return entries(rows)

    return shaped(shape)


def indexed(index: Any) -> Answer:
    def shape(rows: list[Any], texts: list[str]) -> Any:
        data = [{"embedding": row} | index(place) for place, row in enumerate(rows)]
        return {"data": data}

    return shaped(shape)


def one_at_a_time(server: EmbeddingServer, number: int, texts: list[str]) -> Fault | None:
    return status(429, "Too many concurrent requests") if server._at_once > 1 else None


_TWO = either(
    poisoned(html(500, "boom")),
    lambda server, number, texts: (
        status(400, "bad input") if any(t.startswith(f"record {SECOND} ") for t in texts) else None
    ),
)

ODD_MANNERS: dict[str, Manner] = {
    # A text that cannot be embedded
    "a text breaks the answer's JSON": Manner(poisoned(html(200, '{"data": [{"embedding": [')),
                                              extra=ISOLATE, quarantined=True),
    "a text takes a gateway's time": Manner(poisoned(html(524, "<h1>A timeout occurred</h1>")),
                                            extra=ISOLATE, quarantined=True),
    "a text is not for this country": Manner(poisoned(html(451, "")), extra=ISOLATE,
                                             quarantined=True),
    "a text has no vector": Manner(spoilt(None), extra=ISOLATE, quarantined=True, again=True),
    "a text has an empty vector": Manner(spoilt([]), extra=ISOLATE, quarantined=True, again=True),
    "a text has a shorter vector": Manner(spoilt(lambda row: row[:-1]), extra=ISOLATE,
                                          quarantined=True, again=True),
    "a text's vector is beyond float32": Manner(spoilt(lambda row: [1e39, *row[1:]]), extra=4,
                                                quarantined=True, again=True),
    "a text is no string to pydantic": Manner(poisoned(body(422, {"detail": [
        {"loc": ["body", "input", 17], "msg": "str type expected", "type": "type_error.str"}]})),
        extra=ISOLATE, quarantined=True),
    "a text is a teapot": Manner(poisoned(html(418, "")), extra=ISOLATE, quarantined=True),
    "a text gets an error of null": Manner(poisoned(body(500, {"error": None})), extra=ISOLATE,
                                           quarantined=True),
    "a text violates a policy": Manner(poisoned(status(
        403, "rejected by our safety system", code="content_policy_violation")), extra=ISOLATE,
        quarantined=True),
    "two texts, each in its way": Manner(_TWO, extra=2 * ISOLATE, quarantined=True,
                                         poison=(POISON, SECOND)),
    # Limits of a request
    "seven texts": Manner(above(7, status(400, "Too many inputs: got more than 7")), batch=7,
                          extra=1),
    "sixteen texts and no number": Manner(above(16, body(422, {"detail": "list too long"})),
                                          batch=16, extra=4),
    "a reset above twelve texts": Manner(above(12, Fault("reset")), batch=12, extra=5),
    "ten texts, in Chinese": Manner(above(10, status(
        400, "\u6279\u91cf\u5927\u5c0f\u4e0d\u80fd\u8d85\u8fc7 10")), batch=10, extra=4),
    "one text": Manner(above(1, status(400, "input must be a single string")), batch=1, extra=6),
    "thirty vectors at most": Manner(
        lambda server, number, texts: Fault("too_few") if len(texts) > 30 else None, batch=30,
        extra=4, again=True),
    "characters in all": Manner(characters_above(3_000, status(
        400, "The sum of all characters must not exceed 3000")), batch=24, extra=2),
    "one request at a time": Manner(one_at_a_time, extra=6),
    # What passes
    "a model is loaded first": Manner(first(3, body(503, {
        "error": "Model x is currently loading", "estimated_time": 0.1})), extra=3),
    "a captive portal now and then": Manner(every(6, Fault("html")), extra=3, every=6),
    "connections reset now and then": Manner(every(5, Fault("reset")), extra=4, every=5),
    "half an answer now and then": Manner(every(6, Fault("truncated")), extra=4, again=True,
                                            every=6),
    "an answer cut off now and then": Manner(every(6, Fault("cut_off")), extra=4, again=True,
                                            every=6),
    "a date to come back at": Manner(every(5, Fault(
        "status", 429, retry_after="Mon, 01 Jan 2024 00:00:00 GMT")), extra=4, every=5),
    "unheard of now and then": Manner(every(5, html(999, "Request denied")), extra=4, every=5),
    # Shapes
    "indices from one": Manner(indexed(lambda place: {"index": place + 1})),
    "indices as words": Manner(indexed(lambda place: {"index": str(place)})),
    "no indices": Manner(indexed(lambda place: {})),
    "vectors in vectors": Manner(shaped(lambda rows, texts: entries([[row] for row in rows]))),
    "numbers as words": Manner(shaped(lambda rows, texts: entries(
        [[*map(str, row)] for row in rows]))),
    "base64 is bad in no words": Manner(asked_for(html(400, "Bad Request"), "base64"), extra=1),
    "dimensions are not implemented": Manner(
        lambda server, number, texts: html(501, "Not Implemented")
        if "dimensions" in server.requests[-1] else None,
        model={"dimensions": 256}, extra=3),
    "base64 is no media type": Manner(asked_for(html(415, "encoding_format not supported"),
                                                "base64"), extra=1),
    "all optional is forbidden": Manner(
        lambda server, number, texts: body(422, {"detail": [
            {"type": "extra_forbidden", "loc": ["body", key], "msg": "Extra inputs are not "
             "permitted"} for key in ("dimensions", "encoding_format")
            if key in server.requests[-1]]})
        if server.requests[-1].keys() & {"dimensions", "encoding_format"} else None,
        model={"dimensions": 256}, extra=3),
    # Long texts
    "characters of a text": Manner(
        lambda server, number, texts: status(400, "Each input may have 1500 characters")
        if any(len(text) > 1_500 for text in texts) else None,
        model={"on_too_long": "truncate"}, long=420, extra=60 * 2),
    "long texts, and it resets": Manner(longer_than(300, Fault("reset")),
                                        model={"on_too_long": "mean"}, long=420, extra=60 * 5),
    "cuts at 128 in silence": Manner(well, behaviour=replace(LLAMA_CPP_PYTHON, max_tokens=128),
                                     model={"on_too_long": "mean"}, long=420, extra=60 * 4),
    "too long is told as a 500 of tokens": Manner(
        longer_than(300, status(500, "input is too large to process: 700 tokens, limit 400")),
        model={"on_too_long": "mean"}, long=420, extra=60 * 3),
    # Delays
    "hangs now and then": Manner(every(9, Fault("hang")), extra=3,
                                 model={"options": {"timeout": 3.0}}, every=9),
    "drips a text's answer": Manner(poisoned(Fault("drip")), extra=ISOLATE, quarantined=True,
                                    again=True, model={"options": {"timeout": 1.0}}),
    "counts characters and refuses dimensions": Manner(
        well, behaviour=replace(INFINITY, dimensions="refused"), model={"dimensions": 256},
        extra=1),
    # What somebody must see to
    "a month's allowance": Manner(after(5, status(429, "You have exceeded your monthly included "
                                                  "credits for Inference Providers")),
                                  refused="quota"),
    "a plan that lacks the model": Manner(after(0, body(403, {
        "message": "This model requires a paid plan"})), refused="paid plan"),
    "a model that is gone": Manner(after(5, status(410, "this model is deprecated")),
                                   refused="deprecated"),
    "a token that expires": Manner(after(6, body(401, {"detail": "token expired"})),
                                   refused="key is refused"),
    "nothing is right": Manner(after(0, status(400, "invalid value for field 'user'")),
                               refused="plain sentence"),
    "one vector for all": Manner(
        shaped(lambda rows, texts: entries([[1.0] * 256 for _ in rows])),
        refused="the same vector"),
    "another width from now on": Manner(
        lambda server, number, texts: Fault("wrong_dimension") if number > 6 else None,
        refused="255"),
}  # fmt: skip
