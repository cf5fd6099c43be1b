"""The common swap: all names of a group move to the new collections.

Where the store can, all names move in one transaction. Else they move one after another; one that
cannot is the end of it, and those that have moved go back, the last one first. Each step is
journalled, in the group's journal and in each member's, so a move that was killed is finished by
the next call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reembed.cutover.hooks import run_after, run_before
from reembed.cutover.move import finish_move, leads_to, retried, swap_kind
from reembed.cutover.recover import recover
from reembed.cutover.rollback import rollback_run
from reembed.cutover.swap import Ready, get_ready, last_look, prepare_swap, resume_swap
from reembed.cutover.told import outcome
from reembed.cutover.withdraw import withdraw
from reembed.errors import ReembedError
from reembed.migration.group.alike import together
from reembed.migration.group.members import Member, pending
from reembed.migration.group.moving import Moving, Waiting, is_of_one, noted
from reembed.migration.group.results import MemberSwap
from reembed.migration.group.session import GroupSession, MemberSession
from reembed.run import events
from reembed.run.guards import refuse_held
from reembed.stages.swap_kind import SwapPlan, choose_kind
from reembed.verify.shadow import check_shadow


class CommonSwap(Moving):
    """See `Moving`."""

    def __init__(self, group: GroupSession, members: Sequence[Member], accept_loss: bool) -> None:
        super().__init__(group, members, accept_loss)
        self._ready: dict[str, Ready] = {}
        """By live name."""

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
            group.run.history.record(events.TogetherBegun(action="swap"))
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
            group.run.history.record(events.SwapFinished())
            group.run.history.record(events.TogetherDone(action="swap"))
        return done, messages

    def _get_ready(self) -> None:
        """The checks and the first catch-up of every member. Raises what stands in the way of any,
        all of them named."""
        errors: dict[str, ReembedError] = {}
        for member in self._members:
            with noted(errors, member.collection), self._session(member) as s:
                ready = self._ready[member.collection] = get_ready(s)
                for told in ready.told:
                    s.progress.note(told)
        refusal = together(errors, len(self._members))
        if refusal is not None:
            raise refusal

    def _move_there(self) -> None:
        waiting: list[Waiting] = []
        for member in self._members:
            with self._session(member) as s:
                if self._is_left(s):
                    waiting.append(Waiting(s, self._kind(s), s.new.id))
        if self._at_once(waiting):
            self._move_all(waiting)
            return
        for one in waiting:
            self._move_all([one])

    def _move_all(self, waiting: list[Waiting]) -> None:
        """Move these names, while the writers of all of them wait."""

        def get_ready() -> bool:
            worked = False
            for one in waiting:
                with one.s.step():
                    ready = self._ready.setdefault(one.s.manifest.live, Ready(one.kind))
                    worked |= prepare_swap(one.s, ready)
            return worked

        def move() -> None:
            if get_ready() and len(waiting) > 1:  # the first were written to meanwhile
                follow()
                get_ready()
            while not go():
                pass  # the rest of what was written is copied, a part each time writers wait

        def go() -> bool:
            with self._held(waiting):
                for one in waiting:
                    with one.s.step():
                        last_look(one.s, self._ready[one.s.manifest.live])
                if not self._may_move(waiting):
                    return False
                if self._at_once(waiting):
                    self._together("swap", waiting)
                    return True
                for one in waiting:
                    with one.s.step():
                        self._begin("swap", one)
                        finish_move(one.s.store, one.s.run, "swap")
            return True

        def follow() -> None:
            for one in waiting:
                with one.s.step():
                    self._ready[one.s.manifest.live].carry(one.s)

        if waiting:
            retried(move, follow)

    def _is_left(self, s: MemberSession) -> bool:
        """Whether a member is still to be moved; finishes one whose move was cut short."""
        history = s.run.history
        if history.pending_move != "swap":
            return history.last_move != "swap"
        recover(s)
        if s.run.history.pending_move is None:
            return False
        if not leads_to(s.source_store, s.manifest.live, s.source.id):  # in a rename's gap
            finish_move(s.store, s.run, "swap")
            return False
        check_shadow(s)
        return True

    @staticmethod
    def _kind(s: MemberSession) -> SwapPlan:
        if s.run.history.pending_move == "swap":
            return swap_kind(s)
        source = s.source_store.resolve(s.manifest.source.collection)
        return choose_kind(s.source_store, s.manifest, source)

    def _finish(self, s: MemberSession) -> MemberSwap:
        """Sweep up what came late; told again where that is done."""
        live = s.manifest.live
        if not s.run.history.swap_unfinished:
            return MemberSwap(live, outcome(s, "swap", True, swap_kind(s)))
        done, ready = resume_swap(s), self._ready.get(live)
        return MemberSwap(live, replace(done, caught_up=ready.caught_up if ready else 0))

    def _give_up(self, why: ReembedError) -> None:
        """Take back what was begun: those that have moved go back, the last one first."""
        for member in reversed(self._members):
            with self._session(member) as s:
                self._take_back(s)
        self._group.run.history.record(events.TogetherGivenUp(action="swap", why=why.message))
        told = "No name has moved: those that had moved are back."
        if self._group.run.history.swap_tried:  # the application has been stopped
            told += " `reembed rollback` gives the swap up and runs swap.after."
        why.hint = f"{told} {why.hint}" if why.hint else told

    @staticmethod
    def _take_back(s: MemberSession) -> None:
        if s.run.history.last_move != "swap" or s.run.history.pending_move == "swap":
            withdraw(s)
        if s.run.history.last_move == "swap":
            rollback_run(s, dry_run=False)
