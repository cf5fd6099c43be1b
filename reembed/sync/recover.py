"""What a killed call or a damaged file left: shards are made again, a carry is finished, a shadow
that was live becomes again what the shards say."""

from __future__ import annotations

from reembed.disk import remove
from reembed.errors import (
    DamagedError,
    PreflightError,
)
from reembed.run import events
from reembed.run.ledger import UNKNOWN, Entry
from reembed.run.quarantine import quarantined_of
from reembed.session import Session
from reembed.stages.embed import embed_shards, not_embedded
from reembed.stages.export import (
    census_ids,
    export_source,
    is_complete,
)
from reembed.sync.carry_back import WayBack
from reembed.sync.carry_back_log import CARRIED_FILE
from reembed.sync.delta import load_rest
from reembed.sync.remake import Mending
from reembed.sync.resync import resync


def resync_shadow(s: Session) -> None:
    """Make the shadow, which was live before a rollback, what the shards say again."""
    _begin_resync(s)
    resync(s.new, s.run, s.ledger)
    s.run.history.write(events.ResyncDone())


def _begin_resync(s: Session) -> None:
    if s.run.history.shadow_was_live:
        refuse_late(s)
        s.run.history.write(events.ResyncBegun())
        remove(s.run.path / CARRIED_FILE)


LOST_AFTER_ROLLBACK = (
    "If the deletions were meant, `reembed sweep --accept-loss` carries them into the live "
    "collection; if not, the same command with --accept-loss leaves them behind."
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
            "Carry them over with `reembed sweep`, or delete them there.",
        )


def settle(s: Session, *, embedding: bool = True) -> list[str]:
    """Make shards whole and finish a carry that was killed half-way: what the ledger knows must be
    in the shadow.

    Args:
        embedding: False where the new model is to be asked only if there is no other way: what is
            not embedded yet, the ledger does not know, and the next comparison finds it again.

    Returns the ids of rows left alone because a live shadow has newer ones.
    """
    if embedding or s.run.history.not_loaded(s.run.shards("embed")) or not _has_ledger(s):
        mend_shards(s, embedding=embedding)
    return load_rest(s)


def mend_shards(s: Session, *, embedding: bool = True) -> None:
    """Make shards again that are damaged or gone, and embed what is not embedded.

    Args:
        embedding: False to leave alone what was never embedded.
    """
    mend_exports(s)
    embeds = s.run.shards("embed")
    todo = not_embedded(s.run, s.run.shards("export"))
    if todo if embedding else any(shard.stem in embeds for shard in todo):
        embed_shards(s)


def mend_exports(s: Session) -> None:
    """Make export shards again: from the source or, where both collections were written to since
    the live name moved, from whichever holds what was moved."""
    if s.run.history.last_move == "swap":
        _remake_exports(s)
    elif not all(is_complete(s.run, shard) for shard in s.run.shards("export").values()):
        _begin_resync(s)  # what came late to the shadow is told by the ledger of before alone
        export_source(s)


def _has_ledger(s: Session) -> bool:
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
    mending = Mending(s.run, s.old.whole, s.new)
    if _has_ledger(s):
        known = {shard.stem: s.ledger.of_shard(shard.stem) for shard in damaged}
    else:
        known = {shard.stem: _known_without_ledger(s, shard.stem) for shard in damaged}
        s.run.history.write(events.Recheck())
    for shard in damaged:
        missing = mending.remake(shard, known[shard.stem])
        changed = f"; {missing:,} of its records have changed in both" if missing else ""
        s.progress.note(
            f"{shard.name} is damaged or gone: made again from what the collections hold{changed}"
        )


def _known_without_ledger(s: Session, stem: str) -> dict[str, Entry]:
    """What is known of a shard's records from the list of ids and from quarantine."""
    known = {id: Entry(UNKNOWN, stem, False) for id in census_ids(s.run, stem)}
    rows = quarantined_of(s.run, stem)
    return known | {id: Entry(row, stem, True) for id, row in rows.items()}


def way_back_of(s: Session) -> WayBack:
    """What carries rows back to the old collection; the old model is opened only if needed."""
    if not _has_ledger(s):
        _remake_exports(s)
        embed_shards(s)
    return WayBack(
        s.run, s.old.whole, s.ledger, s.template,
        lambda: (s.old_embedder, s.old_model_note), lambda: s.old_cache, s.new, s.loss_guard,
        s.progress.note,
    )  # fmt: skip
