"""What both HTTP clients need: a deadline for a whole request, and the meaning of statuses,
headers and error bodies.

openai uses httpx2 and ollama httpx; their responses and hooks look the same, so they are handled
here by what they do, not by class.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from reembed.embedders.provider import RateState, RejectedInputError, TransientError
from reembed.errors import ProviderRefusedError

CONNECT_SECONDS = 10.0
TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
"""With 5xx: what may pass. 409 as in the openai client, 425 is RFC 8470's "too early"."""
UNPAID_STATUSES = frozenset({409, 425, 429, 500, 503, 529})
"""What says that the work was not done. 408, 502 and 504 come from somebody who stopped waiting for
it, so it may have been."""
CONTENT_STATUSES = frozenset({400, 413, 422})
"""The texts are to blame, or too many of them: infinity says 422 to 2,049 texts."""

_TOO_LONG = re.compile(
    r"too (large to process|long|many tokens)|context (length|size|window)|maximum context"
    r"|max(imum)?[_ ](input|sequence)?[_ ]?(tokens|length)|exceeds? .{0,40}(tokens|length|limit)",
    re.IGNORECASE,
)

_LLAMA_TOO_LONG = re.compile(r"input .*too (large|long)", re.IGNORECASE)
"""llama.cpp says 500 to an input that is too long for it."""


class Deadline:
    """Ends a response whose body takes longer than `seconds` in all.

    A client's read timeout starts again with every byte, so a server that drips one now and then
    would be waited for without end. Also keeps the last response's headers, by thread, for clients
    whose errors lose them.
    """

    def __init__(self, seconds: float, expired: Callable[[str], Exception]) -> None:
        self._seconds = seconds
        self._expired = expired
        self._last = threading.local()

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the last response that this thread received; empty if it received none."""
        found: Mapping[str, str] = getattr(self._last, "headers", {})
        return found

    def hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """`event_hooks` for httpx.Client or httpx2.Client."""
        return {"request": [self._begin], "response": [self._watch]}

    def _begin(self, request: Any) -> None:
        self._last.headers = {}
        self._last.until = time.monotonic() + self._seconds

    def _watch(self, response: Any) -> None:
        self._last.headers = response.headers
        inner, until = response.stream, self._last.until
        (base,) = (kind for kind in type(inner).__mro__ if kind.__name__ == "SyncByteStream")
        expired = self._expired(f"the answer was not complete after {self._seconds:g} s")

        class Watched(base):  # type: ignore[misc,valid-type]  # httpx's or httpx2's
            def __iter__(self) -> Iterator[bytes]:
                for chunk in inner:
                    if time.monotonic() > until:
                        raise expired
                    yield chunk

            def close(self) -> None:
                inner.close()

        response.stream = Watched()


def failure(
    status: int, words: str, headers: Mapping[str, str], where: str, key_variable: str
) -> Exception:
    """The error that an HTTP status stands for.

    Args:
        words: the body's message, redacted.
        key_variable: the environment variable that the key is taken from.
    """
    said = f"{status}: {words}" if words else f"{status}"
    if status == 429 and "insufficient_quota" in words:
        return ProviderRefusedError(
            f"{where}: the account's quota is used up ({said})",
            "Add credit, then run the same command again: what is finished is kept.",
        )
    too_long = bool(_TOO_LONG.search(words))
    if status in CONTENT_STATUSES or (status == 500 and _LLAMA_TOO_LONG.search(words)):
        return RejectedInputError(said, too_long=too_long)
    if status in TRANSIENT_STATUSES or status >= 500:
        return TransientError(
            said, retry_after(headers), rate_limited=status == 429, unpaid=status in UNPAID_STATUSES
        )
    if status in (401, 403):
        return ProviderRefusedError(
            f"{where}: the key is refused ({said})", f"The key is taken from {key_variable}."
        )
    return ProviderRefusedError(f"{where}: {said}", "Check model.name and model.base_url.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or a date) ask to wait."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * scale)
        except ValueError:
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except ValueError:
                continue
    return None


def rate_state(headers: Mapping[str, str]) -> RateState | None:
    """The `x-ratelimit-*` headers of OpenAI and those who copy them; None where there are none."""

    def number(name: str) -> int | None:
        value = headers.get(f"x-ratelimit-{name}", "")
        return int(value) if value.isdigit() else None

    state = RateState(
        number("remaining-requests"),
        seconds(headers.get("x-ratelimit-reset-requests", "")),
        number("remaining-tokens"),
        seconds(headers.get("x-ratelimit-reset-tokens", "")),
    )
    return None if state == RateState() else state


def seconds(text: str) -> float | None:
    """Seconds of a duration such as `12ms`, `1s`, `6m0s` or `1h2m3.5s`; None if it is none."""
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    if not parts or "".join(value + unit for value, unit in parts) != text:
        return None
    try:
        return sum(
            float(value) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for value, unit in parts
        )
    except ValueError:
        return None


def body_words(body: Any) -> str:
    """The message in an error body: `{"error": {"message"}}`, `{"error": ".."}`,
    `{"detail": ..}`, `{"message"}`, or the text as it stands; what a client parsed already as
    well."""
    try:
        data = json.loads(body) if isinstance(body, str) else {"error": body}
    except ValueError:
        return str(body)
    for key in ("error", "detail", "message"):
        if isinstance(data, dict) and key in data:
            found = data[key]
            if isinstance(found, dict):
                code = found.get("code")
                words = str(found.get("message") or found)
                return f"{words} ({code})" if isinstance(code, str) else words
            return found if isinstance(found, str) else json.dumps(found)
    return str(body)
