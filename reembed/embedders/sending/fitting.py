"""From texts to pieces that can be sent: the unusable are rejected, the too long treated as the
manifest says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from reembed.embedders.provider import Limits, Provider
from reembed.embedders.sending.batching import Piece, beginning, cut, spoken
from reembed.embedders.sending.checks import least_tokens
from reembed.embedders.sending.outcome import Rejection, Stats
from reembed.embedders.sending.sizes import Sizes
from reembed.records import unicode_fault

WATCHED, WATCHED_IF_TOLD = 250, 4_000
"""Tokens, by estimate, from which a text goes alone where its server might cut it in silence and
the count in its answer would tell: in a batch, short texts would hide what a long one lost. The
first where nothing is known of the server's limit, the second where it is told (a limit of 8,192
was told and 2,048 served: ollama/ollama #14259)."""

FITS = 0.85
"""Share of the limit up to which a text fits that probably has so many tokens."""

Reject = Callable[[Piece, Rejection], None]


class Fitter:
    """Fits texts to one model.

    Args:
        limits: what is known now, the manifest's `max_tokens` included.
        sizes: what was learnt of the provider.
        stats: truncated texts are counted there.
        find: called with the tokens of the longest text, to learn more of the limits if need be.
    """

    def __init__(
        self,
        provider: Provider,
        limits: Callable[[], Limits],
        on_too_long: Literal["fail", "truncate", "mean"],
        sizes: Sizes,
        stats: Stats,
        find: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._provider = provider
        self._read_limits = limits
        self._on_too_long = on_too_long
        self._exact = provider.exact_tokens
        self._sizes = sizes
        self._stats = stats
        self._find = find
        self._look()

    def _look(self) -> None:
        self._limits = self._read_limits()
        refuses = self._limits.refuses_long or self._sizes.cuts is False
        self._judged = not self._exact and (refuses or self._sizes.trusts_count)
        self._watch: int | None = None
        if self._sizes.trusts_count and not self._exact and not refuses:
            known = self._limits.max_tokens is not None
            self._watch = max(self._sizes.whole, WATCHED_IF_TOLD if known else WATCHED)

    def pieces(self, texts: Sequence[str], prefix: str, reject: Reject) -> list[Piece]:
        """What to send for `texts`, in their order; each text that cannot be sent is rejected."""
        usable = [index for index, text in enumerate(texts) if _usable(index, text, reject)]
        counts = self._provider.count_tokens([prefix + texts[index] for index in usable])
        if len(counts):
            self._find(int(counts.max()))
            self._look()
        limit = self._limits.max_tokens
        pieces = []
        for index, tokens in zip(usable, counts.tolist(), strict=True):
            if limit is None or tokens <= limit:
                alone = self._watch is not None and tokens > self._watch
                pieces.append(Piece(index, prefix, texts[index], tokens, alone=alone))
            else:
                whole = Piece(index, prefix, texts[index], tokens)
                pieces += self._too_long(whole, limit, reject)
        return pieces

    def whole(self, texts: Sequence[str], prefix: str, reject: Reject) -> list[Piece]:
        """As `pieces`, each text as it is, to be judged by nobody."""
        counts = self._provider.count_tokens([prefix + text for text in texts]).tolist()
        return [
            Piece(index, prefix, text, counts[index], cut=True)
            for index, text in enumerate(texts)
            if _usable(index, text, reject)
        ]

    def shortened(self, text: str, prefix: str, limit: int | None) -> str:
        """As much of `text` as `limit` tokens hold after `prefix`."""
        return text if limit is None else beginning(text, limit, self._counter(prefix))

    def _counter(self, prefix: str) -> Callable[[str], int]:
        return lambda body: int(self._provider.count_tokens([prefix + body])[0])

    def is_over(self, text: str, tokens: int) -> bool:
        """Whether a text of so many tokens, prefix included, is too long for certain."""
        limit = self._limits.max_tokens
        return limit is not None and tokens > limit and not self._may_fit(text, tokens, limit)

    def _may_fit(self, text: str, tokens: int, limit: int) -> bool:
        """Whether only an estimate says that a text is too long, and the provider will judge."""
        surely = self._sizes.surely_long(tokens)
        return self._judged and not surely and least_tokens([text]) <= limit

    def _too_long(self, whole: Piece, limit: int, reject: Reject) -> list[Piece]:
        """A text above `limit` by `on_too_long`; as it is where only an estimate says so and the
        provider's refusal, or its own count, will tell the truth."""
        if self._may_fit(whole.text, whole.tokens, limit):
            # The provider's own counts of other texts tell by how much our estimate is above.
            return [replace(whole, alone=self._sizes.likely(whole.tokens) > FITS * limit)]
        count = self._counter(whole.prefix)
        if self._on_too_long == "fail" or count("") >= limit:
            how = "" if self._exact else " by estimate"
            detail = f"{whole.tokens:,} tokens{how}, the model takes {limit:,}"
            reject(whole, Rejection("too_long", detail))
            return []
        if self._on_too_long == "truncate":
            bodies = [beginning(whole.body, limit, count)]
            self._stats.add(truncated=1)
        else:
            bodies = spoken(cut(whole.body, limit, count))
        return [replace(whole, body=body, tokens=count(body), cut=True) for body in bodies]


def _usable(index: int, text: str, reject: Reject) -> bool:
    """An empty text has no meaning to embed, though some servers give it a vector."""
    detail = ""
    if not text:
        detail = "the text is empty"
    elif fault := unicode_fault(text):
        detail = f"the text is not valid Unicode: {fault}"
    if detail:
        reject(Piece(index, "", "", 0), Rejection("refused", detail))
    return not detail
