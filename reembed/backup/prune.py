"""Remove snapshots that are not to be kept, and the shards that no other one needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reembed.backup.directory import folders
from reembed.backup.folder import Folder, remove_tree
from reembed.backup.restore import finished, prune_restores
from reembed.backup.snapshot import Snapshot
from reembed.errors import DamagedError, PreflightError, UsageError
from reembed.run.disk import is_full


@dataclass(frozen=True)
class Keep:
    """Which good snapshots are kept; the newest always is.

    Attributes:
        last: so many of the newest.
        daily, weekly, monthly: the newest of each of so many days, weeks and months (UTC) that have
            one, whatever lies between them and today.
    """

    last: int = 7
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


@dataclass(frozen=True)
class Pruned:
    """What was removed of one collection, or would be.

    Attributes:
        kept, removed: ids of snapshots, good and rejected.
        restores: ids of finished restores whose run directories go.
        freed: bytes of shards; 0 where nothing was done yet.
        notes: what was left, and why.
    """

    folder: str
    collection: str
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    restores: list[str] = field(default_factory=list)
    freed: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prune:
    """What came of a prune."""

    done: bool
    folders: list[Pruned]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def prune(
    directory: Path, collection: str | None = None, *, keep: Keep, dry_run: bool = True
) -> Prune:
    """Keep the last good snapshots, whatever came after them, and remove the others.

    Raises:
        UsageError: there are none, or none would be kept.
        LockedError: a backup is at work, or somebody reads snapshots.
    """
    if keep.last < 1:
        raise UsageError("--keep should be at least 1", "The newest good snapshot always stays.")
    return Prune(
        not dry_run, [_prune(one, keep, dry_run) for one in folders(directory, collection)]
    )


def _prune(folder: Folder, keep: Keep, dry_run: bool) -> Pruned:
    about = folder.about()
    name = about.collection if about else ""
    if dry_run:
        kept, removed, notes = _choose(folder, keep)
        done = [one.run_id for one in finished(folder)]
        return Pruned(str(folder.path), name, _ids(kept), _ids(removed), done, 0, notes)
    with folder.lock(), folder.reading(alone=True):
        kept, removed, notes = _choose(folder, keep)
        noted = not removed or _note(folder, removed)
        for one in removed:
            remove_tree(one.path)
        freed = folder.sweep()
        done = prune_restores(folder)
        if not noted:
            folder.note("pruned", snapshots=_ids(removed))
    return Pruned(str(folder.path), name, _ids(kept), _ids(removed), done, freed, notes)


def _note(folder: Folder, removed: Sequence[Snapshot]) -> bool:
    """Say in the journal what will be removed, so that `check` misses nothing. False where the disk
    is too full for that: it is said once there is room."""
    try:
        folder.note("pruned", snapshots=_ids(removed))
    except PreflightError as error:
        if not is_full(error):
            raise
        return False
    return True


def _ids(snapshots: Sequence[Snapshot]) -> list[str]:
    return [one.id for one in snapshots]


def _choose(folder: Folder, keep: Keep) -> tuple[list[Snapshot], list[Snapshot], list[str]]:
    """Which snapshots are kept, which go, and what is to be told.

    The order is that of the sequence: a clock that jumped makes nothing older or newer. One of
    which something is missing counts for nothing, and stays for a look.
    """
    found, bad = folder.snapshots()
    notes = [f"left as it is: {error.message}" for error in bad.values()]
    broken = {one.id for one in found if one.good and not _is_there(folder, one)}
    notes += [f"{id} is not whole, so it counts for nothing, and stays" for id in sorted(broken)]
    good = [one for one in reversed(found) if one.good and one.id not in broken]
    chosen = {one.id for one in good[: keep.last]}
    periods = (keep.daily, "%Y-%m-%d"), (keep.weekly, "%G-%V"), (keep.monthly, "%Y-%m")
    for most, period in periods:
        chosen |= _newest_of_each(good, period, most)
    rejected = [one for one in reversed(found) if not one.good]
    chosen |= {one.id for one in rejected[: keep.last]} | broken
    if not good:  # nothing here may be the last of anything
        chosen = {one.id for one in found}
    kept = [one for one in found if one.id in chosen]
    return kept, [one for one in found if one.id not in chosen], notes


def _newest_of_each(newest_first: Sequence[Snapshot], period: str, most: int) -> set[str]:
    """The first snapshot of each of `most` periods, which are told apart as `strftime` does."""
    first: dict[str, str] = {}
    for one in newest_first:
        name = time.strftime(period, time.gmtime(one.time))
        if len(first) < most or name in first:
            first.setdefault(name, one.id)
    return set(first.values())


def _is_there(folder: Folder, snapshot: Snapshot) -> bool:
    """Whether every file of a snapshot is there with its size; `check` reads the bytes."""
    try:
        snapshot.alive()
    except DamagedError:
        return False
    paths = ((folder.shards / shard.name, shard.bytes) for shard in snapshot.shards)
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)
