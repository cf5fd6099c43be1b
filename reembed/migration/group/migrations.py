"""The state machine of a group: one method a command, as `Migration` has them for one collection.

A group's run directory is `<state>/<name>/<run id>/`, like any other: its journal says which
collections are members, and how far their common moves came; `members/` holds a run directory of
each, which is that of an ordinary run. So whatever holds for one collection holds for each of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reembed.backup.before import back_up
from reembed.cutover.restart import run_to_give_up
from reembed.errors import ReembedError, UsageError
from reembed.manifest import Manifest
from reembed.migration.group import planning
from reembed.migration.group.back import CommonWayBack
from reembed.migration.group.folded import is_told
from reembed.migration.group.members import Member, all_taken, pending
from reembed.migration.group.move import CommonSwap
from reembed.migration.group.moving import is_of_one
from reembed.migration.group.report import GroupReport
from reembed.migration.group.results import (
    GroupPlan,
    GroupResult,
    GroupSwap,
    MemberResult,
    MemberSwap,
)
from reembed.migration.group.roster import Roster, group_state, where_it_stands
from reembed.migration.group.session import GroupSession
from reembed.migration.newest import current_run, required_run
from reembed.progress import Progress
from reembed.report.results import RunResult, SwapResult, wrong_state
from reembed.report.write import REPORT_FILE, SUMMARY_FILE, write_report
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import named_errors, write_atomic
from reembed.run.guards import guard_messages
from reembed.run.history import State
from reembed.run.lock import locked
from reembed.run.now import read_now
from reembed.run.steps import next_steps
from reembed.sync.build import Stage

ROUNDS = 3
"""How often `run` looks for collections that appeared while it worked."""


class Migrations:
    """Several collections that move together.

    Args:
        manifest: one with `source.collections`.
        progress: told of each collection; silent by default.
    """

    def __init__(self, manifest: Manifest, progress: Progress | None = None) -> None:
        if not manifest.is_group:
            told = f"{manifest.name}: source.collection moves one collection"
            raise UsageError(told, "Use reembed.Migration, or give source.collections.")
        self.manifest = manifest
        self.progress = progress or Progress()

    # The commands

    @named_errors()
    def plan(self) -> GroupPlan:
        """Look at everything a run depends on; write nothing."""
        with GroupSession(self.manifest, self._current_run(), self.progress, writes=False) as group:
            return Roster(group).plan()

    def run(
        self, *, until: Stage = "verify", swap: bool = False, if_changed: bool = False,
        retry_quarantined: bool = False, restart: bool = False, accept_loss: bool = False,
    ) -> GroupResult:  # fmt: skip
        """All stages of every collection, resuming; see `Migration.run`. Collections that appeared
        since are taken in.

        Raises:
            PreflightError: collections are blocked, all of them named, and nothing was begun.
        """
        if restart and (begun_with := run_to_give_up(self.manifest, where_it_stands)):
            given_up = Migrations(begun_with, self.progress).clean(accept_loss=accept_loss)
            if given_up.error is not None:
                raise given_up.error
        with self._opened(self._current_run()) as group:
            if group.begun and pending(group.run) == "rollback":
                self._rolled_back(group, accept_loss)
                return self._result(group, messages=["finished the rollback"])
            if group.begun and pending(group.run) == "swap":
                done = self._swapped(group, accept_loss)
                return self._result(group, swap=done, messages=["finished the swap"])
            if group.begun and group_state(group.run) in ("swapped", "cleaned"):
                if group_state(group.run) == "swapped":
                    Roster(group).refuse_astray()
                told = ["already swapped; nothing to do", *Roster(group).told_of_new()]
                return self._result(group, messages=told, unchanged=True)
            if until == "plan":
                Roster(group).take_in(begin=False)
                return self.status()
            messages = Roster(group).take_in()
            messages += Roster(group).leave_out_gone(accept_loss, renamed=True)
            messages += Roster(group).begin_again(accept_loss)
            results, appeared = self._run_each(
                group, until,
                lambda member: member.run(
                    until="verify" if until == "swap" else until, if_changed=if_changed,
                    retry_quarantined=retry_quarantined, accept_loss=accept_loss,
                ),
            )  # fmt: skip
            messages += appeared
            result = self._reported(self._result(group, results, messages=messages))
            if (swap or until == "swap") and result.error is None and result.passed:
                done = self._swapped(group, accept_loss)
                return self._reported(self._result(group, messages=messages, swap=done))
            return result

    def verify(self, *, slice: str | None = None) -> GroupResult:
        """Check the gates of every collection again."""
        with self._opened(required_run(self.manifest)) as group:
            checked = self._each(group, Roster(group).members(), lambda m: m.verify(slice=slice))
            return self._reported(self._result(group, checked))

    def swap(self, *, dry_run: bool = False, accept_loss: bool = False) -> GroupSwap:
        """Move all names: at once where the store can, else one after another; see `Migration`.

        Raises:
            GateError, PreflightError: a collection may not move, so none has; all are named.
        """
        with self._opened(required_run(self.manifest)) as group:
            state = group_state(group.run)
            if state == "cleaned":
                raise wrong_state(self.manifest, group.run, "cleaned")
            if dry_run:
                return self._of_each(group, "swap", lambda m: m.swap(dry_run=True))
            if state == "swapped" and pending(group.run) is None:
                done = self._of_each(group, "swap", lambda m: m.swap())
                return replace(done, done=True, messages=["already swapped"])
            if pending(group.run) == "rollback":
                with CommonWayBack(group, Roster(group).members(), accept_loss) as way_back:
                    given_up = way_back.give_up()
                return self._moved(group, "swap", *given_up)
            back_up(group)
            return self._swapped(group, accept_loss)

    def rollback(self, *, dry_run: bool = False, accept_loss: bool = False) -> GroupSwap:
        """Move all names back, with what was written since; see `Migration.rollback`."""
        with self._opened(required_run(self.manifest)) as group:
            state = group_state(group.run)
            states: tuple[State, ...] = ("swapping", "swapped", "rolling back", "rolled back")
            if state not in states and not group.run.history.swap_tried:
                raise wrong_state(self.manifest, group.run, state, *states[1:])
            if dry_run:
                return self._of_each(group, "rollback", lambda m: m.rollback(dry_run=True))
            if state == "rolled back" and pending(group.run) is None:
                done = self._of_each(group, "rollback", lambda m: m.rollback())
                return replace(done, done=True, messages=["already rolled back"])
            return self._rolled_back(group, accept_loss)

    def sweep(self, *, dry_run: bool = False, accept_loss: bool = False) -> GroupSwap:
        """Carry late writes of every collection; see `Migration.sweep`."""
        with self._opened(required_run(self.manifest)) as group:
            options = {"dry_run": dry_run, "accept_loss": accept_loss}
            done = self._of_each(group, "sweep", lambda m: m.sweep(**options))
            return replace(done, done=not dry_run)

    def clean(
        self, *, dry_run: bool = False, accept_loss: bool = False, backup: bool = False
    ) -> GroupSwap:
        """Delete the collection that is not live of each; see `Migration.clean`."""
        with self._opened(required_run(self.manifest)) as group:
            if pending(group.run) is not None:
                raise wrong_state(self.manifest, group.run, group_state(group.run))
            told = [] if dry_run else Roster(group).leave_out_gone(accept_loss)
            every = Roster(group).members(all_taken(group.run))
            done = self._of_each(
                group, "clean",
                lambda m: m.clean(dry_run=dry_run, accept_loss=accept_loss, backup=backup),
                [member for member in every if member.run_dir is not None],
            )  # fmt: skip
            done = replace(done, messages=[*told, *done.messages])
            if not dry_run and done.error is None:
                Roster(group).end_cleaned()
            return self._with_steps(group.run, replace(done, done=not dry_run))

    @named_errors()
    def status(self) -> GroupResult:
        """Where every collection stands."""
        manifest, run = self.manifest, RunDir.latest(self.manifest.state_dir)
        told = guard_messages(manifest.state_dir)
        if now := read_now(manifest.state_dir):
            told += [f"at work: {now.holder}", *now.lines]
        if run is None:
            told = ["no run yet", *told]
            return GroupResult(manifest.name, "", str(manifest.state_dir), "created", messages=told)
        with GroupSession(manifest, run, self.progress, writes=False) as group:
            members = self._all_stand(group)
            try:
                gone, deleted = Roster(group).told_of_gone()
                members = [one for one in members if one.collection not in gone]
                told += [*deleted, *Roster(group).told_of_new()]
            except ReembedError as error:
                told.append(f"the collections could not be looked at: {error.message}")
            return self._result(group, members, messages=told)

    def report(self) -> GroupReport:
        """What the newest run did and found, with a line for each collection."""
        run = required_run(self.manifest)
        with GroupSession(self.manifest, run, self.progress, writes=False) as group:
            return GroupReport(self._result(group))

    # Members

    def _run_each(
        self, group: GroupSession, until: Stage, work: Callable[[Member], RunResult]
    ) -> tuple[list[MemberResult], list[str]]:
        """What came of each member, of those too whose collections appear meanwhile; and what is
        told of these."""
        results, messages = list[MemberResult](), list[str]()
        for _ in range(ROUNDS):
            known = {result.collection for result in results}
            left = [one for one in Roster(group).members() if one.collection not in known]
            if not left:
                break
            results += self._each(group, left, work)
            if until in ("verify", "swap"):
                messages += Roster(group).take_in()
        return results, messages

    def _each(
        self, group: GroupSession, members: list[Member], work: Callable[[Member], RunResult]
    ) -> list[MemberResult]:
        """What came of each member; one that fails keeps none of the others from going on."""
        results = []
        for number, member in enumerate(members, start=1):
            try:
                result = MemberResult.of(member.collection, work(member))
                told: str = result.result.state
                is_news = is_told(number, len(members))
            except ReembedError as error:
                if not is_of_one(error):
                    raise
                result = replace(self._stands(member), error=error)
                told, is_news = error.message, True
            if is_news:
                group.progress.note(f"{number} of {len(members)}: {member.collection}: {told}")
            results.append(result)
        return results

    def _all_stand(self, group: GroupSession) -> list[MemberResult]:
        with group.looking():
            return [self._stands(member) for member in Roster(group).members()]

    def _stands(self, member: Member) -> MemberResult:
        return MemberResult.of(member.collection, member.status())

    # Moves

    def _swapped(self, group: GroupSession, accept_loss: bool) -> GroupSwap:
        told = Roster(group).leave_out_gone(accept_loss)
        with CommonSwap(group, Roster(group).members(), accept_loss) as move:
            done, messages = move.swap()
        told += [*messages, *Roster(group).told_of_new()]
        return self._moved(group, "swap", done, told)

    def _rolled_back(self, group: GroupSession, accept_loss: bool) -> GroupSwap:
        told = Roster(group).leave_out_gone(accept_loss)
        with CommonWayBack(group, Roster(group).members(), accept_loss) as way_back:
            done, messages = way_back.rollback()
        return self._moved(group, "rollback", done, [*told, *messages])

    def _moved(
        self, group: GroupSession, action: str, done: list[MemberSwap], messages: list[str]
    ) -> GroupSwap:
        moved = GroupSwap(
            action, group.run.run_id, True, done, planning.how(group, action), messages
        )
        for member in Roster(group).members() if self.manifest.report.mlflow else ():
            if member.run_dir is not None:
                write_report(member.manifest, member.run_dir, self.progress.note)
        return self._with_steps(group.run, moved)

    def _of_each(
        self, group: GroupSession, action: str, look: Callable[[Member], SwapResult],
        members: list[Member] | None = None,
    ) -> GroupSwap:  # fmt: skip
        """What each member does by itself, or says that it would do."""
        found = []
        for member in Roster(group).members() if members is None else members:
            try:
                found.append(MemberSwap(member.collection, look(member)))
            except ReembedError as error:
                if not is_of_one(error):
                    raise
                found.append(MemberSwap(member.collection, error=error))
        of_each = GroupSwap(action, group.run.run_id, False, found, planning.how(group, action))
        return self._with_steps(group.run, of_each)

    def _with_steps(self, run: RunDir, result: GroupSwap) -> GroupSwap:
        steps = next_steps(group_state(run), run.manifest_file(self.manifest))
        return replace(result, steps=steps)

    # Runs

    def _result(
        self, group: GroupSession, members: list[MemberResult] | None = None, **fields: Any
    ) -> GroupResult:
        """Where the group stands; its report is brought up to it."""
        run = group.run
        if members is None:
            members = self._all_stand(group)
        state = group_state(run)
        if any(member.result.state == "name lost" for member in members):
            state = "name lost"
        result = GroupResult(
            self.manifest.name, run.run_id, str(run.path), state,
            sorted(members, key=lambda member: member.collection), spent=group.spending.spent,
            steps=next_steps(state, run.manifest_file(self.manifest)),
            manifest=run.shown_manifest(self.manifest), **fields,
        )  # fmt: skip
        unchanged = bool(members) and all(member.result.unchanged for member in members)
        return replace(result, unchanged=result.unchanged or unchanged)

    def _reported(self, result: GroupResult) -> GroupResult:
        """Bring the report up to a result, beside it in the run directory."""
        report, folder = GroupReport(result), Path(result.path)
        write_atomic(folder / REPORT_FILE, report.to_html().encode())
        write_atomic(folder / SUMMARY_FILE, report.to_markdown().encode("utf-8", "replace"))
        return result

    @contextlib.contextmanager
    def _opened(self, run: RunDir | None) -> Iterator[GroupSession]:
        """The group's session, with the lock on its state directory."""
        opened = GroupSession(self.manifest, run, self.progress)
        with locked(self.manifest.state_dir), opened as group:
            yield group

    def _current_run(self) -> RunDir | None:
        return current_run(self.manifest, _was_swapped)


def _was_swapped(run: RunDir) -> bool:
    last = run.history.last(events.TogetherDone)
    return last is not None and last.action == "swap"
