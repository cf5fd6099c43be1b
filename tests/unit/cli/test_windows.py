"""On Windows, whose Python lacks modules that reembed imports, the program says so and stops."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from reembed.errors import PreflightError, refuse_windows
from tests.support.following import follows_hint

AS_ON_WINDOWS = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
sys.platform = "win32"
"""


def on_windows(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS + code], capture_output=True, text=True
    )


@pytest.mark.parametrize("arguments", [[], ["--version"], ["plan", "m.yaml"]])
def test_the_program_refuses_before_anything_else(arguments: list[str]) -> None:
    program = f"from reembed.__main__ import main; sys.argv = ['reembed', *{arguments!r}]; main()"
    done = on_windows(program)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: reembed runs on Linux and macOS, not on Windows itself\n")
    assert "WSL" in done.stderr and "Traceback" not in done.stderr


def test_with_json_the_refusal_is_a_document() -> None:
    program = "from reembed.__main__ import main; sys.argv = ['r', 'plan', 'm', '--json']; main()"
    told = json.loads(on_windows(program).stdout)["error"]
    assert (told["exit_code"], told["kind"]) == (5, PreflightError.kind)


def test_python_is_told_the_same() -> None:
    done = on_windows("from reembed import Migration")
    assert "PreflightError: reembed runs on Linux and macOS" in done.stderr


@follows_hint("Use WSL")
def test_in_wsl_which_is_linux_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(PreflightError):
        refuse_windows()
    monkeypatch.setattr(sys, "platform", "linux")
    refuse_windows()
