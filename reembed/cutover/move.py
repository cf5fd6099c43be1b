"""The move of the live name, to the new collection and back: how far it came, and the move itself.

Every move is journalled before and after, and a store's `exchange` is convergent, so a killed move
is finished by the next call, and what follows it (sweep, hook) too. In which order a swap does its
steps is in `swap.py`, and its way back in `rollback.py`; what a kind may claim is in
`stages/swap_kind.py`, and what is told afterwards in `told.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from reembed.errors import CollectionNotFoundError, LockedError, PreflightError
from reembed.manifest import SwapKind
from reembed.progress import stage
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.events import Action
from reembed.stages.session import Session
from reembed.stages.swap_kind import CONFIG_GUARANTEE, SwapPlan
from reembed.stores.store import Store
from reembed.stores.values import Exchange, Receipt
from reembed.sync.difference import Carried

Late = TypeVar("Late")

MOVE_TRIES = 5
MOVE_PAUSE = 1.0
"""Seconds in which others that were in the way of a move can go on."""
FEW_ROWS = 10
"""So many are carried while writers wait; more of them are carried before."""
FALLS = 0.75
"""Carrying again is of use where it finds at most so many of the rows that it found before."""


def swap_kind(s: Session) -> SwapPlan:
    """How this run's newest swap moves the live name."""
    kind = s.run.history.require(events.SwapBegun).kind
    guarantee = s.store.cutover.kinds.get(kind, "") if s.store.cutover else ""
    return SwapPlan(kind, CONFIG_GUARANTEE if kind == "config" else guarantee, s.manifest.live)


def leads_to(store: Store, live: str, id: str) -> bool:
    """Whether the live name leads to the collection of this object id; it may lead to none, in a
    rename's gap or before a pointer is made."""
    try:
        return store.resolve(live).id == id
    except CollectionNotFoundError:
        return False


def has_moved(s: Session) -> bool:
    """Whether the live name has made the swap that was begun, or is halfway, so that it must be
    finished.

    Raises:
        PreflightError: what has the name cannot be read, nor where the new collection is.
    """
    live = s.manifest.live
    try:
        if leads_to(s.store, live, s.new.id):
            return True
        if leads_to(s.source_store, live, s.source.id):
            return False
    except PreflightError:  # the table has no vectors any more
        if s.new.describe() is None:
            raise
        return False
    if swap_kind(s).kind != "rename":  # the name is gone, or somebody else's
        return False
    old = s.old.describe()  # has its other name in a rename's gap, whoever has taken this one
    return old is not None and old.name == begun_exchange(s.run, "swap").parked


def is_to_move_back(s: Session) -> bool:
    """Whether the live name is still to move back."""
    history = s.run.history
    if history.last_move != "swap":
        return False
    return history.pending_move != "rollback" or leads_to(s.store, s.manifest.live, s.new.id)


def finish_moved(s: Session) -> None:
    """Let writers go that a killed move still holds, and journal a move that the store has done and
    its call did not live to journal."""
    release_writes(s.store, s.run, s.manifest.live)
    action = s.run.history.pending_move
    if action is None:
        return
    store, id = (s.store, s.new.id) if action == "swap" else (s.source_store, s.old.id)
    if leads_to(store, s.manifest.live, id):
        finish_move(s.store, s.run, action)


@stage("get the move ready")
def prepare_move(
    s: Session, kind: SwapPlan, incoming_id: str, carry: Callable[[], int], carried: int
) -> bool:  # fmt: skip
    """Do what takes long about a move before writers are held, and carry what was written
    meanwhile, until that is little.

    Args:
        carry: carries what was written to the live collection, and returns how many records.
        carried: how many there were when it was done last.

    Returns:
        whether there was anything to do.

    Raises:
        SourceChangedError: it is written to faster than that can be followed.
    """
    if kind.kind == "config":  # no name moves
        return False
    rows = 0
    while True:
        found = s.store.to_move().prepare(s.manifest.live, incoming_id)
        rows += found.rows
        if found.ready:
            return rows > 0 or carry_down(carry, carried)
        carry()


def carry_down(carry: Callable[[], int], carried: int) -> bool:
    """Carry what was written meanwhile until it is little, or becomes no less. Returns whether
    there was any."""
    worked = False
    while carried > FEW_ROWS:
        before, carried = carried, carry()
        worked |= carried > 0
        if carried > FALLS * before:
            break
    return worked


def may_move(s: Session, kind: SwapPlan, incoming_id: str) -> bool:
    """Whether what is left to be done about a move fits into the time for which writers, who wait,
    may do so. If not, a part of it was done and they go on; they are to be held again at once, for
    the less time there is to write, the less is left."""
    return kind.kind == "config" or s.store.to_move().prepare(s.manifest.live, incoming_id).ready


def move(s: Session, action: Action, kind: SwapPlan) -> Receipt:
    """Move the live name to the shadow, or back; journalled before and after. A move that was begun
    is finished."""
    if s.run.history.pending_move is not None:
        return finish_move(s.store, s.run, action)
    return move_live_name(s.store, s.run, action, kind.kind, exchange_of(s, action, kind))


def exchange_of(s: Session, action: Action, kind: SwapPlan) -> Exchange:
    """Which collection takes which name in a move."""
    old_id, new_id = s.old.id, s.new.id
    old_model = s.manifest.source.model
    settings = old_model.to_dict() if old_model else s.source.model
    if action == "swap":
        model = s.manifest.new_model
        given = model.to_dict() if model else settings
        return Exchange(s.manifest.live, new_id, old_id, s.parked_as, given)
    shadow_name = s.run.history.shadow_name
    there = kind.kind == "config" or s.store.catalog.describe_id(new_id) is not None
    outgoing = new_id if there else None
    return Exchange(s.manifest.live, old_id, outgoing, shadow_name, settings)


def receipt_of(s: Session, action: Action) -> Receipt:
    """What the newest move of this kind did."""
    history = s.run.history
    return history.value(Receipt, history.require(events.DONE[action]).receipt, f"the {action}")


@dataclass(frozen=True)
class Around(Generic[Late]):
    """What is done with records around a move.

    Attributes:
        carry: carries what was written to the live collection, and returns how many records.
        last_look: comes right before the move, while writers wait.
        late: comes right after it, while they still wait; what it returns is handed on.
    """

    carry: Callable[[], int]
    last_look: Callable[[], None]
    late: Callable[[], Late]


def move_held(
    s: Session, action: Action, kind: SwapPlan, around: Around[Late], carried: int
) -> tuple[Receipt, Late]:
    """Carry what was written, and move while writers wait; again if another session is in the way.

    Args:
        carried: how many records there were when it was done last.
    """
    incoming_id, counts = s.new.id if action == "swap" else s.old.id, [carried]

    def held() -> contextlib.AbstractContextManager[None]:
        if kind.kind == "config":  # no name moves
            return contextlib.nullcontext()
        return writes_held(s.store, s.run, s.manifest.live, incoming_id)

    def once() -> tuple[Receipt, Late]:
        prepare_move(s, kind, incoming_id, around.carry, counts[-1])
        while True:
            with held():
                around.last_look()
                if may_move(s, kind, incoming_id):
                    return move(s, action, kind), around.late()

    return retried(once, lambda: counts.append(around.carry()))


def retried(move: Callable[[], Late], between: Callable[[], None] = lambda: None) -> Late:
    """Move, and again where another session is in the way.

    Args:
        between: what is to be done before it is tried again.
    """
    for tries_left in reversed(range(MOVE_TRIES)):
        try:
            return move()
        except LockedError:
            if not tries_left:
                raise
            time.sleep(MOVE_PAUSE)
            between()
    raise AssertionError("the last try returns or raises")


SWEEP_SECONDS = 20.0
"""How long late writes are carried after a move while more of them keep coming."""


def carry_until_quiet(again: Callable[[], Carried], done: Carried) -> bool:
    """Carry late writes while there are some, for SWEEP_SECONDS.

    Args:
        again: carries what has come since.
        done: what was carried first; what follows is added.

    Returns whether the last look found nothing.
    """
    found, deadline = done.carried, time.monotonic() + SWEEP_SECONDS
    while found and time.monotonic() < deadline:
        more = again()
        found = more.carried
        done.add(more)
    return not found


HOLD_SECONDS = 60.0
"""How long writers wait at most while the name moves."""


@contextlib.contextmanager
def writes_held(store: Store, run: RunDir, live: str, incoming_id: str) -> Iterator[None]:
    """Writers wait until `release_writes`, at the latest at the end of the block, so that nothing
    they write falls between the last comparison and the move."""
    run.history.record(events.WritesHeld())
    grace = store.to_move().hold_writes({live: incoming_id}, HOLD_SECONDS)
    if grace:
        time.sleep(grace)
    try:
        yield
    finally:
        release_writes(store, run, live)


def release_writes(store: Store, run: RunDir, live: str) -> None:
    """Let held writers go on, those too that a killed call held."""
    if run.history.writes_held:
        store.to_move().release_writes(live)
        run.history.record(events.WritesReleased())


def move_live_name(
    store: Store, run: RunDir, action: Action, kind: SwapKind, exchange: Exchange
) -> Receipt:
    """Move the live name, journalled before and after."""
    begin_move(run, action, kind, exchange)
    return finish_move(store, run, action)


def begin_move(run: RunDir, action: Action, kind: SwapKind, exchange: Exchange) -> None:
    """Journal what is about to be moved."""
    run.history.record(events.BEGUN[action](kind=kind, exchange=asdict(exchange)))


def begun_exchange(run: RunDir, action: Action) -> Exchange:
    """What the newest move of this kind exchanges."""
    begun = run.history.require(events.BEGUN[action])
    return run.history.value(Exchange, begun.exchange, f"the {action} that was begun")


def end_move(run: RunDir, action: Action, receipt: Receipt) -> None:
    """Journal that the newest move of this kind was done."""
    begun = run.history.require(events.BEGUN[action])
    run.history.record(events.DONE[action](receipt=receipt.to_dict(), exchange=begun.exchange))


@stage("move the live name")
def finish_move(store: Store, run: RunDir, action: Action) -> Receipt:
    """Do what is left of the newest move of this kind. Convergent, so safe after any crash."""
    begun = run.history.require(events.BEGUN[action])
    if begun.kind == "config":  # no name moves: the application's configuration does
        receipt = Receipt("config")
    else:
        receipt = store.to_move().exchange(begun.kind, begun_exchange(run, action))
    end_move(run, action, receipt)
    return receipt
