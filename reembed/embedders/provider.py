"""What every provider offers: the Provider protocol and the values it speaks in.

A provider turns texts into vectors and nothing else: prefixes, batching, limits, retries, too-long
texts, checks and normalisation are the same for all and live in `embedder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reembed.records import Vectors

Counts = npt.NDArray[np.int32]
"""Tokens of each text, `(n,) int32`."""


@dataclass(frozen=True)
class Limits:
    """What one request may hold.

    Attributes:
        batch_items: texts in a request.
        batch_tokens: tokens summed over a request; None for no such limit.
        max_tokens: tokens of one text; None for no limit or an unknown one.
        concurrency: requests in flight that `concurrency: auto` stands for.
        padded: the model pads a batch to its longest text, so texts of like length go together.
        refuses_long: a longer text is refused by the provider itself, never cut in silence.
        findable: where `max_tokens` is unknown, a few long texts of ours may be sent to find it.
        anonymous: the name does not say which weights are behind it, so that another model may
            answer to the same name and address at any time.
    """

    batch_items: int
    batch_tokens: int | None = None
    max_tokens: int | None = None
    concurrency: int = 1
    padded: bool = False
    refuses_long: bool = False
    findable: bool = False
    anonymous: bool = False


@dataclass(frozen=True)
class RateState:
    """What rate headers say after a request; `reset_*` are seconds until all is free again."""

    remaining_requests: int | None = None
    reset_requests: float | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


@dataclass(frozen=True)
class Answer:
    """A provider's answer to one request.

    Attributes:
        vectors: `(n, d) float32`, row i for text i.
        tokens: what the provider says it counted for the request; None if it says nothing.
        rate: its rate headers, if it sends any.
    """

    vectors: Vectors
    tokens: int | None = None
    rate: RateState | None = None


@dataclass(frozen=True)
class Price:
    """What a model costs. `usd_per_million_tokens` as listed on the day `as_of`."""

    usd_per_million_tokens: float
    as_of: str


@dataclass(frozen=True)
class ModelVersion:
    """What a provider tells of the exact model behind a name, for the fingerprint.

    Attributes:
        digest: identifies the weights (a file's hash, a server's model digest); "" if unknown.
        details: what else can be known, such as the server's version; a change of it is only noted.
    """

    digest: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What a refusal says of a limit; None for what it does not say.

    Attributes:
        limit: the most that is taken.
        requested: what was sent, as the provider counts.
        unit: of both.
    """

    limit: int | None = None
    requested: int | None = None
    unit: Literal["items", "tokens", "bytes"] | None = None


class TransientError(Exception):
    """A request failed in a way that may pass: 408, 409, 429, 5xx, a broken connection, or in words
    that nobody knows.

    Attributes:
        retry_after: seconds the provider asked to wait, None if it said nothing.
        rate_limited: the provider said that requests come too fast.
        unpaid: the provider said that it did not do the work, so it costs nothing.
        busy: it says that it has too much to do, which is never a text's fault.
        unknown: what came is no answer and no error that is known.
        own: a function of the user's raised it, and nothing says that it passes: where a plain
            sentence fails as well, the function is to be mended.
    """

    own = False

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        rate_limited: bool = False,
        unpaid: bool = False,
        *,
        busy: bool = False,
        unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rate_limited = rate_limited
        self.unpaid = unpaid or rate_limited
        self.busy = busy or rate_limited
        self.unknown = unknown


class RejectedInputError(Exception):
    """The provider refused a request because of its content (400): one of its texts is to blame, or
    their number or size.

    Attributes:
        too_long: the provider said that a text is too long.
        too_large: the provider said that the request is too large, in texts, tokens or bytes.
        told: the limit that it named.
        own: as in TransientError.
    """

    def __init__(
        self,
        message: str,
        too_long: bool = False,
        too_large: bool = False,
        told: Told | None = None,
        *,
        own: bool = False,
    ) -> None:
        super().__init__(message)
        self.too_long = too_long
        self.too_large = too_large
        self.told = told or Told()
        self.own = own


class Provider(Protocol):
    """One model behind one API. Its methods may be called from several threads at once.

    `embed` raises TransientError, RejectedInputError, ProviderRefusedError (wrong key, unknown
    model: it will never work) or UnreachableError (nobody answers at all).

    It may have more: `address` (where a server was found that the manifest does not name),
    `batches` (its batch API), `queries_alike` (whether it embeds queries as it does documents, so
    that one vector is both; else False is assumed), `runs_on` (the device of a model in this
    process).
    """

    @property
    def limits(self) -> Limits: ...

    @property
    def price(self) -> Price | None:
        """None where it costs nothing or the price is unknown."""
        ...

    @property
    def normalizes(self) -> bool:
        """What `normalize: auto` means here: whether vectors are scaled to length one by us."""
        ...

    @property
    def exact_tokens(self) -> bool:
        """Whether `count_tokens` counts with the model's own tokenizer or only estimates."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text, special tokens included; an estimate is one from above."""
        ...

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        """Vectors for texts, all within `limits`. `query` matters only to models whose API embeds
        queries another way than documents; prefixes are put before the texts already."""
        ...

    def version(self) -> ModelVersion:
        """What can be known of the model behind the name. Raises as `embed` does."""
        ...

    def warnings(self) -> list[str]:
        """What a plan should tell about this model's settings; each one sentence."""
        ...

    def close(self) -> None: ...
