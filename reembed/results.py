"""How far a run came, read from its journal, and what the commands return."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from reembed.embedders.spending import Spent, read_spent
from reembed.errors import GateError, ReembedError, UsageError
from reembed.quality.verdict import Verdict
from reembed.run.directory import RunDir
from reembed.run.guards import guard_messages
from reembed.run.ledger import Ledger
from reembed.sync.catch_up import SwapResult

VERDICT_FILE = "verdict.json"
State = Literal[
    "created", "exported", "embedded", "loaded", "verified", "failed", "swapping", "swapped",
    "rolling back", "rolled back", "cleaning", "cleaned",
]  # fmt: skip

NEXT_STEP: dict[State, str] = {
    "created": "reembed run", "exported": "reembed run", "embedded": "reembed run",
    "loaded": "reembed run", "verified": "reembed swap", "failed": "look at the verdict",
    "swapping": "reembed swap", "swapped": "reembed rollback, or clean once it is trusted",
    "rolling back": "reembed rollback", "rolled back": "reembed swap, or clean",
    "cleaning": "reembed clean", "cleaned": "",
}  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """Where a run stands, and what the call did.

    Attributes:
        name: of the migration.
        run: run id; empty before there is one.
        path: run directory.
        state: see `State`.
        next: the command that goes on from here.
        exported, quarantined, loaded: records.
        verdict: of the newest verification.
        swap: what the swap did, where this call swapped.
        messages: what the user should know.
        spent: on models, over all calls of the run.
        unchanged: with `if_changed`: nothing had changed, so nothing was done.
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

    @property
    def next(self) -> str:
        return NEXT_STEP[self.state]

    @property
    def error(self) -> ReembedError | None:
        """The failing gates as an error, None if none fails."""
        if self.verdict is None or self.verdict.passed:
            return None
        return gate_error(self.verdict)

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with quarantined records, 4 a gate failed or is inconclusive."""
        if self.error is not None:
            return self.error.exit_code
        return 3 if self.quarantined else 0

    def to_dict(self) -> dict[str, Any]:
        document = {
            "name": self.name, "run": self.run, "path": self.path, "state": self.state,
            "next": self.next, "exported": self.exported, "quarantined": self.quarantined,
            "loaded": self.loaded, "exit_code": self.exit_code, "unchanged": self.unchanged,
            "messages": self.messages, "spent": asdict(self.spent),
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "swap": self.swap.to_dict() if self.swap else None,
        }  # fmt: skip
        return document | ({"error": self.error.to_dict()} if self.error else {})


def gate_error(verdict: Verdict) -> GateError:
    """The gates in the way of the swap, as an error."""
    reasons = "; ".join(f"{gate.name} {gate.status}: {gate.message}" for gate in verdict.failing)
    return GateError(
        reasons, "The live name was not moved. The verdict's sample ids show where to look."
    )


def run_state(run: RunDir) -> State:
    """How far a run came: a fold over its journal."""
    state: State = "created"
    after_stage: dict[str, State] = {"export": "exported", "embed": "embedded", "load": "loaded"}
    after_event: dict[str, State] = {
        "swap-begun": "swapping", "swap-done": "swapped", "rollback-begun": "rolling back",
        "rollback-done": "rolled back", "clean-begun": "cleaning", "cleaned": "cleaned",
    }  # fmt: skip
    for event in run.events():
        if event["event"] == "stage-done":
            if event["stage"] == "load" or state in ("created", "exported", "embedded"):
                state = after_stage[event["stage"]]  # export and embed alone undo no later stage
        elif event["event"] == "verdict":
            if state != "swapped":
                state = "verified" if event["passed"] else "failed"
        else:
            state = after_event.get(event["event"], state)
    return state


def read_verdict(run: RunDir) -> Verdict | None:
    """The newest verdict of a run, None before there is one."""
    path = run.path / VERDICT_FILE
    if run.last("verdict") is None or not path.is_file():
        return None
    return Verdict.from_dict(json.loads(path.read_text("utf-8")))


def run_result(name: str, run: RunDir, **fields: Any) -> RunResult:
    """The result of a call that worked on this run."""
    state = run_state(run)
    total = quarantined = 0
    if run.shards("embed"):
        with Ledger(run) as ledger:
            total, quarantined = ledger.counts()
    in_store = state not in ("created", "exported", "embedded")
    fields.setdefault("verdict", read_verdict(run))
    return RunResult(
        name, run.run_id, str(run.path), state, exported=total, quarantined=quarantined,
        loaded=total - quarantined if in_store else 0, spent=read_spent(run.path), **fields,
    )  # fmt: skip


def all_results(state: Path) -> list[RunResult]:
    """The newest run of every migration in a state directory, by name."""
    if not state.is_dir():
        return []
    runs = [(path, RunDir.latest(path)) for path in sorted(state.iterdir()) if path.is_dir()]
    return [
        run_result(path.name, run, messages=guard_messages(path))
        for path, run in runs
        if run is not None
    ]


def wrong_state(name: str, run: RunDir, state: State, *wanted: State) -> UsageError:
    """The refusal of a command that a run in this state cannot take."""
    instead = f", not {' or '.join(wanted)}" if wanted else ""
    return UsageError(
        f"{name}: run {run.run_id} is {state}{instead}",
        f"Next: {NEXT_STEP[state]}." if NEXT_STEP[state] else "",
    )
