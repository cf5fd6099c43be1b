"""`mode: follow`: the commands of a job that follows a corpus.

A call compares the corpus with what the live collection was given. A little is carried into it
(`carrying.py`); much, or a change of model, template, metric or index, is a new collection that is
built beside it, verified like every migration, and swapped in (`moving.py`). What was replaced goes
(`pruning.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from reembed.errors import RefusedError, UsageError
from reembed.manifest import Manifest
from reembed.migration.following import carrying, moving
from reembed.migration.following.call import Asked, Call, give_up, result_of
from reembed.migration.following.job import Job
from reembed.migration.following.pruning import prune
from reembed.progress import Progress
from reembed.report.gather import Report, read_report
from reembed.report.results import RunResult, SwapResult, no_run
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import named_errors
from reembed.run.guards import guard_messages
from reembed.run.lock import locked
from reembed.stages.plan import Plan, make_plan
from reembed.stages.weigh import Problem
from reembed.sync.build import Stage
from reembed.verify.verdicts import verify_run


class Following:
    """A following job. Its methods are the twins of the commands, as `Migration`'s are.

    Args:
        manifest: with `mode: follow`.
        progress: told how far each stage is; silent by default.
    """

    def __init__(self, manifest: Manifest, progress: Progress | None = None) -> None:
        self.manifest, self.progress = manifest, progress or Progress()
        refuse_itself(manifest)

    # The commands

    @named_errors()
    def plan(self) -> Plan:
        """Look at everything that a rebuild depends on; write nothing."""
        with self._job(writes=False) as job, job.session(None, job.new_name()) as s:
            plan, live = make_plan(s), job.live()
            blockers, warnings = list(plan.blockers), list(plan.warnings)
            for look in (lambda: moving.kind_of(job), lambda: moving.refuse_own(job, live),
                         lambda: moving.refuse_strange(job, live, adopt=False)):  # fmt: skip
                try:
                    look()
                except RefusedError as error:
                    blockers.append(Problem(error.message, error.hint))
            current = job.current(live)
            if current is not None:
                told = "a collection is live already: a call carries what changed into it, and "
                warnings.insert(0, Problem(f"{told}builds one as below only where much did"))
            return replace(plan, blockers=blockers, warnings=warnings)

    def run(
        self, *, until: Stage = "verify", swap: bool = False, restart: bool = False,
        accept_loss: bool = False, rebuild: bool = False, adopt: bool = False,
    ) -> RunResult:  # fmt: skip
        """Carry what changed, or build a new collection and give it the live name.

        Args:
            until: of a rebuild: stop after this stage.
            swap: write to the live collection, and move its name; without it what differs is told,
                and a rebuild stops before the move.
            restart: give up a build that was begun, and build anew.
            accept_loss: carry even where most of the corpus is gone.
            rebuild: build a new collection whatever changed.
            adopt: take the live name over from a collection that this job did not make.

        Raises:
            GateError: the corpus has collapsed, or a gate failed.
            ReembedError: see `reembed.errors`; running again resumes.
        """
        asked = Asked(until, swap or until == "swap", rebuild or restart, adopt)
        with self._job(accept_loss=accept_loss) as job:
            if restart:
                give_up(job)
            return Call(job, asked).run()

    def verify(self, *, slice: str | None = None) -> RunResult:
        """Check every gate of the collection that is live."""
        if slice is not None:
            raise UsageError("--slice is for mode: once", "Leave it out.")
        with self._job() as job:
            run = self._require(job)
            with job.session(run) as s:
                return result_of(self.manifest, run, verdict=verify_run(s))

    def swap(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Give the live name to a collection that is built and verified.

        Raises:
            UsageError: there is none.
        """
        with self._job(writes=not dry_run, accept_loss=accept_loss) as job:
            runs = job.runs()
            run = runs[0] if runs else None
            if run is None or run.history.state not in ("verified", "swapped"):
                raise UsageError(
                    f"{self.manifest.name}: no collection is built and verified that does not "
                    "have the live name", "`reembed run --swap` does all that is to be done.",
                )  # fmt: skip
            with job.session(run) as s:
                kind = moving.kind_of(job)
                if dry_run:
                    return SwapResult(
                        "swap", run.run_id, False, self.manifest.live,
                        collection=run.history.shadow_name, parked="", kind=kind,
                    )  # fmt: skip
                return moving.move(s)

    def sweep(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Not for a job: every call of `run` carries what is late."""
        raise UsageError(
            "mode: follow has no sweep", "`reembed run --swap` carries what changed, and what an "
            "application wrote late.",
        )  # fmt: skip

    def rollback(self, *, dry_run: bool = False, accept_loss: bool = False) -> SwapResult:
        """Take back the last thing that a call did: what it carried, or the rebuild it swapped in.

        Raises:
            UsageError: there is nothing to take back.
        """
        with self._job(writes=not dry_run, accept_loss=accept_loss) as job:
            run = self._require(job)
            with job.session(run) as s:
                last = carrying.last_carry(s)
                if last is None:
                    there = moving.way_back(s)
                    if dry_run:
                        return SwapResult(
                            "rollback", run.run_id, False, self.manifest.live,
                            collection=there.name, parked=run.history.shadow_name,
                        )  # fmt: skip
                    return moving.go_back(s)
                told = (
                    f"the last carry ({last.added:,} added, {last.changed:,} changed, "
                    f"{last.deleted:,} deleted)"
                )
                result = SwapResult(
                    "rollback", run.run_id, not dry_run, self.manifest.live,
                    collection=run.history.shadow_name, parked="",
                )  # fmt: skip
                if dry_run:
                    return replace(result, messages=[f"would take back {told}"])
                carrying.undo(s)
                hold = f"{job.manifest.state_dir}/hold"
                return replace(result, messages=[
                    f"took back {told}",
                    "the next call carries it again: put the corpus right first, or make the file "
                    + hold,
                ])  # fmt: skip

    def clean(
        self, *, dry_run: bool = False, accept_loss: bool = False, backup: bool = False
    ) -> SwapResult:
        """Remove what the live collection has replaced, and a build that was begun; this gives the
        way back up."""
        if backup:
            raise UsageError("--backup is for mode: once", "`reembed backup` takes one by itself.")
        with self._job(writes=not dry_run, accept_loss=accept_loss) as job:
            current = job.current(job.live())
            result = SwapResult(
                "clean", current.run_id if current else "", not dry_run, self.manifest.live,
                collection="", parked="",
            )  # fmt: skip
            if dry_run:
                others = [run for run in job.runs() if current is None or run.path != current.path]
                names = [run.history.shadow_name for run in others if run.history.shadow_id]
                told = f"would remove {len(others):,} earlier runs, with {', '.join(names) or '-'}"
                return replace(result, messages=[told])
            if current is None:
                give_up(job)
                return replace(result, messages=["gave up what was begun"])
            told_all = prune(job, current, all=True) or ["there was nothing to remove"]
            return replace(result, messages=told_all)

    @named_errors()
    def status(self) -> RunResult:
        """Where the job stands; compares nothing."""
        state = self.manifest.state_dir
        with self._job(writes=False) as job:
            live = job.live()
            current, runs = job.current(live), job.runs()
            if not runs:
                told = ["no run yet", *guard_messages(state)]
                return RunResult(self.manifest.name, "", str(state), "created", messages=told)
            run = current or runs[0]
            last = run.history.last(events.Followed)
            told = [*guard_messages(state)]
            if current is None:
                told.append(f"{self.manifest.live!r} does not lead to a collection of this job")
            elif runs[0].path != current.path and runs[0].history.last_move is None:
                told.append(f"run {runs[0].run_id} is building its successor")
            if last is not None:
                told.append(
                    f"last carried: {last.added:,} added, {last.changed:,} changed, "
                    f"{last.deleted:,} deleted" + (" (taken back)" if last.undone else "")
                )
            return result_of(self.manifest, run, messages=told)

    @named_errors()
    def report(self) -> Report:
        """What the newest build did and found."""
        run = RunDir.latest(self.manifest.state_dir)
        if run is None:
            raise no_run(self.manifest)
        return read_report(self.manifest.name, run, self.manifest.path)

    # What is returned

    def _job(
        self, *, writes: bool = True, accept_loss: bool = False
    ) -> contextlib.AbstractContextManager[Job]:
        return _opened(self.manifest, self.progress, writes, accept_loss)

    def _require(self, job: Job) -> RunDir:
        run = job.current(job.live())
        if run is None:
            raise no_run(self.manifest)
        return run


@contextlib.contextmanager
def _opened(
    manifest: Manifest, progress: Progress, writes: bool, accept_loss: bool
) -> Iterator[Job]:
    """The job, alone in its state directory where it writes."""
    with contextlib.ExitStack() as closing:
        if writes:
            closing.enter_context(locked(manifest.state_dir))
        yield closing.enter_context(Job(manifest, progress, writes=writes, accept_loss=accept_loss))


def refuse_itself(manifest: Manifest) -> None:
    """Raise PreflightError where the job would follow its own live collection."""
    same = manifest.target_url == manifest.source.url
    if same and manifest.live == manifest.source.collection:
        raise moving.follows_itself(manifest.live)
