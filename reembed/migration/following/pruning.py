"""What a following job has replaced goes, so that the disk stays bounded: collections, run
directories, and the vectors of texts that no run directory has any more. The newest generation
before the live one stays for a way back until swap.keep_old has passed.

Only collections that a generation of this job has made are deleted, by their object ids, and never
the one that has the live name. One that the job took the name over from is never deleted here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reembed.embedders.fingerprint import Fingerprint
from reembed.embedders.identity import shared_cache
from reembed.migration.following.job import Job
from reembed.migration.following.moving import Foreign, copy_foreign
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import write_errors
from reembed.run.vector_cache import VectorCache
from reembed.run.vector_file import Marked
from reembed.stages.load import intended_shadow
from reembed.stores.collection import Collection


def prune(job: Job, current: RunDir, *, all: bool = False) -> list[str]:
    """Remove what nothing needs. Returns what was done, in words.

    Args:
        all: the way back, too.
    """
    told, kept = list[str](), False
    exchange = current.history.last(events.SwapDone)
    way_back = exchange.exchange.get("outgoing_id") if exchange else None
    for run in job.runs():
        if run.path == current.path:
            continue
        newer = run.run_id > current.run_id
        due = exchange is None or time.time() >= exchange.t + job.manifest.swap.keep_old_seconds
        if run.history.shadow_id == way_back and not kept and not due and not all:
            kept = True
            continue
        if newer and run.history.last_move is None and not all:
            continue  # one that is being built
        if run.history.shadow_id == way_back and run.history.shadow_id is not None:
            _copy_late(job, current, run)
        _forget_vectors(job, run)
        told += remove_run(job, run)
    return told


def _forget_vectors(job: Job, run: RunDir) -> None:
    """Remove from the cache the vectors of texts that only this generation had, so that it does not
    grow with every night."""
    path = _cache_of(job, run)
    if path is None or not path.is_file():
        return
    others = [one for one in job.runs() if one.path != run.path and _cache_of(job, one) == path]
    if not all(one.is_whole(shard) for one in others for shard in one.shards("embed").values()):
        return  # one that is damaged is made again from the cache
    kept = Marked(keys for one in others for keys in _hashes(one))
    gone = Marked(_hashes(run))
    taken = run.history.require(events.FingerprintTaken)
    with VectorCache(path, int(taken.fingerprint["dimensions"]), note=job.progress.note) as cache:
        cache.forget(lambda keys: gone.has(keys) & ~kept.has(keys))


def _cache_of(job: Job, run: RunDir) -> Path | None:
    """The shared file of vectors that a generation has filled."""
    taken = run.history.last(events.FingerprintTaken)
    if taken is None or not job.manifest.embed.cache:
        return None
    return shared_cache(job.manifest.state, Fingerprint.from_dict(taken.fingerprint))


def _hashes(run: RunDir) -> Iterator[npt.NDArray[np.uint8]]:
    """Hashes of the texts that a generation has embedded."""
    for shard in run.shards("embed").values():
        if run.is_whole(shard):
            keys = run.read_shard(shard, ["text_sha256"]).column("text_sha256").to_pylist()
            yield np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)


def _copy_late(job: Job, current: RunDir, run: RunDir) -> None:
    """Copy what an application has written to the old collection since, through handles that it
    had opened before the name moved."""
    old = Collection(job.store, str(run.history.shadow_id))
    if old.describe() is not None:
        with job.session(current) as s:
            copy_foreign(s, Foreign(old, run))


def remove_run(job: Job, run: RunDir) -> list[str]:
    """Delete a generation's collection, unless it is live, and its run directory."""
    id = run.history.shadow_id or intended_shadow(job.store, run)
    told = []
    if id is not None:
        live = job.live()
        if live is not None and live.id == id:
            return []
        info = job.store.catalog.describe_id(id)
        if info is not None:
            if run.history.dropping != id:
                run.history.record(events.CleanBegun(id=id))
            job.store.to_write().drop(id)
            told = [f"deleted {info.name!r}, which the live collection has replaced"]
        run.history.record(events.Cleaned(what="replaced"))
    with write_errors(run.path):
        # The journal goes last: what is left of a directory is then still a run that is cleaned.
        for path in sorted(run.path.iterdir(), key=lambda path: path.name == "journal.jsonl"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        run.path.rmdir()
    return told
