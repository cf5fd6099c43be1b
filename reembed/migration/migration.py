"""The state machine: one migration, from its manifest to a swapped name and back.

Every public method is a command of the same name, and what it returns has a `to_dict()` that is the
command's `--json` document. Each takes the lease on the state directory, opens a `Session`, takes
the lease on the live name if it will write, goes through its steps in the order in which they stand
here, and journals how far it came.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from reembed.backup.before import back_up, back_up_doomed, begin_run
from reembed.cutover.clean import clean_run
from reembed.cutover.recover import recover, recover_for_stages
from reembed.cutover.restart import run_to_give_up, where_it_stands
from reembed.cutover.rollback import rollback_run
from reembed.cutover.swap import swap_run, sweep_run
from reembed.cutover.told import losses_now
from reembed.errors import PreflightError, ReembedError, UsageError
from reembed.manifest import Manifest
from reembed.migration.newest import current_run, required_run
from reembed.migration.running import (
    build_and_verify,
    expect_model,
    finish_begun_move,
    is_as_verified,
)
from reembed.progress import Progress
from reembed.report.gather import Report, read_report
from reembed.report.results import (
    RunResult,
    SwapResult,
    no_run,
    run_result,
    wrong_state,
)  # fmt: skip
from reembed.report.write import write_report
from reembed.run.directory import RunDir
from reembed.run.disk import named_errors
from reembed.run.guards import guard_messages
from reembed.run.history import State
from reembed.run.lock import locked
from reembed.run.loss import Loss
from reembed.run.steps import next_steps
from reembed.stages.plan import Plan, make_plan, refuse_blocked
from reembed.stages.session import Session
from reembed.stages.weigh import Problem
from reembed.sync.build import Stage
from reembed.sync.follow import retry_quarantined as retry
from reembed.sync.live_name import look_up, refuse_astray, told_astray
from reembed.sync.since import since_swap
from reembed.verify.verdicts import UNLOADED, verify_run, verify_slice


class Migration:
    """One migration.

    Args:
        manifest: what to move where.
        progress: told how far each stage is; silent by default.
    """

    def __init__(self, manifest: Manifest, progress: Progress | None = None) -> None:
        if manifest.is_group:
            raise UsageError(f"{manifest.name}: it moves several", "Use reembed.Migrations.")
        self.manifest = manifest
        self.progress = progress or Progress()

    @named_errors()
    def plan(self) -> Plan:
        """Look at everything a run depends on; write nothing."""
        run = self._current_run()
        with self._session(run, writes=False) as s:
            refuse_astray(s)
            plan = make_plan(s, run.history.shadow_id if run else None)
            plan = replace(plan, losses=losses_now(s))
        if run is None or run.history.last_move != "swap":
            return plan
        done = Problem(
            "this migration is already swapped",
            "To migrate again, to another model, give the manifest another name.",
        )
        return replace(plan, warnings=[done, *plan.warnings])

    def run(
        self,
        *,
        until: Stage = "verify",
        swap: bool = False,
        if_changed: bool = False,
        retry_quarantined: bool = False,
        restart: bool = False,
        accept_loss: bool = False,
    ) -> RunResult:
        """All stages, resuming where an earlier call stopped.

        Args:
            until: stop after this stage.
            swap: also swap if the verdict passes.
            if_changed: do nothing if the newest run is finished and the source has not changed.
                What has changed since a swap is told, with the command that carries it.
            retry_quarantined: try the records again that earlier calls have quarantined.
            restart: give up the newest run, whatever manifest it was begun with, and begin anew;
                vectors that are paid for and still right are not paid for again.
            accept_loss: follow the source even where it has lost all, or more than half, of its
                records, and finish a move that was begun in the same way.

        Raises:
            ReembedError: see `reembed.errors`; running again resumes.
        """
        if restart and (begun_with := run_to_give_up(self.manifest, where_it_stands)):
            Migration(begun_with, self.progress).clean(accept_loss=accept_loss)
        with self._lease(), self._session(self._current_run(), accept_loss=accept_loss) as s:
            if s.begun and s.run.history.is_done:
                return self._after_swap(s, retry_quarantined)
            expect_model(s, until)
            if s.begun or until != "plan":
                s.take_lease()
            if not s.begun:
                self._refuse_blocked(s)
            elif s.run.history.state == "cleaning":
                raise wrong_state(self.manifest, s.run, "cleaning")
            elif finished := finish_begun_move(s):
                told = [f"finished the {finished.action}"]
                return self._result(s.run, swap=finished, messages=told)
            else:
                refuse_astray(s)
            if until == "plan":
                return self.status()
            if not s.begun:
                begin_run(s)
            else:
                recover_for_stages(s)
                if if_changed and not retry_quarantined and is_as_verified(s):
                    return self._result(s.run, messages=["nothing has changed"], unchanged=True)
            with s.pause.obeyed():
                verdict = build_and_verify(s, until, retry=retry_quarantined)
                if verdict is None:
                    return self._result(s.run)
            if not (swap or until == "swap") or not verdict.passed:
                return self._result(s.run, verdict=verdict)
            swapped = self._reported(s.run, swap_run(s, dry_run=False))
            return self._result(s.run, swap=swapped)

    def _after_swap(self, s: Session, retry_quarantined: bool) -> RunResult:
        """`run` once more of a run that is done: tell what has changed since, or try again what is
        quarantined."""
        if retry_quarantined and s.run.history.state == "swapped":
            s.take_lease()
            return self._result(s.run, messages=retry(s, recover(s)))
        s.remove_dead_lease()
        refuse_astray(s)
        since = since_swap(s)
        told = [*since.messages, *told_astray(s)]
        return self._result(s.run, messages=told, unchanged=not since.source, differs=since.source)

    def verify(self, *, slice: str | None = None) -> RunResult:
        """Check the gates again on a loaded run.

        Args:
            slice: `n/t` checks the integrity of the n-th of t slices of the records alone, for
                nightly jobs. Its verdict is returned and journalled, and never licenses a swap; one
                that fails takes the licence away until a whole verification passes.
        """
        with self._lease(), self._session(self._require_run()) as s:
            state = s.run.history.state
            if state in UNLOADED:
                raise UsageError(
                    f"{self.manifest.name}: nothing is loaded yet", "Use `reembed run` first."
                )
            if state == "cleaned":
                raise wrong_state(self.manifest, s.run, state)
            s.take_lease()
            if slice is not None:
                return self._result(s.run, verdict=verify_slice(s, slice))
            return self._result(s.run, verdict=verify_run(s))

    def swap(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Catch up with the source, move the live name to the shadow, sweep up late writes.

        Args:
            accept_loss: go on even where a collection has lost a mass of its records.

        Raises:
            GateError: there is no verdict yet, or it does not pass.
            LossError: a collection has lost a mass of its records.
        """
        with (
            self._lease(),
            self._session(self._require_run(), writes=not dry_run, accept_loss=accept_loss) as s,
        ):
            if not dry_run:
                s.take_lease()
                back_up(s)
            return self._reported(s.run, swap_run(s, dry_run))

    def sweep(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Copy writes that reached the collection that is not live after the name moved.

        Args:
            accept_loss: carry deletions even if they are of all records, or more than half.

        Raises:
            LossError: it has lost a mass of its records. Whatever else came late was carried.
        """
        with self._lease(), self._session(self._require_run(), accept_loss=accept_loss) as s:
            if not dry_run:
                s.take_lease()
            return self._with_steps(s.run, sweep_run(s, dry_run))

    def rollback(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Move the live name back to the old collection, with what was written since; or give up a
        swap that has not moved it.

        Args:
            accept_loss: go back even where rows cannot be carried, which are listed as lost, or a
                collection has lost all, or more than half, of its records.
        """
        states: tuple[State, ...] = ("swapped", "rolling back", "rolled back", "swapping")
        with self._lease(), self._session(self._require_run(*states), accept_loss=accept_loss) as s:
            if not dry_run:
                s.take_lease()
            return self._reported(s.run, rollback_run(s, dry_run))

    def clean(
        self, *, dry_run: bool = False, accept_loss: bool = False, backup: bool = False
    ) -> SwapResult:
        """Delete the collection that is not live: the old one after a swap, else the shadow.

        Args:
            backup: take a snapshot of it first.
            accept_loss: delete it even if it is the last to hold some records. The live name must
                lead to a collection all the same.

        Raises:
            LossError: the live collection lacks records of it that may not go without a word.
        """
        with (
            self._lease(),
            self._session(self._require_run(cleaning=True), accept_loss=accept_loss) as s,
        ):
            if not dry_run and s.run.history.state == "cleaned":
                s.remove_dead_lease()
            elif not dry_run:
                s.take_lease()
            told = back_up_doomed(s) if backup and not dry_run else []
            done = clean_run(s, dry_run)
            return self._reported(s.run, replace(done, messages=[*done.messages, *told]))

    @named_errors()
    def status(self) -> RunResult:
        """Where the newest run stands, and which guards are in force."""
        run, state_dir = self._latest(), self.manifest.state_dir
        if run is None:
            messages = ["no run yet", *guard_messages(state_dir)]
            return RunResult(self.manifest.name, "", str(state_dir), "created", messages=messages)
        losses, seen, name_lost = list[Loss](), guard_messages(state_dir), False
        try:
            with self._session(run, writes=False) as s:
                told, name_lost = look_up(s)
                seen, losses = [*seen, *told], losses_now(s)
        except ReembedError as error:  # whatever is wrong with them, the run itself can be told
            seen = [*seen, f"the collections could not be looked at: {error.message}"]
        result = self._result(run, messages=seen, losses=losses)
        if name_lost:
            result = replace(result, state="name lost", steps=[])
        told = [f"spent so far: {result.spent}"] if result.spent.tokens else []
        return replace(result, messages=[*told, *result.messages]).standing(state_dir, run)

    @named_errors()
    def report(self) -> Report:
        """What the newest run did and found, and whether its live name leads elsewhere by now."""
        run = self._latest()
        if run is None:
            raise no_run(self.manifest)
        found = read_report(self.manifest.name, run, self.manifest.path)
        status = self.status()
        return found.with_name_lost(status.messages) if status.state == "name lost" else found

    def _reported(self, run: RunDir, result: SwapResult) -> SwapResult:
        """Bring the report up to what was done. It is done, so a report that cannot be written is
        told and not raised."""
        result = self._with_steps(run, result)
        if not result.done:
            return result
        try:
            write_report(self.manifest, run, self.progress.note)
        except PreflightError as error:
            told = f"the report could not be written: {error.message}"
            return replace(result, messages=[*result.messages, told])
        return result

    def _with_steps(self, run: RunDir, result: SwapResult) -> SwapResult:
        steps = next_steps(run.history.state, run.manifest_file(self.manifest))
        return replace(result, steps=steps)

    def _session(
        self, run: RunDir | None, *, writes: bool = True, accept_loss: bool = False
    ) -> Session:
        return Session(self.manifest, run, self.progress, writes=writes, accept_loss=accept_loss)

    def _lease(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.manifest.state_dir)

    def _refuse_blocked(self, s: Session) -> None:
        """Raise the blockers of a run that is about to begin; a member of a group has its own."""
        refuse_blocked(s)

    def _latest(self) -> RunDir | None:
        return RunDir.latest(self.manifest.state_dir)

    def _current_run(self) -> RunDir | None:
        return current_run(self.manifest, lambda run: run.history.last_move == "swap")

    def _require_run(self, *states: State, cleaning: bool = False) -> RunDir:
        """The newest run, in one of these states, or in any but the one that a killed `clean` left.

        Args:
            cleaning: that one, too.
        """
        run = required_run(self.manifest)
        state = run.history.state
        fits = state in states or ("swapping" in states and run.history.swap_tried)
        if (states and not fits) or (state == "cleaning" and not cleaning):
            raise wrong_state(self.manifest, run, state, *states)
        return run

    def _result(self, run: RunDir, **fields: object) -> RunResult:
        return run_result(self.manifest.name, run, self.manifest.path, **fields)
