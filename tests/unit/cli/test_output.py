"""stdout that cannot be written, or that nobody reads to the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Group

from reembed.cli.output import show
from reembed.cli.text import steps_text, unbroken, warnings_text
from reembed.run.steps import Step
from reembed.stages.weigh import Problem
from tests.support.commands import REEMBED

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [["schema"], ["--version"], ["schema", "--json"]])
def test_a_result_that_could_not_be_written_is_an_error(arguments: list[str]) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*REEMBED, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert "the output cannot be written: No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_gone_is_no_error() -> None:
    with subprocess.Popen(
        [*REEMBED, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")


def test_a_narrow_terminal_breaks_no_command_and_no_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    command = "reembed swap migrate-docs-to-static-wordllama.yaml --yes"
    path = f"run {'/a-folder' * 9}"
    show(Group(*steps_text([Step(command, "make the live name serve it")]), unbroken(path)))
    assert re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines() == [
        f"next: {command}   # make the live name serve it", path
    ]  # fmt: skip


def test_what_needs_nothing_is_a_note_and_stands_before_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Group(*warnings_text([Problem("look", "Do it."), Problem("it is so", note=True)])))
    assert capsys.readouterr().out == "note: it is so\nwarning: look\n  Do it.\n"
