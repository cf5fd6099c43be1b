"""How far a run came, read from its journal, and what the commands return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from reembed.display.shown import Face, Shown, code, lines, parts
from reembed.embedders.spending import Spent, read_spent
from reembed.errors import DamagedError, GateError, ReembedError, UsageError
from reembed.manifest import Manifest
from reembed.quality.conclusion import conclude
from reembed.quality.remedies import Remedy, remedies
from reembed.quality.verdict import Gate, Verdict
from reembed.run import events, files
from reembed.run.counts import count_records
from reembed.run.directory import RunDir
from reembed.run.disk import named_errors
from reembed.run.guards import guard_messages
from reembed.run.history import State
from reembed.run.loss import Loss
from reembed.run.now import Now, StageDone, read_now, stages_done
from reembed.run.steps import Step, next_steps, shown_path


@dataclass(frozen=True)
class Differs:
    """How many records a collection has new, otherwise, and no more, compared with what a run
    moved."""

    added: int = 0
    changed: int = 0
    deleted: int = 0

    def __bool__(self) -> bool:
        return self.total > 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.deleted

    def __str__(self) -> str:
        return f"{self.added:,} added, {self.changed:,} changed, {self.deleted:,} deleted"


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """Where a run stands, and what the call did.

    Attributes:
        name: of the migration.
        run: run id; empty before there is one.
        path: run directory.
        state: see `State`.
        next: the command that goes on from here; empty after the last.
        steps: every command that the run can take now, that one first, and the way back.
        exported, quarantined, loaded: records.
        verdict: of the newest verification.
        swap: what the swap did, where this call swapped.
        messages: what the user should know.
        spent: on models, over all calls of the run.
        losses: collections of the run that lack all, or more than half, of the records that it
            knows of them, as `status` and `plan` see them.
        remedies: what makes the gates pass that are in the way.
        unchanged: with `if_changed`: nothing had changed, so nothing was done.
        differs: of a finished migration that is run again: what its source has by now that is not
            carried; None where it was not compared.
        stages: of a run that is not verified yet: shards that each stage has done, and has to do.
        now: who is at work on it, and how far; None for nobody. `status` alone looks.
    """

    name: str
    run: str
    path: str
    state: State
    exported: int = 0
    quarantined: int = 0
    loaded: int = 0
    verdict: Verdict | None = None
    swap: SwapResult | None = None
    messages: list[str] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    unchanged: bool = False
    steps: list[Step] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    differs: Differs | None = None
    remedies: list[Remedy] = field(default_factory=list)
    stages: list[StageDone] = field(default_factory=list)
    now: Now | None = None

    @property
    def next(self) -> str:
        return self.steps[0].command if self.steps else ""

    def standing(self, state_dir: Path, run: RunDir) -> RunResult:
        """The same with who is at work on the run, and how far its stages are."""
        now = read_now(state_dir)
        under_way = now is not None or self.state in ("created", "exported", "embedded")
        return replace(self, now=now, stages=stages_done(run) if under_way else [])

    @property
    def error(self) -> ReembedError | None:
        """The failing gates as an error, None if none fails."""
        if self.verdict is None or self.verdict.passed:
            return None
        return gate_error(self.verdict, self.remedies)

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with quarantined records, 4 a gate failed or is inconclusive."""
        if self.error is not None:
            return self.error.exit_code
        return 3 if self.quarantined else 0

    def to_dict(self) -> dict[str, Any]:
        document = {
            "name": self.name, "run": self.run, "path": self.path, "state": self.state,
            "next": self.next, "steps": [step.to_dict() for step in self.steps],
            "exported": self.exported, "quarantined": self.quarantined,
            "loaded": self.loaded, "exit_code": self.exit_code, "unchanged": self.unchanged,
            "messages": self.messages, "spent": asdict(self.spent),
            "losses": [loss.to_dict() for loss in self.losses],
            "differs": asdict(self.differs) if self.differs is not None else None,
            "stages": [asdict(stage) for stage in self.stages],
            "now": self.now.to_dict() if self.now else None,
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "swap": self.swap.to_dict() if self.swap else None,
        }  # fmt: skip
        return document | ({"error": self.error.to_dict()} if self.error else {})

    def _face(self) -> Face:
        records = (
            f"{self.exported:,} exported = {self.loaded:,} loaded + "
            f"{self.quarantined:,} quarantined"
            if self.exported
            else ""
        )
        verdict = ""
        if self.verdict is not None:
            swapped = self.state == "swapped"
            verdict = conclude(self.verdict, "swapped" if swapped else "safe to swap").headline
            verdict = verdict.removeprefix(f"{self.state}; ")
        spent = str(self.spent) if self.spent.tokens else ""
        return Face(parts(f"{self.name}: {self.state}", records, verdict), [
            ("state", self.state), ("records", records), ("verdict", verdict), ("spent", spent),
            ("told", lines(self.messages)), ("run", self.path), ("next", code(self.next)),
        ])  # fmt: skip


def gate_error(verdict: Verdict, ways: Sequence[Remedy] = ()) -> GateError:
    """The gates in the way of the swap, as an error.

    Args:
        ways: what makes them pass.
    """
    reasons = "; ".join(f"{gate.name} {gate.status}: {gate.message}" for gate in verdict.failing)
    told = " Or ".join(str(way) for way in ways)
    told = f" {told[0].upper()}{told[1:]}." if told else ""
    return GateError(reasons, f"The live name was not moved.{told}")


def read_verdict(run: RunDir) -> Verdict | None:
    """The newest verdict of a run, None before there is one.

    Raises:
        DamagedError: its file is not the one that the journal tells of. Whether it passed is in the
            journal, too: see `VerdictGiven.passed`.
    """
    given, path = run.history.last(events.VerdictGiven), run.path / files.VERDICT.name
    if given is None:
        return None

    def parse(path: Path) -> Verdict:
        data = path.read_bytes()
        if given.sha256 and hashlib.sha256(data).hexdigest() != given.sha256:
            raise ValueError("it is not the file that was written")
        verdict = _verdicts().validate_python(json.loads(data))
        if verdict.passed != given.passed:
            raise ValueError("the journal says otherwise")
        return verdict

    verdict = files.read(path, files.VERDICT, parse)
    if verdict is None:
        raise files.damaged(path, files.VERDICT, "it is gone")
    return verdict


@cache
def _verdicts() -> TypeAdapter[Verdict]:
    return TypeAdapter(Verdict)


def unread_verdict(run: RunDir, error: DamagedError) -> Verdict:
    """What is known of a verdict that did not pass and whose file cannot be read."""
    gate = Gate("verdict", "fail", f"it did not pass, and why is not known: {error.message}")
    return Verdict(run.run_id, 0, (gate,))


def run_result(name: str, run: RunDir, manifest: Path | None = None, **fields: Any) -> RunResult:
    """The result of a call that worked on this run.

    Args:
        manifest: the file that the next commands name; default: the run's own copy.
    """
    state = run.history.state
    notes: list[str] = []
    total, quarantined = count_records(run, notes)
    in_store = state not in ("created", "exported", "embedded")
    if "verdict" not in fields:
        try:
            fields["verdict"] = read_verdict(run)
        except DamagedError as error:
            given = run.history.require(events.VerdictGiven)
            fields["verdict"] = None if given.passed else unread_verdict(run, error)
            notes.append(f"{error.message}. {error.hint}")
    try:
        spent = read_spent(run.path)
    except DamagedError as error:
        spent = Spent()
        notes.append(f"{error.message}. {error.hint}")
    fields["messages"] = [*fields.get("messages", ()), *notes]
    path = manifest or run.kept_manifest
    verdict = fields["verdict"]
    return RunResult(
        name, run.run_id, str(run.path), state, exported=total, quarantined=quarantined,
        loaded=total - quarantined if in_store else 0, spent=spent,
        steps=next_steps(state, path),
        remedies=remedies(verdict, shown_path(path)) if verdict else [], **fields,
    )  # fmt: skip


@named_errors()
def all_results(state: Path) -> list[RunResult]:
    """The newest run of every migration in a state directory, by name."""
    if not state.is_dir():
        return []
    runs = [(path, RunDir.latest(path)) for path in sorted(state.iterdir()) if path.is_dir()]
    return [
        run_result(path.name, run, messages=guard_messages(path)).standing(path, run)
        for path, run in runs
        if run is not None
    ]


def no_run(manifest: Manifest) -> UsageError:
    """The refusal of a command that needs a run where none was begun."""
    return UsageError(f"{manifest.name}: there is no run yet", "Begin one with `reembed run`.")


def wrong_state(manifest: Manifest, run: RunDir, state: State, *wanted: State) -> UsageError:
    """The refusal of a command that a run in this state cannot take."""
    steps = next_steps(state, run.manifest_file(manifest))
    instead = f", not {' or '.join(wanted)}" if wanted else ""
    return UsageError(
        f"{manifest.name}: run {run.run_id} is {state}{instead}",
        " Or: ".join(f"`{step.command}` to {step.does}." for step in steps),
    )


@dataclass(frozen=True, repr=False)
class SwapResult(Shown):
    """What a swap, rollback or sweep did.

    Attributes:
        action: swap, rollback, sweep or clean.
        run: run id.
        done: False for a dry run, which tells what would be done.
        live: the live name.
        collection: name of the collection that the live name leads to now.
        parked: name of the other one.
        kind: swap kind; empty where no name moved.
        guarantee: what the kind claims.
        gap_seconds: measured time in which the live name did not exist; None without a gap.
        held_seconds: measured time in which writers waited for the move; None where none did.
        caught_up: records carried before the move.
        swept: records carried after it.
        conflicts: ids that the live collection had changed itself, so they were left alone.
        lost: ids of rows that could not be carried and were accepted as lost.
        losses: of a dry run: collections that lack all, or more than half, of the records that the
            run knows of them, so that the command would ask for `--accept-loss`.
        messages: what the user should know or do.
        steps: the commands that the run can take now, the natural next one first.
    """

    action: str
    run: str
    done: bool
    live: str
    collection: str
    parked: str
    kind: str = ""
    guarantee: str = ""
    gap_seconds: float | None = None
    held_seconds: float | None = None
    caught_up: int = 0
    swept: int = 0
    conflicts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _face(self) -> Face:
        leads = f"{self.live!r} leads to {self.collection!r}" if self.live else ""
        other = f"{self.parked!r}" if self.parked else ""
        return Face(parts(self.action if self.done else f"{self.action} (dry run)", leads), [
            ("live name", leads), ("the other one", other), ("kind", self.kind),
            ("carried", f"{self.caught_up:,} before the move, {self.swept:,} after it"),
            ("told", lines(self.messages)),
            ("next", code(self.steps[0].command if self.steps else "")),
        ])  # fmt: skip
