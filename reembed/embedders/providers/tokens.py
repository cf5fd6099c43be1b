"""Counting tokens: with a model's own tokenizer.json, or by an estimate from above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from reembed.embedders.provider import Counts
from reembed.errors import ManifestError

ENCODED_AT_ONCE = 512
"""Texts, enough for all processors."""


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
        counts = [len(one) for one in self._each(texts, special)]
        return np.array(counts, np.int32)

    def ids(self, texts: Sequence[str], *, special: bool = True) -> Iterator[npt.NDArray[np.int32]]:
        """The ids of each text's tokens, `(t,)`."""
        return (np.array(one.ids, np.int32) for one in self._each(texts, special))

    def _each(self, texts: Sequence[str], special: bool) -> Iterator[Encoding]:
        """The encoding of each text, of a few at a time: one takes a hundred bytes a token."""
        for start in range(0, len(texts), ENCODED_AT_ONCE):
            yield from self.encode(texts[start : start + ENCODED_AT_ONCE], special=special)


_UNBROKEN = 40
"""Signs without white space above which a chunk is no words but a hash, base64 or a long URL."""
_AT_ONCE = 1 << 17
"""Bytes that are looked at together, about: memory is bounded."""
_ZERO, _SPACE, _BLANK, _WIDE, _SIGN, _DIGIT, _UPPER, _LOWER = range(8)
"""Kinds of bytes: white space but for the space is `_BLANK`, what is not ASCII `_WIDE`; those from
`_SIGN` on make up unbroken chunks."""


def _kinds() -> bytes:
    kinds = np.full(256, _SIGN, np.uint8)
    kinds[0] = _ZERO
    for first, last, kind in (("a", "z", _LOWER), ("A", "Z", _UPPER), ("0", "9", _DIGIT)):
        kinds[ord(first) : ord(last) + 1] = kind
    kinds[[*b"\t\n\v\f\r\x1c\x1d\x1e\x1f"]] = _BLANK
    kinds[ord(" ")], kinds[0x80:] = _SPACE, _WIDE
    return kinds.tobytes()


_KINDS = _kinds()
"""The kind of each byte."""


def _estimates(texts: Sequence[bytes], letters: int) -> npt.NDArray[np.int64]:
    """Tokens of texts in UTF-8, all looked at as one array that is cut into runs of one kind. The
    zero byte behind each text has no tokens, so a run of such bytes may lie in two texts."""
    kinds = np.frombuffer(b"\0".join([*texts, b""]).translate(_KINDS), np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(kinds[1:] != kinds[:-1]) + 1))
    kind, sizes = kinds[starts], np.diff(starts, append=len(kinds))
    tokens = np.where(kind <= _SPACE, 0, sizes)

    lower, several = kind == _LOWER, sizes > 1
    capital = np.zeros(len(kind), bool)  # a single one belongs to the word that it begins
    capital[:-1] = (kind[:-1] == _UPPER) & ~several[:-1] & lower[1:]
    words = sizes[lower] + np.concatenate(([False], capital[:-1]))[lower]
    tokens[lower], tokens[capital] = -(-words // letters), 0
    pairs = (kind == _DIGIT) | ((kind == _UPPER) & several)
    tokens[pairs] = -(-sizes[pairs] // 2)
    gaps = (kind == _SPACE) & several
    tokens[gaps] = 1 + sizes[gaps] // 16
    _raise_unbroken(tokens, kind, sizes)

    ends = np.searchsorted(starts, np.cumsum([len(text) + 1 for text in texts]))
    summed = np.concatenate(([0], np.cumsum(tokens)))
    return np.diff(summed[ends], prepend=0) + 2


def _raise_unbroken(
    tokens: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]
) -> None:
    """Give long chunks of ASCII four tokens for five signs at least, in place."""
    inside = kind >= _SIGN
    first = np.flatnonzero(inside & ~np.concatenate(([False], inside[:-1])))
    if not len(first):
        return
    signs = np.add.reduceat(np.where(inside, sizes, 0), first)
    counted = np.add.reduceat(np.where(inside, tokens, 0), first)
    tokens[first] += np.where(signs > _UNBROKEN, np.maximum(0, signs * 4 // 5 - counted), 0)


def estimate_tokens(texts: Sequence[str], letters: int = 3) -> Counts:
    """Tokens of each text without a tokenizer, `(n,) int32`, meant to be above the truth.

    Words count a token for each `letters` letters begun, digits one for two, other ASCII signs one
    each, unbroken chunks four for five signs, anything else its UTF-8 bytes, which no byte-pair
    encoding exceeds. Against cl100k_base, with four letters, that is 1.3 to 2 times the truth
    for English and code and three times for Chinese or Russian; only text of random short
    letter strings takes more tokens than this says, up to twice as many. Three letters suit the
    smaller vocabularies of BERT's family.
    """
    found = np.zeros(len(texts), np.int32)
    waiting: list[bytes] = []
    first = size = 0
    for place, text in enumerate(texts, start=1):
        waiting.append(text.encode())
        size += len(waiting[-1])
        if size >= _AT_ONCE or place == len(texts):
            found[first:place] = _estimates(waiting, letters)
            first, size = place, 0
            waiting.clear()
    return found
