"""Stage 1: a collection becomes export shards.

First a census fixes which records the run is about: the ids, in one Parquet file, in the order of
the shards to come. Then each shard is a function of its slice of ids, so that export can stop and
go on anywhere. While one shard is written, the next is fetched. What is written to the source later
is caught up with before the swap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.manifest import Layout
from reembed.progress import Counter, Progress, stage
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, chunked
from reembed.run import events, files
from reembed.run.directory import DELTA, RunDir, Shard
from reembed.run.disk import atomic_file, file_sha256, read_errors
from reembed.run.guards import Wait, no_wait
from reembed.run.shards import Besides, Told, untold
from reembed.stages.refusals import refuse_emptied, refuse_empty, refuse_other
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo

STAGE = "export"
CENSUS = "shard-"
"""How the stems of the census's own shards begin."""
IDS_FILE = files.IDS.name
IDS_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False)])


@dataclass(frozen=True)
class Census:
    """Which records a run is about.

    Attributes:
        source_id: the collection's object id at that moment.
        rows: number of ids.
        watermark: the store's, taken before the first id was read; None if it has none.
    """

    source_id: str
    rows: int
    watermark: str | None

    @property
    def stems(self) -> list[str]:
        """Names of the shards to come."""
        return [f"{CENSUS}{n:05d}" for n in range(-(-self.rows // SHARD_ROWS))]


@stage("list the records")
def take_census(
    source: Collection,
    described: CollectionInfo,
    run: RunDir,
    layout: Layout = "plain",
    *,
    may_be_empty: bool = False,
) -> Census:
    """List the ids once and write them down; a run that has done so is told what it wrote.

    Args:
        described: what the store says of the source now.
        layout: which text of a record is embedded.
        may_be_empty: whether an empty one is moved like every other.

    Raises:
        PreflightError: the source is empty, or `where` matches nothing.
        SourceChangedError: the source's name leads to another collection than when the run began.
    """
    done = run.history.census
    if done is not None:
        refuse_other(described, run.history.value(CollectionInfo, done.source, "the census"), run)
        if not may_be_empty:
            refuse_emptied(described, done.rows if source.where is None else 0, run)
    if done is not None and file_matches(run, done.sha256):
        return Census(source.id, done.rows, done.watermark)

    # Shards of an earlier census may be older than this one: then nothing may be spared a look.
    watermark = source.changes_since(None).mark if done is None else None
    slices, rows = _full_slices(source.list_ids()), 0
    with (
        atomic_file(run.path / IDS_FILE) as file,
        pq.ParquetWriter(file, IDS_SCHEMA, compression="zstd") as writer,
    ):
        for ids in slices:
            writer.write_table(pa.table([ids], schema=IDS_SCHEMA), row_group_size=SHARD_ROWS)
            rows += len(ids)
    sha256 = file_sha256(run.path / IDS_FILE)
    if not may_be_empty:
        refuse_empty(described, source.where, rows)
    run.history.record(
        events.Census(
            rows=rows,
            watermark=watermark,
            source=described.to_dict(),
            sha256=sha256,
            layout=done.layout if done else layout,
        )
    )
    return Census(source.id, rows, watermark)


def file_matches(run: RunDir, sha256: str) -> bool:
    """Whether the id file is the one that was journalled."""
    path = run.path / IDS_FILE
    with read_errors(path):
        return path.is_file() and file_sha256(path) == sha256


def census_ids(run: RunDir, stem: str) -> list[str]:
    """The ids of one of the census's own shards; none where the list is damaged."""
    census = run.history.census
    if stem.startswith(DELTA) or census is None or not file_matches(run, census.sha256):
        return []
    with pq.ParquetFile(run.path / IDS_FILE) as file:
        ids = file.read_row_group(int(stem.removeprefix(CENSUS))).column("id")
    return list(ids.to_pylist())


def export(
    source: Collection,
    census: Census,
    run: RunDir,
    progress: Progress,
    wait: Wait = no_wait,
    written: Told = untold,
) -> dict[str, Shard]:
    """Write every export shard that is not there whole. Returns all of them by stem.

    Args:
        written: called for each of the census's own shards once it is there and journalled.

    A damaged delta is emptied: which records it held is not known any more, so all are compared
    again and catch-up finds them.
    """
    shards = run.shards(STAGE)
    whole = run.whole(shard for shard in shards.values() if not shard.missing)
    done = sum(shards[stem].rows for stem in census.stems if stem in whole)
    with (
        progress.stage(STAGE, census.rows, done) as counter,
        pq.ParquetFile(run.path / IDS_FILE) as ids_file,
        _Writer(run, shards, counter, written) as writer,
    ):
        for stem in census.stems:
            if stem in whole:
                written(shards[stem])
        left = [(number, stem) for number, stem in enumerate(census.stems) if stem not in whole]
        pages: Iterator[list[str]] = (
            ids_file.read_row_group(number).column("id").to_pylist() for number, _ in left
        )
        ids = next(pages, [])
        for _, stem in left:
            if stem in shards:
                progress.note(f"export/{stem}.parquet is damaged or gone: exporting it again")
            wait()
            then = next(pages, [])
            writer.begin(stem, _fetch(source, ids, then), len(ids))
            ids = then
    for stem, shard in shards.items():
        if stem.startswith(DELTA) and stem not in whole:
            progress.note(f"export/{stem}.parquet is damaged or gone: comparing everything again")
            run.history.record(events.Recheck())
            shards[stem] = export_shard(source, [], run, stem, shard.deleted)
    return shards


def export_shard(
    source: Collection,
    ids: Sequence[str],
    run: RunDir,
    stem: str,
    deleted: Sequence[str] = (),
    foreign: bool = False,
) -> Shard:
    """Write the records of these ids as one shard. Ids that are gone by now are simply not in it.

    Args:
        deleted: ids that the source no longer has; journalled with the shard, for catch-up.
        foreign: whether `source` is not the run's source.
    """
    table = _fetch(source, ids)
    return run.write_shard(STAGE, stem, table, besides=Besides(deleted, foreign))


def _fetch(source: Collection, ids: Sequence[str], then: Sequence[str] = ()) -> pa.Table:
    if not ids:
        return EXPORT_SCHEMA.empty_table()
    return pa.Table.from_batches([source.fetch_page(ids, vectors=True, then=then)])


class _Writer:
    """Writes and journals shards in the order given, in a thread of its own, while the next is
    fetched; one waits at most. Stores are asked by the caller's thread alone.

    Args:
        shards: each shard goes there when it is journalled.
        written: is told then.
    """

    def __init__(
        self, run: RunDir, shards: dict[str, Shard], counter: Counter, written: Told
    ) -> None:
        self._run, self._shards, self._counter, self._written = run, shards, counter, written
        self._thread = ThreadPoolExecutor(1, "export")
        self._pending: tuple[Future[Shard], int] | None = None

    def begin(self, stem: str, table: pa.Table, asked: int) -> None:
        """Begin to write a shard of so many ids asked for. Raises what the one before raised."""
        self.finish()
        self._pending = self._thread.submit(self._run.write_shard, STAGE, stem, table), asked

    def finish(self) -> None:
        """Wait until the shard in work is journalled."""
        if self._pending is not None:
            (future, asked), self._pending = self._pending, None
            shard = future.result()
            self._shards[shard.stem] = shard
            self._counter.update(asked)
            self._written(shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._thread.shutdown()


def export_delta(
    collection: Collection, run: RunDir, changed: Sequence[str], deleted: Sequence[str]
) -> None:
    """Export records written since as delta shards, which embed and load treat like any other."""
    census = run.history.census
    foreign = census is not None and census.source["id"] != collection.id
    number = sum(stem.startswith(DELTA) for stem in run.shards(STAGE))
    slices: list[Sequence[str]] = list(chunked(changed, SHARD_ROWS)) or [[]]
    for position, ids in enumerate(slices):
        gone = deleted if position == 0 else ()
        stem = f"{DELTA}{number + position:05d}"
        export_shard(collection, ids, run, stem, gone, foreign)


def _full_slices(pages: Iterator[pa.Array]) -> Iterator[pa.Array]:
    """Pages of any size as slices of exactly SHARD_ROWS, the last one shorter."""
    waiting: list[pa.Array] = []
    rows = 0
    for page in pages:
        waiting.append(page)
        rows += len(page)
        while rows >= SHARD_ROWS:
            joined = pa.concat_arrays(waiting)
            yield joined.slice(0, SHARD_ROWS)
            waiting = [joined.slice(SHARD_ROWS)]
            rows -= SHARD_ROWS
    if rows:
        yield pa.concat_arrays(waiting)


def export_source(s: Session, written: Told = untold) -> None:
    """Stage 1 with what the session has open: the ids first, then the records, in one snapshot.

    Args:
        written: see `export`.
    """
    store = s.source_store
    described = store.resolve(s.manifest.source.collection)
    source = s.collection(store, described.id, s.manifest.source.where, described.metric)
    source.start_capture()  # before the snapshot, so that no write is between the two
    with store.snapshot() if store.snapshot else contextlib.nullcontext():
        # One that was emptied after it was exported lost all its records: see `LossGuard`.
        may_be_empty = s.in_group and (s.accept_loss or not s.run.history.most_records)
        census = take_census(source, described, s.run, s.template.layout, may_be_empty=may_be_empty)
        export(source, census, s.run, s.progress, s.pause.wait, written)
