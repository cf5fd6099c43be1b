"""From texts to requests: pieces, prefixes, cutting, packing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from reembed.embedders.provider import Limits

MIN_SHARE = 128
"""Texts below which a request is not made smaller only to keep all workers busy."""


@dataclass(frozen=True)
class Piece:
    """What is sent as one text: a whole text, what truncation left of it, or a part of it.

    Attributes:
        index: the text it belongs to.
        prefix, body: what is sent is `prefix + body`.
        tokens: of `prefix + body`, by the provider's counter.
        cut: text has been left out by truncation already.
        alone: the estimate cannot tell whether it fits: it goes alone and the provider judges.
    """

    index: int
    prefix: str = field(repr=False)
    body: str = field(repr=False)
    tokens: int
    cut: bool = False
    alone: bool = False

    @property
    def text(self) -> str:
        return self.prefix + self.body


def cut(text: str, max_tokens: int, count: Callable[[str], int]) -> list[str]:
    """`text` in consecutive pieces of at most `max_tokens` tokens by `count`, nothing left out.

    A piece ends at white space where there is some in its last quarter. A piece is never empty, so
    a single character above `max_tokens` makes a piece of its own. See `spoken` for what of it is
    sent.
    """
    pieces = []
    rest = text
    while rest:
        end = _fitting(rest, max_tokens, count)
        if end < len(rest):
            space = max(rest.rfind(" ", end * 3 // 4, end), rest.rfind("\n", end * 3 // 4, end))
            if space > 0 and count(rest[: space + 1]) <= max_tokens:
                end = space + 1
        pieces.append(rest[:end])
        rest = rest[end:]
    return pieces


def spoken(pieces: Sequence[str]) -> list[str]:
    """What of a cut text is sent: its pieces without the white space around them, and without those
    that are nothing else. Padding has no meaning to embed, and would weigh as much as words."""
    return [stripped for piece in pieces if (stripped := piece.strip())]


def beginning(text: str, max_tokens: int, count: Callable[[str], int]) -> str:
    """What `on_too_long: truncate` keeps: as much of `text` as `max_tokens` hold."""
    return text[: _fitting(text, max_tokens, count)]


def _fitting(text: str, max_tokens: int, count: Callable[[str], int]) -> int:
    """The length of the longest prefix of `text` found to fit, at least 1 character."""
    high = min(len(text), max_tokens * 4)  # about four characters a token in English
    while count(text[:high]) <= max_tokens:
        if high == len(text):
            return high
        high = min(len(text), high * 2)
    low = 0  # invariant: text[:low] fits, text[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if count(text[:middle]) <= max_tokens:
            low = middle
        else:
            high = middle
    return max(1, low)


class Room:
    """What a request still takes, of texts of so many tokens each.

    Args:
        items: texts that it may hold.
        limits: for the size: see `Queue`.
    """

    def __init__(self, items: int, limits: Limits, padded: bool) -> None:
        self._items, self._most, self._padded = items, limits.batch_tokens, padded
        self.texts = self._total = self._longest = 0

    def take(self, tokens: int) -> bool:
        """Whether one more text goes in; it is in then. The first one always goes."""
        if self.texts >= self._items:
            return False
        longest = tokens if tokens > self._longest else self._longest
        size = longest * (self.texts + 1) if self._padded else self._total + tokens
        if self.texts and self._most is not None and size > self._most:
            return False
        self._longest = longest
        self._total += tokens
        self.texts += 1
        return True


def share_of(texts: int, workers: int, padded: bool) -> int | None:
    """The texts of one request at most where so many are sent by `workers`; None for any number."""
    return None if padded or workers <= 1 else max(MIN_SHARE, -(-texts // workers))


class Queue:
    """Pieces that wait to be sent, from which workers take batches by the limits of the moment.

    For a `padded` model the longest come first and a batch's size is its longest times its count,
    which is what the model works through. Otherwise the order stays, and where `workers` requests
    run at once, no batch is larger than a worker's share.
    """

    def __init__(self, pieces: Sequence[Piece], *, padded: bool = False, workers: int = 1) -> None:
        self._alone = deque(piece for piece in pieces if piece.alone)
        waiting = [piece for piece in pieces if not piece.alone]
        self._share = share_of(len(waiting), workers, padded)
        if padded:
            waiting.sort(key=lambda piece: -piece.tokens)
        self._padded = padded
        self._waiting = deque(waiting)
        self._lock = threading.Lock()
        self.longest = max((piece.tokens for piece in pieces), default=0)
        """Tokens of the longest piece that ever waited."""

    def take(self, limits: Limits, alone: Callable[[Piece], bool] | None = None) -> list[Piece]:
        """The next batch; empty once nothing waits.

        Args:
            alone: tells which pieces turned out to be ones that go alone; default: none.
        """
        items = min(limits.batch_items, self._share or limits.batch_items)
        with self._lock:
            if self._alone:
                return [self._alone.popleft()]
            batch: list[Piece] = []
            room = Room(items, limits, self._padded)
            while self._waiting and len(batch) < items:
                piece = self._waiting[0]
                if alone is not None and alone(piece):
                    self._alone.append(replace(self._waiting.popleft(), alone=True))
                    continue
                if not room.take(piece.tokens):
                    break
                batch.append(self._waiting.popleft())
            if not batch and self._alone:
                batch = [self._alone.popleft()]
            return batch

    def refit(self, cut: Callable[[Piece], list[Piece] | None]) -> list[tuple[Piece, int]]:
        """Replace pieces by what `cut` makes of them. Returns those, each with the number."""
        changed = []
        with self._lock:
            for waiting in (self._alone, self._waiting):
                for piece in list(waiting):
                    waiting.popleft()
                    parts = cut(piece)
                    if parts is None:
                        waiting.append(piece)
                        continue
                    changed.append((piece, len(parts)))
                    waiting.extend(replace(part, alone=False) for part in parts)
        return changed

    def put_back(self, batch: Sequence[Piece]) -> None:
        """Let pieces be taken again, before all others."""
        with self._lock:
            for piece in reversed(batch):
                (self._alone if piece.alone else self._waiting).appendleft(piece)


def pack(pieces: Sequence[Piece], limits: Limits, workers: int = 1) -> list[list[Piece]]:
    """All batches of a `Queue`, where no limit changes meanwhile."""
    queue = Queue(pieces, padded=limits.padded, workers=workers)
    return list(iter(lambda: queue.take(limits), []))


def count_batches(tokens: Sequence[int], limits: Limits, workers: int = 1) -> int:
    """How many batches `pack` makes of whole texts of so many tokens each, without making them."""
    share = share_of(len(tokens), workers, limits.padded)
    items = min(limits.batch_items, share or limits.batch_items)
    room, batches = Room(0, limits, limits.padded), 0
    for size in sorted(tokens, reverse=True) if limits.padded else tokens:
        if not room.take(size):
            room, batches = Room(items, limits, limits.padded), batches + 1
            room.take(size)
    return batches
