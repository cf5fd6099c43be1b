"""Where the snapshots of one collection lie, who may work there, and what is there.

    DIR/<collection>/folder.json     whose snapshots these are
                     shards/         records, shared by all snapshots
                     snapshots/ID/   the good ones
                     rejected/ID/    those that were kept apart for a look
                     journal.jsonl   what was done, and accepted by whom with which words

Every change happens under the lock of the folder. A snapshot is there when its manifest is, and a
shard may go when no manifest names it; so whatever a killed call left is told from what is needed,
and the next call removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reembed.backup.snapshot import ANOTHER_DISK, MANIFEST, Snapshot, read_snapshot, sequence_of
from reembed.errors import DamagedError, LockedError, PreflightError, UsageError
from reembed.run.disk import (
    fsync_dir,
    open_private,
    read_errors,
    remove,
    write_atomic,
    write_errors,
)
from reembed.run.files import RunFile, damaged, read
from reembed.run.journal import Journal
from reembed.run.lock import StateLock

FORMAT = 1
ABOUT = RunFile(
    "folder.json", "whose snapshots these are",
    "Put it back from a copy of the folder; its keys are format, id, url and collection, as every "
    "manifest.json below has them (folder_id for id).",
)  # fmt: skip
ID = re.compile(r"[0-9]{6,}-[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True)
class About:
    """Whose snapshots a folder holds.

    Attributes:
        id: of the folder, made up when it was.
        url: of the store, without secrets.
        collection: the name that the application reads.
    """

    id: str
    url: str
    collection: str


class Folder:
    """The folder of one collection's snapshots.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards = path / "shards"
        self.good = path / "snapshots"
        self.rejected = path / "rejected"

    @property
    def work_file(self) -> Path:
        """For the index of a backup at work."""
        return self.path / "index.sqlite"

    # Whose it is

    def about(self) -> About | None:
        """Whose snapshots these are, None before the first. Raises DamagedError."""

        def parse(file: Path) -> About:
            data = json.loads(file.read_bytes())
            if data.pop("format") != FORMAT:
                raise ValueError("another version of reembed wrote it")
            return About(**{key: str(value) for key, value in data.items()})

        return read(self.path / ABOUT.name, ABOUT, parse)

    def begin(self, url: str, collection: str) -> About:
        """Whose snapshots these are; from now on this collection's where they are nobody's yet.

        Raises:
            PreflightError: they are another's.
        """
        there = self.about()
        if there is None:
            if self.ids(self.good):
                raise damaged(self.path / ABOUT.name, ABOUT, "it is not there")
            there = About(secrets.token_hex(8), url, collection)
            text = json.dumps({"format": FORMAT} | there.__dict__, ensure_ascii=False, indent=1)
            write_atomic(self.path / ABOUT.name, text.encode(), ANOTHER_DISK)
        if there.collection != collection or there.url != url:
            raise PreflightError(
                f"{self.path}: holds the snapshots of {there.collection!r} of {there.url}, not of "
                f"{collection!r} of {url}",
                "Give another directory with -o. Where the store only has another address by now, "
                "write that into folder.json first.",
            )
        return there

    # Who works there

    def lock(self) -> StateLock:
        """The right to change the folder. Raises LockedError, naming who has it."""
        return StateLock(self.path / "lock", ANOTHER_DISK)

    @contextlib.contextmanager
    def reading(self, *, alone: bool = False) -> Iterator[None]:
        """Nothing that a snapshot needs is removed in the block.

        Args:
            alone: for who is about to remove something: nobody reads in the block.

        Raises:
            LockedError: somebody reads, or removes.
        """
        path = self.path / "readers"
        with write_errors(path, ANOTHER_DISK):
            fd = open_private(path, os.O_RDWR)
        try:
            how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
            except BlockingIOError:
                others = "a check, restore or drill reads" if alone else "a prune removes"
                raise LockedError(
                    f"{self.path}: {others} snapshots now", "Wait until it ends, and try again."
                ) from None
            yield
        finally:
            os.close(fd)

    # What is there

    def ids(self, kind: Path) -> list[str]:
        """Names of the directories of snapshots, whole or not, in their order."""
        with read_errors(kind):
            if not kind.is_dir():
                return []
            found = [path.name for path in kind.iterdir() if ID.fullmatch(path.name)]
        return sorted(found, key=lambda id: (sequence_of(id), id))

    def whole(self, kind: Path) -> Iterator[Path]:
        """Directories of snapshots that have a manifest, in their order."""
        return (kind / id for id in self.ids(kind) if os.path.lexists(kind / id / MANIFEST.name))

    def unfinished(self) -> list[Path]:
        """Directories of snapshots without a manifest: what killed calls left."""
        return [
            kind / id
            for kind in (self.good, self.rejected)
            for id in self.ids(kind)
            if not os.path.lexists(kind / id / MANIFEST.name)
        ]

    def snapshots(self) -> tuple[list[Snapshot], dict[Path, DamagedError]]:
        """All snapshots in their order, and those whose manifest is damaged."""
        found, bad = list[Snapshot](), dict[Path, DamagedError]()
        about = self.about()
        for kind in (self.good, self.rejected):
            for path in self.whole(kind):
                try:
                    one = read_snapshot(path)
                    if about is None:
                        raise damaged(self.path / ABOUT.name, ABOUT, "it is not there")
                    if one.folder_id != about.id:
                        raise DamagedError(
                            f"{path}: this is a snapshot of {one.collection!r} of {one.url} that "
                            "was taken into another folder",
                            f"Move it out of {kind}.",
                        )
                    if one.good != (kind == self.good):
                        raise DamagedError(f"{path}: it was moved here", f"Move it out of {kind}.")
                except DamagedError as error:
                    bad[path] = error
                else:
                    found.append(one)
        return sorted(found, key=lambda one: one.sequence), bad

    def last_good(self) -> Snapshot | None:
        """The newest good snapshot whose manifest is whole."""
        good = [one for one in self.snapshots()[0] if one.good]
        return good[-1] if good else None

    def choose(self, id: str | None) -> Snapshot:
        """The snapshot of this id, or the newest good one.

        Raises:
            UsageError: there is none, naming those that there are.
            DamagedError: it is damaged.
        """
        found, bad = self.snapshots()
        for path, error in bad.items():
            if path.name == id:
                raise error
        good = [one for one in found if one.good]
        chosen = [one for one in found if one.id == id] if id is not None else good[-1:]
        if chosen:
            return chosen[0]
        raise UsageError(
            f"{self.path}: there is no snapshot {id!r}"
            if id
            else f"{self.path}: there is no good snapshot",
            f"Good ones: {', '.join(one.id for one in good)}."
            if good
            else "Take one with `reembed backup`.",
        )

    def missing(self) -> dict[str, str]:
        """Snapshots that the journal knows otherwise, by id: gone without a prune, or other than
        written. Raises DamagedError."""
        snapshots, bad = self.snapshots()
        lines = self.noted()
        there = {one.id: one for one in snapshots}
        gone = {
            id for line in lines if line["event"] == "pruned" for id in line.get("snapshots", ())
        }
        known = {*there, *(path.name for path in bad), *gone}
        found = dict[str, str]()
        for line in lines:
            id, written = line.get("snapshot"), line.get("manifest_sha256")
            if not id or not written:
                continue
            if id not in known:
                found[id] = "the snapshot is gone, and no prune has removed it"
            elif id in there and there[id].sha256 != written:
                found[id] = "its manifest is another one than was written"
        return found

    def harmed(self) -> dict[str, str]:
        """Snapshots that were taken and are not whole any more, by id; shards are not looked at."""
        bad = {path.name: error.message for path, error in self.snapshots()[1].items()}
        try:
            return bad | self.missing()
        except DamagedError:  # `check` says so
            return bad

    def next_id(self) -> str:
        """For a new snapshot: it comes after all that there are, whatever the clock says."""
        there = [*self.ids(self.good), *self.ids(self.rejected)]
        newest = max((sequence_of(id) for id in there), default=0)
        return f"{newest + 1:06d}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"

    # What is left over

    def sweep(self) -> int:
        """Remove what killed calls left and no snapshot needs. To be called under the lock. Returns
        the bytes of shards that were removed.

        Nothing is removed while a manifest cannot be read, since nobody knows what it needs.
        """
        for path in self.unfinished():
            remove_tree(path)
        remove(self.work_file)
        for path in (self.path, self.shards):
            if path.is_dir():
                for one in path.glob(".*.tmp"):
                    remove(one)
        snapshots, bad = self.snapshots()
        if bad or not self.shards.is_dir():
            return 0
        needed = {shard.name for one in snapshots for shard in one.shards}
        freed = 0
        for path in self.shards.glob("*.parquet"):
            if path.name not in needed:
                freed += path.stat().st_size
                remove(path)
        return freed

    def noted(self) -> list[dict[str, Any]]:
        """The lines of the folder's journal. Raises DamagedError."""
        return Journal(self.path / "journal.jsonl").read()

    def note(self, event: str, **fields: Any) -> None:
        """Write a line into the folder's journal. One that is damaged is put aside: it is there for
        people, and must not keep a backup from being taken."""
        path = self.path / "journal.jsonl"
        try:
            Journal(path, ANOTHER_DISK).append(event, **fields)
        except DamagedError:
            with write_errors(path, ANOTHER_DISK):
                path.rename(path.with_name(f"journal-damaged-{time.time_ns()}.jsonl"))
            Journal(path, ANOTHER_DISK).append(event, **fields)


def remove_tree(path: Path) -> None:
    """Remove a snapshot's directory, its manifest first: without it there is no snapshot."""
    remove(path / MANIFEST.name)
    if path.is_dir():
        with write_errors(path):
            fsync_dir(path)
            shutil.rmtree(path)
