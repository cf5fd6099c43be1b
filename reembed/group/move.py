"""The common move: all names of a group, there and back.

Where the store can, all names move in one transaction. Else they move one after another; one that
cannot is the end of it, and those that have moved go back, the last one first. Each step is
journalled, in the group's journal and in each member's, so a move that was killed is finished by
the next call.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from reembed.cutover import move as moving
from reembed.cutover.hooks import hook_variables, run_after, run_before
from reembed.cutover.move import (
    begin_move,
    begun_exchange,
    end_move,
    exchange_of,
    finish_move,
    outcome,
    swap_kind,
)
from reembed.cutover.rollback import rollback_run
from reembed.cutover.swap import Ready, finish_swap, get_ready, last_look
from reembed.disk import write_atomic
from reembed.errors import (
    BudgetError,
    GateError,
    LockedError,
    ModelChangedError,
    OutOfMemoryError,
    QuotaError,
    ReembedError,
    RefusedError,
    UsageError,
)
from reembed.group.members import Member, pending
from reembed.group.results import MemberSwap, together
from reembed.group.session import GroupSession, MemberSession
from reembed.run import events
from reembed.run.guards import refuse_held
from reembed.stages.refusals import leads_to
from reembed.stages.swap_kind import SwapPlan, choose_kind
from reembed.sync.recover import settle
from reembed.verify.shadow import check_shadow

OF_ONE = (RefusedError, GateError, UsageError)
"""What is the matter with one member. All else, such as a server out of reach, stops the call."""
OF_ALL = (BudgetError, QuotaError, ModelChangedError, OutOfMemoryError)
"""What is refused to one and would be to every other."""
MOVES_FILE = "moves.json"
"""What the hooks are told of each member: live name, collection, parked name."""


def is_of_one(error: ReembedError) -> bool:
    """Whether the other members can go on."""
    return isinstance(error, OF_ONE) and not isinstance(error, OF_ALL)


class CommonMove:
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
        self._caught_up: dict[str, int] = {}

    # There

    def swap(self) -> tuple[list[MemberSwap], list[str]]:
        """Catch up, move all names, sweep; or finish what was begun. Returns what was done to each,
        and what is to be told of all.

        Raises:
            ReembedError: nothing has moved, or what had moved went back, where it is the matter of
                a member; else the next call goes on.
        """
        group = self._group
        if pending(group.run) != "swap":
            self._get_ready()
            refuse_held(group.manifest.state_dir)
            run_before(group, self._variables("swap"))
            group.run.history.write(events.TogetherBegun(action="swap"))
        try:
            self._move_there()
        except ReembedError as error:
            if is_of_one(error):
                self._give_up(error)
            raise
        done = self._each(self._finish)
        messages = []
        if not any(member.error for member in done):
            messages = run_after(group, self._variables("swap"))
            group.run.history.write(events.SwapFinished())
            group.run.history.write(events.TogetherDone(action="swap"))
        return done, messages

    def _get_ready(self) -> None:
        """The checks and the first catch-up of every member. Raises what stands in the way of any,
        all of them named."""
        errors: dict[str, ReembedError] = {}
        for member in self._members:
            try:
                with self._session(member) as s:
                    ready: Ready = get_ready(s)
                    self._caught_up[member.collection] = ready.caught_up
                    for told in ready.told:
                        s.progress.note(told)
            except ReembedError as error:
                if not is_of_one(error):
                    raise
                errors[member.collection] = error
        refusal = together(errors, len(self._members))
        if refusal is not None:
            raise refusal

    def _move_there(self) -> None:
        store = self._group.open_source
        with contextlib.ExitStack() as stack:
            waiting: list[tuple[MemberSession, SwapPlan]] = []
            for member in self._members:
                s = stack.enter_context(self._session(member))
                if self._is_left(s):
                    waiting.append((s, self._kind(s)))
                s.close_ledger()
            if store.together is not None and all(
                kind.kind == "transaction" for _, kind in waiting
            ):
                self._retried(lambda: self._move_at_once(waiting))
                return
            for s, kind in waiting:
                self._retried(lambda s=s, kind=kind: self._move_one(s, kind))  # type: ignore[misc]

    def _is_left(self, s: MemberSession) -> bool:
        """Whether a member is still to be moved; finishes one whose move was cut short."""
        history = s.run.history
        if history.pending_move != "swap":
            return history.last_move != "swap"
        if not leads_to(s.source_store, s.manifest.live, s.source.id):
            finish_move(s.store, s.run, "swap")
            return False
        settle(s)
        check_shadow(s)
        return True

    @staticmethod
    def _kind(s: MemberSession) -> SwapPlan:
        if s.run.history.pending_move == "swap":
            return swap_kind(s)
        source = s.source_store.resolve(s.manifest.source.collection)
        return choose_kind(s.source_store, s.manifest, source)

    def _move_at_once(self, waiting: list[tuple[MemberSession, SwapPlan]]) -> None:
        together = self._group.open_source.together
        assert together is not None, "it was asked for"
        with self._held(waiting):
            for s, kind in waiting:
                self._look(s)
                s.close_ledger()
                if s.run.history.pending_move is None:
                    begin_move(s.run, "swap", kind.kind, exchange_of(s, "swap", kind))
            for s, _ in waiting:
                s.check_lease()
            receipts = together([begun_exchange(s.run, "swap") for s, _ in waiting])
            for (s, _), receipt in zip(waiting, receipts, strict=True):
                end_move(s.run, "swap", receipt)

    def _move_one(self, s: MemberSession, kind: SwapPlan) -> None:
        with self._held([(s, kind)]):
            self._look(s)
            s.close_ledger()
            if s.run.history.pending_move is None:
                begin_move(s.run, "swap", kind.kind, exchange_of(s, "swap", kind))
            finish_move(s.store, s.run, "swap")

    def _look(self, s: MemberSession) -> None:
        live = s.manifest.live
        self._caught_up[live] = self._caught_up.get(live, 0) + last_look(s)

    @staticmethod
    def _retried(move: Callable[[], None]) -> None:
        """As a single swap: again where another session is in the way."""
        for tries_left in reversed(range(moving.MOVE_TRIES)):
            try:
                return move()
            except LockedError:
                if not tries_left:
                    raise
                time.sleep(moving.MOVE_PAUSE)
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _held(self, waiting: Sequence[tuple[MemberSession, SwapPlan]]) -> Iterator[None]:
        """Writers to all these names wait in the block."""
        grace = 0.0
        with contextlib.ExitStack() as stack:
            for s, kind in waiting:
                if kind.kind == "config":  # no name moves
                    continue
                s.run.history.write(events.WritesHeld())
                stack.callback(moving.release_writes, s.store, s.run, s.manifest.live)
                cutover = s.store.to_move()
                seconds = cutover.hold_writes(s.manifest.live, moving.HOLD_SECONDS, s.new.id)
                grace = max(grace, seconds or 0.0)
            time.sleep(grace)
            yield

    def _finish(self, s: MemberSession) -> MemberSwap:
        """Sweep up what came late; told again where that is done."""
        live = s.manifest.live
        if not s.run.history.swap_unfinished:
            return MemberSwap(live, outcome(s, "swap", True, swap_kind(s)))
        done = finish_swap(s)
        return MemberSwap(live, replace(done, caught_up=self._caught_up.get(live, 0)))

    def _give_up(self, why: ReembedError) -> None:
        """Take back what was begun: those that have moved go back, the last one first."""
        for member in reversed(self._members):
            with self._session(member) as s:
                self._take_back(s)
        self._group.run.history.write(events.TogetherGivenUp(action="swap", why=why.message))
        told = "No name has moved: those that had are back."
        why.hint = f"{told} {why.hint}" if why.hint else told

    @staticmethod
    def _take_back(s: MemberSession) -> None:
        history = s.run.history
        if history.pending_move == "swap":
            if leads_to(s.source_store, s.manifest.live, s.source.id):
                moving.let_writes_go(s)
                history.write(events.SwapWithdrawn())
                return
            finish_move(s.store, s.run, "swap")  # from a rename's gap there is one way only
        if history.last_move == "swap":
            rollback_run(s, dry_run=False)

    # Back

    def rollback(self) -> tuple[list[MemberSwap], list[str]]:
        """Carry back what was written since, and move every name back, the last one first. One that
        cannot go back is told, and no reason for the others to stay.

        Returns what was done to each, and what is to be told of all.
        """
        group = self._group
        if pending(group.run) != "rollback":
            run_before(group, self._variables("rollback"))
            group.run.history.write(events.TogetherBegun(action="rollback"))

        def back(s: MemberSession) -> MemberSwap:
            history = s.run.history
            if history.pending_move == "swap" or history.last_move is None:
                self._take_back(s)
            if history.last_move is None:
                return MemberSwap(s.manifest.live, outcome(s, "clean", True))
            return MemberSwap(s.manifest.live, rollback_run(s, dry_run=False))

        done = self._each(back, reversed(self._members))
        messages = []
        if not any(member.error for member in done):
            messages = run_after(group, self._variables("rollback"))
            group.run.history.write(events.RollbackFinished())
            group.run.history.write(events.TogetherDone(action="rollback"))
        return sorted(done, key=lambda member: member.collection), messages

    # Both

    def _each(
        self, work: Callable[[MemberSession], MemberSwap], members: Iterator[Member] | None = None
    ) -> list[MemberSwap]:
        """What came of each member."""
        done = []
        for member in members or self._members:
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
        with member.session(accept_loss=self._accept_loss) as s:
            s.take_lease()
            yield s

    def _variables(self, action: str) -> dict[str, str]:
        """What the hooks are told: of the members in a file, since there may be a thousand."""
        group, moves = self._group, []
        for member in self._members:
            with member.session() as s:
                result = outcome(s, action, False)
                moves.append({"live": result.live, "collection": result.collection,
                              "parked": result.parked})  # fmt: skip
        path = group.run.path / MOVES_FILE
        write_atomic(path, json.dumps(moves, ensure_ascii=False, indent=1).encode())
        names = hook_variables(group.manifest, group.run, action, "", "", group.dimensions)
        return names | {"MOVES": str(path)}
