"""What to type next: for every state of a run the commands that go on from it, and the way back.

A command is printed whole, with the manifest's path as seen from the working directory, so that it
can be copied as it stands.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from reembed.run.history import State

_BARE = re.compile(
    r"`(reembed (?:run|verify|sweep|swap|rollback|clean|plan|status|report|backup))`"
)


@dataclass(frozen=True)
class Step:
    """A command to go on with, and what it does."""

    command: str
    does: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def next_steps(state: State, manifest: Path) -> list[Step]:
    """The commands that go on from a run in this state, the natural next one first, and the way
    back.

    Args:
        manifest: the file that the commands name.
    """
    path = shown_path(manifest)
    run = Step(f"reembed run {path}", "continue where the run stopped")
    swap = Step(f"reembed swap {path} --yes", "make the live name serve the new collection")
    back = Step(
        f"reembed rollback {path} --yes",
        "make the live name serve the old collection again, with what was written since",
    )  # fmt: skip
    report = Step(f"reembed report {path}", "write the verdict as one HTML page")
    verify = Step(f"reembed verify {path}", "check every gate again")
    give_up = Step(f"reembed clean {path} --yes", "give up: delete the new collection")
    sweep = Step(f"reembed sweep {path}", "copy late writes to the collection that is not live")
    clean = Step(
        f"reembed clean {path} --yes", "delete the old collection, once swap.keep_old has passed"
    )
    steps: dict[State, list[Step]] = {
        "created": [run],
        "exported": [run],
        "embedded": [run],
        "loaded": [run, give_up],
        "verified": [swap, Step(back.command, f"after the swap: {back.does}"), report, give_up],
        "failed": [report, verify, give_up],
        "swapping": [swap, Step(back.command, "give the swap up")],
        "swapped": [back, sweep, clean],
        "rolling back": [back, Step(swap.command, "give the way back up")],
        "rolled back": [swap, give_up],
        "cleaning": [clean],
        "cleaned": [],
        "name lost": [],
    }
    return steps[state]


def plan_steps(ok: bool, manifest: Path) -> list[Step]:
    """What follows a plan: the run, or another look once it is changed."""
    path = shown_path(manifest)
    if not ok:
        again = "see again what stands in the way, once it is changed"
        return [Step(f"reembed plan {path}", again)]
    return [
        Step(f"reembed run {path}", "embed everything beside the live collection, and judge it")
    ]


def shown_path(path: Path) -> str:
    """A path relative to the working directory if it lies in it, quoted for a shell."""
    try:
        seen = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone
        return shlex.quote(str(path))
    return shlex.quote(str(path) if seen.startswith("..") else seen)


def with_manifest(text: str, manifest: Path) -> str:
    """A text in which each command of a migration that names no manifest names this one."""
    return _BARE.sub(lambda found: f"`{found[1]} {shown_path(manifest)}`", text)
