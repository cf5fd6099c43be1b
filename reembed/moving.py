"""Stage 5 of a run, taken with a session: swap, sweep, rollback, clean.

Every move is journalled before and after, and what follows a move (sweep, hook) is finished by the
next call if this one is killed.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Literal

from reembed.building import (
    both_ids,
    carry,
    catch_up_source,
    load_rest,
    mend_shards,
    refuse_late,
    resync_shadow,
    settle,
    shadow_of,
    way_back_of,
)
from reembed.clean import drop_old, drop_shadow
from reembed.errors import CollectionNotFoundError, LockedError, PreflightError, UsageError
from reembed.guards import guard_messages, refuse_held
from reembed.judging import check_deltas, require_verdict
from reembed.load import intended_shadow, shadow_id
from reembed.mem0_plan import application_config, prepare
from reembed.refusals import refuse_other
from reembed.results import (
    run_state,
    wrong_state,
)
from reembed.rollback import CarriedBack, WayBack
from reembed.session import Session
from reembed.stores.base import Exchange, Receipt
from reembed.swap import (
    SWEEP_SECONDS,
    SwapResult,
    finish_move,
    hook_variables,
    last_move,
    merge_intruder,
    move_live_name,
    pending_move,
    release_writes,
    rollback_unfinished,
    run_after,
    run_before,
    shadow_was_live,
    swap_unfinished,
    sweep,
    writes_held,
)
from reembed.swapkind import CONFIG_GUARANTEE, SwapPlan, choose_kind, parked_name

MOVE_TRIES = 5
MOVE_PAUSE = 1.0
"""Seconds in which others that were in the way of a move can go on."""
DEPLOY = "deploy {} to the application now: until then its searches ask with the old model"
STILL_WRITTEN = (
    "the old collection is still written to, through handles that were opened before the swap: "
    "open them anew, then carry the rest over with `reembed sweep`"
)
STILL_WRITTEN_BACK = (
    "the new collection is still written to, through handles that were opened before the rollback: "
    "open them anew, then carry the rest over with `reembed sweep`"
)


def swap_run(s: Session, dry_run: bool) -> SwapResult:
    """Catch up, move the live name, sweep; or finish a swap that was begun."""
    manifest, run = s.manifest, s.run
    if pending_move(run) == "swap" or swap_unfinished(run):
        if dry_run:
            return replace(_outcome(s, "swap", False), messages=["it is begun already"])
        return _finish_swap(s)
    if last_move(run) == "swap":
        return replace(_outcome(s, "swap", True), messages=["it is swapped already"])
    if run_state(run) == "cleaned":
        raise wrong_state(s.manifest.name, run, "cleaned")
    require_verdict(s)
    source = s.source_store.resolve(manifest.source.collection)
    refuse_other(source, s.source, s.run)
    kind = choose_kind(s.source_store, manifest, source)
    if dry_run:
        messages = [*guard_messages(manifest.state_dir), *_open_in_others(s)]
        return replace(_outcome(s, "swap", False, kind), messages=messages)
    prepare(manifest, source, s.source_store, s.dimensions, run.path)
    _ = s.fingerprint  # the model must still be the one that embedded
    mend_shards(s)
    if last_move(run) == "rollback":
        resync_shadow(s)
    load_rest(s)
    caught_up = catch_up_source(s)
    refuse_held(manifest.state_dir)
    run_before(manifest.swap.before, _hook_variables(s, "swap"))
    return _move_held(s, kind, caught_up)


def _move_held(s: Session, kind: SwapPlan, caught_up: int) -> SwapResult:
    """Catch up and move while writers wait, again if another session is in the way.

    Args:
        caught_up: records carried so far.
    """
    for tries_left in reversed(range(MOVE_TRIES)):
        try:
            with _hold_writes(s, kind, shadow_of(s)):
                caught_up += catch_up_source(s)
                check_deltas(s)
                if pending_move(s.run) == "swap":
                    finish_move(s.store, s.run, "swap")
                else:
                    _move(s, "swap", kind)
                return replace(_finish_swap(s), caught_up=caught_up)
        except LockedError:
            if not tries_left:
                raise
            time.sleep(MOVE_PAUSE)
            caught_up += catch_up_source(s)
    raise AssertionError("the last try returns or raises")


def _hold_writes(
    s: Session, kind: SwapPlan, incoming_id: str
) -> contextlib.AbstractContextManager[None]:
    if kind.kind == "config":  # no name moves
        return contextlib.nullcontext()
    return writes_held(s.store, s.run, s.manifest.live, incoming_id)


def let_writes_go(s: Session) -> None:
    """Let go of writers that a killed move may still hold."""
    if s.begun:
        release_writes(s.store, s.run, s.manifest.live)


def _finish_swap(s: Session) -> SwapResult:
    """What is left of a swap that was begun: move, sweep, hook, in a later call if need be.

    Neither a hold nor a budget stops it any more: half a move is worse than either.
    """
    run = s.run
    s.spending.lift()
    if pending_move(run) == "swap":
        if _still_live(s):  # it did not get that far, and the application has written since
            settle(s)
            return _move_held(s, _swap_kind(s), 0)
        finish_move(s.store, run, "swap")
    settled = settle(s)
    kind = _swap_kind(s)
    receipt = Receipt(**run.events("swap-done")[-1]["receipt"])
    result = _sweep_after(s, receipt)
    conflicts = sorted({*settled, *result.conflicts})
    config = application_config(s.manifest, run.path, "swap")
    messages = [] if config is None else [DEPLOY.format(config)]
    messages += run_after(s.manifest.swap.after, _hook_variables(s, "swap"))
    run.journal.append("swap-finished", swept=result.swept)
    return replace(
        result, kind=kind.kind, guarantee=kind.guarantee, gap_seconds=receipt.gap_seconds,
        conflicts=conflicts, messages=[*result.messages, *messages, *_open_in_others(s)],
    )  # fmt: skip


def _still_live(s: Session) -> bool:
    """Whether the live name leads to the old collection; it may lead to none in a rename's gap."""
    try:
        return s.source_store.resolve(s.manifest.live).id == s.source.id
    except CollectionNotFoundError:
        return False


def _open_in_others(s: Session) -> list[str]:
    """Which other processes have a store open that takes one writer, and what that means."""
    others = s.source_store.capabilities.open_in
    if not others:
        return []
    return [
        f"open in other processes now: {', '.join(others)}. If they write while a run does, "
        "vectors are lost without an error; and handles that they opened before a swap stay on the "
        "old collection until they open the name again"
    ]


def _swap_kind(s: Session) -> SwapPlan:
    """How this run's newest swap moves the live name."""
    kind = s.run.events("swap-begun")[-1]["kind"]
    guarantee = s.store.capabilities.swap_kinds.get(kind, "")
    return SwapPlan(kind, CONFIG_GUARANTEE if kind == "config" else guarantee, s.manifest.live)


def _move(s: Session, action: Literal["swap", "rollback"], kind: SwapPlan) -> Receipt:
    old_id, new_id = both_ids(s)
    parked = s.store.fit_name(parked_name(s.manifest.live, s.run.run_id))
    if action == "swap":
        model = s.manifest.model.to_dict()
        exchange = Exchange(s.manifest.live, new_id, old_id, parked, model)
    else:
        shadow_name = str(s.run.events("shadow-created")[-1]["name"])
        old_model = s.manifest.source.model
        settings = old_model.to_dict() if old_model else s.source.model
        exchange = Exchange(s.manifest.live, old_id, new_id, shadow_name, settings)
    return move_live_name(s.store, s.run, action, kind.kind, exchange)


def _sweep_parked(s: Session) -> tuple[int, list[str]]:
    old_id, new_id = both_ids(s)
    return sweep(
        s.source_store, old_id, s.store, new_id, s.manifest.source.where, s.run, s.ledger,
        lambda id, difference: carry(s, id, difference),
    )  # fmt: skip


def _sweep_until_quiet(s: Session, swept: int) -> tuple[int, list[str], bool]:
    """Sweep again while a sweep finds something, for SWEEP_SECONDS. Returns the records
    carried, the ids left alone, and whether the last sweep found nothing to carry."""
    total, conflicts, deadline = 0, set[str](), time.monotonic() + SWEEP_SECONDS
    while swept and time.monotonic() < deadline:
        swept, more = _sweep_parked(s)
        total += swept
        conflicts |= {*more}
    return total, sorted(conflicts), not swept


def _sweep_after(s: Session, receipt: Receipt) -> SwapResult:
    """Carry what was written to the old collection between catch-up and move."""
    swept, conflicts = _sweep_parked(s)
    messages = [_config_change(s)] if receipt.kind == "config" else []
    if receipt.kind != "config":
        let_writes_go(s)
        more_swept, more, quiet = _sweep_until_quiet(s, swept)
        swept, conflicts = swept + more_swept, sorted({*conflicts, *more})
        messages += [] if quiet else [STILL_WRITTEN]
    if receipt.intruder:
        merged, more = merge_intruder(
            s.store, receipt.intruder, shadow_of(s), s.ledger,
            lambda id, difference: carry(s, id, difference),
        )  # fmt: skip
        swept, conflicts = swept + merged, conflicts + more
        messages.append(
            f"somebody made a collection under the live name in the gap; {merged:,} records of "
            f"it were merged, and it is kept as {receipt.intruder!r}"
        )
    return replace(_outcome(s, "swap", True), swept=swept, conflicts=conflicts, messages=messages)


def _config_change(s: Session) -> str:
    manifest = s.manifest
    name = str(s.run.events("shadow-created")[-1]["name"])
    return (
        f"change the application's configuration: store {manifest.target_url}, collection "
        f"{name!r} instead of {manifest.live!r}, model {manifest.model.provider} "
        f"{manifest.model.name} with {s.dimensions} dimensions, query prefix "
        f"{manifest.model.query_prefix!r}"
    )


def sweep_run(s: Session) -> SwapResult:
    """Carry what handles opened before a move wrote to the collection that is not live now."""
    s.spending.lift()  # the live collection lacks these writes
    let_writes_go(s)
    state = run_state(s.run)
    if shadow_was_live(s.run) and state != "cleaned":
        return _sweep_back(s)
    if state != "swapped":
        raise wrong_state(s.manifest.name, s.run, state, "swapped")
    left = settle(s)
    swept, conflicts = _sweep_parked(s)
    return replace(_outcome(s, "sweep", True), swept=swept, conflicts=[*left, *conflicts])


def rollback_run(s: Session, dry_run: bool, accept_loss: bool) -> SwapResult:
    """Carry back what was written since, and move the live name to the old collection.

    It is the emergency exit: no hold, no pause and no budget stops it.
    """
    s.spending.lift()
    if last_move(s.run) == "rollback" and not (pending_move(s.run) or rollback_unfinished(s.run)):
        already = _outcome(s, "rollback", True)
        return replace(already, messages=["it is rolled back already"])
    kind = _swap_kind(s)
    if dry_run:
        return _outcome(s, "rollback", False, kind)
    old_id, _ = both_ids(s)
    if s.source_store.describe_id(old_id) is None:
        raise PreflightError(
            f"the old collection (id {old_id}) is gone, so there is nothing to go back to",
            "The run's export shards still hold every record with its old vector.",
        )
    variables = _hook_variables(s, "rollback")
    way_back, before = way_back_of(s), CarriedBack()
    if rollback_unfinished(s.run):
        receipt = Receipt(**s.run.events("rollback-done")[-1]["receipt"])
        late = way_back.carry_late()
    elif pending_move(s.run) == "rollback" and not _shadow_still_live(s):
        receipt = finish_move(s.store, s.run, "rollback")
        late = way_back.carry_late()
    else:
        if pending_move(s.run) is None:
            run_before(s.manifest.swap.before, variables)
        settle(s, embedding=False)
        receipt, late = _move_back_held(s, kind, way_back, before, accept_loss)
    let_writes_go(s)
    messages = _carry_late_until_quiet(way_back, late)
    messages += _left_messages(late) + run_after(s.manifest.swap.after, variables)
    s.run.journal.append("rollback-finished", carried=late.carried)
    return replace(
        _outcome(s, "rollback", True, kind), caught_up=before.carried, lost=before.lost,
        swept=late.carried, conflicts=sorted({*before.conflicts, *late.conflicts}),
        gap_seconds=receipt.gap_seconds,
        messages=messages,
    )  # fmt: skip


def _move_back_held(
    s: Session, kind: SwapPlan, way_back: WayBack, before: CarriedBack, accept_loss: bool
) -> tuple[Receipt, CarriedBack]:
    """Carry what was written, and move back while writers wait; again if another session is in the
    way. Adds to `before` what was carried ahead of the move; returns what was carried after it."""
    for tries_left in reversed(range(MOVE_TRIES)):
        before.add(way_back.carry(accept_loss))
        try:
            with _hold_writes(s, kind, both_ids(s)[0]):
                if before.carried or way_back.logged:  # what came meanwhile
                    before.add(way_back.carry(accept_loss))
                if pending_move(s.run) == "rollback":
                    receipt = finish_move(s.store, s.run, "rollback")
                else:
                    receipt = _move(s, "rollback", kind)
                return receipt, way_back.carry_late()
        except LockedError:
            if not tries_left:
                raise
            time.sleep(MOVE_PAUSE)
    raise AssertionError("the last try returns or raises")


def _shadow_still_live(s: Session) -> bool:
    """Whether the live name leads to the new collection still; see `_still_live`."""
    try:
        return s.store.resolve(s.manifest.live).id == shadow_of(s)
    except CollectionNotFoundError:
        return False


def _carry_late_until_quiet(way_back: WayBack, late: CarriedBack) -> list[str]:
    """As `_sweep_until_quiet`, the other way; adds to `late`. Returns messages."""
    found, deadline = late.carried, time.monotonic() + SWEEP_SECONDS
    while found and time.monotonic() < deadline:
        more = way_back.carry_late()
        found = more.carried
        late.add(more)
    return [STILL_WRITTEN_BACK] if found else []


def _sweep_back(s: Session) -> SwapResult:
    """After a rollback: what handles that were held wrote to the new collection."""
    late = way_back_of(s).carry_late()
    return replace(
        _outcome(s, "sweep", True), swept=late.carried, conflicts=late.conflicts,
        messages=_left_messages(late),
    )  # fmt: skip


def _hook_variables(s: Session, action: str) -> dict[str, str]:
    shadow = str(s.run.events("shadow-created")[-1]["name"])
    parked = s.store.fit_name(parked_name(s.manifest.live, s.run.run_id))
    variables = hook_variables(s.manifest, s.run, action, shadow, parked, s.dimensions)
    config = application_config(s.manifest, s.run.path, action)
    return variables | ({} if config is None else {"APPLICATION_CONFIG": str(config)})


def clean_run(s: Session, dry_run: bool) -> SwapResult:
    """Delete the collection that is not live."""
    if run_state(s.run) == "cleaned":
        return replace(_outcome(s, "clean", True), messages=["it is cleaned already"])
    if pending_move(s.run) or swap_unfinished(s.run):
        raise UsageError(
            f"{s.manifest.name}: a move of the live name was begun and not finished",
            "Run the same command (swap or rollback) again first.",
        )
    if dry_run:
        return _outcome(s, "clean", False)
    let_writes_go(s)
    done = _drop_old(s) if last_move(s.run) == "swap" else _drop_shadow(s)
    s.source_store.release_capture(s.source.id)
    shadow = shadow_id(s.run)
    if shadow is not None and s.store.describe_id(shadow) is not None:
        s.store.release_capture(shadow)
    s.run.journal.append("cleaned", what=done)
    return replace(_outcome(s, "clean", True), messages=[done])


def _drop_old(s: Session) -> str:
    manifest = s.manifest
    if _swap_kind(s).kind == "config":
        raise PreflightError(
            f"no name moved, so reembed cannot see which collection the application reads; "
            f"{manifest.source.collection!r} stays",
            "Once its configuration has changed, delete the old collection yourself.",
        )
    mend_shards(s, embedding=False)  # the old collection is what they are made from
    load_rest(s)
    old_id, new_id = both_ids(s)
    return drop_old(
        s.source_store, s.run, old_id, new_id, manifest.live, s.ledger, manifest.source.where,
        manifest.swap.keep_old_seconds,
    )  # fmt: skip


def _drop_shadow(s: Session) -> str:
    """Give up a run that is not swapped: delete its shadow, keep its shards and the source."""
    id = shadow_id(s.run) or intended_shadow(s.store, s.run)
    if id is None:
        return "there was no shadow to delete"
    if shadow_was_live(s.run) and s.store.describe_id(id) is not None:
        refuse_late(s)
    same_store = s.manifest.target_url == s.manifest.source.url
    return drop_shadow(s.store, id, s.manifest.live if same_store else None)


def _outcome(s: Session, action: str, done: bool, kind: SwapPlan | None = None) -> SwapResult:
    """What an action did or, as a dry run, would do."""
    shadow = s.run.last("shadow-created")
    name = str(shadow["name"]) if shadow else ""
    parked = s.store.fit_name(parked_name(s.manifest.live, s.run.run_id))
    back = action == "rollback" or (last_move(s.run) == "rollback" and action != "swap")
    other = name if back else parked
    if (
        done and action != "clean"
    ):  # a pointer leaves a collection its name unless it is the live one
        left = (
            s.store.describe_id(shadow_of(s)) if back else s.source_store.describe_id(s.source.id)
        )
        other = left.name if left else other
    return SwapResult(
        action, s.run.run_id, done, s.manifest.live,
        collection=parked if back else name, parked=other,
        kind=kind.kind if kind else "", guarantee=kind.guarantee if kind else "",
    )  # fmt: skip


def _left_messages(carried: CarriedBack) -> list[str]:
    if not carried.left:
        return []
    return [
        f"{len(carried.left):,} rows written to the new collection late cannot go back and stay "
        f"there, e.g. {', '.join(carried.left[:5])}"
    ]
