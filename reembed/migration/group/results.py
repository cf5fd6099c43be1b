"""What the commands of a group return: a line for each collection, and what they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from reembed.display.markup import Child
from reembed.display.shown import Face, Shown, code, lines, parts
from reembed.embedders.spending import Budget, Spent
from reembed.errors import PreflightError, ReembedError
from reembed.migration.group.alike import hints_of, together
from reembed.quality.remedies import Remedy, remedies
from reembed.report.results import RunResult, SwapResult
from reembed.run.history import State
from reembed.run.steps import Step
from reembed.stages.plan import Plan
from reembed.stages.weigh import Problem

SHOWN = 20
"""Collections that a notebook shows."""
_ORDER: tuple[State, ...] = (
    "cleaning", "rolling back", "swapping", "name lost", "created", "exported", "embedded",
    "loaded", "failed", "verified", "rolled back", "swapped", "cleaned",
)  # fmt: skip
"""The state of a group is the first of these that one of its members has."""


def state_of(members: Sequence[State]) -> State:
    """How far all members came."""
    return min(members, key=_ORDER.index, default="created")


def _few(each: list[tuple[str, str]]) -> list[tuple[str, Child]]:
    """The rows of members, of which there may be thousands."""
    more = [("…", f"{len(each) - SHOWN:,} more")] if len(each) > SHOWN else []
    return [*each[:SHOWN], *more]


@dataclass(frozen=True)
class Planned:
    """One collection of a plan: what a run of it would do, or why there is none.

    Attributes:
        note: what is done instead where no plan is made.
        aside: whether it is left as it is.
    """

    collection: str
    plan: Plan | None = None
    blockers: list[Problem] = field(default_factory=list)
    note: str = ""
    aside: bool = False

    def to_dict(self) -> dict[str, Any]:
        plan = self.plan.to_dict() if self.plan else None
        blockers = [asdict(problem) for problem in self.blockers]
        return {"collection": self.collection, "ok": not self.blockers, "note": self.note,
                "blockers": blockers, "plan": plan}  # fmt: skip


@dataclass(frozen=True, repr=False)
class GroupPlan(Shown):
    """What a run of several collections would do.

    Attributes:
        blockers: of the group as a whole; those of members are theirs.
        warnings: those of members that are alike are one, with the number of members.
        together: how all names move.
    """

    name: str
    members: list[Planned]
    budget: Budget
    together: str = ""
    warnings: list[Problem] = field(default_factory=list)
    blockers: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.blockers and not any(member.blockers for member in self.members)

    @property
    def plans(self) -> list[Plan]:
        return [member.plan for member in self.members if member.plan]

    @property
    def records(self) -> int:
        return sum(plan.records for plan in self.plans)

    @property
    def tokens(self) -> int:
        """That are to be paid for."""
        return sum(plan.estimate.new_tokens for plan in self.plans)

    @property
    def usd(self) -> float | None:
        found = [plan.estimate.usd for plan in self.plans if plan.estimate.usd is not None]
        return sum(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "ok": self.ok, "records": self.records, "new_tokens": self.tokens,
            "usd": self.usd, "together": self.together, "budget": asdict(self.budget),
            "warnings": [asdict(problem) for problem in self.warnings],
            "blockers": [asdict(problem) for problem in self.blockers],
            "members": [member.to_dict() for member in self.members],
        }  # fmt: skip

    def _face(self) -> Face:
        way = "nothing in the way" if self.ok else "blocked"
        each = [(one.collection, f"{one.plan.records:,} records" if one.plan else one.note)
                for one in self.members]  # fmt: skip
        told = [*self.blockers, *(found for one in self.members for found in one.blockers)]
        blocked: list[tuple[str, Child]] = [
            ("in the way", lines(f"{one.message}. {one.hint}" for one in told)),
            ("warnings", lines(one.message for one in self.warnings)),
        ]  # fmt: skip
        counts = f"{len(self.members):,} collections, {self.records:,} records"
        return Face(
            f"{self.name}: {counts}, {self.tokens:,} tokens, {way}", [*blocked, *_few(each)]
        )

    def refusal(self) -> PreflightError:
        """All blockers as one error, which names every blocked collection."""
        lines = [problem.message for problem in self.blockers]
        hints = [("", problem.hint) for problem in self.blockers]
        blocked = [member for member in self.members if member.blockers]
        for member in blocked:
            told = "; ".join(problem.message for problem in member.blockers)
            lines.append(f"{member.collection}: {told}")
            hints += [(member.collection, problem.hint) for problem in member.blockers]
        head = f"{len(blocked)} of {len(self.members)} collections are blocked:\n  "
        hint = hints_of(hints)
        if blocked:
            between = "\n  " if "\n" in hint else " "
            hint += f"{between}Or leave them out with source.except."
        return PreflightError((head if blocked else "") + "\n  ".join(lines), hint)


@dataclass(frozen=True)
class MemberResult:
    """Where one collection stands, or the error that its part of the call ended with."""

    collection: str
    result: RunResult
    error: ReembedError | None = None

    @classmethod
    def of(cls, collection: str, result: RunResult) -> MemberResult:
        """As it is kept until the end of the call: there may be a thousand."""
        packed = result.verdict.packed() if result.verdict else None
        return cls(collection, replace(result, verdict=packed))

    def to_dict(self) -> dict[str, Any]:
        document = {"collection": self.collection} | self.result.to_dict()
        return document | ({"error": self.error.to_dict()} if self.error else {})


@dataclass(frozen=True, repr=False)
class GroupResult(Shown):
    """Where a group stands, and what the call did; the totals are over its members.

    Attributes:
        path: run directory of the group, which holds those of its members.
        swap: what the swap did, where this call swapped.
        unchanged: with `if_changed`: nothing had changed in any of them.
        manifest: path of the manifest, as commands name it.
    """

    name: str
    run: str
    path: str
    state: State
    members: list[MemberResult] = field(default_factory=list)
    swap: GroupSwap | None = None
    messages: list[str] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    unchanged: bool = False
    steps: list[Step] = field(default_factory=list)
    manifest: str = ""

    @property
    def next(self) -> str:
        return self.steps[0].command if self.steps else ""

    @property
    def exported(self) -> int:
        return sum(member.result.exported for member in self.members)

    @property
    def quarantined(self) -> int:
        return sum(member.result.quarantined for member in self.members)

    @property
    def loaded(self) -> int:
        return sum(member.result.loaded for member in self.members)

    @property
    def passed(self) -> bool | None:
        """The verdict on all of them: None until each has one."""
        verdicts = [member.result.verdict for member in self.members]
        if not verdicts or any(verdict is None for verdict in verdicts):
            return None
        return all(verdict is not None and verdict.passed for verdict in verdicts)

    @property
    def error(self) -> ReembedError | None:
        """What failed, and gates that did, as one error; None if nothing did."""
        errors = {m.collection: e for m in self.members if (e := m.error or m.result.error)}
        return together(errors, len(self.members))

    @property
    def remedies(self) -> list[Remedy]:
        """What makes the gates pass that are in the way, each once."""
        verdicts = [member.result.verdict for member in self.members]
        found = [way for v in verdicts if v for way in remedies(v, self.manifest)]
        return list({(way.does, way.command): way for way in found}.values())

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return 3 if self.quarantined else 0

    def to_dict(self) -> dict[str, Any]:
        verdicts = {m.collection: v.passed for m in self.members if (v := m.result.verdict)}
        document = {
            "name": self.name, "run": self.run, "path": self.path, "state": self.state,
            "next": self.next, "steps": [step.to_dict() for step in self.steps],
            "exported": self.exported, "quarantined": self.quarantined, "loaded": self.loaded,
            "exit_code": self.exit_code, "unchanged": self.unchanged, "messages": self.messages,
            "spent": asdict(self.spent), "remedies": [way.to_dict() for way in self.remedies],
            "verdict": {"passed": self.passed, "members": verdicts} if verdicts else None,
            "swap": self.swap.to_dict() if self.swap else None,
            "members": [member.to_dict() for member in self.members],
        }  # fmt: skip
        return document | ({"error": self.error.to_dict()} if self.error else {})

    def _face(self) -> Face:
        counts = f"{len(self.members):,} collections"
        counts += f", {self.exported:,} records" if self.exported else ""
        each = [(one.collection, one.error.message if one.error else one.result.state)
                for one in self.members]  # fmt: skip
        return Face(f"{self.name}: {self.state}, {counts}", [
            ("told", lines(self.messages)), ("next", code(self.next)), *_few(each),
        ])  # fmt: skip


@dataclass(frozen=True)
class MemberSwap:
    """What a swap, rollback, sweep or clean did to one collection, or the error it ended with."""

    collection: str
    result: SwapResult | None = None
    error: ReembedError | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "result": self.result.to_dict() if self.result else None,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, repr=False)
class GroupSwap(Shown):
    """What a swap, rollback, sweep or clean of several collections did.

    Attributes:
        done: False for a dry run.
        together: how the names moved, in words.
    """

    action: str
    run: str
    done: bool
    members: list[MemberSwap]
    together: str = ""
    messages: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def error(self) -> ReembedError | None:
        errors = {member.collection: member.error for member in self.members if member.error}
        return together(errors, len(self.members))

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0

    def to_dict(self) -> dict[str, Any]:
        document = {
            "action": self.action, "run": self.run, "done": self.done, "together": self.together,
            "messages": self.messages, "steps": [step.to_dict() for step in self.steps],
            "members": [member.to_dict() for member in self.members],
        }  # fmt: skip
        return document | ({"error": self.error.to_dict()} if self.error else {})

    def _face(self) -> Face:
        each = [
            (one.collection, one.error.message if one.error else
             f"leads to {one.result.collection!r}" if one.result else "")
            for one in self.members
        ]  # fmt: skip
        action = self.action if self.done else f"{self.action} (dry run)"
        failed = f"{sum(bool(one.error) for one in self.members):,} failed" if self.error else ""
        return Face(parts(action, f"{len(self.members):,} collections", failed), [
            ("how", self.together), ("told", lines(self.messages)),
            ("next", code(self.steps[0].command if self.steps else "")), *_few(each),
        ])  # fmt: skip
