"""Each different text is sent once: equal ones of a call together, and those of a command's calls,
whose answers are kept in memory until the command ends.

What a call has bound for itself (`on_batch`) is not kept here, for whoever bound it keeps it; it
takes what is here instead, so that a later check of it asks the model anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

import numpy as np

from reembed.embedders.provider import Counts
from reembed.embedders.sending.call import Embedded, OnBatch
from reembed.embedders.sending.manner import Manner
from reembed.embedders.sending.outcome import Rejection
from reembed.records import Vectors

MOST_BYTES = 1 << 26
"""Of vectors that are kept at a time; a text that comes while so many are is not remembered."""

Send = Callable[[Sequence[str], str, Manner, OnBatch | None], Embedded]
Known = tuple[Vectors, int] | Rejection
"""The vector `(d,) float32` of a text with its tokens, or why it has none."""
Key = tuple[bool, bytes]
"""Whether it is a query that the provider embeds another way than a document, and the SHA-256 of
what is sent: texts may be long, and nothing bounds their size."""


class Recall:
    """See the module. Threads share it.

    Args:
        send: embeds texts with a prefix; its `on_batch` may be None.
        keeps: False to remember nothing from one call to the next.
        alike: whether the provider embeds queries as it does documents.
    """

    def __init__(self, send: Send, *, keeps: bool, alike: bool) -> None:
        self._send, self.keeps, self._alike = send, keeps, alike
        self._documents: dict[Key, Known] = {}
        self._queries: dict[Key, Known] = {}  # no control sentence went with them
        self._marks: set[int] = set()
        """Python's own hashes of what is remembered: most texts are not, and are told so by it."""
        self._width = 0
        self._lock = threading.Lock()

    def embed(
        self, texts: Sequence[str], prefix: str, manner: Manner, on_batch: OnBatch | None = None
    ) -> Embedded:
        """As `Embedder.embed_documents`."""
        different = Distinct(texts)
        if not different.repeats:
            return self._embed(texts, prefix, manner, on_batch)
        told = different.on_batch(on_batch) if on_batch else None
        return different.expanded(self._embed(different.texts, prefix, manner, told))

    def forget(self) -> None:
        """Forget all: perhaps another model answers now."""
        with self._lock:
            self._documents.clear()
            self._queries.clear()
            self._marks.clear()

    def _embed(
        self, texts: Sequence[str], prefix: str, manner: Manner, on_batch: OnBatch | None
    ) -> Embedded:
        if not (self.keeps and texts):
            return self._send(texts, prefix, manner, on_batch)
        known = self._find(texts, prefix, manner, take=on_batch is not None)
        if not known:
            sent = self._send(texts, prefix, manner, on_batch)
            if on_batch is None:
                self._keep(texts, prefix, manner, sent)
            return sent
        rest = [row for row in range(len(texts)) if row not in known]
        whole = self._of_known(len(texts), known)
        given = [row for row in known if row not in whole.rejected]
        if on_batch and given:
            on_batch(given, whole.vectors[given], whole.tokens[given])
        if rest:
            told = _of_rows(on_batch, rest) if on_batch else None
            asked = [texts[row] for row in rest]
            sent = self._send(asked, prefix, manner, told)
            if on_batch is None:
                self._keep(asked, prefix, manner, sent)
            whole.vectors[rest], whole.tokens[rest] = sent.vectors, sent.tokens
            whole.rejected |= {rest[index]: why for index, why in sent.rejected.items()}
        return whole

    def _of_known(self, count: int, known: dict[int, Known]) -> Embedded:
        whole = Embedded(np.zeros((count, self._width), np.float32), np.zeros(count, np.int32))
        for row, one in known.items():
            if isinstance(one, Rejection):
                whole.rejected[row] = one
            else:
                whole.vectors[row], whole.tokens[row] = one
        return whole

    def _find(
        self, texts: Sequence[str], prefix: str, manner: Manner, *, take: bool
    ) -> dict[int, Known]:
        found: dict[int, Known] = {}
        with self._lock:
            for row, text in enumerate(texts):
                if hash(prefix + text) not in self._marks:
                    continue
                key = self._key(manner, prefix + text)
                one = self._documents.pop(key, None) if take else (
                    self._documents.get(key) or self._queries.get(key)
                )  # fmt: skip
                if one is not None:
                    found[row] = one
        return found

    def _keep(self, texts: Sequence[str], prefix: str, manner: Manner, sent: Embedded) -> None:
        with self._lock:
            self._width = sent.vectors.shape[1]
            place = self._queries if manner.query else self._documents
            for row, text in enumerate(texts):
                vector = sent.vectors[row]
                kept = len(self._documents) + len(self._queries)
                if (kept + 1) * vector.nbytes > MOST_BYTES:
                    return
                key = self._key(manner, prefix + text)
                self._marks.add(hash(prefix + text))
                place[key] = sent.rejected.get(row) or (vector.copy(), int(sent.tokens[row]))

    def _key(self, manner: Manner, sent: str) -> Key:
        digest = hashlib.sha256(sent.encode("utf-8", "surrogatepass")).digest()
        return manner.query and not self._alike, digest


def _of_rows(told: OnBatch, rows: Sequence[int]) -> OnBatch:
    def tell(indices: Sequence[int], vectors: Vectors, tokens: Counts) -> None:
        told([rows[index] for index in indices], vectors, tokens)

    return tell


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
