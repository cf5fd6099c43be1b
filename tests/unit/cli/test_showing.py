"""Progress as people and programs see it: lines without a terminal, a drawn line on one."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from reembed.cli.logs import Log
from reembed.cli.showing import ShownProgress
from reembed.errors import PreflightError
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.unit.progress.test_pace import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(log: Log) -> tuple[ShownProgress, Clock]:
    clock = Clock()
    return ShownProgress(log, clock, ticks=False), clock


def test_without_a_terminal_a_line_comes_at_most_every_30_s(capsys: pytest.CaptureFixture[str]):
    progress, clock = shown(Log("run"))
    with progress.stage("run"), progress.stage("embed", 10_000) as counter:
        for _ in range(100):
            clock.now += 1.0
            counter.update(100)
            progress.tick()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # at 1, 31, 61 and 91 s
    assert lines[1].endswith("run, embed: 3,100 of 10,000 records (31 %), 100/s, 1 min 9 s left")
    assert lines[0][:4].isdigit(), "it begins with the time"


def test_a_command_that_is_done_at_once_says_nothing(capsys: pytest.CaptureFixture[str]):
    progress, clock = shown(Log("status"))
    with progress.stage("status"):
        clock.now += 0.2
        progress.tick()
    assert not capsys.readouterr().err


def test_json_lines_are_objects_with_the_documented_fields(capsys: pytest.CaptureFixture[str]):
    progress, clock = shown(Log("run", as_json=True, verbose=True))
    with progress.stage("run"), progress.stage("embed", 100) as counter:
        clock.now += 2.0
        counter.update(50)
        progress.waiting(12.0, "429 from api.openai.com, 3rd of 8")
        progress.note("two\nlines")
        progress.tick()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == [
        "wait",
        "note",
        "progress",
        "stage_done",
        "stage_done",
    ]
    assert all({"time", "level", "event", "command", "message"} <= line.keys() for line in lines)
    assert lines[0]["seconds"] == 12
    assert lines[2]["waiting"].startswith("waiting 12 s: 429")
    assert (lines[2]["done"], lines[2]["total"]) == (50, 100)
    documented = (Path(__file__).parents[3] / "docs/running.md").read_text()
    for line in lines:
        assert not [key for key in line if f"`{key}`" not in documented]


def test_quiet_says_errors_alone_and_a_file_still_has_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = Log("run", quiet=True)
    log.write_to(tmp_path / "log")
    progress, clock = shown(log)
    with progress.stage("run"), progress.stage("embed", 100):
        clock.now += 2.0
        progress.note("the key is sk-abcdefghijklmnopqrstuvwx1234")
        progress.tick()
    log.error(PreflightError("it is wrong", "Do this."), told=False)
    log.close()
    assert capsys.readouterr().err == "error: it is wrong\n  Do this.\n"
    told = (tmp_path / "log").read_text()
    assert "info: run, embed" in told
    assert "debug: embed" in told
    assert "error: error: it is wrong" in told
    assert "sk-abc" not in told
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_terminal_has_one_line_that_fits_and_is_gone_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    progress, clock = shown(Log("run"))
    with progress.stage("run"), progress.stage("embed", 1_000_000) as counter:
        for _ in range(5):
            clock.now += 1.0
            counter.update(100)
            progress.tick()
    drawn = terminal.getvalue()
    assert "\n" not in drawn.replace("embed: 500 records in 5.0 s\n", "")
    assert max(len(part.rstrip()) for part in drawn.split("\r")) < 40
    assert drawn.rstrip("\n").split("\r")[-1].strip() in ("", "embed: 500 records in 5.0 s")


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    progress, clock = shown(Log("run"))
    with progress.stage("run"):
        clock.now += 2.0
        progress.tick()
        progress.note("nobody hears it")


def test_what_a_library_logs_is_a_line(capsys: pytest.CaptureFixture[str]):
    log = Log("run", as_json=True)
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        log.listen()
        logging.getLogger("some.library").warning("look %s", "here")
        logging.getLogger("httpx").info("HTTP Request")  # of no interest without -v
    finally:
        root.handlers[:] = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["some.library: look here"]


@follows_hint("Choose one.", where="cli/options.py")
@follows_hint("choose another file with --log-file")
def test_options_that_cannot_be_are_refused_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
):
    monkeypatch.chdir(tmp_path)
    refused = command("status", "-v", "-q")
    assert refused.code == 2 and "Choose one." in refused.err
    assert command("status", "-q").code == 0
    (tmp_path / "folder").mkdir()
    refused = command("status", "--log-file", "folder")
    assert refused.code == 5 and "or choose another file" in refused.err
    assert command("status", "--log-file", "log").code == 0
    assert command("status", "--log-format", "yaml").code == 2
