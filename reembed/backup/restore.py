"""Make a collection of a snapshot's records again, and compare every one of them.

It is made under a name of its own, so that nothing that is there is touched; `restored.py` gives it
the live name. What was done is in a run directory below the snapshots: a restore that was killed
is finished by the same call.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from reembed.backup.folder import Folder
from reembed.backup.index import digests
from reembed.backup.shards import read_shard, records_of
from reembed.backup.snapshot import Snapshot
from reembed.errors import CollectionNotFoundError, PreflightError, SourceChangedError
from reembed.progress import Progress
from reembed.quality.findings import Findings
from reembed.quality.integrity import KINDS, check_served
from reembed.records import SHARD_ROWS, Metric, bad_rows, export_batch, list_array_to_vectors
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import write_errors
from reembed.stages.load import ensure_shadow
from reembed.stages.shadow_spec import recorded_model
from reembed.stores.collection import Collection
from reembed.stores.foreign import fitting, kind_of
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, CollectionSpec

RESTORES = "restores"


@dataclass(frozen=True)
class Compared:
    """A restored collection against its snapshot, record by record and vector by vector.

    Attributes:
        records: that were compared.
        problems: what differs, by kind, in words.
        samples: some ids of each kind.
    """

    records: int
    problems: list[str] = field(default_factory=list)
    samples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One restore.

    Attributes:
        store: where it goes, asked for the lease before every write.
        url: of the store, without secrets.
        live: the name that the application reads.
        name: of the collection that is made.
        like: a collection of this store that has the shape which it is to have; None without one.
        scratch: a folder for a restore that is thrown away, which needs no settings; None for one
            that stays.
    """

    folder: Folder
    snapshot: Snapshot
    store: Store
    url: str
    live: str
    name: str
    like: CollectionInfo | None = None
    scratch: Path | None = None

    @property
    def same_store(self) -> bool:
        """Whether it goes where it came from, whatever address that has by now."""
        about = self.folder.about()
        return self.url in (self.snapshot.url, about.url if about else "")

    @property
    def same_kind(self) -> bool:
        """Whether it goes into the kind of store that it came from."""
        return kind_of(self.url) == kind_of(self.snapshot.url)

    def records(self) -> Iterator[pa.RecordBatch]:
        """The snapshot's records, as they are to be in the store."""
        for batch in records_of(self.snapshot, self.folder.shards):
            yield self.fitted(batch)

    def fitted(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Records as they are to be in the store: one of another kind takes metadata as it can hold
        it, a scratch store as one text."""
        if self.scratch is not None and not self.same_kind:
            return _with_text(records)
        fits = fitting(self.snapshot.url, self.url)
        return records if fits is None else fits.there(records)


def new_run(job: Job) -> RunDir:
    """A run directory for a restore that begins."""
    identity = {"snapshot": job.snapshot.id, "url": job.url, "live": job.live, "name": job.name}
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in identity.items())
    return RunDir.create((job.scratch or job.folder.path) / RESTORES, text, identity)


def restored_name(run: RunDir) -> str:
    """The name that a restore made its collection with."""
    return str(run.history.created.identity["name"])


def find_run(folder: Folder, snapshot: str | None, url: str, live: str) -> RunDir | None:
    """The newest restore of a snapshot, or of any, to this name; None without one."""
    wanted = {"url": url, "live": live} | ({"snapshot": snapshot} if snapshot else {})
    found = [run for run in runs(folder) if wanted.items() <= run.history.created.identity.items()]
    return found[-1] if found else None


def runs(folder: Folder) -> list[RunDir]:
    """All restores of a folder's snapshots, oldest first."""
    where = folder.path / RESTORES
    if not where.is_dir():
        return []
    found = [RunDir(path) for path in sorted(where.iterdir()) if path.is_dir()]
    return [run for run in found if run.history.read()]


def finished(folder: Folder) -> list[RunDir]:
    """Restores that nobody goes on with or back from: those that came to their end, but the newest
    one of a name."""
    newest: dict[tuple[str, str], RunDir] = {}
    for run in runs(folder):
        identity = run.history.created.identity
        newest[str(identity["url"]), str(identity["live"])] = run
    stay = {run.run_id for run in newest.values()}
    return [run for run in runs(folder) if run.run_id not in stay and _is_done(run)]


def _is_done(run: RunDir) -> bool:
    history = run.history
    unfinished = history.pending_move or history.swap_unfinished or history.rollback_unfinished
    return history.last_move is not None and not unfinished


def prune_restores(folder: Folder) -> list[str]:
    """Remove the run directories of finished restores. Returns their ids."""
    done = finished(folder)
    for run in done:
        with write_errors(run.path):
            shutil.rmtree(run.path)
    return [run.run_id for run in done]


def refuse_vectorless(snapshot: Snapshot) -> None:
    """Raise PreflightError where there are no vectors to restore."""
    if not snapshot.with_vectors:
        raise PreflightError(
            f"{snapshot.id} was taken with --without-vectors, so there is nothing to search by",
            "Choose a snapshot that has them. If there is none: its shards are Parquet files with "
            "every record, from which the application's own indexing makes the collection again.",
        )


def make(job: Job, run: RunDir, progress: Progress) -> Collection:
    """The collection with the snapshot's records, made or completed. Idempotent.

    Raises:
        PreflightError: the name is taken, or the store does not take a record.
        SourceChangedError: it was deleted by somebody.
        DamagedError: a shard is not whole.
    """
    snapshot = job.snapshot
    id = run.history.shadow_id
    if id is None or job.store.catalog.describe_id(id) is None:
        spec = _spec(job)
        check = job.store.to_write().check(spec).records
        if check is not None:
            for records in job.records():
                check(records)
        id = ensure_shadow(job.store, run, spec).id
    made = Collection(job.store, id)
    loaded = {event.stem for event in run.history.all(events.Loaded)}
    done = sum(shard.rows - shard.removed for shard in snapshot.shards if shard.sha256 in loaded)
    with progress.stage("restore", snapshot.records, done) as counter:
        for shard, alive in zip(snapshot.shards, snapshot.alive(), strict=True):
            if shard.sha256 in loaded:
                continue
            table = read_shard(job.folder.shards, shard).filter(pa.array(alive)).combine_chunks()
            for batch in table.to_batches(max_chunksize=SHARD_ROWS):
                add(made, job.fitted(batch))
            run.history.record(events.Loaded(stem=shard.sha256, sha256=shard.sha256))
            counter.update(table.num_rows)
    if job.store.build_index is not None:
        job.store.build_index(made.id)
    return made


def add(collection: Collection, records: pa.RecordBatch, *, replace: bool = False) -> list[str]:
    """Write records with their own vectors. Returns the ids of those that have none, which cannot
    be written."""
    vectors, usable = list_array_to_vectors(records.column("embedding"))
    rows = records.filter(pa.array(usable))
    if rows.num_rows:
        (collection.overwrite if replace else collection.add)(rows, vectors)
    return list(records.filter(pa.array(~usable)).column("id").to_pylist())


def _spec(job: Job) -> CollectionSpec:
    """The collection as it was, as far as this store has such settings."""
    info = job.snapshot.info
    if job.scratch is not None:  # by inner product not every record is nearest to itself
        metric = info.metric if info.metric != "ip" else "l2"
        return CollectionSpec(
            job.name, info.dimensions or _dimensions(job), metric, {}, None, None, function="none"
        )
    model = recorded_model(job.snapshot.model)
    dimensions = info.dimensions or _dimensions(job)
    like = job.like.id if job.like else shape_of(job)
    return CollectionSpec(
        job.name, dimensions, info.metric, index=info.index if job.same_store else {},
        metadata=info.metadata, model=model, like=like,
        function="auto" if model else "none", function_before=info.function,
        key_indexes=info.key_indexes if job.same_kind else {},
    )  # fmt: skip


def _with_text(records: pa.RecordBatch) -> pa.RecordBatch:
    """Records whose metadata is one text, which every store takes."""
    columns = (records.column(name) for name in ("id", "document", "metadata", "uri"))
    ids, documents, metadatas, uris = columns
    texts = [json.dumps({"metadata": text}, ensure_ascii=False, separators=(",", ":"))
             for text in metadatas.to_pylist()]  # fmt: skip
    return export_batch(ids, documents, texts, uris, records.column("embedding"))


def shape_of(job: Job) -> str | None:
    """Object id of an empty collection that is as the one in the snapshot was; made where there is
    none. None where the store needs none, or the snapshot is another kind of store's."""
    shapes, written = job.store.shapes, job.snapshot.definition
    if shapes is None or written is None or job.like is not None:
        return None
    name = f"{job.live}__shape-{job.snapshot.sequence:06d}"
    name = job.store.cutover.fit_name(name) if job.store.cutover else name
    with contextlib.suppress(CollectionNotFoundError, PreflightError):  # `make` says what is there
        return job.store.catalog.describe(name).id
    return shapes.make(written, name)


def _dimensions(job: Job) -> int:
    for batch in records_of(job.snapshot, job.folder.shards):
        vectors, _ = list_array_to_vectors(batch.column("embedding"))
        if len(vectors):
            return int(vectors.shape[1])
    raise PreflightError(
        f"{job.snapshot.id}: no record of it has a vector",
        "Choose one that has them, with --snapshot.",
    )


CARRIED = frozenset(KINDS) - {"changed", "with another vector", "with a vector of other length"}
"""What is wrong with a collection into which writes of the live one were carried already."""


def compare(job: Job, made: Collection, progress: Progress, *, carried: bool = False) -> Compared:
    """Compare every record and vector with the snapshot, and look for records that it lacks.

    Args:
        carried: a call that was killed has found it right, and begun to carry newer versions into
            it.
    """
    findings = Findings(KINDS)
    snapshot, expected = job.snapshot, 0
    with progress.stage("compare", snapshot.records) as counter:
        for batch in job.records():
            for start in range(0, batch.num_rows, SHARD_ROWS):
                part = batch.slice(start, SHARD_ROWS)
                expected += _compare(made, part, snapshot.info.metric, findings)
                counter.update(part.num_rows)
    there = made.count()
    if carried:
        findings.counts = {kind: findings.counts[kind] for kind in sorted(CARRIED)}
    problems = findings.problems()
    if (there < expected if carried else there != expected) and not problems:
        problems.append(f"{there:,} records, where there should be {expected:,}")
    told = snapshot.records - snapshot.no_vector
    if expected != told:
        problems.append(f"{expected:,} records in the shards, where the manifest says {told:,}")
    return Compared(findings.checked, problems, findings.samples)


def _compare(made: Collection, records: pa.RecordBatch, metric: Metric, findings: Findings) -> int:
    """Compare those of the records that have a vector. Returns how many these are."""
    vectors, usable = list_array_to_vectors(records.column("embedding"))
    records = records.filter(pa.array(usable))
    odd = bad_rows(vectors)  # that was so already: there is no angle to compare by
    strange = records.filter(pa.array(odd))
    if strange.num_rows:
        ids = strange.column("id").to_pylist()
        there = made.fetch(ids, vectors=True)
        now = dict(zip(there.column("id").to_pylist(), digests(there), strict=True))
        findings.checked += len(ids)
        was = zip(ids, digests(strange), strict=True)
        findings.add("changed", [id for id, digest in was if now.get(id) != digest])
    rows = records.filter(pa.array(~odd))
    if rows.num_rows:
        ids, hashes = (rows.column(name).to_pylist() for name in ("id", "row_sha256"))
        check_served(ids, hashes, vectors[~odd], made.fetch(ids, vectors=True), metric, findings)
    return int(records.num_rows)


def live_now(store: Store, live: str) -> CollectionInfo | None:
    """The collection that the name leads to, None where it leads to none, or is a pointer to one
    that is gone."""
    try:
        return store.resolve(live)
    except (CollectionNotFoundError, SourceChangedError):
        return None


def without_vector(job: Job) -> Iterator[str]:
    """Ids of the snapshot's records that have no vector."""
    if job.snapshot.no_vector:
        for batch in records_of(job.snapshot, job.folder.shards):
            mask = pa.array(~np.asarray(batch.column("embedding").is_valid()))
            yield from batch.filter(mask).column("id").to_pylist()
