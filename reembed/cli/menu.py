"""Questions in a terminal: one of several, by arrow keys or numbers, or a line of text.

Everything is written to stderr, so that stdout stays a document, and is harmless first: the names
of collections are others'. Without termios, or in a terminal that moves no cursor, a list with
numbers and a line to type are the same question. Escape, Ctrl-C and Ctrl-D are KeyboardInterrupt,
which leaves the terminal as it was.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from reembed.redaction.search import redacted
from reembed.redaction.terminal import CleanStream, harmless

MOVES = importlib.util.find_spec("termios") is not None
"""Whether keys can be read one by one: not on Windows."""
if MOVES:
    import termios
    import tty

ESCAPE_WAIT = 0.2
"""Seconds that the rest of a key's sequence may take; a lone Escape has none."""
UP, DOWN, ENTER, ERASE, CLEAR = "up", "down", "enter", "erase", "clear"
_KEYS = {"\r": ENTER, "\n": ENTER, "\x7f": ERASE, "\x08": ERASE, "\x15": CLEAR}
_SEQUENCES = {b"[A": UP, b"OA": UP, b"[B": DOWN, b"OB": DOWN}
_LEAVES = ("\x03", "\x04")
HELP = "up and down, or a number; Enter takes it, Esc leaves"


@dataclass(frozen=True)
class Choice:
    """An answer that can be chosen.

    Attributes:
        value: what `choose` gives back.
        about: shown behind it.
    """

    value: str
    about: str = ""


def can_ask() -> bool:
    """Whether somebody sees a question and can answer it."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def choose(question: str, choices: Sequence[Choice], other: str = "") -> str:
    """The value of the choice that somebody takes.

    Args:
        choices: at least one, or `other`.
        other: the last choice, after which a text is typed; empty: there is none.

    Raises:
        KeyboardInterrupt: they leave.
    """
    lines = [f"{one.value}  ({one.about})" if one.about else one.value for one in choices]
    lines += [other] if other else []
    lines = [_shown(line) for line in lines]
    picked = (_moved_to if _draws() else _numbered)(_shown(question), lines)
    if picked == len(choices):
        return ask(other)
    _write(f"{_shown(question)}: {_shown(choices[picked].value)}\n")
    return choices[picked].value


def ask(question: str, default: str = "") -> str:
    """A line of text that somebody types; `default` if they type none, and again without one.

    Raises:
        KeyboardInterrupt: they leave.
    """
    prompt = _shown(f"{question} [{default}]" if default else question) + ": "
    while not (text := (_typed(prompt) if _draws() else _line(prompt)).strip() or default):
        pass
    return text


def _numbered(question: str, lines: Sequence[str]) -> int:
    listed = "".join(f"  {place}. {line}\n" for place, line in enumerate(lines, 1))
    _write(f"{question}\n{listed}")
    while True:
        typed = _line(f"a number from 1 to {len(lines)}: ").strip()
        if typed.isascii() and typed.isdecimal() and 1 <= int(typed) <= len(lines):
            return int(typed) - 1


def _line(prompt: str) -> str:
    _write(prompt)
    text = sys.stdin.readline()
    if not text:
        raise KeyboardInterrupt
    return text


def _moved_to(question: str, lines: Sequence[str]) -> int:
    place, number, drawn = 0, "", 0
    with _keys() as key:
        while True:
            drawn = _draw(question, lines, place, drawn)
            pressed = key()
            number = number + pressed if pressed.isascii() and pressed.isdecimal() else ""
            if number and not 1 <= int(number) <= len(lines):
                number = pressed  # another number begins
            if pressed == ENTER:
                _write(_up(drawn))
                return place
            if pressed in (UP, DOWN):
                place = (place + (1 if pressed == DOWN else -1)) % len(lines)
            elif number and 1 <= int(number) <= len(lines):
                place = int(number) - 1


def _draw(question: str, lines: Sequence[str], place: int, drawn: int) -> int:
    """Draw over the lines drawn before; gives how many there are now."""
    width, height = _size()
    room = max(1, height - 4)
    first = max(0, min(place - room // 2, len(lines) - room))
    shown = [f"{question} ({HELP})"]
    for number, line in enumerate(lines[first : first + room], first + 1):
        shown.append(f"{'>' if number == place + 1 else ' '} {number}. {line}")
    if len(lines) > room:
        shown.append(f"  {len(lines)} in all")
    _write(_up(drawn) + "".join(f"{_fitting(line, width - 1)}\n" for line in shown))
    return len(shown)


def _typed(prompt: str) -> str:
    text = ""
    with _keys() as key:
        while True:
            tail = _shown(text) + (" " if text.endswith(" ") else "")
            room = max(1, _size()[0] - 1 - cell_len(prompt))
            while cell_len(tail) > room:
                tail = tail[1:]
            _write(f"\r\x1b[K{prompt}{tail}")
            pressed = key()
            if pressed == ENTER:
                _write("\n")
                return text
            if pressed == ERASE:
                text = text[:-1]
            elif pressed == CLEAR:
                text = ""
            elif len(pressed) == 1 and pressed.isprintable():
                text += pressed


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """In the block, the terminal gives each key at once; afterwards it is as before."""
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    try:
        tty.setcbreak(source, termios.TCSADRAIN)
        yield lambda: _key(source)
    except KeyboardInterrupt:
        _write("\n")
        raise
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _key(source: int) -> str:
    """The next key: a name, a letter, or nothing for one that means nothing here."""
    first = os.read(source, 1)
    if first == b"\x1b":
        return _sequence(source)
    more = 3 if first >= b"\xf0" else 2 if first >= b"\xe0" else 1 if first >= b"\xc0" else 0
    letter = (first + b"".join(os.read(source, 1) for _ in range(more))).decode("utf-8", "ignore")
    if not first or letter in _LEAVES:
        raise KeyboardInterrupt
    return _KEYS.get(letter, letter)


def _sequence(source: int) -> str:
    rest = b""
    while select.select([source], [], [], ESCAPE_WAIT)[0]:
        rest += os.read(source, 1)
        if rest != b"O" and (rest[-1:].isalpha() or rest[-1:] == b"~"):
            return _SEQUENCES.get(rest, "")
    if rest in (b"", b"\x1b"):
        raise KeyboardInterrupt
    return ""


def _draws() -> bool:
    return MOVES and os.environ.get("TERM", "dumb") not in ("", "dumb")


def _size() -> tuple[int, int]:
    """Columns and lines of the terminal that is written to, which stdout need not be."""
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(sys.stderr.fileno())
        if size.columns and size.lines:
            return size.columns, size.lines
    return 80, 24


def _up(lines: int) -> str:
    return f"\x1b[{lines}A\r\x1b[J" if lines else ""


def _fitting(line: str, width: int) -> str:
    while cell_len(line) > max(1, width):
        line = line[:-1]
    return line


def _shown(text: str) -> str:
    return " ".join(harmless(redacted(text)).split())


def _write(text: str) -> None:
    """Write what `_shown` cleaned, with movements of the cursor."""
    out: Any = sys.stderr.clean if isinstance(sys.stderr, CleanStream) else sys.stderr
    out.write(text)
    out.flush()
