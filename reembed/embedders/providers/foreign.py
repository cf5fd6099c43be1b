"""What an exception of someone else's code means: a function of the user's, a Chroma embedding
function, a library that raises what it likes."""

from __future__ import annotations

import traceback
from pathlib import Path

from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.embedders.providers import http as wire
from reembed.embedders.redact import redact

_CONNECTION = ("TransportError", "APIConnectionError", "ConnectionError", "Timeout")
"""Classes of httpx, openai, requests; by name, since none of them need be installed."""


def meaning(error: Exception, where: str, key_variable: str = "the environment") -> Exception:
    """The error of the Provider protocol that `error` stands for.

    By HTTP status where it carries one; OSErrors and broken connections may pass; anything else is
    taken as a refusal of the texts, and one plain sentence will tell whether it is.
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = redact(f"{type(error).__name__}: {error}{line}")
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", getattr(response, "status_code", None))
    if isinstance(status, int):
        return wire.failure(status, words, getattr(response, "headers", {}), where, key_variable)
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) or names.intersection(_CONNECTION):
        return TransientError(f"{where} raised {words}")
    return RejectedInputError(f"{where} raised {words}")
