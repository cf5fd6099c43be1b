"""Whatever is typed, a command ends with an exit code of the contract and in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed.cli.app import app
from tests.support.commands import Command

COMMANDS = sorted(
    command.name or command.callback.__name__  # type: ignore[union-attr]
    for command in app.registered_commands
)
ODD = (
    (), ("",), ("no-such-file.yaml",), ("folder",), ("chroma:./none",), ("postgresql://",),
    ("http://", "--json"), ("\x1b[31m", "--json"), ("ü" * 300,), ("--nonsense",), ("m.yaml", "x"),
    ("empty.yaml", "--json"), ("bytes.yaml",), ("--sample", "-1"), ("-v", "-q"),
    ("--log-file", "folder"), ("--log-format", "xml"), ("--every", "soon"), ("--json", "--json"),
)  # fmt: skip
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130} - {1}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_odd_arguments_are_refused_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(256)))
    for arguments in ODD:
        outcome = command(name, *arguments)
        told = outcome.out + outcome.err
        assert outcome.code in CODES, (arguments, told)
        assert "Traceback" not in told and "\x1b" not in told, (arguments, told)
        assert outcome.code == 0 or told.strip(), arguments
        assert "error: \n" not in told, arguments
