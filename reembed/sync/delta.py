"""One delta: export, embed and load what differs, into the shadow or into the live collection."""

from __future__ import annotations

from dataclasses import replace

from reembed.session import Session
from reembed.stages.embed import embed_shards
from reembed.stages.export import export_delta
from reembed.stages.load import load, load_shadow
from reembed.stores.collection import Collection
from reembed.sync.difference import Difference
from reembed.sync.load_live import load_into_live


def carry(s: Session, collection: Collection, difference: Difference) -> list[str]:
    """Export, embed and load what differs, as a delta. Returns the ids of rows left alone
    because a live shadow has newer ones."""
    filtered = replace(collection, where=s.manifest.source.where)
    export_delta(filtered, s.run, difference.changed, difference.deleted)
    embed_shards(s)
    if s.run.history.last_move == "swap":
        return _load_live(s, resumed=False)
    load_shadow(s)
    return []


def _load_live(s: Session, *, resumed: bool) -> list[str]:
    return load_into_live(s.new, s.run, s.ledger, resumed=resumed)


def load_rest(s: Session) -> list[str]:
    """Load what is embedded and not loaded yet. Returns the ids of rows left alone because a live
    shadow has newer ones."""
    if not s.run.history.not_loaded(s.run.shards("embed")):
        return []
    if s.run.history.last_move == "swap":
        return _load_live(s, resumed=True)
    load(s.new, s.run, s.ledger, s.progress)
    return []
