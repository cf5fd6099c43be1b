"""The user's own commands around a swap, so that the application's configuration moves with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

OUTPUT_LINES = 5


def run_hook(command: str, variables: Mapping[str, str]) -> str | None:
    """Run a shell command with `REEMBED_*` variables in its environment.

    Returns None if it ended with 0, else what went wrong with the last lines it printed. Its
    standard output goes to stderr's place: stdout belongs to reembed's one JSON document.
    """
    environment = os.environ | {f"REEMBED_{key}": value for key, value in variables.items()}
    done = subprocess.run(  # noqa: S602  (the user's own command line, listed by `plan`)
        command, shell=True, env=environment, check=False, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    tail = " | ".join(done.stdout.strip().splitlines()[-OUTPUT_LINES:]) or "it printed nothing"
    return f"exit code {done.returncode}: {tail}"
