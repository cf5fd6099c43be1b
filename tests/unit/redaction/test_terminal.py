"""Nothing that a terminal acts on reaches it."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from rich.table import Table
from rich.text import Text

from reembed.cli.output import say, say_json, show
from reembed.redaction import known
from reembed.redaction.terminal import CleanStream, clean_streams, harmless, json_harmless

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07\x9b2J\x85 \u202egnp\u2066x\ufeff\U000e0041\r\b\x00\ud800 [/b] ü"
)


def acted_on(text: str) -> list[str]:
    """Characters of a text that a terminal acts on, and that no layout needs."""
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t\u200d"
    ]


def test_control_characters_are_shown() -> None:
    assert acted_on(harmless(HOSTILE)) == []
    assert harmless("\x1b[31m ü\n\tk \u202e") == "\\x1b[31m ü\n\tk \\u202e"


def test_json_reads_as_before() -> None:
    document = json_harmless(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False))
    assert acted_on(document) == []
    assert json.loads(document) == {HOSTILE: HOSTILE}


def test_every_way_to_stdout_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, "red"))
    with clean_streams():
        show(table)
        say(HOSTILE)
        say_json({HOSTILE: [HOSTILE]})
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
    out, err = capsys.readouterr()
    assert acted_on(out) == [] and acted_on(err) == []
    assert out.count("[/b]") >= 5 and "[/b]" in err


def test_a_bar_may_go_back_to_the_beginning_of_its_line() -> None:
    inner = io.StringIO()
    stream = CleanStream(inner, words=True)
    stream.write("\rexport: 40%")
    stream.write("\r    \r")
    stream.write("id a\rb\r\n")
    assert inner.getvalue() == "\rexport: 40%\r    \rid a\\x0db\\x0d\n"


def test_what_an_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    plain = io.TextIOWrapper(raw, "ascii", write_through=True)
    CleanStream(plain, words=True).write("ü ☃")
    assert raw.getvalue() == b"\\xfc \\u2603"


def test_a_secret_is_starred_before_a_table_folds_it(capsys: pytest.CaptureFixture[str]) -> None:
    known.forget()
    known.remember("s3cr3t-K3y-9")
    try:
        table = Table(width=12)
        table.add_column("a", overflow="fold")
        table.add_row("xxxxxx s3cr3t-K3y-9")
        table.add_row(Text("xxxxxx s3cr3t-K3y-9"))
        show(table)
    finally:
        known.forget()
    out = capsys.readouterr().out
    assert "3cr" not in out and "K3y" not in out
