"""The tail probe: two texts that differ only at their far end must give different vectors.

Some servers cut a text in silence at fewer tokens than the model takes. What is lost then is the
end, so the end is what is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reembed.records import Vectors

TAIL = 0.05
"""Share of the words that differ."""
LEAST_TOKENS = 64
MOST_TOKENS = 32_768
"""A probe this long is enough for a model that tells no limit."""
FLOOR = 5e-4
"""Relative distance that two calls with the same text may have: servers answer up to 1.6e-4
apart."""
NOISE_TIMES = 4.0

BODY = (
    "river",
    "stone",
    "garden",
    "window",
    "paper",
    "music",
    "winter",
    "bridge",
    "market",
    "table",
)
END_A = ("engine", "metal", "rocket", "fuel", "pressure")
END_B = ("poem", "dance", "honey", "kitten", "summer")


Counts = npt.NDArray[np.int32]
"""Tokens of each text, `(n,) int32`."""


class Embedded(Protocol):
    """What embedding gives: see `embedders.calls.Embedded`."""

    @property
    def vectors(self) -> Vectors: ...

    @property
    def rejected(self) -> Mapping[int, Any]: ...


EmbedTexts = Callable[[Sequence[str]], Embedded]
CountTokens = Callable[[Sequence[str]], Counts]


@dataclass(frozen=True)
class TailProbe:
    """What the probe showed.

    Attributes:
        tokens: of each of the two texts.
        distance: of their vectors, relative to their length.
        noise: distance of two vectors of the same text.
        seen: whether the far end moves the vector; None where the probe could not be made.
    """

    tokens: int
    distance: float
    noise: float
    seen: bool | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"distance": round(self.distance, 6), "noise": round(self.noise, 6)}


def tail_texts(count: CountTokens, limit: int) -> tuple[str, str, int]:
    """Two texts of at most `limit` tokens that differ in their last words, and the tokens of the
    longer one. As long as the limit allows."""
    fewest, most = 2, max(2, limit)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if max(count(_pair(middle)).tolist()) <= limit:
            fewest = middle
        else:
            most = middle - 1
    first, second = _pair(fewest)
    return first, second, int(max(count([first, second]).tolist()))


def _pair(words: int) -> list[str]:
    tail = max(1, round(words * TAIL))
    body = [BODY[i % len(BODY)] for i in range(words - tail)]
    return [" ".join([*body, *(end[i % len(end)] for i in range(tail))]) for end in (END_A, END_B)]


def probe_tail(
    embed: EmbedTexts, count: CountTokens, max_tokens: int | None, longest: int
) -> TailProbe:
    """Probe at the length of the longest text of the run, where the model takes that many tokens.

    Args:
        longest: tokens of the run's longest text: what no text reaches needs no probe.
    """
    limit = min(max(longest, LEAST_TOKENS), MOST_TOKENS)
    if max_tokens is not None:
        limit = min(limit, max_tokens)
    first, second, tokens = tail_texts(count, limit)
    found = embed([first, second, first])
    if found.rejected:
        return TailProbe(tokens, 0.0, 0.0, None)
    a, b, again = (vector.astype(np.float64) for vector in found.vectors)
    length = float(np.linalg.norm(a))
    distance = float(np.linalg.norm(a - b)) / length
    noise = float(np.linalg.norm(a - again)) / length
    return TailProbe(tokens, distance, noise, distance > max(FLOOR, NOISE_TIMES * noise))
