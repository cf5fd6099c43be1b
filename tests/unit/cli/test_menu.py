"""Questions in a real pseudo-terminal: keys go in at one end, what is drawn comes out of it."""

from __future__ import annotations

import os
import re
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len

from reembed.cli import menu
from reembed.cli.menu import Choice, ask, can_ask, choose

UP, DOWN, ENTER = "\x1b[A", "\x1b[B", "\r"
THREE = [Choice("one"), Choice("two", "the second"), Choice("three")]
TWELVE = [Choice(f"no{number}") for number in range(1, 13)]


@dataclass
class Terminal:
    """The end at which a person sits, and the settings of the other one."""

    person: int
    program: int

    def type(self, keys: str) -> None:
        os.write(self.person, keys.encode())

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.program)

    def seen(self) -> str:
        os.set_blocking(self.person, False)
        found = b""
        try:
            while piece := os.read(self.person, 65_536):
                found += piece
        except BlockingIOError:
            pass
        return found.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    person, program = os.openpty()
    tty.setcbreak(program)  # so that keys typed ahead are keys
    monkeypatch.setenv("TERM", "xterm")
    with (
        os.fdopen(os.dup(program), "r") as reads,
        os.fdopen(os.dup(program), "w") as writes,
    ):
        # pytest puts its own streams into sys before each test.
        monkeypatch.setattr(menu, "sys", SimpleNamespace(stdin=reads, stderr=writes))
        yield Terminal(person, program)
    os.close(person)
    os.close(program)


@pytest.mark.parametrize(
    ("keys", "choices", "value"),
    [
        (ENTER, THREE, "one"),
        (DOWN + ENTER, THREE, "two"),
        ("\x1bOB\x1bOB" + ENTER, THREE, "three"),
        (UP + ENTER, THREE, "three"),
        (DOWN * 3 + "\n", THREE, "one"),
        ("3" + ENTER, THREE, "three"),
        ("32" + ENTER, THREE, "two"),
        ("12" + ENTER, TWELVE, "no12"),
        ("1" + DOWN + "2" + ENTER, TWELVE, "no2"),
        ("90x0" + ENTER, TWELVE, "no9"),
        ("\x1b[5~\x1b[Cü" + DOWN + ENTER, THREE, "two"),
    ],
)
def test_one_is_chosen(terminal: Terminal, keys: str, choices: list[Choice], value: str) -> None:
    before = terminal.settings()
    terminal.type(keys)
    assert choose("which", choices) == value
    assert terminal.settings() == before
    assert terminal.seen().endswith(f"which: {value}\r\n")


@pytest.mark.parametrize("key", ["\x1b", "\x1b\x1b", "\x03", "\x04"])
@pytest.mark.parametrize("question", ["choose", "ask"])
def test_whoever_leaves_leaves_the_terminal_as_it_was(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, key: str, question: str
) -> None:
    monkeypatch.setattr(menu, "ESCAPE_WAIT", 0.01)
    settings = terminal.settings()
    settings[6][termios.VINTR] = b"\0"  # type: ignore[index]  # Ctrl-C as a key, not a signal
    termios.tcsetattr(terminal.program, termios.TCSANOW, settings)  # type: ignore[arg-type]
    before = terminal.settings()
    terminal.type(key)
    with pytest.raises(KeyboardInterrupt):
        choose("which", THREE) if question == "choose" else ask("text")
    assert terminal.settings() == before


def test_a_text_is_typed(terminal: Terminal) -> None:
    terminal.type("4\rol\x7fllamä:ü\x1b[A\r")
    assert choose("which", THREE, "another") == "ollamä:ü"
    terminal.type("wrong\x15\r   \rright\r")
    assert ask("text") == "right"
    terminal.type("\r")
    assert ask("text", "by itself") == "by itself"
    assert "text [by itself]: " in terminal.seen()


def test_what_others_named_does_nothing_to_the_terminal(terminal: Terminal) -> None:
    name = "a\x1b[2J\x9b1m\u202eb\nc\rd"
    terminal.type(DOWN + ENTER)
    assert choose("which\x1b[2J", [Choice("x"), Choice(name, "\x1b]0;title\x07")]) == name
    seen = terminal.seen()
    assert r"a\x1b[2J\x9b1m\u202eb c\x0dd" in seen
    own = re.sub(r"\x1b\[\d+A\r\x1b\[J", "", seen).replace("\r\n", "\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", own)


def test_no_line_is_wider_than_the_terminal_and_no_list_higher(terminal: Terminal) -> None:
    termios.tcsetwinsize(terminal.program, (10, 30))
    terminal.type(DOWN * 20 + ENTER)
    many = [Choice(f"{number}:" + "漢字" * 20) for number in range(30)]
    assert choose("which", many).startswith("20:")
    drawn = re.split(r"\x1b\[\d+A\r\x1b\[J", terminal.seen())[:-1]
    assert all(len(one.splitlines()) < 10 for one in drawn)
    assert all(cell_len(line) < 30 for one in drawn for line in one.splitlines())
    assert len(drawn) == 21 and "> 21. 20:" in drawn[-1] and "30 in all" in drawn[-1]


@pytest.mark.parametrize("why", ["TERM", "termios"])
def test_a_plain_terminal_is_asked_by_numbers(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "TERM":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(menu, "MOVES", False)
    settings = terminal.settings()
    settings[3] |= termios.ICANON  # type: ignore[operator]
    termios.tcsetattr(terminal.program, termios.TCSANOW, settings)  # type: ignore[arg-type]
    terminal.type("0\nnone\n4\nstatic:x\n")
    assert choose("which\x1b[2J", THREE, "another") == "static:x"
    seen = terminal.seen()
    assert "\x1b" not in seen
    assert "which\\x1b[2J\r\n  1. one\r\n  2. two (the second)\r\n" in seen
    assert seen.count("a number from 1 to 4: ") == 3
    terminal.type("\x04")
    with pytest.raises(KeyboardInterrupt):
        ask("text")


def test_nobody_is_asked_who_cannot_answer(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_ask()
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("reembed.cli.menu.sys.stdin", nothing)
        assert not can_ask()
    monkeypatch.setattr("reembed.cli.menu.sys.stdin", None)
    assert not can_ask()
