"""Where mem0's Postgres is, from the forms that mem0 takes, and never its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

SHOWN = ("user", "host", "hostaddr", "port", "dbname", "sslmode", "sslrootcert")
"""What of a connection is shown; everything else may be a secret."""

_PAIR = re.compile(r"(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
_PASSWORD_PAIR = re.compile(r"(?i)\b(\w*password)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_PLACE = re.compile(r"(?P<host>\[[^\]]*\]|[^:@]*)(?::(?P<port>[0-9]*))?")


def connection_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The keys of SHOWN that `vector_store.config` gives, by itself or in its connection_string.

    Raises:
        ValueError: the connection string cannot be read; the message does not repeat it.
    """
    text = settings.get("connection_string")
    if text is None:
        found = {key: str(value) for key in SHOWN if (value := settings.get(key))}
        return {"dbname": "postgres"} | found
    if not isinstance(text, str):
        raise ValueError("is not a text")
    found = _from_url(_split(text)) if "://" in text else _from_pairs(text)
    return {key: found[key] for key in SHOWN if key in found}


def without_password(text: str, placeholder: str) -> str:
    """A connection string that `connection_parts` could read, its passwords replaced."""
    if "://" not in text:
        return _PASSWORD_PAIR.sub(lambda match: f"{match[1]}={placeholder}", text)
    parts = _split(text)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    netloc = f"{user}:{placeholder}{at}{place}" if colon and password else parts.netloc
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    shown = [
        f"{key}={placeholder}" if "password" in key.lower() else urlencode({key: value}, safe="/")
        for key, value in pairs
    ]
    query = f"?{'&'.join(shown)}" if shown else ""
    return (
        f"{parts.scheme}://{netloc}{parts.path}{query}"  # not geturl(), which drops an empty host
    )


def _from_pairs(text: str) -> dict[str, str]:
    return {key: quoted or plain for key, quoted, plain in _PAIR.findall(text)}


def _from_url(parts: SplitResult) -> dict[str, str]:
    login, _, place = parts.netloc.rpartition("@")
    own = {"user": login.partition(":")[0], "dbname": parts.path[1:]}
    if "," in place:  # several servers, each with its port
        own["host"] = place
    elif match := _PLACE.fullmatch(place):
        own |= match.groupdict("")
    found = dict(parse_qsl(parts.query))
    return found | {key: unquote(value) for key, value in own.items() if value}


def _split(text: str) -> SplitResult:
    """The URL's parts. A / ? or # in a password that is not %-encoded shifts all that follows it
    into other parts, where it would be shown: such a URL is refused, as libpq does."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL") from None
    place = parts.netloc.rpartition("@")[2]
    shifted = "@" in parts.path + parts.query or parts.fragment
    if shifted or not ("," in place or _PLACE.fullmatch(place)):
        raise ValueError("is not a URL: a / ? # or @ in a password is written %2F %3F %23 or %40")
    return parts
