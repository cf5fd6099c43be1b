"""A snapshot: what a collection held at one moment, as its manifest says.

`manifest.json` is the last file of a snapshot to be written, whole and durable or not at all: where
it is missing there is no snapshot. It holds the hash of every other file, and its own.

A snapshot's records are those rows of its shards that `removed.parquet` does not name. Shards are
Parquet files of the export's schema, called by the hash of their bytes and shared by all snapshots
that use them. A record that changed is written again, into a new shard, and its older row is
removed; so a backup costs what changed, no id is in a snapshot twice, and any snapshot is read
without another one's manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reembed.run.disk import write_atomic
from reembed.run.files import RunFile, damaged, read
from reembed.stores.values import CollectionInfo

FORMAT = 1
ANOTHER_DISK = "keep the snapshots on another disk (`-o`)"
MANIFEST = RunFile(
    "manifest.json", "the manifest of a snapshot",
    "It was changed after it was written, or the disk fails: use another snapshot "
    "(`reembed snapshots` lists them), and look at the disk.",
)  # fmt: skip
REMOVED = RunFile(
    "removed.parquet", "the list of rows that a snapshot leaves out",
    "Use another snapshot (`reembed snapshots` lists them), and look at the disk.",
)  # fmt: skip
DRILL = RunFile(
    "drill.json", "what the last drill of a snapshot found", "`reembed drill` makes it again."
)
REMOVED_SCHEMA = pa.schema(
    [pa.field("shard", pa.int32(), nullable=False), pa.field("row", pa.int32(), nullable=False)]
)
"""Rows of shards that are no records of the snapshot: position of the shard in the manifest, and of
the row in its file, both from 0."""

Alive = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ShardFile:
    """A shard as a snapshot uses it.

    Attributes:
        sha256: of its bytes, hexadecimal; its name too.
        rows: in the file.
        removed: how many of them are no records of the snapshot.
        bytes: size of the file.
    """

    sha256: str
    rows: int
    removed: int
    bytes: int

    @property
    def name(self) -> str:
        return f"{self.sha256}.parquet"


@dataclass(frozen=True)
class Drill:
    """What a restore for practice found.

    Attributes:
        time: when, in seconds since the epoch.
        passed: whether everything was as it should be.
        asked: known documents that were searched for by their own vectors.
        found: how many of them found themselves.
        seconds: how long the restore took.
        problems: what was wrong.
    """

    time: float
    passed: bool
    records: int = 0
    asked: int = 0
    found: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as its manifest has it.

    Attributes:
        id: `<sequence>-<UTC time>`; the order is that of the sequence, whatever the clock did.
        time: when it was begun by this machine's clock, in seconds since the epoch.
        good: whether it may be restored without a word; False for one that was kept apart.
        reason: why it was kept apart; empty for a good one.
        accepted_drop: why a person let a loss pass; None where there was none to accept.
        folder_id: of the folder that it belongs to.
        url: of the store, without secrets.
        collection: the name that the application reads.
        settings: the collection as the store described it.
        names: `live`, the `collection` it led to, whether that was by a `pointer`, and `all` the
            names that the store had.
        model: manifest keys of the model that made the vectors, None where it is not known.
        fingerprint: the model's, as `Fingerprint.to_dict`; None where it was not taken.
        definition: what the store needs to make such a collection where there is none to copy.
        with_vectors: False for one taken with `--without-vectors`.
        records: how many it holds.
        no_vector: how many of them have none.
        by: for each metadata key that was asked for: records by the key's value.
        path: its directory.
    """

    id: str
    time: float
    good: bool
    folder_id: str
    url: str
    collection: str
    settings: dict[str, Any]
    records: int
    shards: tuple[ShardFile, ...]
    removed_sha256: str = ""
    reason: str = ""
    accepted_drop: str | None = None
    names: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    fingerprint: dict[str, Any] | None = None
    definition: dict[str, Any] | None = None
    with_vectors: bool = True
    no_vector: int = 0
    by: dict[str, dict[str, int]] = field(default_factory=dict)
    sha256: str = ""
    path: Path = field(default=Path(), compare=False)

    @property
    def sequence(self) -> int:
        """Its place in the order in which snapshots were taken."""
        return sequence_of(self.id)

    @property
    def info(self) -> CollectionInfo:
        """The collection as the store described it."""
        return CollectionInfo(**self.settings)

    @property
    def bytes(self) -> int:
        """Of its shards, shared or not."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def drill(self) -> Drill | None:
        """What its last drill found, None where there was none or it cannot be read."""
        try:
            return Drill(**json.loads((self.path / DRILL.name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def to_dict(self) -> dict[str, Any]:
        """What `reembed snapshots --json` lists."""
        drill = self.drill
        return {
            "id": self.id, "time": self.time, "good": self.good, "reason": self.reason,
            "accepted_drop": self.accepted_drop, "collection": self.collection, "url": self.url,
            "records": self.records, "no_vector": self.no_vector,
            "dimensions": self.settings.get("dimensions"), "with_vectors": self.with_vectors,
            "by": self.by, "model": self.model, "bytes": self.bytes, "path": str(self.path),
            "drill": drill.to_dict() if drill else None,
        }  # fmt: skip

    # The files

    def write(self, alive: list[Alive]) -> Self:
        """Write the snapshot's own files into its directory, the manifest last. Its shards are
        there already.

        Args:
            alive: for each shard which of its rows are records of the snapshot.

        Returns it with the hashes of what was written.
        """
        removed = _removed_file(alive)
        if removed:
            write_atomic(self.path / REMOVED.name, removed, ANOTHER_DISK)
        data = asdict(self) | {"format": FORMAT}
        del data["path"], data["sha256"]
        data["removed_sha256"] = hashlib.sha256(removed).hexdigest() if removed else ""
        data["sha256"] = _own_hash(data)
        text = json.dumps(data, ensure_ascii=False, indent=1)
        write_atomic(self.path / MANIFEST.name, text.encode(), ANOTHER_DISK)
        return read_snapshot(self.path)  # type: ignore[return-value]

    def alive(self) -> list[Alive]:
        """For each shard which of its rows are records. Raises DamagedError."""
        found = [np.ones(shard.rows, np.bool_) for shard in self.shards]
        if self.removed_sha256:
            for shard, row in read_removed(self):
                found[shard][row] = False
        told = [int(mask.sum()) for mask in found]
        if told != [shard.rows - shard.removed for shard in self.shards]:
            raise damaged(self.path / REMOVED.name, REMOVED, "it is not what the manifest counts")
        return found


def sequence_of(id: str) -> int:
    """A snapshot's place in the order in which they were taken, from its id."""
    return int(id.partition("-")[0])


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot of a directory.

    Raises:
        DamagedError: its manifest is missing, was changed, or cannot be read.
    """

    def parse(file: Path) -> Snapshot:
        data = json.loads(file.read_bytes())
        if data.pop("format") != FORMAT:
            raise ValueError("another version of reembed wrote it")
        sha256 = data.pop("sha256")
        if _own_hash(data | {"format": FORMAT}) != sha256:
            raise ValueError("it was changed after it was written")
        shards = tuple(ShardFile(**shard) for shard in data.pop("shards"))
        if data["id"] != path.name:
            raise ValueError(f"it is of the snapshot {data['id']}")
        if sum(shard.rows - shard.removed for shard in shards) != data["records"]:
            raise ValueError("its counts do not add up")
        return Snapshot(**data, shards=shards, sha256=sha256, path=path)

    found = read(path / MANIFEST.name, MANIFEST, parse)
    if found is None:
        raise damaged(path / MANIFEST.name, MANIFEST, "it is not there")
    return found


def read_removed(snapshot: Snapshot) -> list[tuple[int, npt.NDArray[np.int32]]]:
    """For each shard that has any, the rows that are no records. Raises DamagedError."""

    def parse(file: Path) -> pa.Table:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != snapshot.removed_sha256:
            raise ValueError("its bytes are not those that were written")
        return pq.read_table(pa.BufferReader(content))

    path = snapshot.path / REMOVED.name
    table = read(path, REMOVED, parse)
    if table is None:
        raise damaged(path, REMOVED, "it is not there")
    shards, rows = (table.column(name).to_numpy() for name in ("shard", "row"))
    return [(int(shard), rows[shards == shard]) for shard in np.unique(shards)]


def _removed_file(alive: list[Alive]) -> bytes:
    """The rows that are no records, as Parquet; empty where there are none."""
    rows = [np.flatnonzero(~mask).astype(np.int32) for mask in alive]
    shards = [np.full(len(one), shard, np.int32) for shard, one in enumerate(rows)]
    if not any(len(one) for one in rows):
        return b""
    table = pa.table([np.concatenate(shards), np.concatenate(rows)], schema=REMOVED_SCHEMA)
    out = pa.BufferOutputStream()
    packed = dict.fromkeys(REMOVED_SCHEMA.names, "DELTA_BINARY_PACKED")
    pq.write_table(table, out, compression="zstd", use_dictionary=False, column_encoding=packed)
    return bytes(out.getvalue())


def _own_hash(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
