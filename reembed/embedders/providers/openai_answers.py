"""Reading what OpenAI-like servers answer: base64 or numbers, counts that may be missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pybase64

from reembed.embedders.sending.retry import BadAnswer
from reembed.records import Vectors

UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError
)  # fmt: skip
"""What reading an answer of another form raises."""


LONG = 64
"""Signs from which a string of an answer is taken for a vector in base64."""
_TAKEN = "\0"
"""How what stands for a string begins that was taken out; no JSON holds it but as an escape."""


class Read:
    """An answer's JSON, of which long strings were not read as text: base64 is a hundred times as
    much as all else in it, and is decoded as it stands.

    Args:
        body: as it came.
        text: what the client makes of it, asked for where it is anything but plain UTF-8.

    Raises:
        ValueError: it is no JSON.
    """

    def __init__(self, body: bytes, text: Callable[[], str]) -> None:
        self._taken: list[bytes] = []
        self.data: Any = None
        try:
            if b"\\" not in body and b"\0" not in body:
                self.data = json.loads(self._take_out(body))
                return
        except ValueError:
            self._taken.clear()
        self.data = json.loads(text())

    def _take_out(self, body: bytes) -> bytes:
        parts = body.split(b'"')  # without a backslash in it, each second one is a string
        for place in range(1, len(parts), 2):
            if len(parts[place]) >= LONG:
                self._taken.append(parts[place])
                parts[place] = rb"\u0000%d" % (len(self._taken) - 1)
        return b'"'.join(parts)

    def vectors(self, embeddings: Sequence[Any]) -> Vectors:
        """The vectors `(n, d)` of values in `data`; as `vector_of`.

        Raises:
            BadAnswer: they are not of one size.
        """
        values = [self._given_back(embedding) for embedding in embeddings]
        if all(type(value) is bytes for value in values):
            parts = [_decoded(value) for value in values]
        else:
            parts = [vector_of(value).tobytes() for value in values]
        sizes = {len(part) // 4 for part in parts}
        if len(sizes) > 1:
            raise BadAnswer(f"vectors of {', '.join(map(str, sorted(sizes)))} dimensions came back")
        found = np.frombuffer(b"".join(parts), np.float32)
        return found.reshape(len(parts), *(sizes or (0,)))

    def _given_back(self, embedding: Any) -> Any:
        if self._taken and isinstance(embedding, str) and embedding.startswith(_TAKEN):
            return self._taken[int(embedding[1:])]
        return embedding


def counted(data: dict[str, Any]) -> int | None:
    """The tokens that an answer says it counted."""
    usage = data.get("usage")
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return told if isinstance(told, int) and 0 < told < 2**31 else None


def text_of(response: Any) -> str:
    """An error's body, empty where it cannot be decoded or was never received."""
    try:
        return str(response.text)
    except Exception:  # whatever the client raises for such a body
        return ""


def places_of(entries: list[dict[str, Any]]) -> list[int]:
    """For each entry the row that it is for, by its `index`, a number or its digits; where none has
    one, or they count from 1 in their order, in their order.

    Raises:
        BadAnswer: they are not those of so many texts.
    """
    rows = list(range(len(entries)))
    told = [entry.get("index") for entry in entries]
    if all(one is None for one in told):
        return rows
    found = [_number(one) for one in told]
    if found == [row + 1 for row in rows]:
        return rows
    if sorted(found) != rows:
        raise BadAnswer("its indices are not those of the texts")
    return found


def _number(index: Any) -> int:
    """What an index says; -1 for what is none."""
    if isinstance(index, str) and index.isascii() and index.isdigit():
        return int(index[:9])
    return index if type(index) is int else -1


def vector_of(embedding: Any) -> Vectors:
    """One vector `(d,)`, from base64 of little-endian float32 or from a list of numbers.

    Raises:
        BadAnswer: base64 that is not of whole numbers.
    """
    if not isinstance(embedding, str | bytes):
        with np.errstate(over="ignore"):  # what is too large is infinite, and found to be
            vector: Vectors = np.asarray(embedding, np.float32)
        if vector.ndim == 2 and len(vector) == 1:  # llama.cpp's own form
            vector = vector[0]
        if vector.ndim != 1:
            raise TypeError
        return vector
    return np.frombuffer(_decoded(embedding), "<f4").astype(np.float32, copy=False)


def _decoded(embedding: str | bytes) -> bytes:
    try:
        raw = pybase64.b64decode(embedding, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise BadAnswer(f"a vector came back in broken base64: {error}") from None
    if len(raw) % 4:
        raise BadAnswer(f"a vector came back in base64 of {len(raw)} bytes: no whole float32s")
    return raw
