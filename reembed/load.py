"""Stage 3: export and embed shards become the shadow collection. Idempotent.

The shadow is made once and known by its object id from then on. A shard is added whole, then
journalled; adding it again after a crash changes nothing. A delta, or a shard that was made again,
replaces instead: what it no longer holds is deleted, and no older version of a record shines
through. While one shard is written, the next is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.difference import find_difference
from reembed.errors import SourceChangedError
from reembed.guards import Wait, no_wait
from reembed.ledger import Ledger
from reembed.manifest import Model
from reembed.progress import Progress
from reembed.records import (
    SHARD_ROWS,
    Metric,
    Vectors,
    chunked,
    fixed_array_to_vectors,
)
from reembed.refusals import existing, name_taken
from reembed.rundir import DELTA, RunDir, Shard
from reembed.stores.base import CollectionInfo, Store

STAGE = "load"
RECORD_COLUMNS = ("id", "document", "metadata", "uri", "row_sha256")
LIVE_ROWS = 50
"""Rows written to a live collection between two looks at what the application has written there."""


def shadow_id(run: RunDir) -> str | None:
    """The object id of the run's shadow, None before it is made."""
    event = run.last("shadow-created")
    return None if event is None else str(event["id"])


def ensure_shadow(
    store: Store,
    run: RunDir,
    name: str,
    *,
    dimensions: int,
    metric: Metric,
    index: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    model: Model,
    like: str | None = None,
) -> CollectionInfo:
    """The run's shadow, made if need be.

    The intent is journalled before the collection is made, so that an empty collection of that
    name found after a crash is known to be ours. A collection that was there before is refused.

    Raises:
        PreflightError: the name is taken by a collection that this run did not make.
        SourceChangedError: the shadow was deleted behind our back.
    """
    id = shadow_id(run)
    if id is not None:
        info = store.describe_id(id)
        if info is None:
            raise SourceChangedError(
                f"the shadow {name!r} (id {id}) is gone: somebody deleted it",
                f"Move the run directory {run.path} away and run again; texts paid for are kept in "
                "the cache.",
            )
        return info
    intended = any(event["name"] == name for event in run.events("shadow-intent"))
    info = existing(store, name)
    if info is not None:
        if not intended or info.count:
            raise name_taken(name)
    else:
        if not intended:
            run.journal.append("shadow-intent", name=name)
        info = store.create(
            name, dimensions=dimensions, metric=metric, index=index, metadata=metadata,
            model=model, like=like,
        )  # fmt: skip
    run.journal.append("shadow-created", id=info.id, name=name)
    return info


def intended_shadow(store: Store, run: RunDir) -> str | None:
    """The object id of an empty collection that a killed call made and did not journal."""
    intents = run.events("shadow-intent")
    if shadow_id(run) is not None or not intents:
        return None
    name = str(intents[-1]["name"])
    info = store.describe(name) if name in store.collections() else None
    return info.id if info is not None and not info.count else None


def load(
    store: Store,
    shadow: str,
    export_shards: Mapping[str, Shard],
    embed_shards: Mapping[str, Shard],
    ledger: Ledger,
    run: RunDir,
    progress: Progress,
    wait: Wait = no_wait,
) -> None:
    """Load every shard that is not journalled as loaded, in order."""
    todo = not_loaded(run, embed_shards)
    loaded = {event["stem"] for event in run.events("loaded")}
    remade = [s.stem for s in todo if s.stem in loaded]
    total = sum(shard.rows for shard in embed_shards.values())
    with (
        progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter,
        contextlib.closing(_read_ahead(run, export_shards, todo)) as read,
    ):
        for shard, rows in read:
            wait()
            stem = shard.stem
            replacing = stem.startswith(DELTA) or stem in remade
            load_shard(store, shadow, export_shards[stem], rows, ledger, replacing=replacing)
            run.journal.append("loaded", stem=stem, sha256=shard.sha256)
            counter.update(shard.rows)
    if remade:
        remove_strays(store, shadow, ledger)


def not_loaded(run: RunDir, embed_shards: Mapping[str, Shard]) -> list[Shard]:
    """The embed shards that are not journalled as loaded, in order."""
    loaded = {event["stem"]: event["sha256"] for event in run.events("loaded")}
    return [shard for shard in embed_shards.values() if loaded.get(shard.stem) != shard.sha256]


@dataclass(frozen=True)
class ShardRows:
    """What an export and an embed shard of one stem hold: RECORD_COLUMNS of its records, and
    the ids and vectors of those that were embedded, in the same order."""

    records: pa.Table
    embedded: pa.Table


def read_rows(run: RunDir, export: Shard, embed: Shard) -> ShardRows:
    """Read what loading needs of two shards; old vectors are no part of it."""
    return ShardRows(
        run.read_shard(export, RECORD_COLUMNS), run.read_shard(embed, ["id", "embedding"])
    )


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


def load_into_live(
    store: Store,
    live: str,
    export_shards: Mapping[str, Shard],
    embed_shards: Mapping[str, Shard],
    ledger: Ledger,
    run: RunDir,
    *,
    resumed: bool,
) -> list[str]:
    """Load deltas into a shadow that is live, a few rows at a time.

    Rows that the application has changed or deleted are left alone, which is looked at right
    before each write; their ids are returned. A shard that was loaded before and made again holds
    what was loaded: its rows are there, or the application's to change.

    Args:
        resumed: whether an earlier call may have been killed in the middle. Replacing a row deletes
            it first, so one that is missing is then written.
    """
    left: list[str] = []
    loaded = {event["stem"] for event in run.events("loaded")}
    for shard in not_loaded(run, embed_shards):
        if shard.stem in loaded:
            run.journal.append("loaded", stem=shard.stem, sha256=shard.sha256)
            continue
        export = export_shards[shard.stem]
        held = read_rows(run, export, shard)
        rows = held.records.select(["id", "row_sha256"]).to_pydict()
        wanted = dict(zip(rows["id"], rows["row_sha256"], strict=True))
        before = _rows_before(run, export_shards, export.stem, {*wanted, *export.deleted})
        for ids in chunked([*wanted, *export.deleted], LIVE_ROWS):
            there = store.fetch(live, ids, vectors=False)
            now = dict(zip(there.column("id").to_pylist(), there.column("row_sha256").to_pylist(),
                           strict=True))  # fmt: skip
            newer = {id for id, row in now.items() if row not in (wanted.get(id), before.get(id))}
            if not resumed:  # the application has deleted it
                newer |= {id for id in ids if id in wanted and id in before and id not in now}
            only = set(ids).difference(newer)
            load_shard(store, live, export, held, ledger, replacing=True, only=only)
            left += sorted(newer)
        run.journal.append("loaded", stem=shard.stem, sha256=shard.sha256)
    return left


def _rows_before(
    run: RunDir, export_shards: Mapping[str, Shard], stem: str, ids: set[str]
) -> dict[str, bytes]:
    """The row hashes that these records had before a delta."""
    found: dict[str, bytes] = {}
    for earlier, shard in export_shards.items():
        if earlier == stem:
            break
        rows = run.read_shard(shard, ["id", "row_sha256"]).to_pydict()
        pairs = zip(rows["id"], rows["row_sha256"], strict=True)
        found |= {id: row for id, row in pairs if id in ids}
        for id in shard.deleted:
            found.pop(id, None)
    return found


def remove_strays(store: Store, shadow: str, ledger: Ledger) -> None:
    """Delete from the shadow what no shard holds any more, after a shard was made again."""
    strays: list[str] = []
    for page in store.list_ids(shadow):
        ids = page.to_pylist()
        known = ledger.lookup(ids)
        strays += [id for id in ids if id not in known or known[id].quarantined]
    for ids in chunked(strays, SHARD_ROWS):
        store.delete(shadow, ids)


def load_shard(
    store: Store,
    shadow: str,
    export: Shard,
    rows: ShardRows,
    ledger: Ledger,
    *,
    replacing: bool,
    only: Collection[str] | None = None,
) -> None:
    """Write one shard's records and vectors; `replacing` also deletes what it no longer holds.

    Records for which a later shard speaks are left alone, and so are those not in `only`.
    """
    current = ledger.current(export.stem)
    if only is not None:
        current = current.intersection(only)
    if not replacing:
        _write_rows(store.add, shadow, rows, current)
        return
    exported = rows.records.column("id").to_pylist()
    known = ledger.lookup([*exported, *export.deleted])
    gone = [id for id in export.deleted if id not in known]
    gone += [id for id in exported if id in known and known[id].shard == export.stem
             and known[id].quarantined]  # fmt: skip
    for ids in chunked([id for id in gone if only is None or id in only], SHARD_ROWS):
        store.delete(shadow, ids)
    _write_rows(store.replace, shadow, rows, current)


def resync(
    store: Store,
    shadow: str,
    export_shards: Mapping[str, Shard],
    embed_shards: Mapping[str, Shard],
    ledger: Ledger,
    run: RunDir,
) -> int:
    """Make the shadow what the shards say again, after it was live and written to.

    Returns the number of records put back or removed. What those writes were is in the source by
    now (rollback carried them), and catch-up brings them from there.
    """
    difference = find_difference(store, shadow, None, ledger, include_quarantined=False)
    ids = [*difference.changed, *difference.deleted]
    wanted: dict[str, set[str]] = {}
    known = ledger.lookup(ids)
    for id, entry in known.items():
        if not entry.quarantined:
            wanted.setdefault(entry.shard, set()).add(id)
    strays = [id for id in ids if id not in known or known[id].quarantined]
    for page in chunked(strays, SHARD_ROWS):
        store.delete(shadow, page)
    for stem, members in wanted.items():
        rows = read_rows(run, export_shards[stem], embed_shards[stem])
        _write_rows(store.replace, shadow, rows, members)
    return len(ids)


def _write_rows(
    write: Callable[[str, pa.RecordBatch, Vectors], None],
    shadow: str,
    rows: ShardRows,
    ids: set[str],
) -> None:
    """Write the records of these ids of one shard, with their vectors."""
    embedded = rows.embedded.column("id").to_pylist()
    mask = np.fromiter((id in ids for id in embedded), bool, len(embedded))
    if not mask.any():
        return
    vectors = fixed_array_to_vectors(rows.embedded.column("embedding"))
    records = rows.records
    if not mask.all():
        vectors = vectors[mask]
    if not mask.all() or len(records) > len(embedded):
        kept = ids.intersection(embedded)
        listed = records.column("id").to_pylist()
        records = records.filter(pa.array([id in kept for id in listed], pa.bool_()))
    (batch,) = records.combine_chunks().to_batches()
    write(shadow, batch, vectors)
