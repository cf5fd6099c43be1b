"""Rate-limit headers in every form that they come in. Nothing in a header raises: what cannot be
read is not there."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from reembed.embedders.provider import RateState


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds, a duration or a date) ask to
    wait."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        found = _finite(value)
        if found is not None:
            return max(0.0, found * scale)
        if (found := seconds(value)) is not None:
            return found
        with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def rate_state(headers: Mapping[str, str]) -> RateState | None:
    """The `x-ratelimit-*` headers of OpenAI and those who copy them; None where there are none."""

    def number(name: str) -> int | None:
        value = _finite(headers.get(f"x-ratelimit-{name}", ""))
        return None if value is None or value < 0 else int(value)

    state = RateState(
        number("remaining-requests"),
        _reset(headers.get("x-ratelimit-reset-requests", "")),
        number("remaining-tokens"),
        _reset(headers.get("x-ratelimit-reset-tokens", "")),
    )
    return None if state == RateState() else state


def _reset(text: str) -> float | None:
    """Seconds until a limit is free again, from a duration, a number of seconds, or a time since
    1970 in seconds or milliseconds."""
    found = seconds(text)
    if found is None and (found := _finite(text)) is not None:
        now = time.time()
        if found > now * 100:
            found /= 1000
        if found > now / 2:
            found -= now
        found = max(0.0, found)
    return found


def seconds(text: str) -> float | None:
    """Seconds of a duration such as `12ms`, `1s`, `6m0s` or `1h2m3.5s`; None if it is none."""
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    if not parts or "".join(value + unit for value, unit in parts) != text:
        return None
    total = 0.0
    for value, unit in parts:
        number = _finite(value)
        if number is None:
            return None
        total += number * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    return total if math.isfinite(total) else None


def _finite(text: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):
        value = float(text)
        return value if math.isfinite(value) and abs(value) < 1e15 else None
    return None
