"""Finding known secrets in a text, in whatever encoding they come back.

A text is decoded again and again (%-escapes, backslash escapes, HTML's) as long as that changes
it, and every stage is searched, without regard to case; a match is starred where it came from.
Base64 is found by the part of it that does not depend on what stands before and after the secret. A
secret that somebody else has starred in its middle is starred whole.
"""

from __future__ import annotations

import base64
import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from reembed.redaction.forms import starred_forms
from reembed.redaction.known import current, distinct
from reembed.redaction.urls import starred_urls

HIDDEN = "[hidden]"
LONG = 8
"""Characters of a secret that are found in base64, and in any text if they are no simple word."""
STAGES = 4
"""Times that a text is decoded: a URL in JSON in a URL takes three."""

Span = tuple[int, int]

_ESCAPED = re.compile(
    r"(?P<percent>(?:%[0-9A-Fa-f]{2})+)"
    r"|\\[uU](?:\{(?P<braced>[0-9A-Fa-f]{1,6})\}"
    r"|(?P<long>000[1-9A-Fa-f][0-9A-Fa-f]{4}|0010[0-9A-Fa-f]{4})|(?P<short>[0-9A-Fa-f]{4}))"
    r"|(?P<x>(?:\\x[0-9A-Fa-f]{2})+)"
    r"|\\(?P<back>[ -/:-@\[-`{-~])"
    r"|(?P<html>&(?:\#[0-9]{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)"
)
_STARS = re.compile(
    r"[*•●∙█…]{2,}|…|\.{3,}|\[hidden\]|x{4,}|X{4,}|#{4,}|<[a-z ]*(?:redacted|hidden)>"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_WORD = re.compile(r"[A-Za-z]+|[0-9]+")


class _Needles(NamedTuple):
    """What to look for.

    Attributes:
        plain: strong secrets, lower case, in the forms that decoding leads to.
        weak: short or simple ones, lower case, which are starred as whole words alone.
        coded: parts of base64, and hexadecimal.
        halves: long secrets as they are, for what others starred.
    """

    plain: tuple[str, ...]
    weak: tuple[str, ...]
    coded: tuple[str, ...]
    halves: tuple[str, ...]


def redacted(text: str) -> str:
    """Words of a person, a program or a server, with every known secret replaced, and what looks
    like one by its own form."""
    return starred_forms(starred_urls(redacted_values(text), HIDDEN), HIDDEN) if text else text


def redacted_values(text: str, *, words: bool = True) -> str:
    """`text` with every secret replaced that the process has read.

    Args:
        words: also short and simple secrets, where they stand as whole words. False for what other
            programs read.
    """
    return _redacted_by(_needles(), text, words)


def redacted_data(data: Any, *, words: bool = True, exact: frozenset[str] = frozenset()) -> Any:
    """`redacted_values` of every text in nested mappings and lists, keys included.

    Args:
        exact: keys whose values stay as they are.
    """
    needles = _needles()  # once for all texts: it goes through the environment

    def within(data: Any) -> Any:
        if isinstance(data, str):
            return _redacted_by(needles, data, words)
        if isinstance(data, dict):
            return {
                within(key): value if key in exact else within(value) for key, value in data.items()
            }
        if isinstance(data, list | tuple):
            return [within(value) for value in data]
        return data

    return within(data)


def _needles() -> _Needles:
    version, secrets, open_ = current()
    return _compiled(version, tuple(secrets), open_)


def _redacted_by(needles: _Needles, text: str, words: bool) -> str:
    if not (text and (needles.plain or needles.weak)):
        return text
    text = _starred(text, _spans(text, needles, words))
    return _starred(text, _half_starred(text, needles.halves))


@lru_cache(maxsize=4)
def _compiled(version: int, secrets: tuple[str, ...], open_: frozenset[str]) -> _Needles:
    plain, weak, coded, halves = (list[str]() for _ in range(4))
    for secret in secrets:
        if not is_weak(secret):
            plain += _forms(secret)
        elif secret.lower() not in open_:
            weak += _forms(secret)
        if len(secret) >= LONG:
            raw = secret.encode("utf-8", "surrogatepass")  # a variable may hold any bytes
            coded += [*_base64_cores(raw), raw.hex(), raw.hex().upper()]
            halves.append(secret)
    return _Needles(*(tuple(distinct(found)) for found in (plain, weak, coded, halves)))


def is_weak(secret: str) -> bool:
    """Whether a secret is so short or simple that ordinary words contain it."""
    return len(secret) < LONG or (len(secret) < 16 and _WORD.fullmatch(secret) is not None)


def _forms(secret: str) -> list[str]:
    """A secret as it is searched for, in lower case: itself, and what it reads as once decoded, as
    one with a %41 of its own does."""
    low = _lower(secret)
    found = [low, _lower(secret.upper()), low.replace(" ", "+")]
    if any(ord(c) > 0xFFFF for c in secret):  # in JSON two escapes
        pairs = secret.encode("utf-16-be", "surrogatepass")
        found.append("".join(chr(pairs[n] << 8 | pairs[n + 1]) for n in range(0, len(pairs), 2)))
    decoded = _decoded(secret)
    return [*found, _lower(decoded[0])] if decoded and len(decoded[0]) >= 8 else found


def _lower(text: str) -> str:
    """In lower case, and as long as before: a few letters would grow."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _base64_cores(secret: bytes) -> Iterator[str]:
    """What base64 makes of a secret at each of its three places, without the characters that its
    neighbours decide; both alphabets."""
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + secret).rstrip(b"=").decode()
        start = -(-before * 8 // 6)
        whole = (before + len(secret)) * 8 // 6
        core = coded[start:whole]
        if len(core) >= 8:
            yield core
            yield core.replace("+", "-").replace("/", "_")


def _spans(text: str, needles: _Needles, words: bool) -> Iterator[Span]:
    stage, origins = text, list[_Origins]()
    for _ in range(STAGES):
        found = [*_occurrences(_lower(stage), needles, words), *_coded(stage, needles.coded)]
        for start, end in found:
            for origin in reversed(origins):
                start, end = origin.span(start, end)
            yield start, end
        decoded = _decoded(stage)
        if decoded is None:
            return
        stage, origin = decoded
        origins.append(origin)


def _occurrences(text: str, needles: _Needles, words: bool) -> Iterator[Span]:
    for needle in needles.plain:
        yield from _find(text, needle)
    if words:
        for needle in needles.weak:
            for start, end in _find(text, needle):
                if _stands_alone(text, start, end):
                    yield start, end


def _find(text: str, needle: str) -> Iterator[Span]:
    at = text.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = text.find(needle, at + len(needle))


def _stands_alone(text: str, start: int, end: int) -> bool:
    around = text[start - 1 : start] + text[end : end + 1]
    return not any(c.isalnum() or c == "_" for c in around)


class _Origins:
    """Where each character of a decoded text came from."""

    def __init__(self) -> None:
        self.places = [0]  # in the decoded text, where a new piece begins
        self.sources = [(0, 0)]  # its start before decoding, and the length of an escape or 0

    def add(self, place: int, source: int, length: int) -> None:
        self.places.append(place)
        self.sources.append((source, length))

    def span(self, start: int, end: int) -> Span:
        first, length = self._piece(start)
        begin = self.sources[first][0] + (0 if length else start - self.places[first])
        last, length = self._piece(end - 1)
        source = self.sources[last][0]
        return begin, source + (length or end - self.places[last])

    def _piece(self, place: int) -> tuple[int, int]:
        index = bisect_right(self.places, place) - 1
        return index, self.sources[index][1]


def _decoded(text: str) -> tuple[str, _Origins] | None:
    """The text with its escapes read, once; None where it has none."""
    if not any(sign in text for sign in "%\\&"):
        return None
    parts, origins, length, at = list[str](), _Origins(), 0, 0
    for match in _ESCAPED.finditer(text):
        for start, end, plain in _pieces(match):
            parts += [text[at:start], plain]
            length += start - at
            origins.add(length, start, end - start)
            length += len(plain)
            origins.add(length, end, 0)
            at = end
    if not at:
        return None
    parts.append(text[at:])
    return "".join(parts), origins


def _pieces(match: re.Match[str]) -> Iterator[tuple[int, int, str]]:
    """Start, end and meaning of each escape of a match. Bytes are read together as UTF-8, and a run
    of them that is ASCII one by one, so that no neighbour is starred with a secret."""
    start, end = match.span()
    for name, width in (("percent", 3), ("x", 4)):
        if (run := match[name]) is not None:
            raw = bytes.fromhex(run.replace("%", "").replace("\\x", ""))
            if raw.isascii():
                for place, byte in enumerate(raw):
                    yield start + place * width, start + (place + 1) * width, chr(byte)
                return
            plain = raw.decode("utf-8", "replace")
            yield start, end, plain
            return
    if (code := match["braced"] or match["long"] or match["short"]) is not None:
        number = int(code, 16)
        yield start, end, chr(number) if number < 0x110000 else "\ufffd"
    elif match["back"] is not None:
        yield start, end, match["back"]
    else:
        plain = html.unescape(match["html"])
        if plain != match["html"]:
            yield start, end, plain


def _coded(text: str, coded: tuple[str, ...]) -> Iterator[Span]:
    """Base64 and hexadecimal of secrets, each with the whole run that it stands in."""
    for needle in coded:
        for start, end in _find(text, needle):
            while start and (text[start - 1].isalnum() or text[start - 1] in "+/_-"):
                start -= 1
            yield start, _BASE64.match(text, end).end()  # type: ignore[union-attr]


def _half_starred(text: str, secrets: tuple[str, ...]) -> Iterator[Span]:
    """`sk-ab****yz`: the beginning or the end of a secret, or both, beside stars or dots."""
    longest = max(map(len, secrets), default=0)
    for match in _STARS.finditer(text):
        left = text[max(0, match.start() - longest) : match.start()]
        right = text[match.end() : match.end() + longest]
        for secret in secrets:
            before = _overlap_before(left, secret)
            after = _overlap_after(right, secret)
            if before + after >= 6 or (min(before, after) >= 2 and before + after >= 4):
                yield match.start() - before, match.end() + after
                break


def _overlap_before(text: str, secret: str) -> int:
    """How long a beginning of the secret the text ends with."""
    most = min(len(text), len(secret) - 1)
    low, whole = text[-most:].lower() if most else "", secret.lower()
    return next((n for n in range(most, 1, -1) if low.endswith(whole[:n])), 0)


def _overlap_after(text: str, secret: str) -> int:
    """How long an end of the secret the text begins with."""
    most = min(len(text), len(secret) - 1)
    low, whole = text[:most].lower(), secret.lower()
    return next((n for n in range(most, 1, -1) if low.startswith(whole[-n:])), 0)


def _starred(text: str, spans: Iterable[Span]) -> str:
    found, at = list[str](), 0
    for start, end in _merged(spans):
        found += [text[at:start], HIDDEN]
        at = end
    return "".join([*found, text[at:]])


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
