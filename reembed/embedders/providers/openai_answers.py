"""Reading what OpenAI-like servers answer: base64 or numbers, counts that may be missing."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from reembed.embedders.sending.retry import BadAnswer
from reembed.records import Vectors

UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError
)  # fmt: skip
"""What reading an answer of another form raises."""


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
    """One vector, from base64 of little-endian float32 or from a list of numbers.

    Raises:
        BadAnswer: base64 that is not of whole numbers.
    """
    if not isinstance(embedding, str):
        with np.errstate(over="ignore"):  # what is too large is infinite, and found to be
            vector: Vectors = np.asarray(embedding, np.float32)
        if vector.ndim == 2 and len(vector) == 1:  # llama.cpp's own form
            vector = vector[0]
        if vector.ndim != 1:
            raise TypeError
        return vector
    try:
        raw = base64.b64decode(embedding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadAnswer(f"a vector came back in broken base64: {error}") from None
    if len(raw) % 4:
        raise BadAnswer(f"a vector came back in base64 of {len(raw)} bytes: no whole float32s")
    return np.frombuffer(raw, "<f4").astype(np.float32)
