"""What became of texts: why one has no vector, and what an embedder has done in all."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Rejection:
    """Why a text has no vector: `too_long` or `refused`, with the provider's words or ours."""

    reason: Literal["too_long", "refused"]
    detail: str


@dataclass(frozen=True)
class LimitFound:
    """What a probe found of an unknown server's limit.

    Attributes:
        kind: whether it `cuts` longer texts in silence, `refuses` them, or took all that was sent
            `whole`.
        tokens: the limit; None where it is not known.
        longest: tokens by estimate of the longest text that was to be sent.
    """

    kind: Literal["cuts", "refuses", "whole"]
    tokens: int | None
    longest: int = 0

    def __str__(self) -> str:
        if self.kind == "whole":
            return f"the server takes texts of {self.longest:,} tokens by estimate whole"
        where = f" than {self.tokens:,} tokens" if self.tokens else ""
        what = "cuts longer texts" if not where else "cuts texts longer"
        if self.kind == "refuses":
            what = "refuses longer texts" if not where else "refuses texts longer"
        silence = " silently" if self.kind == "cuts" else ""
        return f"the server {what}{where}{silence}"


@dataclass
class Stats:
    """What an embedder has done so far.

    Attributes:
        requests: requests sent, failed ones too.
        texts: texts that got a vector; pieces of a text count once.
        tokens: of those texts, by our own count.
        reported_tokens: what the provider said it counted, over answered requests; some servers
            say nothing (0) or count characters.
        retries: requests sent again after a failure.
        truncated: texts that `on_too_long: truncate` cut.
        seconds_waiting: summed over threads, for rate limits and before retries.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    reported_tokens: int = 0
    retries: int = 0
    truncated: int = 0
    seconds_waiting: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def to_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
