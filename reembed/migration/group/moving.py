"""What the moves of a group have in common, there and back: sessions, who waits, and who moves.

Where the store can, all names move in one transaction, journalled in each member's own run before
and after, so that a call that goes on with a killed one sees all of them moved, or none.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from reembed.cutover import move as moving
from reembed.cutover.hooks import hook_variables
from reembed.cutover.move import begin_move, begun_exchange, end_move, exchange_of
from reembed.cutover.told import outcome
from reembed.errors import (
    BudgetError,
    GateError,
    ModelChangedError,
    OutOfMemoryError,
    QuotaError,
    ReembedError,
    RefusedError,
    UsageError,
)
from reembed.migration.group.members import Member
from reembed.migration.group.results import MemberSwap
from reembed.migration.group.session import GroupSession, MemberSession
from reembed.run import events
from reembed.run.disk import write_atomic
from reembed.run.events import Action
from reembed.stages.swap_kind import SwapPlan

OF_ONE = (RefusedError, GateError, UsageError)
"""What is the matter with one member. All else, such as a server out of reach, stops the call."""
OF_ALL = (BudgetError, QuotaError, ModelChangedError, OutOfMemoryError)
"""What is refused to one and would be to every other."""
MOVES_FILE = "moves.json"
"""What the hooks are told of each member: live name, collection, parked name."""


def is_of_one(error: ReembedError) -> bool:
    """Whether the other members can go on."""
    return isinstance(error, OF_ONE) and not isinstance(error, OF_ALL)


@contextlib.contextmanager
def noted(errors: dict[str, ReembedError], name: str) -> Iterator[None]:
    """Note what is the matter with this member alone, so that the others go on."""
    try:
        yield
    except ReembedError as error:
        if not is_of_one(error):
            raise
        errors[name] = error


@dataclass(frozen=True)
class Waiting:
    """A member that is about to move.

    Attributes:
        s: its session.
        kind: how it moves.
        incoming_id: the collection that takes the live name.
    """

    s: MemberSession
    kind: SwapPlan
    incoming_id: str


class Moving:
    """One call that moves all members.

    Args:
        group: the session of the group.
        members: those that move, in the order of their names.
        accept_loss: whether a person said that a mass of records may go.
    """

    def __init__(self, group: GroupSession, members: Sequence[Member], accept_loss: bool) -> None:
        self._group = group
        self._members = members
        self._accept_loss = accept_loss
        self._open: dict[str, MemberSession] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._closing.close()

    def _at_once(self, waiting: Sequence[Waiting]) -> bool:
        """Whether all of these move in one transaction."""
        return self._group.open_source.together is not None and all(
            one.kind.kind == "transaction" for one in waiting
        )

    def _begin(self, action: Action, one: Waiting) -> None:
        if one.s.run.history.pending_move is None:
            begin_move(one.s.run, action, one.kind.kind, exchange_of(one.s, action, one.kind))

    def _together(self, action: Action, waiting: Sequence[Waiting]) -> None:
        """Move all of these names in one transaction, while their writers wait."""
        together = self._group.open_source.together
        assert together is not None, "it was asked for"
        for one in waiting:
            with one.s.step():
                self._begin(action, one)
        for one in waiting:
            one.s.check_lease()
        receipts = together([begun_exchange(one.s.run, action) for one in waiting])
        for one, receipt in zip(waiting, receipts, strict=True):
            end_move(one.s.run, action, receipt)

    @contextlib.contextmanager
    def _held(self, waiting: Sequence[Waiting]) -> Iterator[None]:
        """Writers to all these names wait in the block."""
        moving_names = [one for one in waiting if one.kind.kind != "config"]
        with contextlib.ExitStack() as stack:
            for one in moving_names:
                one.s.run.history.record(events.WritesHeld())
                live = one.s.manifest.live
                stack.callback(moving.release_writes, one.s.store, one.s.run, live)
            if moving_names:
                cutover = moving_names[0].s.store.to_move()
                incoming = {one.s.manifest.live: one.incoming_id for one in moving_names}
                time.sleep(cutover.hold_writes(incoming, moving.HOLD_SECONDS) or 0.0)
            yield

    @staticmethod
    def _may_move(waiting: Sequence[Waiting]) -> bool:
        """Whether all of these can move now; see `cutover.move.may_move`."""
        return all(moving.may_move(one.s, one.kind, one.incoming_id) for one in waiting)

    def _each(
        self, work: Callable[[MemberSession], MemberSwap], members: Iterable[Member] | None = None
    ) -> list[MemberSwap]:
        """What came of each member."""
        done = []
        for member in self._members if members is None else members:
            try:
                with self._session(member) as s:
                    done.append(work(s))
            except ReembedError as error:
                if not is_of_one(error):
                    raise
                done.append(MemberSwap(member.collection, error=error))
        return done

    @contextlib.contextmanager
    def _session(self, member: Member) -> Iterator[MemberSession]:
        """A step in a member's session, which stays open, with its lease, until the end of the
        call: to take a lease and to read a journal costs more than most steps."""
        s = self._open.get(member.collection)
        if s is None:
            s = member.session(accept_loss=self._accept_loss)
            self._closing.callback(s.close)
            with s.step():
                s.take_lease()
            self._open[member.collection] = s
        with s.step():
            yield s

    def _variables(self, action: str) -> dict[str, str]:
        """What the hooks are told: of the members in a file, since there may be a thousand."""
        group, moves, dimensions = self._group, [], set[int]()
        if not (group.manifest.swap.before or group.manifest.swap.after):
            return {"ACTION": action}
        for member in self._members:
            with self._looked(member) as s:
                result = outcome(s, action, False)
                dimensions.add(s.dimensions)
                moves.append({"live": result.live, "collection": result.collection,
                              "parked": result.parked, "dimensions": s.dimensions})  # fmt: skip
        path = group.run.path / MOVES_FILE
        write_atomic(path, json.dumps(moves, ensure_ascii=False, indent=1).encode())
        one = dimensions.pop() if len(dimensions) == 1 else None  # vectors that are kept may differ
        names = hook_variables(group.manifest, group.run, action, "", "", one)
        return names | {"MOVES": str(path)}

    def _looked(self, member: Member) -> contextlib.AbstractContextManager[MemberSession]:
        """For a look, which needs no lease: the session that is open, or one of its own."""
        if member.collection in self._open:
            return self._session(member)
        return member.session()
