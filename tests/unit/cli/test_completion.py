"""A shell completes what is typed: `reembed completion SHELL`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.prefix) / "bin"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_command_and_an_option() -> None:
    script = (
        'source <(reembed completion bash); COMP_WORDS=(reembed {word}); COMP_CWORD={place}; '
        '_reembed_completion reembed; echo "${{COMPREPLY[*]}}"'
    )  # fmt: skip
    for words, place, wanted in (("dri", 1, "drill"), ("swap --dry", 2, "--dry-run")):
        done = subprocess.run(
            ["bash", "-c", script.format(word=words, place=place)],
            env={"PATH": f"{BIN}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.stdout.split() == [wanted], done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shells_script_asks_for_reembed(command, shell: str) -> None:
    script = command("completion", shell, "--json").json["script"]
    assert "_REEMBED_COMPLETE" in script
    assert command("completion", shell).out.strip() == script.strip()


def test_an_unknown_shell_is_a_mistake(command) -> None:
    assert command("completion", "tcsh").code == 2
