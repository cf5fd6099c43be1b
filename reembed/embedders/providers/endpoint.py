"""Where under `model.base_url` a server's embeddings are: with `/v1` or without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.errors import ProviderRefusedError
from reembed.redaction import shown_url

T = TypeVar("T")

TAIL = "/embeddings"
_NO_PATH = re.compile(r"\b40[45]\b|unexpected endpoint|(page|path|route|url) not found", re.I)


class Endpoint:
    """The address to post to. While nothing has answered there, the address with `/v1`, or without
    it where `base_url` has it, is tried after the first says that it is not there.

    Args:
        base_url: without a query; it may end in TAIL.
        fixed: it is right as it stands.
    """

    def __init__(self, base_url: str, fixed: bool) -> None:
        self.base = base_url.rstrip("/").removesuffix(TAIL)
        self._known = fixed
        self._moved = False

    @property
    def found(self) -> str | None:
        """The base URL that was found in place of the one given, None if that is right."""
        return shown_url(self.base) if self._moved else None

    def post(self, send: Callable[[str], T]) -> T:
        """`send()` of the address; raises what it raises there."""
        try:
            answer = send(self.base + TAIL)
        except (ProviderRefusedError, TransientError) as error:
            if self._known or not _NO_PATH.search(str(error)):
                raise
            first = error
        else:
            self._known = True
            return answer
        other = self.base.removesuffix("/v1")
        other = f"{other}/v1" if other == self.base else other
        try:
            answer = send(other + TAIL)
        except RejectedInputError:  # it is there, and minds something else
            self.base, self._known, self._moved = other, True, True
            raise
        except Exception:
            raise first from None
        self.base, self._known, self._moved = other, True, True
        return answer
