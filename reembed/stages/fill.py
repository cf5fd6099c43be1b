"""Stage 3 where the store can fill a new collection as a whole, faster than record by record.

Nothing of such a shadow counts before all of its first shards are in it, so they are journalled as
loaded together, at the end; what a killed call had filled is taken back by the next. What it costs
to fill it again is the machine's own time: every vector is in the embed shards. Deltas, and
whatever is made again, are written to the full shadow as ever.
"""

from __future__ import annotations

from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.progress import stage
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.filling import Filling
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec

BULK_ROWS = 2_000
"""So many records are filled in as a whole where it is left to us: fewer are as fast through the
store's own way."""


class ShadowFill:
    """A shadow that is being filled: what `load` writes to in place of it.

    Attributes:
        stems: the shards that are in it.
        add: see `Filling.add`.
    """

    def __init__(self, run: RunDir, filling: Filling) -> None:
        self._run, self._filling = run, filling
        self._shards: list[Shard] = []
        self.add = filling.add

    @property
    def stems(self) -> set[str]:
        return {shard.stem for shard in self._shards}

    def added(self, shard: Shard) -> None:
        """A shard is in it."""
        self._shards.append(shard)

    @stage("write the index")
    def finish(self) -> None:
        """Make it count."""
        self._filling.finish()
        for shard in self._shards:
            self._loaded(shard)

    def _loaded(self, shard: Shard) -> None:
        self._run.history.record(events.Loaded(stem=shard.stem, sha256=shard.sha256))


def fills(manifest: Manifest, store: Store, spec: CollectionSpec, records: int) -> bool:
    """Whether a new collection like this is filled as a whole, as `target.bulk` has it.

    Raises:
        PreflightError: `target.bulk: always`, and it cannot be.
    """
    wanted = manifest.target.bulk
    if wanted == "never" or (store.bulk is None and wanted == "auto"):
        return False
    if store.bulk is None:
        raise PreflightError(
            f"target.bulk: always: {store.url} has no other way for a new collection than its "
            "usual one",
            "Leave target.bulk out.",
        )
    try:
        store.bulk.check(spec)
    except PreflightError:
        if wanted == "always":
            raise
        return False
    return wanted == "always" or records >= BULK_ROWS


def fill_of(s: Session, shadow: Collection, spec: CollectionSpec) -> ShadowFill | None:
    """What fills a shadow that is new, None where its records are to be written one by one.

    Args:
        spec: what the shadow was made by.

    Raises:
        PreflightError: `target.bulk: always`, and it cannot be done.
    """
    store, history = shadow.store, s.run.history
    if store.bulk is None or history.loaded_stems:
        return None
    begun = any(event.id == shadow.id for event in history.all(events.FillBegun))
    if begun and not store.bulk.take_back(shadow.id):  # killed just when it had finished
        return None
    records = sum(shard.rows for shard in s.run.shards("export").values())
    if not fills(s.manifest, store, spec, records) or shadow.count():
        return None
    history.record(events.FillBegun(id=shadow.id))
    filling = store.bulk.begin(shadow.id, spec.metric, spec.dimensions, records)
    return ShadowFill(s.run, filling)
