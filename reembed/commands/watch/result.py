"""What one cycle of a watch found: the `--json` document, and the source of every metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reembed.commands.watch.backups import BackupSeen
from reembed.commands.watch.findings import Finding, exit_code
from reembed.commands.watch.looking import Seen
from reembed.commands.watch.models import Answer
from reembed.commands.watch.runs import RunSeen
from reembed.display.shown import Face, Shown, lines, parts


@dataclass(frozen=True, repr=False)
class WatchResult(Shown):
    """One cycle.

    Attributes:
        name: of the migration, or the URL without secrets.
        t: when it began, seconds since the epoch.
        seconds: it took.
        reached: whether the store answered.
        collections: those that are there.
        good: the most records of the last week, by live name.
        gone: live names that lead to nothing.
        models: which were asked, and how they are.
        backups: of each collection, where they are looked at.
        run: the newest one; None without one.
        standing: since when each alert and warning stands, by its key.
        findings: all, alerts first.
        undelivered: messages that somebody has not got yet.
        messages: what the user should know.
    """

    name: str
    url: str
    t: float
    seconds: float = 0.0
    reached: bool = False
    collections: list[Seen] = field(default_factory=list)
    good: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    models: list[Answer] = field(default_factory=list)
    backups: list[BackupSeen] = field(default_factory=list)
    run: RunSeen | None = None
    findings: list[Finding] = field(default_factory=list)
    undelivered: int = 0
    standing: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def _face(self) -> Face:
        found = f"{len(self.findings)} findings" if self.findings else "nothing is wrong"
        reached = "" if self.reached else "the store did not answer"
        return Face(
            f"{self.name}: {parts(f'{len(self.collections)} collections', reached, found)}",
            [
                *((one.status, lines([one.message, one.hint])) for one in self.findings),
                ("notes", lines(self.messages)),
            ],
        )

    @property
    def alerts(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.status == "alert"]

    @property
    def exit_code(self) -> int:
        """0 nothing is wrong, 4 something is wrong with what was looked at, else the code of what
        kept it from being looked at (5 refused, 7 out of reach)."""
        return exit_code(self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "url": self.url, "t": self.t, "seconds": round(self.seconds, 3),
            "exit_code": self.exit_code, "reached": self.reached,
            "collections": [
                one.to_dict() | {"good": self.good.get(one.name)} for one in self.collections
            ],
            "gone": self.gone,
            "models": [one.to_dict() for one in self.models],
            "backups": [one.to_dict() for one in self.backups],
            "run": self.run.to_dict() if self.run else None,
            "findings": [
                finding.to_dict() | {"since": self.standing.get(finding.key)}
                for finding in self.findings
            ],
            "undelivered": self.undelivered, "messages": self.messages,
        }  # fmt: skip
