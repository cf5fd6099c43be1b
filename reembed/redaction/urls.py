"""Secrets in URLs: found even where the URL is written wrongly, and left out of what is shown."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

from reembed.redaction.forms import SECRET_PARAMETERS, is_secret_name

_START = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/*")
_PLACE = re.compile(r"[^/:@]*:[0-9]+(?:/|$)")
_FILLED_IN = re.compile(r"[$`{<]")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/[^\s\"'<>`]+")


def without_secrets(url: str) -> tuple[str, list[str]]:
    """The URL without its secrets, and these as they stood in it."""
    shown, found = parted(url)
    return shown, [value for _, value in found]


def parted(url: str) -> tuple[str, list[tuple[str, str]]]:
    """The URL without password and secret parameters, and these with their names, as they stood.

    The user stays, except where an http URL has it alone: a token is often given so. A `/`, `?` or
    `#` in a password that should have been written as %2F is taken as a part of it.
    """
    start = _START.match(url)
    head, rest = (start[0], url[start.end() :]) if start else ("", url)
    found: list[tuple[str, str]] = []
    login, at, place = _login(rest, strict=not start)
    if at:
        user, colon, password = login.partition(":")
        web = "http" in head
        if colon and password:
            found.append(("password", password))
        elif web and user:
            found.append(("user", user))
        login = "" if web else user
        rest = f"{login}@{place}" if login else place
    path, mark, query = rest.partition("?")
    if mark:
        query, hash_, fragment = query.partition("#")
        kept = []
        for pair in query.split("&"):
            name, equals, value = pair.partition("=")
            if equals and value and is_secret_parameter(name):
                found.append((unquote_plus(name), value))
            else:
                kept.append(pair)
        rest = path + (f"?{'&'.join(kept)}" if any(kept) else "") + hash_ + fragment
    return head + rest, found


def _login(rest: str, strict: bool) -> tuple[str, str, str]:
    """User and password, `@`, and what follows. The last @ before a query parameter ends them."""
    query = re.search(r"\?[A-Za-z0-9_%.-]+=", rest)
    end = len(rest)
    if query:
        before = rest[: query.start()]
        place_alone = ":" not in before.partition("/")[0] or _PLACE.match(before)
        end = query.start() if "@" in before or place_alone else end
    login, at, place = rest[:end].rpartition("@")
    if not at or (strict and "/" in login) or ("/" in login and ":" not in login.partition("/")[0]):
        return "", "", rest
    return login, at, place + rest[end:]


def is_secret_parameter(name: str) -> bool:
    """Whether a URL's query parameter of this name, decoded or not, is a secret."""
    name = unquote_plus(name).strip().lower()
    return name in SECRET_PARAMETERS or is_secret_name(name)


def shown_url(url: str) -> str:
    """The URL as it may be shown and kept."""
    return without_secrets(url)[0]


def secrets_of(url: str) -> list[str]:
    """The secrets of a URL, each as it stands and decoded."""
    found = without_secrets(url)[1]
    return list(dict.fromkeys([*found, *(unquote(value) for value in found)]))


def secrets_in_text(text: str) -> list[str]:
    """The secrets of every URL in a text, but for those that are filled in later, as `$TOKEN`."""
    return [
        secret
        for match in _IN_TEXT.finditer(text)
        for secret in without_secrets(match[0])[1]
        if not _FILLED_IN.match(secret)
    ]


def starred_urls(text: str, hidden: str) -> str:
    """`text` with the secrets of every URL in it replaced."""

    def starred(match: re.Match[str]) -> str:
        url = match[0]
        for secret in without_secrets(url)[1]:
            if not _FILLED_IN.match(secret):
                url = url.replace(secret, hidden)
        return url

    return _IN_TEXT.sub(starred, text) if ":/" in text else text
