"""How large a request may be: what the provider tells, and what its refusals have taught.

A limit that a refusal names is taken as it is; one that nobody names lies between the largest
request that passed and the smallest that did not, and is searched for with requests that are due
anyway. What is learnt holds for the whole run, and `Learnt` keeps it for the run's next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from reembed.embedders.provider import Limits, Told
from reembed.embedders.sending.batching import Piece
from reembed.run.learnt import Learnt

Measure = Literal["items", "tokens"]
UNITS = {"items": "texts", "tokens": "tokens by estimate"}
CLOSE = 4
"""A limit is found once it is known to a quarter."""
NEAR = 0.8
"""Share of the most that is sent from which a request shows that more may be."""
SPARE = 0.97
"""Share of a told limit that is used where our count has to be scaled to the provider's."""
MARGIN = 1.1
"""How much more than the most seen so far the provider may count for a token of ours."""


REQUEST_OPTIONS: dict[str, dict[Measure, str]] = {
    "openai": {"items": "model.options.batch_items", "tokens": "model.options.batch_tokens"},
    "ollama": {"items": "model.options.batch_items"},
    "python": {"items": "model.options.batch_items"},
}
"""What sets the size of a request, by provider."""


@dataclass(frozen=True)
class Memory:
    """What is learnt of a provider, where it is kept, and who is told of it."""

    learnt: Learnt = field(default_factory=Learnt)
    note: Callable[[str], None] = lambda _: None


@dataclass
class Bounds:
    """Of one measure: the largest request that passed, the smallest that was too large, and what
    is sent at most; None where there is no limit. `grows`: it may be searched for upwards."""

    good: int = 0
    bad: int | None = None
    most: int | None = None
    grows: bool = False

    def fail(self, size: int, told: int | None, grows: bool) -> None:
        self.bad = size if self.bad is None else min(self.bad, size)
        if told is not None and told < size:
            self.most, self.grows = max(1, told), False
            return
        self.good = min(self.good, self.bad - 1)
        self.grows = grows
        self.most = self._between() if grows or not self.good else self.good

    def succeed(self, size: int) -> None:
        self.good = max(self.good, size)
        if self.grows and self.most is not None and size >= NEAR * self.most:
            self.most = max(self.most, self._between())

    def _between(self) -> int:
        assert self.bad is not None, "nothing has failed"
        if self.good and self.bad - self.good <= max(1, self.good // CLOSE):
            return self.good
        return max(1, (self.good + self.bad) // 2)


class Sizes:
    """See the module. Threads share it.

    Args:
        learnt: what earlier calls of the run have learnt, and where it is kept.
        key: names provider, model and address in it.
        note: told once of each limit that is learnt.
        settings: the manifest keys that set a request's items and tokens, where there are such.
    """

    def __init__(
        self,
        learnt: Learnt,
        key: str,
        note: Callable[[str], None] = lambda _: None,
        settings: dict[Measure, str] | None = None,
    ) -> None:
        self._learnt, self._key, self._note = learnt, key, note
        self._settings = settings or {}
        self._lock = threading.Lock()
        kept = learnt.of(key)
        self._bounds: dict[Measure, Bounds] = {
            "items": _bounds(kept.get("items")), "tokens": _bounds(kept.get("tokens")),
        }  # fmt: skip
        self._told = {name for name in self._bounds if name in kept}
        self.text_tokens: int | None = kept.get("text_tokens")
        """Tokens that one text may have, as the server counts or cuts."""
        self.cuts: bool | None = kept.get("cuts")
        """Whether it cuts a longer text in silence; None where that is not known."""
        self.refused: int | None = kept.get("refused")
        """Tokens by estimate from which a text was refused whenever it was tried, if it was."""
        self.whole: int = kept.get("whole", 0)
        """Tokens by estimate that a text may have and is known to be taken whole."""
        self._probed: int | None = kept.get("probed")
        self.trusts_count = False
        """Whether the count in the provider's answers is one of tokens."""
        self.longest_taken = 0
        """Tokens by estimate of the longest text that was taken whole."""
        self._ratio = 0.0
        self._largest = 0

    def within(self, told: Limits) -> Limits:
        """`told` and what is learnt together."""
        items, tokens = self._bounds["items"].most, self._bounds["tokens"].most
        if items is not None:
            told = replace(told, batch_items=min(told.batch_items, items))
        if tokens is not None:
            told = replace(told, batch_tokens=min(told.batch_tokens or tokens, tokens))
        return replace(told, max_tokens=told.max_tokens or self.text_tokens)

    def proven(self, batch: Sequence[Piece]) -> bool:
        """Whether a request half as large has passed: until then one is tried alone, so that a
        limit is found once and not by all workers together."""
        if len(batch) == 1:
            return True
        return len(batch) <= 2 * self._largest and not self.suspects(batch)

    def passed(self, batch: Sequence[Piece]) -> None:
        with self._lock:
            self._largest = max(self._largest, len(batch))
            taken = (piece.tokens for piece in batch if not piece.cut)
            self.longest_taken = max(self.longest_taken, max(taken, default=0))
            for measure, size in _sizes(batch).items():
                self._bounds[measure].succeed(size)

    def suspects(self, batch: Sequence[Piece]) -> bool:
        """Whether a limit is being searched for and this request may be above it."""
        return any(
            bounds.grows and size > bounds.good
            for bounds, size in ((self._bounds[m], s) for m, s in _sizes(batch).items())
        )

    def too_large(self, batch: Sequence[Piece], told: Told, *, slow: bool = False) -> None:
        """A request was too large: the next ones are smaller.

        Args:
            slow: it ended by a time-out, so that it is dear to try again.
        """
        with self._lock:
            sizes = _sizes(batch)
            measure: Measure = "tokens" if told.unit in ("tokens", "bytes") else "items"
            if told.unit is None and self._bounds["items"].good >= sizes["items"]:
                measure = "tokens"  # as many texts have passed, so it is not their number
            size, limit = sizes[measure], told.limit
            if limit is not None and measure == "tokens":
                limit = self._scaled(limit, size, told)
            self._bounds[measure].fail(size, limit, grows=not slow)
            most = self._bounds[measure].most
            self._keep(**{measure: vars(self._bounds[measure])})
            if measure in self._told:
                return
            self._told.add(measure)
        setting = self._settings.get(measure)
        advice = f"; write {setting}: {most} to avoid finding that out again" if setting else ""
        self._note(
            f"a request of {size:,} {UNITS[measure]} is too large for the provider: {most:,} are "
            f"sent at most from now on{advice}"
        )

    def takes_one(self) -> None:
        """A text was taken alone that was refused beside another one: one goes at a time."""
        with self._lock:
            bounds = self._bounds["items"]
            bounds.good, bounds.bad, bounds.most, bounds.grows = 1, 2, 1, False
            self._keep(items=vars(bounds))

    def _scaled(self, limit: int, size: int, told: Told) -> int | None:
        """A limit in the provider's tokens or bytes as one in ours."""
        if told.requested:
            return int(size * limit / told.requested * SPARE)
        if told.unit == "tokens" and self._ratio:
            return int(limit / (self._ratio * MARGIN))
        return limit if told.unit == "tokens" else None

    def counted(self, ours: int, theirs: int | None) -> None:
        """The provider counted `theirs` for what we estimate as `ours`."""
        if theirs and ours:
            self._ratio = max(self._ratio, theirs / ours)

    def likely(self, tokens: int) -> float:
        """What the provider will count at most, probably, for `tokens` of ours."""
        return tokens * min(1.0, self._ratio * MARGIN) if self._ratio else tokens

    def as_counted(self, tokens: int) -> int:
        """About what the provider counts for `tokens` of ours."""
        return max(1, int(tokens * min(1.0, self._ratio))) if self._ratio else tokens

    def surely_long(self, tokens: int) -> bool:
        """Whether a text of so many tokens by estimate need not be tried whole."""
        return self.refused is not None and tokens >= self.refused

    def learn_text(
        self, tokens: int | None, *, cuts: bool | None, whole: int = 0, refused: int | None = None
    ) -> None:
        """How long one text may be was told or found.

        Args:
            tokens: the limit; None where it was not found.
            cuts: whether longer texts are cut in silence.
            whole: tokens by our estimate that were taken whole.
            refused: such tokens that were not.
        """
        with self._lock:
            self.text_tokens = tokens or self.text_tokens
            self.cuts = cuts if cuts is not None else self.cuts
            self.whole = max(self.whole, whole)
            self.refused = refused or self.refused
            self._keep(
                text_tokens=self.text_tokens, cuts=self.cuts, whole=self.whole,
                refused=self.refused,
            )  # fmt: skip

    def probed_at(self, limit: int | None) -> int | None:
        """The tokens that a probe may have: those of the run's first probes. What is learnt later
        must not make another text of one, or the model would seem to have changed."""
        with self._lock:
            if self._probed is None:
                self._probed = limit or 0
                self._keep(probed=self._probed)
            return self._probed or None

    def _keep(self, **fields: Any) -> None:
        self._learnt.keep(self._key, **fields)


def _sizes(batch: Sequence[Piece]) -> dict[Measure, int]:
    return {"items": len(batch), "tokens": sum(piece.tokens for piece in batch)}


def _bounds(kept: Any) -> Bounds:
    try:
        return Bounds(**kept)
    except TypeError:  # nothing is kept, or a damaged file
        return Bounds()
