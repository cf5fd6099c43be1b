"""Read the bytes of snapshots, and say what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reembed.backup.directory import folder_name, folders
from reembed.backup.folder import ABOUT, Folder
from reembed.backup.shards import damage_of
from reembed.backup.snapshot import ShardFile, Snapshot
from reembed.errors import DamagedError, GateError, LockedError, UsageError
from reembed.progress import Progress
from reembed.quality.integrity import slice_bounds
from reembed.run.files import damaged


@dataclass(frozen=True)
class FolderCheck:
    """What was found in the folder of one collection.

    Attributes:
        snapshots: manifests that were read.
        shards: files that were read whole.
        bytes: of them.
        restorable: ids of good snapshots of which nothing was found to be wrong.
        problems: what is wrong, in words.
        notes: what is to be told besides.
    """

    folder: str
    collection: str
    snapshots: int = 0
    shards: int = 0
    bytes: int = 0
    restorable: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """What was found in a backup directory."""

    folders: list[FolderCheck]
    slice: str = ""

    @property
    def exit_code(self) -> int:
        """4 where something is wrong."""
        return GateError.exit_code if any(one.problems for one in self.folders) else 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": not self.exit_code}


def check(
    directory: Path,
    collection: str | None = None,
    *,
    snapshot: str | None = None,
    slice: str | None = None,
    progress: Progress,
) -> Check:
    """Read every byte of the snapshots of a directory, or a part of it.

    Args:
        snapshot: only what this one needs.
        slice: `n/t` reads the n-th of t parts of the shards, for nightly jobs.

    Raises:
        UsageError: there are no snapshots, or the slice is none.
        LockedError: a prune is at work.
    """
    part = _part(slice)
    found = folders(directory, collection)
    if snapshot is not None:
        found = [one for one in found if snapshot in (*one.ids(one.good), *one.ids(one.rejected))]
        if not found:
            raise UsageError(
                f"{directory}: there is no snapshot {snapshot!r}",
                f"`reembed snapshots {directory}` lists them.",
            )
    return Check([_check(one, directory, snapshot, part, progress) for one in found], slice or "")


def refuse_damaged(folder: Folder, snapshot: Snapshot, progress: Progress) -> None:
    """Raise DamagedError unless every byte that a snapshot needs is as it was written."""
    snapshot.alive()
    problems = _read(folder, snapshot.shards, progress)
    for problem in problems.values():
        raise DamagedError(
            f"{snapshot.id}: {problem}",
            "Use another snapshot (`reembed check` says which are whole), and look at the disk.",
        )


def _part(slice: str | None) -> tuple[int, int]:
    try:
        return slice_bounds(slice) if slice is not None else (1, 1)
    except ValueError as error:
        raise UsageError(f"--slice {error}", "For example 3/7, on the third night.") from None


def _check(
    folder: Folder, directory: Path, only: str | None, part: tuple[int, int], progress: Progress
) -> FolderCheck:
    with folder.reading():
        problems, notes = _of_folder(folder, directory)
        snapshots, bad = folder.snapshots()
        problems += [error.message for path, error in bad.items() if only in (None, path.name)]
        if only is None:
            problems += _missing(folder)
        wanted = [one for one in snapshots if only in (None, one.id)]
        files = {shard.name: shard for one in wanted for shard in one.shards}
        chosen = [files[name] for name in sorted(files)][part[0] - 1 :: part[1]]
        broken = _read(folder, chosen, progress)
        restorable = []
        for one in wanted:
            told = _of_snapshot(folder, one, broken)
            problems += [f"{one.id}: {problem}" for problem in told]
            if one.good and not told:
                restorable.append(one.id)
    about = _collection(folder)
    return FolderCheck(
        str(folder.path), about, len(wanted), len(chosen), sum(one.bytes for one in chosen),
        restorable, [*dict.fromkeys(problems)], notes,
    )  # fmt: skip


def _collection(folder: Folder) -> str:
    try:
        about = folder.about()
    except DamagedError:
        return ""
    return about.collection if about else ""


def _of_folder(folder: Folder, directory: Path) -> tuple[list[str], list[str]]:
    """What is wrong with the folder itself, and what is to be told."""
    problems, notes = list[str](), list[str]()
    try:
        about = folder.about()
        if about is None:
            problems.append(damaged(folder.path / ABOUT.name, ABOUT, "it is not there").message)
        elif folder.path != directory and folder.path.name != folder_name(about.collection):
            problems.append(
                f"{folder.path}: holds the snapshots of another collection, {about.collection!r} "
                f"of {about.url}, which belong in {folder_name(about.collection)}/"
            )
    except DamagedError as error:
        problems.append(error.message)
    unfinished = folder.unfinished()
    if unfinished and _at_work(folder):
        notes.append("a backup or prune is running now")
    elif unfinished:
        problems += [
            f"{path}: half written or half removed by a call that was killed; it counts for "
            "nothing, and the next backup removes it"
            for path in unfinished
        ]
    return problems, notes


def _at_work(folder: Folder) -> bool:
    try:
        with folder.lock():
            return False
    except LockedError:
        return True


def _missing(folder: Folder) -> list[str]:
    try:
        return [f"{id}: {problem}" for id, problem in folder.missing().items()]
    except DamagedError as error:
        return [error.message]


def _of_snapshot(folder: Folder, snapshot: Snapshot, broken: dict[str, str]) -> list[str]:
    problems = []
    try:
        snapshot.alive()
    except DamagedError as error:
        problems.append(error.message)
    for shard in snapshot.shards:
        path = folder.shards / shard.name
        if shard.name in broken:
            problems.append(broken[shard.name])
        elif not os.path.lexists(path):
            problems.append(f"{path}: a shard of snapshots is damaged: it is gone")
        elif path.stat().st_size != shard.bytes:
            problems.append(f"{path}: has {path.stat().st_size:,} bytes, not {shard.bytes:,}")
    return problems


def _read(folder: Folder, shards: Sequence[ShardFile], progress: Progress) -> dict[str, str]:
    """Name to what is wrong, of the shards that are not whole."""
    broken = {}
    with progress.stage("check", sum(shard.rows for shard in shards)) as counter:
        for shard in shards:
            problem = damage_of(folder.shards, shard)
            if problem:
                broken[shard.name] = problem
            counter.update(shard.rows)
    return broken
