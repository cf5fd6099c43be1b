"""Stage 3: export and embed shards become the shadow collection. Idempotent.

The shadow is made once and known by its object id from then on. A shard is added whole, then
journalled; adding it again after a crash changes nothing. A delta, or a shard that was made again,
replaces instead: what it no longer holds is deleted, and no older version of a record shines
through. While one shard is written, the next is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from reembed.errors import SourceChangedError, TakenError
from reembed.progress import Progress, stage
from reembed.records import SHARD_ROWS, chunked
from reembed.run import events
from reembed.run.directory import DELTA, RunDir, Shard
from reembed.run.guards import Wait, no_wait
from reembed.run.ledger import Ledger
from reembed.stages.refusals import existing, name_taken
from reembed.stages.session import Session
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stages.shard_rows import ShardRows, displace, displacing, load_shard, read_rows
from reembed.stores.collection import Collection
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, CollectionSpec

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
    info = existing(store, name)
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
    shadow: Collection, run: RunDir, ledger: Ledger, progress: Progress, wait: Wait = no_wait
) -> None:
    """Load every shard that is not journalled as loaded, in order."""
    export_shards, embed_shards = run.shards("export"), run.shards("embed")
    todo = run.history.not_loaded(embed_shards)
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
            _load_rows(shadow, run, ledger, shard, rows, replacing=replacing)
            counter.update(shard.rows)
    if remade:
        remove_strays(shadow, ledger)


def _load_rows(
    shadow: Collection, run: RunDir, ledger: Ledger, shard: Shard, rows: ShardRows,
    *, replacing: bool = False,
) -> None:  # fmt: skip
    write = displacing(shadow.overwrite if replacing else shadow.add, shadow, run, shard.stem)
    load_shard(shadow, rows, ledger, write, replacing=replacing)
    run.history.record(events.Loaded(stem=shard.stem, sha256=shard.sha256))


def load_early(shadow: Collection, s: Session, shard: Shard) -> None:
    """Load an embed shard, for the first time, while others are still embedded."""
    s.ledger.fold()
    rows = read_rows(s.run, s.run.shards("export")[shard.stem], shard)
    _load_rows(shadow, s.run, s.ledger, shard, rows)


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
    manifest = s.manifest
    dimensions = s.dimensions if manifest.keeps else s.embedder.dimensions
    name = target_name(manifest, s.store.to_write(), dimensions)
    spec = shadow_spec(manifest, s.source, name, dimensions)
    return Collection(s.store, ensure_shadow(s.store, s.run, spec).id)


def load_shadow(s: Session) -> None:
    """Stage 3 for every embed shard that is not loaded; the first call makes the shadow."""
    shadow = made_shadow(s)
    load(shadow, s.run, s.ledger, s.progress, s.pause.wait)
    build_index(shadow, s.run)
