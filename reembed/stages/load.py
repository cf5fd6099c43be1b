"""Stage 3: export and embed shards become the shadow collection. Idempotent.

The shadow is made once and known by its object id from then on. A shard is added whole, then
journalled; adding it again after a crash changes nothing. A delta, or a shard that was made again,
replaces instead: what it no longer holds is deleted, and no older version of a record shines
through. While one shard is written, the next is read.

The shards are right, and the shadow follows them. Where a record of the shadow holds a value that
must be unique and that a shard gives to another one, it is displaced: noted in the journal, then
deleted. The ledger counts it as changed until the shard that speaks for it is loaded after that, so
that catch-up carries it anew; until then it is missing, and no verdict passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Generator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reembed.errors import SourceChangedError, TakenError
from reembed.progress import Progress, stage
from reembed.records import SHARD_ROWS, Vectors, chunked, fixed_array_to_vectors, hashes_of
from reembed.run import events
from reembed.run.directory import DELTA, RunDir, Shard
from reembed.run.guards import Wait, no_wait
from reembed.run.ledger import Ledger
from reembed.run.quarantine import quarantined_of
from reembed.stages.fill import ShadowFill, fill_of
from reembed.stages.refusals import name_taken
from reembed.stages.session import Session
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stores.collection import Collection
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, CollectionSpec

RECORD_COLUMNS = ("id", "document", "metadata", "uri", "row_sha256")
DISPLACING_TRIES = 3
"""How often a write is tried: all holders are told at once, and nobody else writes to a shadow."""

Write = Callable[[pa.RecordBatch, Vectors], None]
"""`Collection.add` or `Collection.overwrite`."""


@dataclass(frozen=True)
class ShardRows:
    """What an export and an embed shard of one stem hold: RECORD_COLUMNS of its records, and
    the ids and vectors of those that were embedded, in the same order."""

    export: Shard
    records: pa.Table
    embedded: pa.Table

    @property
    def ids(self) -> list[str]:
        """Of all its records, embedded or not."""
        return list(self.records.column("id").to_pylist())


def read_rows(run: RunDir, export: Shard, embed: Shard) -> ShardRows:
    """Read what loading needs of two shards; old vectors are no part of it."""
    return ShardRows(
        export, run.read_shard(export, RECORD_COLUMNS), run.read_shard(embed, ["id", "embedding"])
    )


def rows_before(
    run: RunDir, export_shards: Mapping[str, Shard], export: Shard, rows: ShardRows
) -> dict[str, bytes]:
    """The row hashes that the records of a delta had before it."""
    ids = {*rows.ids, *export.deleted}
    found: dict[str, bytes] = {}
    for earlier, shard in export_shards.items():
        if earlier == export.stem:
            break
        told = run.read_shard(shard, ["id", "row_sha256"])
        never_live = [*shard.deleted, *quarantined_of(run, earlier)]
        found |= {id: row for id, row in hashes_of(told).items() if id in ids}
        for id in never_live:
            found.pop(id, None)
    return found


def displace(shadow: Collection, run: RunDir, stem: str, ids: Sequence[str]) -> None:
    """Delete records from a shadow that is not live, noted so that they are carried anew.

    Args:
        stem: of the shard that they stand in the way of; empty where it is none.
    """
    if ids:
        run.history.record(events.Displaced(stem=stem, ids=tuple(ids)))
    for page in chunked(ids, SHARD_ROWS):
        shadow.delete(page)


def displacing(
    write: Write, shadow: Collection, run: RunDir, stem: str, spared: Container[str] = ()
) -> Write:
    """`write` into a shadow that is not live, in which the shard `stem` is right.

    Args:
        spared: ids of records that are about to be written again anyway, so that they need not be
            noted when they are displaced.
    """

    def written(batch: pa.RecordBatch, vectors: Vectors) -> None:
        for left in reversed(range(DISPLACING_TRIES)):
            try:
                write(batch, vectors)
                return
            except TakenError as error:
                if not left or not set(error.holders).isdisjoint(batch.column("id").to_pylist()):
                    raise  # two rows of the shard itself need one value
                again = [id for id in error.holders if id in spared]
                displace(shadow, run, stem, sorted({*error.holders} - {*again}))
                shadow.delete(again)

    return written


def load_shard(
    shadow: Collection,
    rows: ShardRows,
    ledger: Ledger,
    write: Write,
    *,
    replacing: bool,
    only: Set[str] | None = None,
) -> None:
    """Write one shard's records and vectors; `replacing` also deletes what it no longer holds.

    Records for which a later shard speaks are left alone, and so are those not in `only`.
    """
    current = ledger.current(rows.export.stem)
    if only is not None:
        current = current.intersection(only)
    if replacing:
        gone = ledger.gone(rows.export, rows.ids)
        for ids in chunked([id for id in gone if only is None or id in only], SHARD_ROWS):
            shadow.delete(ids)
    write_rows(write, rows, current)


def write_rows(write: Write, rows: ShardRows, ids: set[str]) -> None:
    """Write the records of these ids of one shard, with their vectors."""
    embedded = rows.embedded.column("id").to_pylist()
    if ids.isdisjoint(embedded):
        return
    vectors = fixed_array_to_vectors(rows.embedded.column("embedding"))
    records = rows.records
    all_of_them = ids.issuperset(embedded)
    if not all_of_them:
        vectors = vectors[np.fromiter((id in ids for id in embedded), bool, len(embedded))]
    if not all_of_them or len(records) > len(embedded):
        kept = ids.intersection(embedded)
        listed = records.column("id").to_pylist()
        records = records.filter(pa.array([id in kept for id in listed], pa.bool_()))
    (batch,) = records.combine_chunks().to_batches()
    write(batch, vectors)


STAGE = "load"


def ensure_shadow(
    store: Store,
    run: RunDir,
    spec: CollectionSpec,
) -> CollectionInfo:
    """The run's shadow, made if need be.

    The intent is journalled before the collection is made, so that an empty collection of that
    name found after a crash is known to be ours. A collection that was there before is refused.

    Raises:
        PreflightError: the name is taken by a collection that this run did not make.
        SourceChangedError: the shadow was deleted behind our back.
    """
    id, name = run.history.shadow_id, spec.name
    if id is not None:
        info = store.catalog.describe_id(id)
        if info is None:
            raise SourceChangedError(
                f"the shadow {name!r} (id {id}) is gone: somebody deleted it",
                f"Move the run directory {run.path} away and run again; texts paid for are kept in "
                "the cache.",
            )
        return info
    intended = any(event.name == name for event in run.history.all(events.ShadowIntended))
    info = store.catalog.find(name)
    if info is not None:
        if not intended or info.count:
            raise name_taken(name)
    else:
        if not intended:
            run.history.record(events.ShadowIntended(name=name))
        info = store.to_write().create(spec)
    run.history.record(events.ShadowCreated(id=info.id, name=name, function=spec.function))
    return info


def intended_shadow(store: Store, run: RunDir) -> str | None:
    """The object id of an empty collection that a killed call made and did not journal."""
    intents = run.history.all(events.ShadowIntended)
    if run.history.shadow_id is not None or not intents:
        return None
    name = intents[-1].name
    info = store.catalog.describe(name) if name in store.catalog.collections() else None
    return info.id if info is not None and not info.count else None


def load(
    shadow: Collection, run: RunDir, ledger: Ledger, progress: Progress, wait: Wait = no_wait,
    fill: ShadowFill | None = None,
) -> None:  # fmt: skip
    """Load every shard that is not journalled as loaded, in order.

    Args:
        fill: what the first shards go to, where the shadow is filled as a whole.
    """
    export_shards, embed_shards = run.shards("export"), run.shards("embed")
    filled = fill.stems if fill is not None else frozenset()
    todo = [s for s in run.history.not_loaded(embed_shards) if s.stem not in filled]
    loaded = run.history.loaded_stems
    remade = [s.stem for s in todo if s.stem in loaded]
    total = sum(shard.rows for shard in embed_shards.values())
    with (
        progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter,
        contextlib.closing(_read_ahead(run, export_shards, todo)) as read,
    ):
        for shard, rows in read:
            wait()
            replacing = shard.stem.startswith(DELTA) or shard.stem in remade
            if fill is not None and replacing:
                fill.finish()
                fill = None
            if fill is not None:
                _fill_rows(fill, shadow, ledger, shard, rows)
            else:
                _load_rows(shadow, run, ledger, shard, rows, replacing=replacing)
            counter.update(shard.rows)
        if fill is not None:
            fill.finish()
    if remade:
        remove_strays(shadow, ledger)


def _load_rows(
    shadow: Collection, run: RunDir, ledger: Ledger, shard: Shard, rows: ShardRows,
    *, replacing: bool = False,
) -> None:  # fmt: skip
    write = displacing(shadow.overwrite if replacing else shadow.add, shadow, run, shard.stem)
    load_shard(shadow, rows, ledger, write, replacing=replacing)
    run.history.record(events.Loaded(stem=shard.stem, sha256=shard.sha256))


def _fill_rows(
    fill: ShadowFill, shadow: Collection, ledger: Ledger, shard: Shard, rows: ShardRows
) -> None:
    load_shard(shadow, rows, ledger, fill.add, replacing=False)
    fill.added(shard)


class EarlyLoad:
    """Loads embed shards, for the first time, while others are still embedded."""

    def __init__(self, s: Session) -> None:
        self._s = s
        self._shadow = made_shadow(s)
        self.fill = fill_of(s, self._shadow, _spec(s))

    def load(self, shard: Shard) -> None:
        """Load one of them."""
        s = self._s
        s.ledger.fold()
        rows = read_rows(s.run, s.run.shards("export")[shard.stem], shard)
        if self.fill is not None:
            _fill_rows(self.fill, self._shadow, s.ledger, shard, rows)
        else:
            _load_rows(self._shadow, s.run, s.ledger, shard, rows)


def _read_ahead(
    run: RunDir, export_shards: Mapping[str, Shard], embeds: Sequence[Shard]
) -> Generator[tuple[Shard, ShardRows], None, None]:
    """Each embed shard with its rows; the next one's are read in a thread meanwhile."""
    with ThreadPoolExecutor(1, "load") as thread:
        ahead: Future[ShardRows] | None = None
        for number, shard in enumerate(embeds):
            rows = ahead.result() if ahead else read_rows(run, export_shards[shard.stem], shard)
            for following in embeds[number + 1 : number + 2]:
                export = export_shards[following.stem]
                ahead = thread.submit(read_rows, run, export, following)
            yield shard, rows


@stage("build the indexes")
def build_index(shadow: Collection, run: RunDir) -> None:
    """Make the indexes of a shadow that is full. Records that cannot be together in a unique one,
    since shards were exported at several moments, are displaced: the next comparison tells which
    of them is right."""
    build = shadow.store.build_index
    if build is None:  # it indexes as it is filled
        return
    try:
        build(shadow.id)
    except TakenError as error:
        displace(shadow, run, "", sorted({*error.taken, *error.holders}))
        build(shadow.id)


@stage("look for strays")
def remove_strays(shadow: Collection, ledger: Ledger) -> None:
    """Delete from the shadow what no shard holds any more, after a shard was made again."""
    strays: list[str] = []
    for page in shadow.list_ids():
        ids = page.to_pylist()
        known = ledger.lookup(ids)
        strays += [id for id in ids if id not in known or known[id].quarantined]
    for ids in chunked(strays, SHARD_ROWS):
        shadow.delete(ids)


def made_shadow(s: Session) -> Collection:
    """The run's shadow; the first call makes it."""
    if s.run.history.writes_held:  # it has been looked at, which counts its records
        return s.new
    return Collection(s.store, ensure_shadow(s.store, s.run, _spec(s)).id)


def _spec(s: Session) -> CollectionSpec:
    dimensions = s.dimensions if s.manifest.keeps else s.embedder.dimensions
    name = target_name(s.manifest, s.store.to_write(), dimensions)
    return shadow_spec(s.manifest, s.source, name, dimensions)


def load_shadow(s: Session, early: EarlyLoad | None = None) -> None:
    """Stage 3 for every embed shard that is not loaded; the first call makes the shadow.

    Args:
        early: what has loaded some of them in this call.
    """
    shadow = made_shadow(s)
    fill = early.fill if early is not None else fill_of(s, shadow, _spec(s))
    load(shadow, s.run, s.ledger, s.progress, s.pause.wait, fill)
    build_index(shadow, s.run)
