"""Counting tokens: with a model's own tokenizer.json, or by an estimate from above."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from reembed.embedders.provider import Counts
from reembed.errors import ManifestError


class TextTokenizer:
    """A tokenizer.json that never cuts or pads, whatever the file says.

    Published files often carry `truncation` and `padding` of the day they were saved (128 in
    all-MiniLM-L6-v2, whose limit is 256).
    """

    def __init__(self, path: Path) -> None:
        """Raises ManifestError if `path` is not a tokenizer."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception for every kind of bad file
            raise ManifestError(f"{path}: is not a tokenizer.json: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
        """The encoding of each text, whole; with the model's special tokens or without."""
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)

    def count(self, texts: Sequence[str], *, special: bool = True) -> Counts:
        """Tokens of each text, `(n,) int32`."""
        encodings = self.encode(texts, special=special)
        return np.array([len(encoding.ids) for encoding in encodings], np.int32)


_RUNS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\S ]+| {2,}|[^\x00-\x7f]+|[!-/:-@\[-`{-~]")
_UNBROKEN = 40
"""Signs without white space above which a chunk is no words but a hash, base64 or a long URL."""


def _run_tokens(run: str, letters: int) -> int:
    first = run[0]
    if not first.isascii():
        return len(run.encode("utf-8"))
    if first.isalpha():
        return -(-len(run) // (2 if len(run) > 1 and run.isupper() else letters))
    if first.isdigit():
        return -(-len(run) // 2)
    return 1 + len(run) // 16 if first == " " else len(run)


def _estimate(text: str, letters: int) -> int:
    total = sum(_run_tokens(run, letters) for run in _RUNS.findall(text))
    if len(text) > _UNBROKEN:
        for chunk in text.split():
            if len(chunk) > _UNBROKEN and chunk.isascii():
                counted = sum(_run_tokens(run, letters) for run in _RUNS.findall(chunk))
                total += max(0, len(chunk) * 4 // 5 - counted)
    return total + 2


def estimate_tokens(texts: Sequence[str], letters: int = 3) -> Counts:
    """Tokens of each text without a tokenizer, `(n,) int32`, meant to be above the truth.

    Words count a token for each `letters` letters begun, digits one for two, other ASCII signs one
    each, unbroken chunks four for five signs, anything else its UTF-8 bytes, which no byte-pair
    encoding exceeds. Against cl100k_base, with four letters, that is 1.3 to 2 times the truth
    for English and code and three times for Chinese or Russian; only text of random short
    letter strings takes more tokens than this says, up to twice as many. Three letters suit the
    smaller vocabularies of BERT's family.
    """
    return np.array([_estimate(text, letters) for text in texts], np.int32)
