"""Stages 0 to 3 of a run, taken with a session: preflight, export, embed, load, catch-up.

A delta that is carried, before the swap or after it, goes the same way as the census's own shards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from reembed.disk import remove
from reembed.embedders.spending import cost
from reembed.engines.local import LocalEngine
from reembed.errors import (
    BudgetError,
    DamagedError,
    PreflightError,
)
from reembed.run import events
from reembed.run.ledger import UNKNOWN, Entry
from reembed.run.quarantine import quarantined_of, write_quarantine
from reembed.session import Session
from reembed.stages.batched import Batched
from reembed.stages.embed import embed, not_embedded
from reembed.stages.estimate import tokens_left, verify_tokens
from reembed.stages.export import census_ids, export, export_delta, is_complete, take_census
from reembed.stages.load import build_index, ensure_shadow, load
from reembed.stages.plan import Plan, make_plan
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stores.collection import Collection
from reembed.sync.carry_back import WayBack
from reembed.sync.carry_back_log import CARRIED_FILE
from reembed.sync.catch_up import catch_up
from reembed.sync.difference import Difference, find_difference
from reembed.sync.load_live import load_into_live
from reembed.sync.remake import Mending
from reembed.sync.resync import resync

Stage = Literal["plan", "export", "embed", "load", "verify", "swap"]


def plan_run(s: Session, own_shadow: str | None) -> Plan:
    """Stage 0 with what the session has open; `own_shadow` is this run's, if there is one."""
    return make_plan(
        s.manifest, s.source_store, s.store, s.embedder, s.spending, s.paid_for, own_shadow
    )


def run_stages(s: Session, until: Stage) -> None:
    """Stages 1 to 3, each resuming, then catch-up with what was written meanwhile."""
    if s.run.history.shadow_was_live:
        _mend_exports(s)
    with _timed(s, "export"):
        _export(s)
    if until == "export":
        return
    with _timed(s, "embed"):
        embed_shards(s)
    if until == "embed":
        return
    with _timed(s, "load"):
        load_shadow(s)
        if s.run.history.resync_due:
            resync_shadow(s)
        catch_up_source(s)


def _export(s: Session) -> None:
    store = s.source_store
    described = store.resolve(s.manifest.source.collection)
    source = Collection(store, described.id, s.manifest.source.where)
    source.start_capture()  # before the snapshot, so that no write is between the two
    with store.snapshot() if store.snapshot else contextlib.nullcontext():
        census = take_census(source, described, s.run)
        export(source, census, s.run, s.progress, s.pause.wait)


@contextlib.contextmanager
def _timed(s: Session, stage: events.Stage) -> Iterator[None]:
    spent = s.meter()
    yield
    s.run.history.write(events.StageDone(stage=stage, **spent()))


def embed_shards(s: Session) -> None:
    """Stage 2 for every export shard that is not embedded, then ledger and quarantine.

    Raises:
        BudgetError: a cap is reached; says how much more is needed.
    """
    try:
        _embed_by_batch(s)
        embed(
            s.run.shards("export"), s.run, s.embedder, s.template, s.cache, LocalEngine(),
            s.progress, s.pause.wait,
        )  # fmt: skip
    except BudgetError as error:  # what was in flight has ended, so what is left can be told
        raise budget_stop(
            s, max(error.tokens, _needed(s)), "embedding and verifying the rest"
        ) from None
    s.ledger.fold()
    write_quarantine(s.run, s.ledger)


def _embed_by_batch(s: Session) -> None:
    """What the provider's batch API can be waited for: nothing once the live name has moved."""
    if s.embedder.batches is not None and s.run.history.last_move != "swap":
        Batched(
            s.run, s.embedder, s.embedder.batches, s.template, s.cache, s.spending, s.progress,
            s.pause.wait,
        ).embed(not_embedded(s.run, s.run.shards("export")))  # fmt: skip


def _needed(s: Session) -> int:
    """About how many tokens the rest of the run takes."""
    exports = s.run.shards("export")
    todo = not_embedded(s.run, exports)
    left, each = tokens_left(
        todo, s.run, s.template, s.embedder, lambda hashes: set(s.cache.get(hashes))
    )
    records = sum(shard.rows for shard in exports.values())
    return left + verify_tokens(each, records, s.manifest.verify.sample)


def budget_stop(s: Session, needed: int, what: str) -> BudgetError:
    """The error that ends a call at the budget; journalled, for the report.

    Args:
        needed: tokens that `what` takes.
    """
    spent = s.spending.spent
    s.run.history.write(events.BudgetReached(tokens=spent.tokens, usd=spent.usd, needed=needed))
    return s.spending.refusal(cost(needed, s.embedder.price), what)


def load_shadow(s: Session) -> None:
    """Stage 3 for every embed shard that is not loaded; the first call makes the shadow."""
    manifest, dimensions = s.manifest, s.embedder.dimensions
    name = target_name(manifest, s.store.to_write(), dimensions)
    spec = shadow_spec(manifest, s.source, name, dimensions)
    shadow = Collection(s.store, ensure_shadow(s.store, s.run, spec).id)
    load(shadow, s.run, s.ledger, s.progress, s.pause.wait)
    build_index(shadow, s.run)


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


def load_rest(s: Session) -> list[str]:
    """Load what is embedded and not loaded yet. Returns the ids of rows left alone because a live
    shadow has newer ones."""
    if not s.run.history.not_loaded(s.run.shards("embed")):
        return []
    if s.run.history.last_move == "swap":
        return _load_live(s, resumed=True)
    load(s.new, s.run, s.ledger, s.progress)
    return []


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
    elif not all(is_complete(s.run, shard) for shard in s.run.shards("export").values()):
        _begin_resync(s)  # what came late to the shadow is told by the ledger of before alone
        _export(s)


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


def catch_up_source(s: Session) -> int:
    """Carry what was written to the source since. Returns the number of records carried."""
    return catch_up(
        s.old, s.source.name, s.run, s.ledger, s.loss_guard,
        lambda collection, difference: carry(s, collection, difference),
    )  # fmt: skip


def source_difference(s: Session) -> Difference:
    """What the source holds otherwise than the run knows."""
    return find_difference(s.old, s.ledger, since=s.run.history.compared_until)


def way_back_of(s: Session) -> WayBack:
    """What carries rows back to the old collection; the old model is opened only if needed."""
    if not _has_ledger(s):
        _remake_exports(s)
        embed_shards(s)
    return WayBack(
        s.run, s.old.whole, s.ledger, s.template,
        lambda: (s.old_embedder, s.old_model_note), lambda: s.old_cache, s.new, s.loss_guard,
    )  # fmt: skip
