"""What a request to an OpenAI-like server holds beside texts and model: the optional parameters.

Servers refuse what they do not know, each in its own words, or answer with an error of their own or
with nothing, some with a status that is final (501, 415). So a parameter that a refusal names, or
that nothing was ever answered with, is left out, one after another; where that helps nothing, all
are sent again. What comes back is checked against the manifest all the same.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.embedders.sending.retry import BadAnswer
from reembed.errors import ProviderRefusedError

FORMATS = ("base64", "float", "none")
"""Of `encoding_format`: the quickest first, and last without the parameter."""
_NAMES_DIMENSIONS = ("dimension", "matryoshka")
_NAMES_FORMAT = ("encoding_format", "encoding format", "base64")
_NAMES_SOME = (
    "extra", "unexpected", "unknown", "unrecognized", "unrecognised", "unsupported",
    "not supported", "additional propert", "not permitted", "not allowed", "invalid parameter",
    "drop_params",
)  # fmt: skip


@dataclass
class RequestShape:
    """Threads share it.

    Attributes:
        dimensions: sent, unless None.
        encoding_format: of FORMATS.
        fixed: nothing is ever left out: the server is known to take it.
    """

    dimensions: int | None
    encoding_format: str
    fixed: bool = False
    _answered: bool = False
    _whole: tuple[int | None, str] = field(init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._whole = self.dimensions, self.encoding_format

    def parameters(self) -> dict[str, object]:
        """What to send beside texts and model."""
        chosen: dict[str, object] = {}
        if self.dimensions is not None:
            chosen["dimensions"] = self.dimensions
        if self.encoding_format != "none":
            chosen["encoding_format"] = self.encoding_format
        return chosen

    def succeeded(self) -> None:
        """A request of this shape was answered with vectors."""
        self._answered = True

    def leave_out(self, sent: dict[str, object], error: Exception) -> bool:
        """Whether to ask again without what `error` may be about.

        Args:
            sent: the parameters of the request that failed.
        """
        if self.fixed:
            return False
        with self._lock:
            if self.parameters() != sent:
                return True  # another thread has left something out meanwhile
            if self._leave_out(error):
                return True
            if not (self._answered or isinstance(error, TransientError)):
                self.dimensions, self.encoding_format = self._whole  # it was about none of them
            return False

    def _leave_out(self, error: Exception) -> bool:
        words, first = str(error).lower(), not self._answered
        if isinstance(error, TransientError) and not (first and _odd(error)):
            return False
        if self.dimensions is not None and _names(words, _NAMES_DIMENSIONS):
            self.dimensions = None
            return True
        named, doubted = _names(words, _NAMES_FORMAT), first and _doubted(error)
        refusal = isinstance(error, RejectedInputError | TransientError) or (
            isinstance(error, ProviderRefusedError) and first and (named or doubted)
        )
        if refusal and (named or doubted) and self.encoding_format != FORMATS[-1]:
            self.encoding_format = FORMATS[FORMATS.index(self.encoding_format) + 1]
            return True
        passing = isinstance(error, TransientError) and not _names(words, _NAMES_SOME)
        if refusal and doubted and not passing and self.dimensions is not None:
            self.dimensions = None
            return True
        return False


def _odd(error: TransientError) -> bool:
    """Whether a failure may come from a parameter: no answer that can be read, or a plain 500."""
    return error.unknown or isinstance(error, BadAnswer) or str(error).startswith("500")


def _doubted(error: Exception) -> bool:
    """Whether the failure of a first request, a plain sentence, may come from a parameter that it
    does not name. What a text may be too long for, no parameter is to blame for."""
    if isinstance(error, RejectedInputError):
        return not (error.too_long or error.too_large)
    return isinstance(error, TransientError) or getattr(error, "of_form", False)


def _names(words: str, parts: tuple[str, ...]) -> bool:
    return any(part in words for part in parts)
