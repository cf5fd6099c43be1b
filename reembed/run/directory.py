"""The run directory: journal, shards, lease.

`<state>/<name>/<run id>/` holds everything a run knows. The journal is append-only JSON lines,
fsynced line by line; the state of a run is a fold over it, so that a run killed anywhere is resumed
by reading it again. A shard is written to a temporary name, fsynced, renamed, then journalled with
its rows and SHA-256; what is not in the journal does not exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.disk import (
    PRIVATE_FILE,
    atomic_file,
    file_sha256,
    fsync_dir,
    make_private_dir,
    write_atomic,
    write_errors,
)
from reembed.errors import DamagedError, LockedError, ManifestError, PreflightError
from reembed.redaction import redacted_data

DELTA = "delta-"
"""How the stems of shards begin that catch-up adds; the census's own are `shard-`."""


@dataclass(frozen=True)
class Shard:
    """A journalled Parquet file of a run.

    Attributes:
        name: path relative to the run directory, e.g. `export/shard-00000.parquet`.
        rows: number of rows.
        sha256: hash of the file's bytes, hexadecimal.
        source: `sha256` of the shard it was made from; empty for an export shard.
        deleted: ids that the source no longer had when this delta was exported.
        foreign: whether its records come from another collection than the source, which therefore
            need not hold them.
        missing: id, row hash (hexadecimal) and whether it is quarantined, of each record that it
            held before it was made again and that no collection held any more as it was.
    """

    name: str
    rows: int
    sha256: str
    source: str = ""
    deleted: tuple[str, ...] = ()
    foreign: bool = False
    missing: tuple[tuple[str, str, bool], ...] = ()

    @property
    def stem(self) -> str:
        """`shard-00000`, the same for a shard of every stage."""
        return Path(self.name).stem


def new_run_id() -> str:
    """A run id that sorts by time and is legal in collection names: `20261121t134502-3f9a`."""
    return time.strftime("%Y%m%dt%H%M%S", time.gmtime()) + "-" + secrets.token_hex(2)


DATA = frozenset({"deleted", "foreign", "ids", "metadata", "missing"})
"""Keys of events that hold the user's records or collections, which are never altered."""


class Journal:
    """The append-only, fsynced log of a run. Each line is `{"t": seconds, "event": name, ...}`.

    A line torn by a crash can only be the last one: it has no newline, is not read, and is cut off
    before the next one is written. Any other damaged line is an error, because what follows it
    cannot be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All whole events, oldest first. Raises PreflightError if a whole line is damaged."""
        if not self.path.exists():
            return []
        # What follows the last newline is torn, even where it reads as JSON: `append` cuts it off.
        *lines, _torn = self.path.read_bytes().split(b"\n")
        return [self._event(number, line) for number, line in enumerate(lines, start=1)]

    def _event(self, number: int, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                return event
        raise PreflightError(
            f"{self.path}: line {number} is damaged",
            "The disk or another program changed it. Move the run directory away and run "
            "again: a new run starts, and the embedding cache keeps what was paid for.",
        )

    def append(self, event: str, **fields: Any) -> None:
        """Write one event and wait until it is on disk."""
        clean = redacted_data(fields, words=False, exact=DATA)
        line = json.dumps({"t": round(time.time(), 3), "event": event, **clean}, ensure_ascii=False)
        with write_errors(self.path):
            new = not self.path.exists()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
            try:
                self._cut_torn_line(fd)
                left = line.encode() + b"\n"
                while left:  # a disk that is nearly full takes a part
                    left = left[os.write(fd, left) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                fsync_dir(self.path.parent)

    @staticmethod
    def _cut_torn_line(fd: int) -> None:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = os.pread(fd, size, 0)
            os.ftruncate(fd, data.rfind(b"\n") + 1)


class Lease:
    """The exclusive right to work on a migration, held by one process at a time.

    An advisory `flock` on `<state>/<name>/lease`: the kernel drops it when its owner dies, so a
    dead owner never blocks the next run. The file says who holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lease. Raises LockedError, naming the owner, if another process holds it."""
        if self.held:
            return
        make_private_dir(self.path.parent)
        with write_errors(self.path):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 4096, 0).decode("utf-8", "replace").strip() or "unknown"
            os.close(fd)
            raise LockedError(
                f"{self.path.parent}: another run is at work: {owner}",
                "Wait until it ends, or stop it; running again then resumes where it was.",
            ) from None
        owner = f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T %z')}"
        try:
            with write_errors(self.path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, owner.encode() + b"\n", 0)
        except BaseException:
            os.close(fd)  # and with it the lock, or nobody could have it while this process lives
            raise
        self._fd = fd

    def release(self) -> None:
        """Give the lease back. Does nothing if it is not held."""
        if self._fd is not None:
            with contextlib.suppress(OSError):  # a name left in it claims nothing: the lock counts
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class RunDir:
    """One run's directory.

    Args:
        path: `<state>/<name>/<run id>`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")

    @property
    def run_id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, state_dir: Path, manifest_yaml: str, identity: dict[str, Any]) -> Self:
        """A new run directory; its first journal line makes it exist."""
        run = cls(state_dir / new_run_id())
        make_private_dir(run.path)
        with write_errors(state_dir):
            fsync_dir(state_dir)
        write_atomic(run.path / "manifest.yaml", manifest_yaml.encode())
        run.journal.append("run-created", run=run.run_id, identity=identity)
        return run

    @classmethod
    def latest(cls, state_dir: Path) -> Self | None:
        """The newest run that was begun, or None. Half-made directories are passed over."""
        if not state_dir.is_dir():
            return None
        for path in sorted(state_dir.iterdir(), reverse=True):
            if (path / "journal.jsonl").is_file() and cls(path).events("run-created"):
                return cls(path)
        return None

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The journal's events of these names (all without any), oldest first."""
        events = self.journal.read()
        return [e for e in events if e["event"] in names] if names else events

    def last(self, *names: str) -> dict[str, Any] | None:
        """The newest event of these names."""
        events = self.events(*names)
        return events[-1] if events else None

    def has_identity(self, identity: dict[str, Any]) -> bool:
        """Whether this run was begun with the same manifest."""
        return not self._identity_differences(identity)

    def _identity_differences(self, identity: dict[str, Any]) -> list[str]:
        created = self.events("run-created")[0]["identity"]
        return list(_differences(created, json.loads(json.dumps(identity))))

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Raise ManifestError if this run was begun with another manifest, naming what differs."""
        differing = self._identity_differences(identity)
        if differing:
            raise ManifestError(
                f"{self.path}: it was begun with another manifest: {'; '.join(differing[:5])}",
                "Give the manifest a new `name` to begin another migration, or put the old values "
                "back to go on with this one.",
            )

    # Shards

    def write_shard(
        self,
        stage: str,
        stem: str,
        table: pa.Table,
        *,
        source: str = "",
        deleted: Sequence[str] = (),
        foreign: bool = False,
        missing: Sequence[tuple[str, str, bool]] = (),
    ) -> Shard:
        """Write, fsync, rename and journal a shard."""
        name = f"{stage}/{stem}.parquet"
        path = self.path / name
        with atomic_file(path) as file:
            pq.write_table(table, file, **_encoding(table.schema))
        shard = Shard(
            name, table.num_rows, file_sha256(path), source, tuple(deleted), foreign, tuple(missing)
        )
        self.journal.append("shard", stage=stage, **asdict(shard))
        return shard

    def shards(self, stage: str) -> dict[str, Shard]:
        """The journalled shards of a stage by stem, in the order of their first writing."""
        found: dict[str, Shard] = {}
        for event in self.events("shard"):
            if event["stage"] == stage:
                shard = Shard(
                    event["name"], event["rows"], event["sha256"], event["source"],
                    tuple(event["deleted"]), event.get("foreign", False),
                    tuple((id, row, out) for id, row, out in event.get("missing", ())),
                )  # fmt: skip
                found[shard.stem] = shard
        return found

    def is_whole(self, shard: Shard) -> bool:
        """Whether the shard's file is there with the bytes that were journalled."""
        path = self.path / shard.name
        return path.is_file() and file_sha256(path) == shard.sha256

    def read_shard(self, shard: Shard, columns: Iterable[str] | None = None) -> pa.Table:
        """Read a shard that `is_whole` vouched for. Raises DamagedError if it was wrong by now."""
        try:
            with pq.ParquetFile(self.path / shard.name) as file:
                if columns is None:
                    return file.read()
                wanted = list(columns)
                return file.read(wanted).select(wanted)
        except (OSError, pa.ArrowException) as error:
            raise self.damaged(shard) from error

    def damaged(self, shard: Shard) -> DamagedError:
        """The error of a shard that is not whole."""
        return DamagedError(
            f"{self.path / shard.name}: this file of the run is damaged or gone",
            "It is made again by `reembed run` or, where the live name has moved, by "
            "`reembed sweep`.",
        )


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How a shard's columns are written. Hashes and the values of vectors stand as they are: zstd
    takes 7 % off floats and a dictionary nothing, in more time than all else takes together."""
    compression = {}
    for field in schema:
        vector = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
        plain = vector or pa.types.is_fixed_size_binary(field.type)
        name = f"{field.name}.list.element" if vector else field.name
        compression[name] = "none" if plain else "zstd"
    texts = [name for name, codec in compression.items() if codec != "none"]
    return {
        "compression": compression,
        "compression_level": dict.fromkeys(texts, 1),
        "use_dictionary": False,
        "write_statistics": texts,
        "write_batch_size": 1 << 16,
    }


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {old!r}, is {new!r}"
