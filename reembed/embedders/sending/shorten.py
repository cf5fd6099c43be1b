"""Texts that the provider takes only in part: cut until it does, as `on_too_long` says.

A limit that a refusal tells, or that cutting has found, is remembered, so that the next long text
is cut to it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from reembed.embedders.provider import Provider, RejectedInputError
from reembed.embedders.sending.batching import Piece, beginning, cut, spoken
from reembed.embedders.sending.outcome import Rejection
from reembed.embedders.sending.retry import StillFailing
from reembed.embedders.sending.sender import BadRowsError, Receiver, Sender
from reembed.embedders.sending.sizes import Sizes
from reembed.errors import ProviderRefusedError, QuotaError
from reembed.records import Vectors

SHORTER = 0.7
"""Share of its tokens that a text keeps when the provider says it is still too long; half of that
from the second time on."""


SURELY = 1.3
"""Times a limit from which a text is longer than it, by an estimate scaled to the provider's
counts."""

SURE = 3
"""Texts that are refused whole and taken shorter, while all that are taken whole are shorter than
they: then their length is why, though nobody says so."""


class Shortener:
    """See the module."""

    def __init__(
        self,
        sender: Sender,
        sizes: Sizes,
        provider: Provider,
        on_too_long: Literal["fail", "truncate", "mean"],
    ) -> None:
        self._sender = sender
        self._sizes = sizes
        self._provider = provider
        self._on_too_long = on_too_long
        self._fits = 0
        """Tokens of ours that a text was cut to and taken with."""
        self._pieces_refused: list[int] = []
        self._refused: list[int] = []
        """Tokens of ours of the texts that were taken shorter."""

    def too_long(self, piece: Piece, error: Exception, call: Receiver) -> None:
        """The provider calls a piece too long."""
        told = error.told if isinstance(error, RejectedInputError) else None
        limit = told.limit if told and told.unit in ("tokens", None) else None
        if limit and self._sender.limits().max_tokens is None and limit < piece.tokens:
            self._sizes.learn_text(limit, cuts=False)
        if self._on_too_long == "fail":
            known = self._sender.limits().max_tokens
            numbers = f" (about {piece.tokens:,} tokens" + (f", limit {known:,})" if known else ")")
            return call.reject(piece, Rejection("too_long", f"{error}{numbers}"))
        budget = limit or self._sender.limits().max_tokens
        if told and told.limit and told.unit == "bytes":
            budget = int(piece.tokens * told.limit / max(1, len(piece.text.encode())))
        if self._try_shorter(piece, budget, call):
            self._learn(piece, sure=1)
        else:
            detail = f"{error}; no shorter piece of it was taken"
            call.reject(piece, Rejection("too_long", detail))
        return None

    def _learn(self, piece: Piece, sure: int) -> None:
        """A piece was refused whole and taken shorter: the limit lies between, if `sure` texts say
        so and none speaks against it."""
        if piece.cut:
            self._lower(piece)
            return
        self._refused.append(piece.tokens)
        least, taken = min(self._refused), max(self._fits, self._sizes.longest_taken)
        if len(self._refused) < sure or taken >= least:
            return
        if self._sender.limits().max_tokens is None:
            most = self._sizes.as_counted(taken)
            self._sizes.learn_text(most, cuts=False, refused=least)
        elif self._sizes.refused is not None and least < self._sizes.refused:
            self._sizes.learn_text(None, cuts=False, refused=least)

    def _lower(self, piece: Piece) -> None:
        """A piece that was cut to a limit learnt here was refused, too: texts differ in how many
        tokens our estimate gives them, so after the second one the limit is lower."""
        if self._sizes.refused is None:
            return
        self._pieces_refused.append(piece.tokens)
        if len(self._pieces_refused) > 1:
            most = int(SHORTER * min(self._pieces_refused))
            self._sizes.learn_text(self._sizes.as_counted(most), cuts=False)
            self._pieces_refused.clear()

    def cut(self, piece: Piece, limit: int) -> list[Piece] | None:
        """What to send of a piece that is surely longer than a limit that was learnt since it was
        fitted; None to let the provider judge it whole."""
        if piece.cut or self._on_too_long == "fail":
            return None
        surely = self._sizes.surely_long(piece.tokens) or (
            piece.tokens > limit
            and (self._provider.exact_tokens or self._sizes.likely(piece.tokens) > SURELY * limit)
        )
        count = self._counter(piece)
        if not surely or count("") >= limit:
            return None
        if self._on_too_long == "truncate":
            self._sender.stats.add(truncated=1)
            bodies = [beginning(piece.body, limit, count)]
        else:
            bodies = spoken(cut(piece.body, limit, count))
        return [replace(piece, body=body, tokens=count(body), cut=True) for body in bodies]

    def _counter(self, piece: Piece) -> Callable[[str], int]:
        return lambda body: int(self._provider.count_tokens([piece.prefix + body])[0])

    def maybe_too_long(self, piece: Piece, words: str, call: Receiver) -> None:
        """The provider refuses a piece and does not say why: its length may be it."""
        if self._try_shorter(piece, self._sender.limits().max_tokens, call):
            self._learn(piece, sure=SURE)
        else:
            call.reject(piece, Rejection("refused", words))

    def _try_shorter(self, piece: Piece, budget: int | None, call: Receiver) -> bool:
        """Cut a piece until the provider takes what is left. False if it takes nothing."""
        count = self._counter(piece)
        for tokens in self._budgets(piece, budget, count("")):
            if self._on_too_long == "truncate":
                bodies = [beginning(piece.body, tokens, count)]
            else:
                bodies = spoken(cut(piece.body, tokens, count))
            parts = [replace(piece, body=body, tokens=count(body), cut=True) for body in bodies]
            vectors = self._ask(parts, call)
            if vectors is None:
                continue
            self._fits = max(self._fits, tokens)
            if self._on_too_long == "truncate":
                if not piece.cut:
                    self._sender.stats.add(truncated=1)
                call.deliver(parts, np.stack(vectors))
            else:
                weights = [part.tokens for part in parts]
                merged = weighted_mean(np.stack(vectors), weights)
                call.deliver([replace(piece, tokens=sum(weights))], merged[None])
            return True
        return False

    def _budgets(self, piece: Piece, told: int | None, fixed: int) -> Iterator[int]:
        """Token counts to try, from the one most likely to fit, each smaller than the last."""
        last = piece.tokens
        for known in (told, self._fits):
            if known and fixed < known < last:
                last = known
                yield known
        share = SHORTER
        while (last := int(last * share)) > fixed:
            yield last
            share = SHORTER - 0.2

    def _ask(self, parts: list[Piece], call: Receiver) -> list[Vectors] | None:
        """A vector of each part, None if one is not taken."""
        vectors = []
        for part in parts:
            try:
                vectors.append(self._sender.ask([part], call, 2).vectors[0])
            except QuotaError:
                raise
            except (RejectedInputError, ProviderRefusedError, StillFailing, BadRowsError):
                return None
        return vectors


def weighted_mean(vectors: Vectors, weights: list[int]) -> Vectors:
    """The token-weighted mean of `(n, d)` vectors, `(d,) float32`; of length one if they all are.

    The mean of chunks that OpenAI's cookbook gives for long texts ("Embedding texts that are longer
    than the model's maximum context length").
    """
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    if np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        mean /= max(float(np.linalg.norm(mean)), 1e-30)
    return mean.astype(np.float32)
