"""What an exception of someone else's code means: a function of the user's, a Chroma embedding
function, a library that raises what it likes.

Every client tells a failure in a shape of its own, and Chroma's functions wrap some of them into a
ValueError of words. What is looked for here is a status, in the exception or in those it was raised
from: as an attribute, in a response object, in botocore's dictionary, in the words.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reembed.embedders.failures import failure
from reembed.embedders.provider import RejectedInputError, TransientError
from reembed.embedders.redact import redact

_CONNECTION = (
    "TransportError", "APIConnectionError", "ConnectionError", "Timeout", "TimeoutError",
    "HTTPClientError", "TimeoutException", "ServerDisconnectedError", "ClientConnectionError",
)  # fmt: skip
"""Classes of httpx, openai, requests, botocore, aiohttp; by name, since none need be installed."""
_STATUS_NAMES = ("status_code", "http_status", "status", "http_code", "code")
_IN_WORDS = re.compile(
    r"(?:status(?:[ _]code)?|error code|http(?:/\d(?:\.\d)?)?(?: error| status)?|\bcode)\W{0,4}"
    r"([45]\d\d)\b|^\W{0,3}([45]\d\d)\b|\(([45]\d\d)\)|\b([45]\d\d) (?:client|server) error",
    re.IGNORECASE,
)  # fmt: skip
_NAMED = {
    "ThrottlingException": 429, "TooManyRequestsException": 429, "Throttling": 429,
    "RESOURCE_EXHAUSTED": 429, "RateLimitError": 429, "ServiceUnavailableException": 503,
    "ModelNotReadyException": 503, "UNAVAILABLE": 503, "InternalServerException": 500,
    "ModelTimeoutException": 504, "DEADLINE_EXCEEDED": 504, "ValidationException": 400,
    "INVALID_ARGUMENT": 400, "AccessDeniedException": 403, "ExpiredTokenException": 403,
    "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "UnrecognizedClientException": 401,
    "ResourceNotFoundException": 404, "ServiceQuotaExceededException": 402,
}  # fmt: skip
"""Names of errors that stand for a status: botocore's codes, gRPC's, classes."""
_MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
    NotImplementedError, SystemExit, TypeError, ValueError,
    FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
)  # fmt: skip
"""What of Python's own exceptions no wait mends."""


def meaning(
    error: BaseException, where: str, key_variable: str = "the environment", *, own: bool = False
) -> Exception:
    """The error of the Provider protocol that `error` stands for.

    By HTTP status where it carries one anywhere; OSErrors and broken connections may pass, and so
    may all that is not known.

    Args:
        own: the code is the user's. One of `_MISTAKES` is taken as a refusal of the texts, and one
            plain sentence will tell whether it is. What is not known is tried again, but whoever
            wrote the function has to look at it if it stays.
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = redact(f"{type(error).__name__}: {_text(error)}{line}")
    said = f"{where} raised {words}"
    for one in chain(error):
        status = _status(one)
        if status is not None:
            return failure(status, words, _headers(one), where, key_variable)
    if own and isinstance(error, OSError) and isinstance(error, _MISTAKES):
        return RejectedInputError(said, own=True)
    names = {kind.__name__ for one in chain(error) for kind in type(one).__mro__}
    if any(isinstance(one, OSError) for one in chain(error)) or names.intersection(_CONNECTION):
        return TransientError(said)
    if own and isinstance(error, _MISTAKES):
        return RejectedInputError(said, own=True)
    found = failure(None, said, {}, where, key_variable)
    if isinstance(found, TransientError):
        found.own = own and found.unknown
    return found


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from, the outermost first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _status(error: BaseException) -> int | None:
    if isinstance(error, SystemExit):  # its `code` is none of HTTP
        return None
    response = getattr(error, "response", None)
    for place in (error, response):
        for name in _STATUS_NAMES:
            with contextlib.suppress(Exception):  # a property may raise anything
                value = getattr(place, name, None)
                found = _number(value() if callable(value) else value)
                if found is not None:
                    return found
    if isinstance(response, Mapping):  # botocore's
        about, metadata = response.get("Error"), response.get("ResponseMetadata")
        code = about.get("Code") if isinstance(about, Mapping) else None
        if isinstance(code, str) and code in _NAMED:
            return _NAMED[code]
        if isinstance(metadata, Mapping):
            return _number(metadata.get("HTTPStatusCode"))
    words = _text(error)
    told = _IN_WORDS.search(words)
    if told:
        return int(next(group for group in told.groups() if group))
    named = re.search(rf"\b({'|'.join(_NAMED)})\b", f"{type(error).__name__} {words}")
    return _NAMED[named.group(1)] if named else None


def _number(value: Any) -> int | None:
    """An HTTP status in one of the forms that libraries give it."""
    name = getattr(value, "name", None)  # an enumeration, as gRPC's
    if isinstance(name, str) and name in _NAMED:
        return _NAMED[name]
    if isinstance(value, str):
        if value in _NAMED:
            return _NAMED[value]
        value = int(value) if value.isascii() and value.isdigit() and len(value) == 3 else None
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
        return int(value)
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    for place in (getattr(error, "response", None), error):
        headers = getattr(place, "headers", None)
        if isinstance(headers, Mapping):
            return {str(key).lower(): str(value) for key, value in headers.items()}
    return {}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__
        return ""
