"""What every answer must pass before its vectors are believed: a vector belongs to its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from reembed.embedders.provider import Answer, RejectedInputError
from reembed.embedders.sending.retry import BadAnswer
from reembed.records import bad_rows

CONTROL_TEXT = "the quick brown fox jumps over the lazy dog"
"""A text that every model can embed: what a request with it does tells the model's state."""


def check_answer(texts: Sequence[str], answer: Answer, dimensions: int | None) -> None:
    """Raise BadAnswer unless the vectors can be those of `texts`.

    Args:
        dimensions: what every vector must have; None before it is known.
    """
    vectors = answer.vectors
    if vectors.ndim != 2 or len(vectors) != len(texts):
        count = len(vectors) if vectors.ndim else 0
        raise BadAnswer(f"{count} vectors came back for {len(texts)} texts")
    if dimensions is not None and vectors.shape[1] != dimensions:
        raise BadAnswer(
            f"vectors of {vectors.shape[1]} dimensions came back, not {dimensions}", another=True
        )
    if not vectors.shape[1]:
        raise BadAnswer("vectors of no dimension came back")
    bad = np.flatnonzero(bad_rows(vectors))
    if len(bad):
        what = "only zeros" if np.isfinite(vectors[bad[0]]).all() else "NaN or infinity"
        raise BadAnswer(f"{len(bad)} of {len(texts)} vectors hold {what}", bad.tolist())
    if (
        len(texts) > 2
        and (vectors[1] == vectors[0]).all()
        and (vectors == vectors[0]).all()
        and len({key for text in texts if (key := _telling(text))}) > 2
    ):
        raise BadAnswer(
            f"the same vector came back for all of {len(texts)} different texts", equal=True
        )


def _telling(text: str) -> str:
    """What is left of a text that every model tells from another: its plain short words.

    Case, accents, symbols, emoji and words longer than 40 characters are `[UNK]` or nothing to
    some models (uncased BERT, WordPiece), so texts that differ only in them may share a vector.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(word for word in re.findall(r"[a-z0-9]+", plain) if len(word) <= 40)


def least_tokens(texts: Sequence[str]) -> int:
    """A lower bound on the tokens of all texts: every word is one at least, in every tokenizer
    that splits at white space, as BERT's and SentencePiece's do."""
    return sum(len(re.findall(r"\S*\w\S*", text)) for text in texts)


def check_untruncated(texts: Sequence[str], answer: Answer) -> None:
    """Raise RejectedInputError if the server counted fewer tokens than the texts have words.

    Some servers cut long inputs in silence, whatever they are told (ollama/ollama #14259); the
    count in their answer gives them away.
    """
    if answer.tokens is None:
        return
    if answer.tokens >= sum(len(text.split()) for text in texts):  # quickly told of most
        return
    least = least_tokens(texts)
    if answer.tokens < least:
        raise RejectedInputError(
            f"the server embedded {answer.tokens} tokens of a text of at least {least}: "
            "it cut it silently",
            too_long=True,
        )
