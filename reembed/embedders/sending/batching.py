"""From texts to requests: pieces, prefixes, cutting, packing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
    a single character above `max_tokens` makes a piece of its own.
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


def pack(pieces: Sequence[Piece], limits: Limits, workers: int = 1) -> list[list[Piece]]:
    """Pieces in batches within `limits`, every piece once.

    For a `padded` model the longest come first and a batch's size is its longest times its count,
    which is what the model works through. Otherwise the order stays, and where `workers` requests
    run at once, no batch is larger than a worker's share.
    """
    batches: list[list[Piece]] = [[piece] for piece in pieces if piece.alone]
    queue = [piece for piece in pieces if not piece.alone]
    items = limits.batch_items
    if limits.padded:
        queue.sort(key=lambda piece: -piece.tokens)
    elif workers > 1:
        items = min(items, max(MIN_SHARE, -(-len(queue) // workers)))
    batch: list[Piece] = []
    total = longest = 0
    for piece in queue:
        longest_then = max(longest, piece.tokens)
        size = longest_then * (len(batch) + 1) if limits.padded else total + piece.tokens
        full = len(batch) >= items or (
            limits.batch_tokens is not None and size > limits.batch_tokens
        )
        if batch and full:
            batches.append(batch)
            batch, total, longest = [], 0, 0
        batch.append(piece)
        total += piece.tokens
        longest = max(longest, piece.tokens)
    if batch:
        batches.append(batch)
    return batches
