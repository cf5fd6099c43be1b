"""How the newest run of a manifest stands: a job that failed, or stopped and was not taken up
again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reembed.commands.watch.findings import Finding, alert, fine, of_error
from reembed.commands.watch.subject import Subject
from reembed.errors import ReembedError
from reembed.manifest.watching import seconds_of
from reembed.migration.group.roster import group_state
from reembed.run.history import State

AT_REST: tuple[State, ...] = ("verified", "swapped", "rolled back", "cleaned")
"""Nothing is at work, and nothing has to be."""


@dataclass(frozen=True)
class RunSeen:
    """The newest run.

    Attributes:
        t: when something was last done on it, seconds since the epoch.
        failed: whether it needs somebody.
    """

    run: str
    state: str
    t: float
    failed: bool

    def to_dict(self) -> dict[str, Any]:
        return {"run": self.run, "state": self.state, "t": self.t, "failed": self.failed}


def look(subject: Subject, now: float) -> tuple[RunSeen | None, list[Finding]]:
    """The newest run, None without one, and what is wrong with it."""
    if subject.manifest is None:
        return None, []
    name = subject.name
    try:
        run = subject.run()
        if run is None:
            return None, []
        state = group_state(run) if subject.manifest.is_group else run.history.state
        t = run.history.read()[-1].t
    except ReembedError as error:
        return None, [of_error("run", "", error, subject=name)]
    again = f"`reembed run` goes on with it, and says what blocks it (run {run.run_id})."
    finding = fine("run", "", f"run {run.run_id} is {state}", subject=name)
    if state == "failed":
        finding = alert(
            "run", "", f"the verdict of run {run.run_id} does not pass, so nothing was swapped",
            "`reembed report` shows which gates failed, and on which records.", subject=name,
        )  # fmt: skip
    elif state not in AT_REST and now - t > seconds_of(subject.settings.run_age):
        hours = (now - t) / 3600
        finding = alert(
            "run", "", f"run {run.run_id} is {state}, and nothing was done on it for {hours:.0f} h",
            again, subject=name,
        )  # fmt: skip
    failed = finding.status == "alert"
    return RunSeen(run.run_id, state, t, failed), [finding]
