"""Take a snapshot of a collection: read all of it, write what changed, and judge it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.backup.drop import ValueCounts, refusal
from reembed.backup.folder import Folder
from reembed.backup.index import Base, Index
from reembed.backup.shards import ShardWriter
from reembed.backup.snapshot import ANOTHER_DISK, Snapshot
from reembed.errors import CollectionNotFoundError, GateError, PreflightError, SourceChangedError
from reembed.progress import Progress, stage
from reembed.run.disk import make_private_dir
from reembed.stores.collection import Collection
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

MAX_DROP = 50.0


@dataclass(frozen=True)
class Subject:
    """What is backed up.

    Attributes:
        url: of the store, without secrets.
        collection: the name that the application reads.
        model: manifest keys of the model; default: what the store recorded.
        fingerprint: the model's, as `Fingerprint.to_dict`, where it is known.
    """

    store: Store
    url: str
    collection: str
    model: dict[str, Any] | None = None
    fingerprint: dict[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """How a snapshot is to be taken.

    Attributes:
        by: metadata keys by whose values records are counted; default: those of the last good one.
        max_drop: percent of the last good snapshot's records that may be gone.
        with_vectors: False to leave the vectors out.
        accept_drop: why records may be gone all the same; journalled.
    """

    by: tuple[str, ...] = ()
    max_drop: float = MAX_DROP
    with_vectors: bool = True
    accept_drop: str | None = None


@dataclass(frozen=True)
class Taken:
    """What came of a backup.

    Attributes:
        collection: the name that the application reads.
        snapshot: what was written; None where there was nothing to write.
        written: bytes of the shards that no earlier snapshot had.
        changed: records that were written.
        last_good: id of the good snapshot before it, empty for none.
        reason: why it was refused; empty for a good one.
        messages: what else is to be told.
    """

    collection: str
    folder: str
    snapshot: Snapshot | None
    written: int = 0
    changed: int = 0
    last_good: str = ""
    reason: str = ""
    messages: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.reason

    @property
    def exit_code(self) -> int:
        """4 where the backup was refused."""
        return GateError.exit_code if self.reason else 0

    def refused(self) -> GateError | None:
        """The error of a refused backup."""
        if not self.reason:
            return None
        meant = "If that was meant, nothing is to be done. "
        if self.snapshot is not None:
            meant = "If it was meant, back up again with --accept-drop and the reason. "
        way_back = f"`reembed restore {self.folder}` brings {self.last_good} back. " if (
            self.last_good
        ) else ""  # fmt: skip
        return GateError(
            f"{self.collection}: refused, and kept apart from the good backups: {self.reason}",
            f"{meant}If not, see whether the application writes elsewhere, or the database was "
            f"created again. {way_back}The good snapshots are as they were.",
        )

    def to_dict(self) -> dict[str, Any]:
        shown = self.snapshot.to_dict() if self.snapshot else None
        error = self.refused()
        return asdict(replace(self, snapshot=None)) | {
            "snapshot": shown, "good": self.good,
        } | ({"error": error.to_dict()} if error else {})  # fmt: skip


def take(subject: Subject, folder: Folder, wanted: Wanted, progress: Progress) -> Taken:
    """Take a snapshot; one that is empty or has lost too much is kept apart.

    Raises:
        LockedError: another call is at work in the folder.
        PreflightError: the folder is another collection's, the disk is full, or a key has too many
            values. What was there stays as it was.
        CollectionNotFoundError: there is no such collection, and no snapshot of one.
        SourceChangedError: the name led to another collection when all was read than before.
    """
    with folder.lock():
        folder.begin(subject.url, subject.collection)
        folder.sweep()
        last = folder.last_good()
        try:
            info = subject.store.resolve(subject.collection)
        except (CollectionNotFoundError, SourceChangedError):  # or a pointer to one that is gone
            if last is None:
                raise
            return _gone(subject, folder, last)
        try:
            return _take(subject, info, folder, last, wanted, progress)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error tells more
                folder.sweep()
            raise


def _gone(subject: Subject, folder: Folder, last: Snapshot) -> Taken:
    reason = f"there is no collection of this name any more, and {last.id} held {last.records:,}"
    folder.note("backup_refused", snapshot="", reason=reason)
    return Taken(subject.collection, str(folder.path), None, last_good=last.id, reason=reason)


@dataclass
class _Read:
    """What was read of a collection so far."""

    counts: ValueCounts
    listed: int = 0
    records: int = 0
    no_vector: int = 0
    changed: int = 0

    def add(self, asked: int, records: pa.RecordBatch) -> None:
        self.listed += asked
        self.records += records.num_rows
        self.no_vector += records.column("embedding").null_count
        self.counts.add(records)


def _take(
    subject: Subject, info: CollectionInfo, folder: Folder, last: Snapshot | None, wanted: Wanted,
    progress: Progress,
) -> Taken:  # fmt: skip
    about = folder.about()
    assert about is not None, "it has begun"
    id, began = folder.next_id(), time.time()
    read = _Read(ValueCounts(wanted.by or (tuple(last.by) if last else ())))
    make_private_dir(folder.shards, ANOTHER_DISK)
    source = Collection(subject.store, info.id)
    writer = ShardWriter(folder.shards)
    with (
        Index(folder.work_file) as index,
        subject.store.snapshot() if subject.store.snapshot else contextlib.nullcontext(),
    ):
        base = Base(index, last, folder.shards)
        with progress.stage("backup", info.count) as counter:
            for page in source.list_ids():
                records = source.fetch_page(page.to_pylist(), vectors=wanted.with_vectors)
                read.add(len(page), records)
                changed = base.changed(records)
                read.changed += changed.num_rows
                writer.add(changed)
                counter.update(len(page))
            writer.finish()
        shards, alive = base.kept()
    after = _look_again(subject, info)
    # What went while it was read counts as gone: it is half a snapshot then.
    reason = refusal(min(read.records, after), read.counts.counts, last, wanted.max_drop)
    accepted = wanted.accept_drop if reason else None
    reason = "" if accepted else reason
    shards += writer.written
    alive += [np.ones(shard.rows, np.bool_) for shard in writer.written]
    snapshot = Snapshot(
        id=id, time=began, good=not reason, reason=reason, accepted_drop=accepted,
        folder_id=about.id, url=subject.url, collection=subject.collection,
        settings=info.to_dict(), names=_names(subject, info),
        model=subject.model or info.model, fingerprint=subject.fingerprint,
        definition=subject.store.shapes.define(info.id) if subject.store.shapes else None,
        with_vectors=wanted.with_vectors, records=read.records, no_vector=read.no_vector,
        by=read.counts.counts, shards=tuple(shards),
        path=(folder.rejected if reason else folder.good) / id,
    ).write(alive)  # fmt: skip
    if accepted:
        folder.note("drop_accepted", snapshot=id, why=accepted)
    folder.note(
        "backup_refused" if reason else "backup_taken", snapshot=id, reason=reason,
        records=read.records, changed=read.changed, manifest_sha256=snapshot.sha256,
    )  # fmt: skip
    told = [f"{shard.name} was damaged or gone: its records were written again"
            for shard in base.damaged]  # fmt: skip
    if base.damaged:
        told.append("look at the disk, and at the older snapshots with `reembed check`")
    told += [f"an older snapshot is not whole: {id}: {problem}"
             for id, problem in folder.harmed().items()]  # fmt: skip
    if read.no_vector and wanted.with_vectors:
        told.append(f"{read.no_vector:,} records have no vector in the store")
    return Taken(
        subject.collection, str(folder.path), snapshot,
        written=sum(shard.bytes for shard in writer.written), changed=read.changed,
        last_good=last.id if last else "", reason=reason, messages=told,
    )  # fmt: skip


@stage("look again")
def _look_again(subject: Subject, before: CollectionInfo) -> int:
    """How many records the collection has now that all was read. Raises SourceChangedError if it is
    another one."""
    try:
        now = subject.store.resolve(subject.collection)
    except CollectionNotFoundError as error:
        raise SourceChangedError(
            f"{subject.collection!r} was deleted while it was read: {error.message}",
            "No snapshot was written, and the good ones are as they were. Look at the store first.",
        ) from error
    if now.id != before.id:
        raise SourceChangedError(
            f"{subject.collection!r} led to another collection (id {now.id}, {now.count:,} records)"
            f" when all was read than before (id {before.id}, {before.count:,} records)",
            "No snapshot was written, and the good ones are as they were. If a swap was under way, "
            "run the same command again; if not, look at the store first.",
        )
    return now.count


def _names(subject: Subject, info: CollectionInfo) -> dict[str, Any]:
    """The store's names and where they lead."""
    cutover = subject.store.cutover
    try:
        pointer = cutover is not None and cutover.follow(subject.collection) is not None
    except PreflightError:
        pointer = False
    return {
        "live": subject.collection, "collection": info.name, "pointer": pointer,
        "all": subject.store.catalog.collections(),
    }  # fmt: skip
