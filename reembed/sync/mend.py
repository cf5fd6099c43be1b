"""Shards that are damaged or gone, made again; and a shadow that was live before a rollback, made
what the shards say. Commands come here by `cutover/recover.py`.

Before a swap a shard is exported again: the source says what is to be moved. After it applications
write to both collections, and a shard holds what was moved. The ledger has the row hash of each of
its records, and whichever collection still holds that very record gives it. One that both have
changed is missing from the shard from then on, and its row hash is kept, so that a comparison still
tells who changed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from reembed.errors import DamagedError, PreflightError
from reembed.progress import stage
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, chunked, hashes_of
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.run.disk import remove
from reembed.run.ledger import UNKNOWN, Entry, Ledger
from reembed.run.quarantine import quarantined_of
from reembed.run.shards import Besides
from reembed.stages.embed import embed_shards, not_embedded
from reembed.stages.export import census_ids, export_source
from reembed.stages.load import displacing, read_rows, write_rows
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.sync.carry_back import WayBack
from reembed.sync.carry_back_log import CARRIED_FILE
from reembed.sync.difference import find_difference


def resync_shadow(s: Session) -> None:
    """Make the shadow, which was live before a rollback, what the shards say again."""
    _begin_resync(s)
    resync(s.new, s.run, s.ledger)
    s.run.history.record(events.ResyncDone())


@stage("put the new collection back")
def resync(shadow: Collection, run: RunDir, ledger: Ledger) -> int:
    """Make the shadow what the shards say again, after it was live and written to.

    Returns the number of records put back or removed. What those writes were is in the source by
    now (rollback carried them), and catch-up brings them from there, as it does what was displaced.
    """
    difference = find_difference(shadow, ledger, include_quarantined=False)
    ids = [*difference.changed, *difference.deleted]
    wanted: dict[str, list[str]] = {}
    known = ledger.lookup(ids)
    for id, entry in known.items():
        if not entry.quarantined and entry.row_sha256 != UNKNOWN:
            wanted.setdefault(entry.shard, []).append(id)
    strays = [id for id in ids if id not in known or known[id].quarantined]
    for page in chunked(strays, SHARD_ROWS):
        shadow.delete(page)
    restore_shards(shadow, wanted, run)
    return len(ids)


@stage("put records back")
def restore_shards(shadow: Collection, ids: Mapping[str, Sequence[str]], run: RunDir) -> int:
    """Write records again, rows and vectors, as the shards say that speak for them.

    Args:
        ids: by stem.

    Returns the number of records written.
    """
    export_shards, embed_shards = run.shards("export"), run.shards("embed")
    todo = {id for members in ids.values() for id in members}
    for stem, members in ids.items():
        write = displacing(shadow.overwrite, shadow, run, stem, todo)
        rows = read_rows(run, export_shards[stem], embed_shards[stem])
        write_rows(write, rows, {*members})
        todo -= {*members}
    return sum(len(members) for members in ids.values())


def _begin_resync(s: Session) -> None:
    if s.run.history.shadow_was_live:
        refuse_late(s)
        s.run.history.record(events.ResyncBegun())
        remove(s.run.path / CARRIED_FILE)


LOST_AFTER_ROLLBACK = (
    "If the deletions were meant, `reembed sweep --accept-loss` applies them to the live "
    "collection; if not, the same command with --accept-loss ignores them."
)


def refuse_late(s: Session) -> None:
    """Raise PreflightError if the new collection was written to after a rollback."""
    late, loss = way_back_of(s).late()
    if loss is not None:
        s.loss_guard.refuse(loss, LOST_AFTER_ROLLBACK, " after the rollback")
    if late:
        raise PreflightError(
            f"the new collection holds {len(late):,} writes that came after the rollback, e.g. "
            f"{', '.join(late[:5])}; they would be lost",
            "Copy them with `reembed sweep`, or delete them there.",
        )


@stage("look at the run's files")
def mend_shards(s: Session, *, embedding: bool = True) -> None:
    """Make shards again that are damaged or gone, and embed what is not embedded.

    Args:
        embedding: False to leave alone what was never embedded.
    """
    _mend_exports(s)
    embeds = s.run.shards("embed")
    todo = not_embedded(s.run, s.run.shards("export"))
    if todo if embedding else any(shard.stem in embeds for shard in todo):
        embed_shards(s)


def _mend_exports(s: Session) -> None:
    """Make export shards again: from the source or, where both collections were written to since
    the live name moved, from whichever holds what was moved."""
    if s.run.history.last_move == "swap":
        _remake_exports(s)
    elif not all(s.run.is_complete(shard) for shard in s.run.shards("export").values()):
        _begin_resync(s)  # what came late to the shadow is told by the ledger of before alone
        export_source(s)


def has_ledger(s: Session) -> bool:
    """Whether the ledger is there; without it, it takes whole shards to make it."""
    try:
        _ = s.ledger
    except DamagedError:
        return False
    return True


def _remake_exports(s: Session) -> None:
    shards = s.run.shards("export").values()
    damaged = [shard for shard in shards if not s.run.is_whole(shard)]
    if not damaged:
        return
    if has_ledger(s):
        known = {shard.stem: s.ledger.of_shard(shard.stem) for shard in damaged}
    else:
        known = {shard.stem: _known_without_ledger(s, shard.stem) for shard in damaged}
        s.run.history.record(events.Recheck())
    for shard in damaged:
        missing = _remake(s, shard, known[shard.stem])
        changed = f"; {missing:,} of its records have changed in both" if missing else ""
        s.progress.note(
            f"{shard.name} is damaged or gone: made again from what the collections hold{changed}"
        )


def _known_without_ledger(s: Session, stem: str) -> dict[str, Entry]:
    """What is known of a shard's records from the list of ids and from quarantine."""
    known = {id: Entry(UNKNOWN, stem, False) for id in census_ids(s.run, stem)}
    rows = quarantined_of(s.run, stem)
    return known | {id: Entry(row, stem, True) for id, row in rows.items()}


def _remake(s: Session, shard: Shard, known: Mapping[str, Entry]) -> int:
    """Write an export shard again. Returns the number of records that are missing from it.

    Records that only the new collection still holds have no old vector in it, unless vectors are
    kept.

    Args:
        known: what is known of each record. One with the row hash UNKNOWN is taken for moved as it
            is if both collections hold it alike.
    """
    parts = [pa.table([[]] * len(EXPORT_SCHEMA), schema=EXPORT_SCHEMA)]
    for ids in chunked(list(known), SHARD_ROWS):
        old, new = s.old.whole.fetch(ids, vectors=True), s.new.fetch(ids, vectors=s.manifest.keeps)
        old_rows, new_rows = hashes_of(old), hashes_of(new)
        wanted = {id: known[id].row_sha256 for id in ids}
        kept = [
            id for id, row in old_rows.items()
            if row == (wanted[id] if wanted[id] != UNKNOWN else new_rows.get(id))
        ]  # fmt: skip
        rest = [id for id, row in new_rows.items() if row == wanted[id] and old_rows.get(id) != row]
        parts += [_among(old, kept), _among(new, rest)]
    table = pa.concat_tables(parts)
    missing = {**known}
    for id in table.column("id").to_pylist():
        del missing[id]
    rows = [(id, e.row_sha256.hex(), e.quarantined) for id, e in missing.items()]
    besides = Besides(shard.deleted, shard.foreign, rows)
    s.run.write_shard("export", shard.stem, table, besides=besides)
    return len(missing)


def _among(rows: pa.RecordBatch, ids: list[str]) -> pa.Table:
    mask = pc.is_in(rows.column("id"), pa.array(ids, pa.string()))
    return pa.Table.from_batches([rows.filter(mask)])


def way_back_of(s: Session) -> WayBack:
    """What carries rows back to the old collection; the old model is opened only if needed."""
    if not has_ledger(s):
        _remake_exports(s)
        embed_shards(s)
    return WayBack(s)
