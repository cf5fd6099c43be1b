"""The texts of one shard, equal ones together, and the vectors that they get: by arrays, not row by
row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reembed.records import Vectors, text_hash
from reembed.run.cached import Known

Places = Sequence[int] | npt.NDArray[np.int64]
"""Which of a shard's different texts."""


class ShardTexts:
    """The texts of a shard's rows.

    Attributes:
        hashes: of each row's text.
        place: `(n,) int64`, for each row where its text is among the different ones; -1 if there is
            nothing in it.
        keys, texts: hash and text of each different one, in the order of the rows.
        rows: `(m,) int64`, how many rows have each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.hashes = [text_hash(text) for text in texts]
        different: dict[bytes, int] = {}
        self.texts: list[str] = []
        self.place = np.full(len(texts), -1, np.int64)
        for row, (key, text) in enumerate(zip(self.hashes, texts, strict=True)):
            if text and not text.isspace():
                place = different.setdefault(key, len(different))
                if place == len(self.texts):
                    self.texts.append(text)
                self.place[row] = place
        self.keys = list(different)
        self.rows = np.bincount(self.place[self.place >= 0], minlength=len(different))


class ShardVectors:
    """The vectors of a shard's different texts, as far as there are any.

    Attributes:
        tokens: `(m,) int32`.
        there: `(m,) bool`.
    """

    def __init__(self, texts: int, dimensions: int) -> None:
        self._dimensions = dimensions
        self._vectors: Vectors | None = None
        self.tokens = np.zeros(texts, np.int32)
        self.there = np.zeros(texts, bool)

    def take(self, places: Places, vectors: Vectors, tokens: npt.NDArray[np.int32]) -> None:
        """Put in vectors `(n, d)`; those of all texts in their order are taken as they stand."""
        if len(places) == len(self.there):
            self._vectors = vectors
        else:
            if self._vectors is None:
                self._vectors = np.zeros((len(self.there), self._dimensions), np.float32)
            self._vectors[places] = vectors
        self.tokens[places] = tokens
        self.there[places] = True

    def recall(self, keys: Sequence[bytes], known: Known) -> npt.NDArray[np.int64]:
        """Put in what is known already of the texts with these hashes, all of the shard's; returns
        which ones that is."""
        places = np.array([row for row, key in enumerate(keys) if key in known], np.int64)
        if len(places):
            found = [known[keys[place]] for place in places.tolist()]
            vectors = np.stack([vector for vector, _ in found])
            self.take(places, vectors, np.array([tokens for _, tokens in found], np.int32))
        return places

    def of(self, places: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of these texts, `(n, d) float32`, which are all there."""
        if self._vectors is None:
            return np.zeros((0, self._dimensions), np.float32)
        whole = len(places) == len(self._vectors) and bool((np.diff(places) == 1).all())
        return self._vectors if whole else self._vectors[places]
