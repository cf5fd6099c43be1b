"""What commands say of several collections: a line each, then what they make together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.text import TONE_STYLE, pairs, problem_text, steps_text, warnings_text, ways_text
from reembed.errors import ReembedError
from reembed.migration.group.alike import together
from reembed.migration.group.folded import common_messages, folded
from reembed.migration.group.report import concluded, needs_a_look, verdict_of
from reembed.migration.group.results import GroupPlan, GroupResult, GroupSwap, MemberSwap, Planned
from reembed.stages.weigh import Problem


def text_of(result: GroupPlan | GroupResult | GroupSwap) -> Callable[[Any], RenderableType]:
    """How it is shown."""
    if isinstance(result, GroupPlan):
        return group_plan_text
    return group_text if isinstance(result, GroupResult) else group_swap_text


def group_plan_text(plan: GroupPlan) -> RenderableType:
    """What a run would do with each collection, then warnings and blockers."""
    lines = _table("collection", "records", "from", "to", "target")
    few = folded(plan.members, lambda one: bool(one.blockers), _plan_kind)
    for one in few.shown:
        lines.add_row(one.collection, *_planned(one))
    totals = pairs(f"plan of {plan.name}")
    _add_rest(totals, few.rest)
    totals.add_row("in all", f"{len(plan.members):,} collections, {plan.records:,} records")
    totals.add_row("tokens", f"{plan.tokens:,} to be paid for")
    if plan.usd is not None:
        totals.add_row("cost", f"${plan.usd:,.4f}")
    if plan.budget.max_cost is not None or plan.budget.max_tokens_total is not None:
        totals.add_row("budget", f"{plan.budget}, of all collections together")
    totals.add_row("swap", plan.together)
    told = warnings_text(plan.warnings)
    blocked = [("blocked", problem) for problem in plan.blockers]
    blocked += [(f"blocked: {one.collection}", each) for one in few.shown for each in one.blockers]
    told += [problem_text(label, "bold red", Problem(each.message)) for label, each in blocked]
    told.append(
        Text("nothing blocks it", "green") if plan.ok else Text(f"  {plan.refusal().hint}", "dim")
    )
    return Group(lines, totals, *told)


def _plan_kind(one: Planned) -> str:
    if one.blockers:
        return "blocked"
    return "left as they are" if one.aside else "empty" if one.plan is None else "to be moved"


def _add_rest(totals: Table, rest: str) -> None:
    """What is told of members without a line."""
    if rest:
        totals.add_row("", f"{rest} (--json has them all)")


def _planned(one: Planned) -> tuple[str, ...]:
    if one.plan is None:
        return ("", "", "", one.note or "blocked, see below")
    source, target = one.plan.source, one.plan
    blocked = " (blocked, see below)" if one.blockers else ""
    return (f"{target.records:,}", str(source.dimensions), str(target.dimensions),
            f"{target.target}{blocked}")  # fmt: skip


def group_text(result: GroupResult) -> RenderableType:
    """Where each collection stands, and all of them."""
    lines = _table("collection", "records", "quarantined", "state", "verdict")
    few = folded(result.members, needs_a_look, lambda one: one.result.state)
    for one in few.shown:
        lines.add_row(
            one.collection, f"{one.result.exported:,}", f"{one.result.quarantined:,}",
            one.result.state, Text(verdict_of(one)),
        )  # fmt: skip
    totals = pairs(f"{result.name} {result.run}".strip())
    _add_rest(totals, few.rest)
    totals.add_row("state", result.state)
    totals.add_row("in all", f"{len(result.members):,} collections, {result.exported:,} records "
                             f"exported = {result.loaded:,} loaded + {result.quarantined:,} "
                             "quarantined")  # fmt: skip
    if result.spent.tokens:
        totals.add_row("spent", str(result.spent))
    totals.add_row("run", result.path)
    for message in result.messages:
        totals.add_row("", message)
    parts: list[RenderableType] = [lines, totals]
    if result.passed is not None:
        mood, headline = concluded(result)
        parts.append(Text(f"verdict on all: {headline}", TONE_STYLE.get(mood, "bold")))
        parts += ways_text(result.remedies)
    failed = together({one.collection: one.error for one in result.members if one.error},
                      len(result.members))  # fmt: skip
    parts += [_failed(failed)] if failed else []  # gates have their ways above
    if result.swap:
        parts.append(_swap_parts(result.swap))
    return Group(*parts, *steps_text(result.steps))


def group_swap_text(result: GroupSwap) -> RenderableType:
    """What was done with each collection or would be, and what to type next."""
    parts = _swap_parts(result)
    if result.error:
        return Group(parts, _failed(result.error))
    if result.done:
        return Group(parts, *steps_text(result.steps))
    do_it = "Leave --dry-run out" if result.action == "sweep" else "Add --yes"
    return Group(parts, Text(f"Nothing was done. {do_it} to do it.", "bold"))


def _failed(error: ReembedError) -> Text:
    return problem_text("failed", "bold red", Problem(error.message, error.hint))


def _swap_parts(result: GroupSwap) -> RenderableType:
    serves = "now serves" if result.done else "would serve"
    lines = _table("collection", serves, "the other", "writes copied", "")
    alike, own = common_messages(result.members)
    told = {one.collection: _told(one, own[one.collection]) for one in result.members}
    few = folded(
        result.members, lambda one: bool(one.error or told[one.collection]),
        lambda one: "failed" if one.error else "alike",
    )  # fmt: skip
    for one in few.shown:
        lines.add_row(one.collection, *_swapped(one, told[one.collection]))
    totals = pairs(result.action if result.done else f"{result.action} (dry run)")
    _add_rest(totals, few.rest)
    totals.add_row("in all", f"{len(result.members):,} collections")
    if result.together:
        totals.add_row("how", result.together)
    for message in [*alike, *result.messages]:
        totals.add_row("", message)
    return Group(lines, totals)


def _told(one: MemberSwap, messages: list[str]) -> list[str]:
    """What is told of one collection alone."""
    found, told = one.result, list(messages)
    if found is None:
        return told
    if found.conflicts:
        told.append(f"{len(found.conflicts):,} not copied: the live collection changed them itself")
    if found.lost:
        told.append(f"{len(found.lost):,} rows lost")
    return told + [str(loss) for loss in found.losses]


def _swapped(one: MemberSwap, told: list[str]) -> tuple[RenderableType, ...]:
    if one.result is None:
        return ("", "", "", Text(one.error.message if one.error else "", "bold red"))
    found = one.result
    moved = found.action in ("swap", "rollback")
    written = f"{found.caught_up + found.swept:,}" if found.done else ""
    return (found.collection if moved else "", found.parked, written, Text("; ".join(told)))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(
            column, justify="right" if column in ("records", "quarantined") else "left",
            overflow="fold",
        )  # fmt: skip
    return table
