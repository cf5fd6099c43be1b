"""What both HTTP clients need: a deadline for a whole request, and the words of error bodies.

OpenAI's own client uses httpx2, all else httpx; their responses and hooks look the same, so they
are handled here by what they do, not by class.
"""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

CONNECT_SECONDS = 10.0
MOST_DETAILS = 300
"""Characters of an error's details that are kept."""
MOST_OF_A_PAGE = 160
"""Characters of a web page's words that are kept."""
_PAGE = re.compile(r"\s*<(!doctype|html|head|body|title|h\d|center|p|\?xml)\b", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|svg)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.DOTALL | re.I)
COMMON_TYPES = ("invalid_request_error", "server_error", "error")
"""Types of errors that tell nothing."""


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

    def hooks(self, first: Callable[[Any], None]) -> dict[str, list[Callable[..., Any]]]:
        """`event_hooks` for httpx.Client or httpx2.Client; `first` is asked of every response."""
        return {"request": [self._begin], "response": [first, self._watch]}

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


def page_words(body: str) -> str | None:
    """What a web page says to people, on one line; None of what is no page."""
    if not _PAGE.match(body):
        return None
    told = ""
    for line in html.unescape(_UNSEEN.sub("\n", body)).splitlines():
        part = " ".join(line.split())
        if part not in told:  # a page's title mostly comes again as its heading
            told = f"{told} {part}"
    words = told.strip()
    return words if len(words) <= MOST_OF_A_PAGE else words[:MOST_OF_A_PAGE] + "..."


def what_came(body: str) -> str:
    """An answer that is of no use, in a few words for a message; not yet redacted."""
    words = page_words(body)
    if words is not None:
        return f"a web page: {words!r}" if words else "an empty web page"
    start = " ".join(body[: MOST_OF_A_PAGE + 1].split())
    return repr(start) if start else "nothing at all"


def body_words(body: Any) -> str:
    """The message in an error body, with the codes beside it: `{"error": {"message"}}`, a list of
    that, `{"error": ".."}`, `{"detail": ..}`, `{"message"}`, or the text as it stands; what a
    client parsed already as well."""
    try:
        data = json.loads(body) if isinstance(body, str) else {"error": body}
    except (ValueError, RecursionError):
        return page_words(body) or str(body)
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    for key in ("error", "detail", "message"):
        if isinstance(data, dict) and data.get(key):
            found = data[key]
            if isinstance(found, dict):
                return _message_of(found)
            words = found if isinstance(found, str) else json.dumps(found)
            codes = [data.get(name) for name in ("code", "type", "error_type")]
            return _with_codes(words, codes)
    return str(body)


def _message_of(error: dict[str, Any]) -> str:
    """The message, then what tells more of it, such as Google's `details` of a quota."""
    words = str(error.get("message") or error)
    more = error.get("details") or error.get("metadata")
    codes = [error.get(name) for name in ("code", "type", "status")]
    if more and "message" in error:
        codes.append(json.dumps(more)[:MOST_DETAILS])
    return _with_codes(words, codes)


def _with_codes(words: str, codes: Sequence[Any]) -> str:
    told = dict.fromkeys(
        code for code in codes
        if isinstance(code, str) and code and code not in words and code not in COMMON_TYPES
    )  # fmt: skip
    return f"{words} ({', '.join(told)})" if told else words


def status_in(body: Any) -> int | None:
    """The status that an error body names, whatever the status line said; None if it names none."""
    error = body.get("error") if isinstance(body, dict) else None
    for place in (error, body):
        for name in ("code", "status", "status_code"):
            code = place.get(name) if isinstance(place, dict) else None
            if isinstance(code, str) and code.isascii() and code.isdigit():
                code = int(code[:4])
            if isinstance(code, int) and 400 <= code < 600:
                return code
    return None
