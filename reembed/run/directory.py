"""The run directory: `<state>/<name>/<run id>/` holds everything a run knows.

A shard is written to a temporary name, fsynced, renamed, then journalled with its rows and SHA-256;
what is not in the journal does not exist. Where the run stands is answered by its history.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.errors import DamagedError, ManifestError
from reembed.manifest import Manifest
from reembed.run import events
from reembed.run.disk import (
    atomic_file,
    file_sha256,
    fsync_dir,
    make_private_dir,
    read_errors,
    write_atomic,
    write_errors,
)
from reembed.run.files import MANIFEST, SHARD, Found, read
from reembed.run.history import History
from reembed.run.journal import Journal
from reembed.run.shards import DELTA, NOTHING, Besides, Shard, encoding, in_parts, opened
from reembed.run.steps import shown_path

__all__ = ["DELTA", "RunDir", "Shard", "new_run_id"]


RUN_ID = re.compile(r"\d{8}t\d{6}-[0-9a-f]{4,}")
MADE_FIRST = {MANIFEST.name, "journal.jsonl"}
"""What a run directory may hold before its first whole journal line."""
READERS = 2
"""Threads that look whether shards are whole."""
TICK_NS = 1_000_000_000
"""Two writes to a file may leave the same time in it, if they are nearer than this to each other
(2 ms to 10 ms on Linux, up to a second on some network file systems)."""


def new_run_id(latest: str = "") -> str:
    """A run id that is legal in collection names: `20261121t134502-3f9a`.

    Ids sort in the order in which runs were begun. They tell the time too, unless a clock went
    back: then the one after `latest`, the newest there is, goes on counting from it.
    """
    found = time.strftime("%Y%m%dt%H%M%S", time.gmtime()) + "-" + secrets.token_hex(2)
    if found > latest:
        return found
    stamp, _, number = latest.partition("-")
    following = int(number, 16) + 1
    # Past ffff a longer number still sorts after it: ffff, ffff0, ffff1.
    return f"{stamp}-{following:0{len(number)}x}" if following < 16 ** len(number) else latest + "0"


class RunDir:
    """One run's directory.

    Args:
        path: `<state>/<name>/<run id>`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self.history = History(self.journal)
        self._whole: dict[str, tuple[str, tuple[int, ...]]] = {}

    @property
    def run_id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, state_dir: Path, manifest_yaml: str, identity: dict[str, Any]) -> Self:
        """A new run directory, which sorts after all others of `state_dir`; its first journal line
        makes it exist. To be called by the holder of the state lock."""
        latest = cls.latest(state_dir)
        run = cls(state_dir / new_run_id(latest.run_id if latest else ""))
        make_private_dir(run.path)
        with write_errors(state_dir):
            fsync_dir(state_dir)
        write_atomic(run.kept_manifest, manifest_yaml.encode())
        run.history.record(events.RunCreated(run=run.run_id, identity=identity))
        return run

    @classmethod
    def latest(cls, state_dir: Path) -> Self | None:
        """The newest run that was begun, or None. Half-made directories are passed over.

        Raises:
            DamagedError: the newest one has lost its journal.
        """
        with read_errors(state_dir):
            if not state_dir.is_dir():
                return None
            for path in sorted(state_dir.iterdir(), reverse=True):
                if RUN_ID.fullmatch(path.name) and path.is_dir():
                    run = cls(path)
                    if run.history.read():
                        return run
                    if not run.never_began():
                        raise run.journal.lost()
        return None

    @classmethod
    def every(cls, state_dir: Path) -> list[Self]:
        """Every run that was begun, newest first."""
        with read_errors(state_dir):
            if not state_dir.is_dir():
                return []
            paths = sorted((path for path in state_dir.iterdir() if path.is_dir()), reverse=True)
        found = [cls(path) for path in paths if RUN_ID.fullmatch(path.name)]
        return [run for run in found if run.history.read()]

    def never_began(self) -> bool:
        """Whether the directory holds no more than what is made before its first journal line."""
        names = {path.name for path in self.path.iterdir() if not path.name.endswith(".tmp")}
        journal = self.journal.path
        if not os.path.lexists(journal):
            return names <= MADE_FIRST
        # One with a whole line is somebody's to look at, even where it is damaged.
        return names <= MADE_FIRST and journal.is_file() and b"\n" not in journal.read_bytes()

    def has_identity(self, identity: dict[str, Any]) -> bool:
        """Whether this run was begun with the same manifest."""
        return not self._identity_differences(identity)

    def _identity_differences(self, identity: dict[str, Any]) -> list[str]:
        created = json.loads(json.dumps(self.history.created.identity))
        created.get("source", {}).pop("model", None)  # runs that began when it counted
        return list(_differences(created, json.loads(json.dumps(identity))))

    def check_identity(
        self, identity: dict[str, Any], live: str | None = None, path: Path | None = None
    ) -> None:
        """Raise ManifestError if this run was begun with another manifest, naming the keys.

        Args:
            live: the live name, which may change until it is moved; default: as it was moved.
            path: the manifest's file, for the hint.
        """
        differing = self._identity_differences(identity)
        if self.history.moved_live not in (None, live or self.history.moved_live):
            differing.append("swap.live")
        if differing:
            kept, given = self.kept_manifest, shown_path(path or Path("MANIFEST"))
            raise ManifestError(
                f"{self.path}: it was begun with another manifest: {', '.join(differing)} differ",
                f"Put those keys back as they are in {kept}, or go on with that file itself. "
                f"`reembed run {given} --restart` gives that run up, unless it is swapped, and "
                "starts a new one; vectors that are known to be right for it are not paid for "
                "again. To begin another migration beside it, give the manifest a new `name`.",
            )

    @property
    def kept_manifest(self) -> Path:
        """The manifest as the run resolved it."""
        return self.path / MANIFEST.name

    def manifest_file(self, manifest: Manifest) -> Path:
        """The file that commands for this run name: the manifest's own, else the run's copy."""
        return manifest.path or self.kept_manifest

    def shown_manifest(self, manifest: Manifest) -> str:
        """`manifest_file` as it is typed."""
        return shown_path(self.manifest_file(manifest))

    # Shards

    def write_shard(
        self,
        stage: str,
        stem: str,
        table: pa.Table,
        *,
        source: str = "",
        besides: Besides = NOTHING,
    ) -> Shard:
        """Write, fsync, rename and journal a shard."""
        name = f"{stage}/{stem}.parquet"
        path, how = self.path / name, encoding(table.schema)
        with atomic_file(path) as file:
            pq.write_table(table, file, **how)
        shard = Shard(
            name,
            table.num_rows,
            file_sha256(path),
            source,
            tuple(besides.deleted),
            besides.foreign,
            tuple(besides.missing),
        )
        self.history.record(events.ShardWritten(stage=stage, **asdict(shard)))
        return shard

    def shards(self, stage: str) -> dict[str, Shard]:
        """The journalled shards of a stage by stem, in the order of their first writing."""
        return self.history.shards(stage)

    def is_whole(self, shard: Shard) -> bool:
        """Whether the shard's file is there with the bytes that were journalled. They are read
        again only if the file was written to since this object last did: each round of catch-up
        asks of every shard of the run, the last one while writers wait."""
        path = self.path / shard.name
        with read_errors(path):
            if not path.is_file():
                return False
            now = path.stat()
            state = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            if self._whole.get(shard.name) == (shard.sha256, state):
                return True
            if file_sha256(path) != shard.sha256:
                return False
            if time.time_ns() - now.st_ctime_ns > TICK_NS:
                self._whole[shard.name] = (shard.sha256, state)
            return True

    def whole(self, shards: Iterable[Shard]) -> set[str]:
        """Stems of those that are whole. Their bytes are read by several threads, since most of
        that is SHA-256, outside of Python's lock."""
        listed = list(shards)
        if len(listed) < READERS:
            return {shard.stem for shard in listed if self.is_whole(shard)}
        with ThreadPoolExecutor(READERS, "whole") as threads:
            found = threads.map(self.is_whole, listed)
            return {shard.stem for shard, whole in zip(listed, found, strict=True) if whole}

    def is_complete(self, shard: Shard) -> bool:
        """Whether a shard is whole and none of its records is missing."""
        return not shard.missing and self.is_whole(shard)

    def read_shard(self, shard: Shard, columns: Iterable[str] | None = None) -> pa.Table:
        """Read a shard that `is_whole` vouched for. Raises DamagedError if it was wrong by now."""

        def parse(path: Path) -> pa.Table:
            with opened(path) as file:
                wanted = file.schema_arrow.names if columns is None else list(columns)
                parts = list(in_parts(file, wanted))
                schema = parts[0].schema if parts else file.schema_arrow
                return pa.Table.from_batches(parts, schema).select(wanted)

        return self._parsed(shard, parse)

    def shard_parts(self, shard: Shard, columns: Sequence[str]) -> Iterator[pa.Table]:
        """As `read_shard`, about `PART_BYTES` at a time."""
        wanted = list(columns)
        file = self._parsed(shard, opened)
        with file:
            parts = in_parts(file, wanted)
            while part := self._parsed(shard, lambda _: list(islice(parts, 1))):
                yield pa.Table.from_batches(part).select(wanted)

    def _parsed(self, shard: Shard, parse: Callable[[Path], Found]) -> Found:
        try:
            found = read(self.path / shard.name, SHARD, parse)
        except DamagedError as error:
            raise self.damaged(shard) from error
        if found is None:
            raise self.damaged(shard)
        return found

    def damaged(self, shard: Shard) -> DamagedError:
        """The error of a shard that is not whole."""
        return DamagedError(
            f"{self.path / shard.name}: this file of the run is damaged or gone",
            "It is made again by `reembed run` or, where the live name has moved, by "
            "`reembed sweep`.",
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The keys that differ; their values may be long, or not for every eye."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path
