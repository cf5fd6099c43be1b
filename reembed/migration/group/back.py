"""The common way back: all names of a group go back to the old collections.

One that cannot go back is told, and no reason for the others to stay. Where the store can, all that
can go back do so in one transaction.
"""

from __future__ import annotations

from reembed.cutover.hooks import run_after, run_before, was_stopped
from reembed.cutover.move import retried
from reembed.cutover.rollback import (
    ReadyBack,
    last_look_back,
    prepare_back,
    ready_back,
    rollback_run,
)
from reembed.cutover.withdraw import GIVEN_UP as SWAP_GIVEN_UP
from reembed.cutover.withdraw import refuse_gone_back, rollback_given_up, stayed, withdraw
from reembed.errors import ReembedError
from reembed.migration.group.alike import together
from reembed.migration.group.members import pending
from reembed.migration.group.moving import Moving, Waiting, is_of_one, noted
from reembed.migration.group.results import MemberSwap
from reembed.migration.group.session import MemberSession
from reembed.run import events

GIVEN_UP = "a swap was asked for before any name had moved back"


class CommonWayBack(Moving):
    """See `Moving`."""

    def rollback(self) -> tuple[list[MemberSwap], list[str]]:
        """Carry back what was written since, and move every name back. Returns what was done to
        each, and what is to be told of all.

        Raises:
            ReembedError: what is the matter with all of them; the next call goes on.
        """
        group = self._group
        if pending(group.run) != "rollback":
            run_before(group, self._variables("rollback"))
            group.run.history.record(events.TogetherBegun(action="rollback"))
        done, messages = self._move_back()
        if not any(member.error for member in done):
            messages += run_after(group, self._variables("rollback"))
            group.run.history.record(events.RollbackFinished())
            group.run.history.record(events.TogetherDone(action="rollback"))
        return sorted(done, key=lambda member: member.collection), messages

    def give_up(self) -> tuple[list[MemberSwap], list[str]]:
        """`swap` after a rollback that was begun and has moved no name: the new collections stay
        live. Returns what was done to each, and what is to be told of all.

        Raises:
            PreflightError: names have moved back, so only the way back is left.
        """
        group, errors = self._group, dict[str, ReembedError]()
        path = group.run.manifest_file(group.manifest)
        for member in self._members:
            with noted(errors, member.collection), member.session(writes=False) as s:
                refuse_gone_back(s, path)
        refusal = together(errors, len(self._members))
        if refusal is not None:
            raise refusal
        done = self._each(
            lambda s: MemberSwap(s.manifest.live, rollback_given_up(s, dry_run=False))
        )
        messages = ["the way back is given up: every name serves the new collection, as before"]
        if not any(member.error for member in done):
            if was_stopped(group.run, "rollback"):
                messages += run_after(group, self._variables("swap"))
                group.run.history.record(events.SwapFinished())
            group.run.history.record(events.TogetherGivenUp(action="rollback", why=GIVEN_UP))
        return done, messages

    def _move_back(self) -> tuple[list[MemberSwap], list[str]]:
        ready, errors, messages = self._move_back_at_once()

        def back(s: MemberSession) -> MemberSwap:
            live = s.manifest.live
            if s.run.history.last_move is None:
                return MemberSwap(live, stayed(s, [SWAP_GIVEN_UP.format(live)]))
            done = rollback_run(s, dry_run=False, ready=ready.get(live))
            return MemberSwap(live, done)

        left = [one for one in self._members if one.collection not in errors]
        done = self._each(back, reversed(left))
        return [*done, *(MemberSwap(name, error=why) for name, why in errors.items())], messages

    def _move_back_at_once(
        self,
    ) -> tuple[dict[str, ReadyBack], dict[str, ReembedError], list[str]]:
        """Move back in one transaction whatever can. Returns, by live name, what was carried before
        the move, and why one cannot go back; and what is to be told."""
        ready, errors = dict[str, ReadyBack](), dict[str, ReembedError]()
        waiting: list[Waiting] = []
        for member in reversed(self._members):
            with noted(errors, member.collection), self._session(member) as s:
                if s.run.history.pending_move == "swap" or s.run.history.swap_tried:
                    withdraw(s)
                found = ready_back(s) if self._group.open_source.together else None
                if found is not None:
                    ready[member.collection] = found
                    waiting.append(Waiting(s, found.kind, s.old.id))
        if not self._at_once(waiting):
            return ready, errors, []
        try:
            retried(lambda: self._move_these_back(waiting, ready, errors))
        except ReembedError as error:
            if not is_of_one(error):
                raise
            return ready, errors, [
                f"the names could not go back at once, so they go one after another: "
                f"{error.message}"
            ]  # fmt: skip
        return ready, errors, []

    def _move_these_back(
        self, waiting: list[Waiting], ready: dict[str, ReadyBack], errors: dict[str, ReembedError]
    ) -> None:
        """Move these names back while their writers wait, but for those that may not after all."""
        going = [one for one in waiting if one.s.manifest.live not in errors]

        def get_ready(*, again: bool = False) -> bool:
            worked = False
            for one in going:
                with one.s.step():
                    worked |= prepare_back(one.s, ready[one.s.manifest.live], again=again)
            return worked

        if get_ready() and len(going) > 1:  # the first were written to meanwhile
            get_ready(again=True)
        while not self._went_back(going, ready, errors):
            going = [one for one in going if one.s.manifest.live not in errors]

    def _went_back(
        self, going: list[Waiting], ready: dict[str, ReadyBack], errors: dict[str, ReembedError]
    ) -> bool:
        """Move these names back while their writers wait, unless they may not wait that long."""
        with self._held(going):
            may = []
            for one in going:
                live = one.s.manifest.live
                with noted(errors, live), one.s.step():
                    last_look_back(one.s, ready[live])
                    may.append(one)
            if not self._may_move(may):
                return False
            if may:
                self._together("rollback", may)
        return True
