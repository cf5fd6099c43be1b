"""Each different text of a call is embedded once, and its vector given to all that are equal."""

from __future__ import annotations

from collections.abc import Sequence

from reembed.embedders.provider import Counts
from reembed.embedders.sending.call import Embedded, OnBatch
from reembed.records import Vectors


class Distinct:
    """The different ones of some texts, in the order in which they first come."""

    def __init__(self, texts: Sequence[str]) -> None:
        places: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(text, []).append(place)
        self.texts = list(places)
        self._places = list(places.values())
        self._count = len(texts)

    @property
    def repeats(self) -> bool:
        """Whether any text comes twice."""
        return len(self.texts) < self._count

    def on_batch(self, told: OnBatch) -> OnBatch:
        """`told`, called with the places of all texts instead of the different ones."""

        def tell(indices: Sequence[int], vectors: Vectors, tokens: Counts) -> None:
            rows = [row for row, index in enumerate(indices) for _ in self._places[index]]
            told([place for index in indices for place in self._places[index]],
                 vectors[rows], tokens[rows])  # fmt: skip

        return tell

    def expanded(self, embedded: Embedded) -> Embedded:
        """The result for all texts."""
        rows = [0] * self._count
        for row, places in enumerate(self._places):
            for place in places:
                rows[place] = row
        rejected = {
            place: rejection
            for row, rejection in embedded.rejected.items()
            for place in self._places[row]
        }
        return Embedded(embedded.vectors[rows], embedded.tokens[rows], rejected)
