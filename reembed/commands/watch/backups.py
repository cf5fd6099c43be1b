"""How old the last good backup of each collection is, and the last drill that proved one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reembed.backup.directory import snapshots
from reembed.backup.snapshot import Snapshot
from reembed.commands.watch.findings import Finding, alert, fine, of_error, warning
from reembed.commands.watch.subject import Subject
from reembed.errors import ReembedError, UsageError
from reembed.manifest.watching import seconds_of
from reembed.redaction import without_secrets

AHEAD = 60.0
"""Seconds that a backup may lie in the future."""


@dataclass(frozen=True)
class BackupSeen:
    """The backups of one collection.

    Attributes:
        good: when the last good one was begun, seconds since the epoch; None without one.
        records: in it.
        drilled: when one of them was last drilled with success.
        refused: how many were kept apart since the last good one.
    """

    collection: str
    good: float | None = None
    records: int = 0
    drilled: float | None = None
    refused: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(subject: Subject, names: list[str], now: float) -> tuple[list[BackupSeen], list[Finding]]:
    """The backups of these collections, and what is wrong with them."""
    settings = subject.settings
    if settings.backups is None:
        return [], []
    try:
        there = snapshots(Path(settings.backups))
    except UsageError as error:
        return [], [alert("backup", "", error.message, _make_one(subject))]
    except ReembedError as error:
        return [], [of_error("backup", "", error)]
    seen: list[BackupSeen] = []
    found: list[Finding] = []
    for name in names:
        of_name = [one for one in there if one.collection == name]
        good = [one for one in of_name if one.good]
        drills = [one.drill for one in good]
        passed = [drill.time for drill in drills if drill and drill.passed]
        last = max(good, key=lambda one: one.sequence, default=None)
        since = sum(not one.good and (last is None or one.sequence > last.sequence)
                    for one in of_name)  # fmt: skip
        seen.append(
            BackupSeen(
                name, last.time if last else None, last.records if last else 0,
                max(passed, default=None), since,
            )
        )  # fmt: skip
        found += _backup(seen[-1], last, subject, now)
        found += _drill(seen[-1], good, subject, now)
    return seen, found


def _backup(
    seen: BackupSeen, last: Snapshot | None, subject: Subject, now: float
) -> Iterator[Finding]:
    name, url = seen.collection, without_secrets(subject.url)[0]
    refused = f"; {seen.refused} were refused since" if seen.refused else ""
    if last is None or seen.good is None:
        yield alert(
            "backup",
            name,
            f"there is no good backup of {name!r}{refused}",
            _make_one(subject, name),
        )
        return
    age = now - seen.good
    if age < -AHEAD:
        yield alert(
            "backup", name, f"the last good backup of {name!r} lies {_told(-age)} in the future",
            "A clock is or was wrong: set it. Then "
            f"{_command(subject, name)} makes another one.",
        )  # fmt: skip
    elif age > seconds_of(subject.settings.backup_age):
        yield alert(
            "backup", name,
            f"the last good backup of {name!r} is {_told(age)} old{refused}",
            _make_one(subject, name),
        )  # fmt: skip
    elif last.url != url:
        yield warning(
            "backup", name, f"the last good backup of {name!r} is of {last.url}, not of {url}",
            f"One of the two looks at the wrong database: watch {last.url}, or give watch.backups "
            f"(--backups) the directory with the backups of {url}.",
        )  # fmt: skip
    else:
        yield fine("backup", name, f"{seen.records:,} records, {_told(age)} old{refused}")


def _drill(
    seen: BackupSeen, good: list[Snapshot], subject: Subject, now: float
) -> Iterator[Finding]:
    name, settings = seen.collection, subject.settings
    drill = f"`reembed drill {subject.backups} --collection {shlex.quote(name)}`"
    restores = f"{drill} restores one into a scratch store and asks it."
    drills = sorted((done for one in good if (done := one.drill)), key=lambda one: one.time)
    if drills and not drills[-1].passed:
        yield alert(
            "drill", name, f"the last drill of a backup of {name!r} failed",
            f"{drill} tells why: until it passes, no backup is known to be of use.",
        )  # fmt: skip
    elif seen.drilled is None:
        if good:  # the first ones have time for it
            oldest = min(one.time for one in good)
            tell = alert if now - oldest > seconds_of(settings.drill_age) else warning
            yield tell(
                "drill", name, f"no backup of {name!r} was ever drilled", restores,
            )  # fmt: skip
    elif now - seen.drilled > seconds_of(settings.drill_age):
        yield alert(
            "drill", name,
            f"the last good drill of a backup of {name!r} is {_told(now - seen.drilled)} ago",
            restores,
        )  # fmt: skip
    else:
        yield fine("drill", name, f"drilled {_told(now - seen.drilled)} ago")


def _make_one(subject: Subject, name: str = "") -> str:
    return f"{_command(subject, name)} makes one, and says why if it is refused."


def _command(subject: Subject, name: str) -> str:
    """What backs a collection up where the watch looks for its backups; without a name, all."""
    which = "" if subject.manifest else f" --collection {shlex.quote(name)}" if name else " --all"
    return f"`reembed backup {subject.address}{which} -o {subject.backups}`"


def _told(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} h"
