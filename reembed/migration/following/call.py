"""One call of a following job: look, decide, carry or build."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from reembed.errors import LossError, ModelChangedError, PreflightError
from reembed.manifest import Manifest
from reembed.migration.following import carrying, moving
from reembed.migration.following.job import FollowSession, Job
from reembed.migration.following.pruning import prune, remove_run
from reembed.report.results import Differs, RunResult, run_result
from reembed.report.write import write_report
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.guards import refuse_held
from reembed.run.steps import Step
from reembed.stages.plan import refuse_blocked
from reembed.sync.build import Stage, run_stages
from reembed.sync.difference import Difference
from reembed.sync.since import counted
from reembed.verify.ahead import Ahead
from reembed.verify.verdicts import verify_run

COMPACT_ABOVE = 1.0
"""Records carried since the last rebuild, as a share of all, above which a rebuild is due: deltas
and the store's own leftovers of replaced records have grown by then to another collection."""
SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """What a call of `run` was asked for; see `Following.run`."""

    until: Stage = "verify"
    swap: bool = False
    rebuild: bool = False
    adopt: bool = False


@dataclass
class Look:
    """What a call found.

    Attributes:
        why: why a new collection is to be built; empty where what differs is carried.
    """

    found: Difference
    differs: Differs | None = None
    why: str = ""


class Call:
    """See the module."""

    def __init__(self, job: Job, asked: Asked) -> None:
        self.job, self.asked, self.manifest = job, asked, job.manifest

    def run(self) -> RunResult:
        """Do what is to be done."""
        live = self.job.live()
        moving.refuse_strange(self.job, live, self.asked.adopt)
        run = self.job.current(live)
        if run is None:
            return self._build(Look(Difference(), why="there is no collection of this job yet"))
        with self.job.session(run) as s:
            if run.history.swap_unfinished:
                moving.finish(s)
            look = self._look(s)
            if not look.why:
                return self._carry(s, look)
        return self._build(look)

    def _look(self, s: FollowSession) -> Look:
        """Compare the corpus with what is live, and decide.

        Raises:
            GateError: too much of it is gone.
        """
        if not self.job.does_the_same(s.run):
            why = "the manifest has changed: the model, the text, the corpus or the index"
            return Look(Difference(), why=why)
        corpus = self.job.source()
        if corpus.id != s.source.id:
            return Look(Difference(), why="the corpus is another collection than before")
        changed = ""
        try:
            _ = s.fingerprint
            carrying.begin_again(s)
        except ModelChangedError as error:
            changed = error.message
        found = carrying.compare(s, corpus)
        carrying.refuse_drop(s, found)
        differs, (total, _) = counted(found, s.ledger), s.ledger.counts()
        return Look(found, differs, changed or self._too_much(s, differs, max(1, total)))

    def _too_much(self, s: FollowSession, differs: Differs, total: int) -> str:
        """Why what differs is not carried; empty where it is."""
        limit = self.manifest.follow.rebuild_above
        before = sum(one.added + one.changed + one.deleted
                     for one in s.run.history.all(events.Followed))  # fmt: skip
        if self.asked.rebuild:
            return "asked for with --rebuild"
        if differs.total > limit * total:
            return (
                f"{differs.total:,} of {total:,} records differ, more than follow.rebuild_above "
                f"({limit:.0%})"
            )
        if before + differs.total > COMPACT_ABOVE * total:
            return f"{before:,} records were carried since the last rebuild"
        return ""

    # Little

    def _carry(self, s: FollowSession, look: Look) -> RunResult:
        strays, found, told = carrying.find_strays(s), look.found, list[str]()
        if strays.foreign:
            told.append(f"{len(strays.foreign):,} records are not the corpus's, "
                        f"{_some(strays.foreign)}")  # fmt: skip
        begun = carrying.open_stems(s)
        deleting = bool(strays.foreign) and self.manifest.follow.delete_foreign
        nothing = not (found or begun or strays.missing or deleting)
        if not self.asked.swap:
            told.insert(0, f"differs: {look.differs}; --swap carries it" if found
                        else "nothing has changed")  # fmt: skip
            return self._result(s, told, differs=look.differs, unchanged=nothing)
        if not nothing:
            refuse_held(self.manifest.state_dir)
        if strays.missing:
            back = carrying.put_back(s, strays.missing)
            told.append(f"put {back:,} records back that somebody had deleted, "
                        f"{_some(strays.missing)}")  # fmt: skip
        if found or begun:
            with s.pause.obeyed():
                done = carrying.carry(s, self.job.source(), found)
            told.insert(0, f"carried: {done.added:,} added, {done.changed:,} changed, "
                           f"{done.deleted:,} deleted")  # fmt: skip
        if deleting:
            gone = carrying.delete_foreign(s)
            told.append(f"deleted {gone:,} records that are not the corpus's")
        if nothing:
            told.insert(0, "nothing has changed")
        told += prune(self.job, s.run)
        return self._result(s, told, differs=look.differs, unchanged=nothing)

    # Much

    def _build(self, look: Look) -> RunResult:
        """Build a generation, or go on with the one that was begun, and swap it in."""
        job = self.job
        moving.refuse_own(job, job.live())
        run = self._begun()
        with job.session(run, job.new_name() if run is None else "") as s:
            if run is None:
                moving.kind_of(job)
                refuse_blocked(s)
                s.create_run()
                job.work_on(s.run)
            told = [f"built a new collection: {look.why}"]
            s.progress.note(f"a new collection is built: {look.why}")
            verifies = self.asked.until in ("verify", "swap")
            with s.pause.obeyed(), Ahead(s) as ahead:
                run_stages(s, self.asked.until, ahead.begin if verifies else None)
                if not verifies:
                    return self._result(s, [look.why])
                copied = moving.copy_foreign(s, moving.foreign_of(job, job.live()))
                verdict = verify_run(s, ahead)
            if copied:
                told.append(f"{copied:,} records that are not the corpus's were copied along")
            if not self.asked.swap or not verdict.passed:
                return self._result(s, told, verdict=verdict)
            swapped = moving.move(s)
            with contextlib.suppress(PreflightError):
                write_report(self.manifest, s.run, s.progress.note)
            told += prune(job, s.run)
            return self._result(s, told, swap=swapped, differs=look.differs)

    def _begun(self) -> RunDir | None:
        """The build that this call goes on with; one that is of no use any more is given up."""
        runs = self.job.runs()
        run = runs[0] if runs else None
        if run is None or run.history.last_move is not None:
            return None
        if self.job.does_the_same(run) and run.history.state not in ("cleaning", "cleaned"):
            with self.job.session(run) as s, contextlib.suppress(ModelChangedError, LossError):
                _ = s.fingerprint
                gone = run.history.shadow_id is not None and s.new.describe() is None
                if not gone and self.job.source().id == s.source.id:
                    return run
        give_up(self.job)
        return None

    def _result(self, s: FollowSession, told: list[str], **fields: Any) -> RunResult:
        return result_of(self.manifest, s.run, messages=told, **fields)


def give_up(job: Job) -> None:
    """Remove a build that was begun and never had the live name."""
    for run in job.runs()[:1]:
        if run.history.last_move is None:
            remove_run(job, run)


def result_of(manifest: Manifest, run: RunDir, **fields: Any) -> RunResult:
    """Where a generation stands, with the commands of a job."""
    result = run_result(manifest.name, run, manifest.path, **fields)
    path = run.shown_manifest(manifest)
    steps = [Step(f"reembed run {path} --swap", "carry what changed, or swap in what is built")]
    if run.history.last_move == "swap":
        steps.append(Step(f"reembed rollback {path} --yes", "take back what was done last"))
    return replace(result, steps=steps)


def _some(ids: list[str]) -> str:
    return f"e.g. {', '.join(ids[:SHOWN])}"
