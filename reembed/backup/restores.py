"""`reembed restore`: from what a person names to a collection that is there again."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reembed.backup.check import refuse_damaged
from reembed.backup.directory import one_folder
from reembed.backup.folder import Folder
from reembed.backup.restore import (
    RESTORES,
    Compared,
    Job,
    compare,
    find_run,
    live_now,
    make,
    new_run,
    refuse_vectorless,
    restored_name,
    without_vector,
)
from reembed.backup.restored import How, Moved, go_back, kind_of, refuse_mixing, swap
from reembed.backup.snapshot import MANIFEST, Snapshot, sequence_of
from reembed.errors import GateError, UsageError
from reembed.manifest.urls import resolve_url
from reembed.progress import Progress
from reembed.redaction import remember_url, without_secrets
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import instead_of_state
from reembed.run.lock import StateLock
from reembed.stores.collection import Collection
from reembed.stores.lease.guarded import leased
from reembed.stores.lease.lease import StoreLease
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions

QUARANTINED = 3
"""Exit code where records of the snapshot could not be restored."""
SHOWN = 20
COPIED = "copy this backup to another disk and restore from there"


@dataclass(frozen=True)
class Restored:
    """What came of a restore.

    Attributes:
        action: `restore` or `back`.
        snapshot: its id.
        collection: name of the restored collection by now.
        live: the name that the application reads.
        compared: how it compares with the snapshot; None where that was done by an earlier call.
        moved: what the move of the live name did; None where it was not moved.
        not_restored: how many records have no vector, and so are not in it; some of their ids.
        steps: what to type next.
        not_made_again: name and definition of what hung on a table and is not in a snapshot.
    """

    action: str
    snapshot: str
    collection: str
    live: str
    url: str
    compared: Compared | None = None
    moved: Moved | None = None
    not_restored: int = 0
    not_restored_ids: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    not_made_again: list[list[str]] = field(default_factory=list)

    @property
    def swapped(self) -> bool:
        return self.moved is not None

    @property
    def refused(self) -> GateError | None:
        """The error of a collection that is not what the snapshot says."""
        if self.compared is None or not self.compared.problems:
            return None
        return GateError(
            f"{self.collection}: not restored as it was: {'; '.join(self.compared.problems)}",
            f"The live name {self.live!r} was not touched. Delete {self.collection!r} and restore "
            "again; if it stays so, this store cannot hold these records as they were.",
        )

    @property
    def exit_code(self) -> int:
        if self.refused:
            return GateError.exit_code
        return QUARANTINED if self.not_restored else 0

    def to_dict(self) -> dict[str, Any]:
        error = {"error": self.refused.to_dict()} if self.refused else {}
        return asdict(self) | {"swapped": self.swapped} | error


@dataclass(frozen=True)
class Restore:
    """What is to be restored, and where.

    Attributes:
        directory: where the snapshots are kept.
        url: of the store; default: the one that was backed up.
        collection: whose snapshots, where the directory has several collections'.
        snapshot: its id; default: the newest good one.
        live: the name that the application reads; default: as it was.
        how: how the name may move.
        create: make the database, a Chroma folder, where there is none.
    """

    directory: Path
    url: str | None = None
    collection: str | None = None
    snapshot: str | None = None
    live: str | None = None
    how: How = field(default_factory=How)
    create: bool = False


def restore(wanted: Restore, *, yes: bool, progress: Progress) -> Restored:
    """Make the collection again beside what is there, compare every record and vector and, with a
    person's yes, give it the live name.

    Raises:
        UsageError: there is no such snapshot.
        DamagedError: the snapshot is not whole; nothing was made.
        PreflightError: the store does not take it as it is, or the name cannot move.
        LockedError: another run is active on the live name, or a prune on the snapshots.
    """
    folder = one_folder(wanted.directory, wanted.collection)
    with folder.reading():
        snapshot = folder.choose(wanted.snapshot)
        refuse_vectorless(snapshot)
        with _work(folder, snapshot, wanted, progress.note) as (store, url, live):
            run = _going_on(folder, snapshot, store, url, live)
            name = restored_name(run) if run else _free_name(store, live, snapshot)
            job = Job(folder, snapshot, store, url, live, name)
            if job.same_store:  # it takes the shape of the one that has the name now
                job = replace(job, like=live_now(store, live))
            if run is not None and run.history.last_move == "swap":
                if not yes:
                    return _result(job, messages=["it is restored and live already"])
                made = Collection(store, str(run.history.shadow_id))
                return _moved(job, run, made, None, wanted.how)
            if yes:  # what stands in the way of the move is told before the work
                kind_of(job, wanted.how.accept_window)
                refuse_mixing(job, live_now(store, live), wanted.how)
            refuse_damaged(folder, snapshot, progress)
            run = run or new_run(job)
            made = make(job, run, progress)
            compared = run.history.last(events.StageDone) is not None
            found = compare(job, made, progress, carried=compared)
            if not yes or found.problems:
                return _result(job, compared=found, steps=[_command(job, "--yes")])
            if not compared:
                run.history.record(events.StageDone(stage="load", seconds=0))
            return _moved(job, run, made, found, wanted.how)


def back(wanted: Restore, *, yes: bool, progress: Progress) -> Restored:
    """Give the live name back to the collection that had it before the restore.

    Raises:
        UsageError: no restore has the name, or there was no collection before it.
    """
    folder = one_folder(wanted.directory, wanted.collection)
    about = folder.about()
    assert about is not None, "a folder with snapshots says whose they are"
    with _work(folder, None, wanted, progress.note) as (store, url, live):
        run = find_run(folder, wanted.snapshot, url, live)
        if run is None or run.history.shadow_id is None:
            raise UsageError(
                f"{live}: was never restored from {folder.path}", "So there is no way back to go."
            )
        snapshot = folder.choose(str(run.history.created.identity["snapshot"]))
        job = Job(folder, snapshot, store, url, live, restored_name(run))
        made = Collection(store, run.history.shadow_id)
        if not yes:
            told = "would give the live name back to the collection that had it, with late writes"
            return _result(job, action="back", messages=[told])
        return _result(job, action="back", moved=go_back(job, run, made, wanted.how))


@contextlib.contextmanager
def _work(
    folder: Folder, snapshot: Snapshot | None, wanted: Restore, note: Callable[[str], None]
) -> Iterator[tuple[Store, str, str]]:
    """The store under the lease on the live name, its URL and that name; one restore at a time."""
    about = folder.about()
    assert about is not None, "a folder with snapshots says whose they are"
    given = wanted.url or about.url
    remember_url(given)
    url = resolve_url(given, Path.cwd())
    shown = without_secrets(url)[0]
    live = wanted.live or about.collection
    with (
        instead_of_state(COPIED), StateLock(folder.path / RESTORES / "lock"),
        contextlib.ExitStack() as closing,
    ):  # fmt: skip
        store = open_store(url, StoreOptions(create=wanted.create))
        closing.callback(store.close)
        lease = StoreLease(store, live, f"restore of {snapshot.id if snapshot else live}", "", note)
        lease.acquire()
        closing.callback(lease.release)
        yield leased(store, lambda now: lease.check(now=now)), shown, live


def _going_on(
    folder: Folder, snapshot: Snapshot, store: Store, url: str, live: str
) -> RunDir | None:
    """The restore that this call goes on with; None to begin one."""
    run = find_run(folder, snapshot.id, url, live)
    if run is None or run.history.last_move == "rollback":
        return None
    id = run.history.shadow_id
    if id is not None and store.catalog.describe_id(id) is None:
        return None  # somebody deleted it
    if run.history.last_move == "swap" and not run.history.swap_unfinished:
        now = live_now(store, live)
        return run if now is not None and now.id == id else None
    return run


def _free_name(store: Store, live: str, snapshot: Snapshot) -> str:
    """`<live>__restored-<sequence>`, with a number behind it where that is taken."""
    names = set(store.catalog.collections())
    for number in itertools.count(1):
        end = "" if number == 1 else f"-{number}"
        name = f"{live}__restored-{snapshot.sequence:06d}{end}"
        name = store.cutover.fit_name(name) if store.cutover else name
        if name not in names:
            return name
    raise AssertionError("the names never end")


def _moved(
    job: Job, run: RunDir, made: Collection, compared: Compared | None, how: How
) -> Restored:
    moved = swap(job, run, made, how)
    job.folder.note("restored", snapshot=job.snapshot.id, url=job.url, live=job.live)
    steps = [_command(job, "--back", "--yes")] if moved.parked else []
    return _result(job, compared=compared, moved=moved, steps=steps)


def _result(job: Job, **fields: Any) -> Restored:
    ids = list(without_vector(job)) if fields.get("action") != "back" else []
    info = live_now(job.store, job.live) if fields.get("moved") else None
    told = [] if job.snapshot.good else [f"this snapshot was refused: {job.snapshot.reason}"]
    left, lacking = list[list[str]](), list[list[str]]()
    if fields.get("action") != "back":
        left, lacking = left_out(job), not_here(job)
        harmed = job.folder.harmed().items()
        told += [f"a newer snapshot is not whole: {id}: {problem}"
                 for id, problem in harmed if sequence_of(id) > job.snapshot.sequence]  # fmt: skip
    if left:
        told.append(
            f"not made again, since a snapshot has only their definitions (`definition` in "
            f"{job.snapshot.path / MANIFEST.name}): {', '.join(name for name, _ in left)}"
        )
    if lacking:
        told.append(
            f"not here, so not granted what the table had: {', '.join(name for name, _ in lacking)}"
        )
    told += fields.pop("messages", [])
    given: dict[str, Any] = {
        "messages": told, "not_made_again": [*lacking, *left], "action": "restore",
        "snapshot": job.snapshot.id, "live": job.live,
        "url": job.url,
        "collection": info.name if info else job.name, "not_restored": len(ids),
        "not_restored_ids": ids[:SHOWN],
    }  # fmt: skip
    return Restored(**given | fields)


def _command(job: Job, *options: str) -> str:
    """What to type to go on with this restore."""
    about = job.folder.about()
    words = ["reembed", "restore", str(job.folder.path)]
    if about is None or job.url != about.url:
        words.append(job.url)
    if about is None or job.live != about.collection:
        words += ["--live", job.live]
    return shlex.join([*words, "--snapshot", job.snapshot.id, *options])


def left_out(job: Job) -> list[list[str]]:
    """What hung on a table and is not made again where a restore makes the table: names, and
    definitions to look at."""
    if not _makes_table(job):
        return []
    tables = (job.snapshot.definition or {}).get("tables", [])
    return [list(one) for table in tables for one in table.get("left", [])]


def not_here(job: Job) -> list[list[str]]:
    """What a table that a restore makes cannot have in this store: names, and what adds it."""
    written = job.snapshot.definition
    if not _makes_table(job) or job.store.shapes is None or written is None:
        return []
    return job.store.shapes.missing(written)


def _makes_table(job: Job) -> bool:
    """Whether a restore makes a table from what the snapshot says of it."""
    return job.store.shapes is not None and job.like is None and job.same_kind
