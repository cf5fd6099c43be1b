"""Stage 3: export and embed shards become the shadow collection. Idempotent.

The shadow is made once and known by its object id from then on. A shard is added whole, then
journalled; adding it again after a crash changes nothing. A delta, or a shard that was made again,
replaces instead: what it no longer holds is deleted, and no older version of a record shines
through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.errors import PreflightError, SourceChangedError
from reembed.ledger import Ledger
from reembed.manifest import Model
from reembed.progress import Progress
from reembed.records import EXPORT_SCHEMA, Metric, fixed_array_to_vectors
from reembed.rundir import RunDir, Shard
from reembed.stores.base import CollectionInfo, Store

STAGE = "load"
DELTA = "delta-"


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
    if name in store.collections():
        info = store.describe(name)
        if not intended or info.count:
            raise name_taken(name)
    else:
        if not intended:
            run.journal.append("shadow-intent", name=name)
        info = store.create(
            name, dimensions=dimensions, metric=metric, index=index, metadata=metadata, model=model
        )
    run.journal.append("shadow-created", id=info.id, name=name)
    return info


def name_taken(name: str) -> PreflightError:
    """The refusal of a target that exists and is not this run's."""
    return PreflightError(
        f"the target collection {name!r} exists and was not made by this run",
        "Choose another target.collection, or delete that collection yourself if it is of no use.",
    )


def load(
    store: Store,
    shadow: str,
    export_shards: Mapping[str, Shard],
    embed_shards: Mapping[str, Shard],
    ledger: Ledger,
    run: RunDir,
    progress: Progress,
) -> None:
    """Load every shard that is not journalled as loaded, in order."""
    loaded = {event["stem"]: event["sha256"] for event in run.events("loaded")}
    todo = [s for s in embed_shards.values() if loaded.get(s.stem) != s.sha256]
    total = sum(shard.rows for shard in embed_shards.values())
    with progress.stage(STAGE, total, total - sum(shard.rows for shard in todo)) as counter:
        for shard in todo:
            stem = shard.stem
            replacing = stem.startswith(DELTA) or stem in loaded
            load_shard(store, shadow, export_shards[stem], shard, ledger, run, replacing=replacing)
            run.journal.append("loaded", stem=stem, sha256=shard.sha256)
            counter.update(shard.rows)


def load_shard(
    store: Store,
    shadow: str,
    export: Shard,
    embed: Shard,
    ledger: Ledger,
    run: RunDir,
    *,
    replacing: bool,
) -> None:
    """Write one shard's records and vectors; `replacing` also deletes what it no longer holds.

    Records for which a later shard speaks are left alone.
    """
    records = run.read_shard(export)
    vectors_table = run.read_shard(embed, ["id", "embedding"])
    current = ledger.current(export.stem)
    moved = set(vectors_table.column("id").to_pylist())
    batch = _rows(records, moved & current)
    vectors = fixed_array_to_vectors(vectors_table.column("embedding"))
    mask = np.fromiter((id in current for id in vectors_table.column("id").to_pylist()), bool)
    if not replacing:
        store.add(shadow, batch, vectors[mask])
        return
    quarantined = [id for id in records.column("id").to_pylist() if id not in moved]
    known = ledger.lookup([*export.deleted, *quarantined])
    gone = [id for id in export.deleted if id not in known]
    gone += [id for id in quarantined if id in known and known[id].shard == export.stem]
    if gone:
        store.delete(shadow, gone)
    if batch.num_rows:
        store.replace(shadow, batch, vectors[mask])


def _rows(records: pa.Table, ids: set[str]) -> pa.RecordBatch:
    """The rows of these ids as one record batch, in the shard's order."""
    mask = pa.array([id in ids for id in records.column("id").to_pylist()], pa.bool_())
    table = records.filter(mask).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=EXPORT_SCHEMA)
