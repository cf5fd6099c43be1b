"""Texts that are counted first and embedded then are made into tokens once: it takes as long as all
else that a small model does with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reembed.embedders.provider import Counts
from reembed.embedders.providers.tokens import TextTokenizer

Ids = npt.NDArray[np.int32]
"""The ids of a text's tokens, `(t,)`."""

MOST_TOKENS = 1 << 22
"""Of texts that wait to be embedded, 16 MB beside the texts themselves; those of two shards of
5,000 records are half as many. A text that finds no room is made into tokens again."""


class CountedTexts:
    """Remembers the tokens of texts from when they are counted until they are embedded. Threads may
    share one.

    Args:
        special: whether the model's special tokens are among them.
    """

    def __init__(self, tokenizer: TextTokenizer, *, special: bool = True) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._waiting: dict[str, tuple[int, Ids]] = {}
        """By text the number of the call that counted it, and its ids; the oldest first."""
        self._tokens = self._calls = 0
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text, `(n,) int32`."""
        counts = np.zeros(len(texts), np.int32)
        with self._lock:
            self._calls += 1
            call = self._calls
            known = [self._waiting.get(text) for text in texts]
        new = []
        for row, one in enumerate(known):
            if one is None:
                new.append(row)
            else:
                counts[row] = len(one[1])
        made = self._tokenizer.ids([texts[row] for row in new], special=self._special)
        for row, ids in zip(new, made, strict=True):
            counts[row] = len(ids)
            self._keep(texts[row], ids, call)
        return counts

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, which are forgotten then."""
        with self._lock:
            found = [self._waiting.pop(text, None) for text in texts]
            self._tokens -= sum(len(one[1]) for one in found if one is not None)
        lacking = [text for text, one in zip(texts, found, strict=True) if one is None]
        made = self._tokenizer.ids(lacking, special=self._special)
        return [one[1] if one is not None else next(made) for one in found]

    def _keep(self, text: str, ids: Ids, call: int) -> None:
        """Remember a text, and forget for it those that an earlier call counted."""
        with self._lock:
            if text in self._waiting:
                return
            while self._tokens + len(ids) > MOST_TOKENS and self._waiting:
                oldest = next(iter(self._waiting))
                if self._waiting[oldest][0] == call:  # it will be asked for sooner than this one
                    return
                self._tokens -= len(self._waiting.pop(oldest)[1])
            self._waiting[text] = call, ids
            self._tokens += len(ids)
