r"""What reaches a terminal or a log: no secret, and nothing that a terminal acts on.

Ids, texts, table names and the words of providers and hooks are others'. A C0 or C1 control
character, an override of the writing direction or an invisible tag in them is shown as an escape,
`\x1b`, and never sent.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from reembed.redaction.search import redacted, redacted_values

_ACTED_ON = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and newline
    "\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_SIGNS = re.compile(f"[{_ACTED_ON}]")


def harmless(text: str) -> str:
    """`text` with every character that a terminal would act on shown as an escape."""
    return _SIGNS.sub(_escape, text)


def json_harmless(document: str) -> str:
    """A JSON document with the same characters escaped as JSON does: it reads as before."""
    return _SIGNS.sub(_json_escape, document)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def _json_escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


class _Encodable:
    """A text stream with escapes for what its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class CleanStream(_Encodable):
    """A text stream that stars secrets and takes the teeth out of control characters.

    Args:
        stream: what is written to.
        words: see `redacted_values`; False for stdout, whose documents programs read.

    Attributes:
        clean: the stream for what is clean already.
    """

    def __init__(self, stream: TextIO, *, words: bool) -> None:
        super().__init__(stream)
        self.clean = _Encodable(stream)
        self._words = words

    def write(self, text: str) -> int:
        # A bar goes back to the beginning of its line; nobody else's return is at either end.
        head = "\r" if text.startswith("\r") else ""
        tail = "\r" if len(text) > 1 and text.endswith("\r") else ""
        inner = text[len(head) : len(text) - len(tail)]
        inner = redacted(inner) if self._words else redacted_values(inner, words=False)
        self.clean.write(head + harmless(inner) + tail)
        return len(text)


@contextlib.contextmanager
def clean_streams() -> Iterator[None]:
    """In the block, stdout and stderr are clean whoever writes to them: a library, a warning."""
    out, err = sys.stdout, sys.stderr
    sys.stdout = CleanStream(out, words=False)
    sys.stderr = CleanStream(err, words=True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
