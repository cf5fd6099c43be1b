"""The user's own commands around a swap, so that the application's configuration moves with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.run.directory import RunDir

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


def hook_variables(
    manifest: Manifest, run: RunDir, action: str, collection: str, other: str, dimensions: int
) -> dict[str, str]:
    """What a hook is told, without the `REEMBED_` in front."""
    return {
        "ACTION": action, "NAME": manifest.name, "RUN": run.run_id, "LIVE": manifest.live,
        "COLLECTION": collection, "PARKED": other, "URL": manifest.target_url,
        "PROVIDER": manifest.model.provider, "MODEL": manifest.model.name,
        "DIMENSIONS": str(dimensions),
    }  # fmt: skip


def run_before(command: str | None, variables: Mapping[str, str]) -> None:
    """Run the `before` hook. Raises PreflightError if it fails: nothing has moved yet."""
    failure = run_hook(command, variables) if command else None
    if failure:
        raise PreflightError(
            f"the hook swap.before failed, so nothing was moved: {failure}",
            "Fix the command and run the same command again.",
        )


def run_after(command: str | None, variables: Mapping[str, str]) -> list[str]:
    """Run the `after` hook. A failure is told, with the way back: the name has moved."""
    failure = run_hook(command, variables) if command else None
    if not failure:
        return []
    return [
        f"the hook swap.after failed: {failure}. The live name has moved; run the command by hand, "
        "or go back with `reembed rollback`."
    ]
