"""One call of an embedder: workers put results into a queue, the calling thread assembles them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from reembed.embedders.provider import Counts, RejectedInputError, TransientError
from reembed.embedders.sending.batching import Piece
from reembed.embedders.sending.manner import Manner
from reembed.embedders.sending.outcome import Rejection, Stats
from reembed.embedders.sending.retry import StillFailing
from reembed.embedders.sending.shorten import weighted_mean
from reembed.embedders.sending.throttle import Cancelled
from reembed.errors import InterruptedRunError, ReembedError
from reembed.progress import stage
from reembed.records import Vectors, unit

OnBatch = Callable[[Sequence[int], Vectors, Counts], None]
"""`on_batch(indices, vectors, tokens)`: results of some texts, final and paid for."""

GRACE = 10.0
"""Seconds that requests in flight get to end, and their paid vectors to be stored, after a stop."""
_LOOK = 0.1
"""Seconds between two looks of a waiting worker whether its call was stopped."""


@dataclass
class Embedded:
    """What `embed_documents` gives.

    Attributes:
        vectors: `(n, d) float32`, row i for text i; zeros where it was rejected.
        tokens: `(n,) int32` as sent, prefix included; 0 where it was rejected.
        rejected: by index, why a text has no vector.
    """

    vectors: Vectors
    tokens: Counts
    rejected: dict[int, Rejection] = field(default_factory=dict)


@contextlib.contextmanager
def counted(texts: int, on_batch: OnBatch | None) -> Iterator[OnBatch | None]:
    """What is told of each batch: where nobody keeps them, a stage of the command counts them."""
    if on_batch is not None:
        yield on_batch
        return
    with stage("ask the model", texts) as counter:

        def count(done: Sequence[int], vectors: Vectors, tokens: Counts) -> None:
            counter.update(len(done))

        yield count


class Call:
    """The results of one `embed_documents` or `embed_queries`, while they come in.

    `begin`, `collect` and `stop` are for the calling thread, the others for any.
    """

    def __init__(
        self,
        texts: int,
        dimensions: int,
        normalize: bool,
        stats: Stats,
        manner: Manner,
    ) -> None:
        self.result = Embedded(np.zeros((texts, dimensions), np.float32), np.zeros(texts, np.int32))
        self.cancelled = threading.Event()
        self.manner = manner
        self.fitted_to: int | None = None
        self._normalize = normalize
        self._stats = stats
        self._running = 0
        self._deaf = False
        self._missing: dict[int, int] = {}
        self._parts: dict[int, list[tuple[Vectors, int]]] = {}
        self._events: queue.SimpleQueue[Callable[[], list[int]]] = queue.SimpleQueue()

    def begin(self, pieces: Sequence[Piece], workers: int) -> None:
        """`workers` will settle these pieces, and each tell its end."""
        self._running += workers
        for piece in pieces:
            self._missing[piece.index] = self._missing.get(piece.index, 0) + 1

    def deliver(self, pieces: Sequence[Piece], vectors: Vectors) -> None:
        self._events.put(lambda: self._take(pieces, vectors))

    def split(self, piece: Piece, parts: int) -> None:
        """A piece will be delivered in so many parts."""

        def take() -> list[int]:
            self._missing[piece.index] += parts - 1
            return []

        self._events.put(take)

    def reject(self, piece: Piece, rejection: Rejection) -> None:
        def take() -> list[int]:
            self.result.rejected.setdefault(piece.index, rejection)
            return []

        self._events.put(take)

    def passed_on(self) -> None:
        """Wait until what a worker delivered has been passed on: one that ran ahead of that would
        be paid for more than is in flight, and a kill would lose it."""
        taken = threading.Event()

        def take() -> list[int]:
            taken.set()
            return []

        self._events.put(take)
        while not (taken.wait(_LOOK) or self.cancelled.is_set()):
            pass

    def end(self, error: BaseException | None) -> None:
        """Tell the end of a worker."""

        def take() -> list[int]:
            self._running -= 1
            if error is not None and not isinstance(error, Cancelled):
                raise error
            return []

        self._events.put(take)

    def cancel(self) -> None:
        """Make `collect` give up now; see `stop` for what it waits for then."""

        def give_up() -> list[int]:
            raise InterruptedRunError("the embedding was stopped")

        self.cancelled.set()
        self._events.put(give_up)

    def collect(self, on_batch: OnBatch | None) -> None:
        """Assemble until every worker has ended.

        Raises:
            InterruptedRunError: the embedder was closed meanwhile.
            Exception: the first error of a batch, or of `on_batch`.
        """
        while self._running or not self._events.empty():
            self._pass_on(self._events.get()(), on_batch)
        if self.cancelled.is_set():
            raise InterruptedRunError("the embedder was closed while it was embedding")

    def stop(self, on_batch: OnBatch | None) -> None:
        """Cancel what has not begun, and pass on what requests in flight still bring: it is paid
        for. Batches that end with an error of their own add nothing to the first error."""
        self.cancelled.set()
        until = time.monotonic() + GRACE
        while not self._deaf and (self._running or not self._events.empty()):
            try:
                take = self._events.get(timeout=max(0.0, until - time.monotonic()))
                done = take()
            except queue.Empty:
                return
            except (ReembedError, RejectedInputError, TransientError, StillFailing):
                continue
            self._pass_on(done, on_batch)

    def _pass_on(self, done: list[int], on_batch: OnBatch | None) -> None:
        if done and on_batch:
            self._deaf = True  # stays so if on_batch raises: it is not called again
            rows = _together(done)
            on_batch(done, self.result.vectors[rows], self.result.tokens[rows])
            self._deaf = False

    def _take(self, pieces: Sequence[Piece], vectors: Vectors) -> list[int]:
        """Put vectors in their place; the indices of texts that are complete now."""
        done = self._take_whole(pieces, vectors)
        if done is None:
            done = self._take_parts(pieces, vectors)
        if done and self._normalize:
            self.result.vectors[done] = unit(self.result.vectors[done])
        self._stats.add(texts=len(done), tokens=int(self.result.tokens[done].sum()))
        return done

    def _take_whole(self, pieces: Sequence[Piece], vectors: Vectors) -> list[int] | None:
        """All at once, where each piece is a whole text that was not rejected; else None."""
        indices = [piece.index for piece in pieces]
        missing = self._missing
        if any(missing[index] != 1 for index in indices):
            return None
        if not (self._parts.keys().isdisjoint(indices)
                and self.result.rejected.keys().isdisjoint(indices)):  # fmt: skip
            return None
        missing.update(dict.fromkeys(indices, 0))
        rows = _together(indices)
        self.result.vectors[rows] = vectors
        self.result.tokens[rows] = [piece.tokens for piece in pieces]
        return indices

    def _take_parts(self, pieces: Sequence[Piece], vectors: Vectors) -> list[int]:
        done = []
        for piece, vector in zip(pieces, vectors, strict=True):
            index = piece.index
            parts = self._parts.setdefault(index, [])
            parts.append((vector, piece.tokens))
            self._missing[index] -= 1
            if self._missing[index] or index in self.result.rejected:
                continue
            del self._parts[index]
            weights = [tokens for _, tokens in parts]
            if len(parts) > 1:
                vector = weighted_mean(np.stack([part for part, _ in parts]), weights)
            self.result.vectors[index] = vector
            self.result.tokens[index] = sum(weights)
            done.append(index)
        return done


def _together(indices: list[int]) -> list[int] | slice:
    """Rows that follow each other as a slice, which copies nothing."""
    if not indices:
        return indices
    first, end = indices[0], indices[0] + len(indices)
    return slice(first, end) if indices == list(range(first, end)) else indices
