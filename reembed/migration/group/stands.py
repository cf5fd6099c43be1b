"""Where the members of a group stand, for questions that are asked of all of them.

A group asks its thousand members again and again how far they are. To read a journal takes a
millisecond, so a few words of each are remembered, for as long as the file is the same.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from reembed.run import events
from reembed.run.directory import RUN_ID, RunDir
from reembed.run.history import State

_known: dict[Path, tuple[tuple[int, int], Stand]] = {}
"""By journal: its size and time of change, and what it says."""


@dataclass(frozen=True)
class Stand:
    """What the newest run of a member says to the others.

    Attributes:
        made: names that its new collection was made with.
        own: object ids of its collections that no application has made: new ones, and the old one
            while it is parked.
    """

    state: State
    made: frozenset[str]
    own: frozenset[str]


def stand(folder: Path) -> Stand | None:
    """Of the newest run in a member's folder; None before there is one.

    Raises:
        DamagedError: see `RunDir.latest`.
    """
    journal = _newest_journal(folder)
    if journal is not None:
        seen, found = _known.get(journal, (None, None))
        if found is not None and seen == _signs(journal):
            return found
    return remembered(RunDir.latest(folder))


def remembered(run: RunDir | None) -> Stand | None:
    """What a run says, which is not read again until it has changed."""
    if run is None:
        return None
    signs = _signs(run.journal.path)  # before it is read, so that a later line is noticed
    history = run.history
    made = frozenset(event.name for event in history.all(events.ShadowIntended))
    own = {event.id for event in history.all(events.ShadowCreated)}
    census = history.census
    if census is not None and history.last_move == "swap":
        own.add(str(census.source["id"]))
    found = Stand(history.state, made, frozenset(own))
    if signs is not None:
        _known[run.journal.path] = signs, found
    return found


def _newest_journal(folder: Path) -> Path | None:
    with contextlib.suppress(OSError):
        runs = [path.name for path in folder.iterdir() if RUN_ID.fullmatch(path.name)]
        return folder / max(runs) / "journal.jsonl" if runs else None
    return None


def _signs(journal: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = journal.stat()
        return found.st_size, found.st_mtime_ns
    return None
