"""Plans, results and verdicts for a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cutover.leftovers import Cleaned
from reembed.progress import human_bytes, human_time
from reembed.quality.conclusion import conclude
from reembed.quality.remedies import Remedy
from reembed.quality.verdict import Verdict
from reembed.report.results import RunResult, SwapResult
from reembed.run.loss import Loss
from reembed.run.steps import Step
from reembed.stages.estimate import Estimate
from reembed.stages.plan import Plan
from reembed.stages.weigh import Problem

STATUS_STYLE = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "shown": "cyan"}
TONE_STYLE: dict[str, str] = {"good": "bold green", "caution": "bold yellow", "bad": "bold red"}
NEEDS_WORD = (
    "if that was not meant, restore them; a command that would go on with it asks for --accept-loss"
)


def plan_text(plan: Plan) -> RenderableType:
    """What a run would do, as a table, then warnings and blockers."""
    table = pairs(f"plan of {plan.name}")
    source, estimate = plan.source, plan.estimate
    table.add_row("source", f"{source.name}: {plan.records:,} records, {source.dimensions} "
                            f"dimensions, {source.metric}")  # fmt: skip
    if plan.old_model is not None:
        said, believed = plan.old_model["said"], plan.old_model["believed"]
        named = f"{said.get('provider')} {said.get('name')}, as the store says"
        if "given" in plan.old_model:
            named, believed = f"{plan.old_model['given']}, as the manifest says", True
        table.add_row("made by", Text(named if believed else f"{named}; not believed, see below"))
    table.add_row("target", f"{plan.target}: {plan.dimensions} dimensions, {plan.metric}")
    table.add_row("store", plan.target_url)
    if plan.runs_on:
        table.add_row("runs on", Text(plan.runs_on))
    if plan.kept:
        table.add_row("vectors", "kept as they are: nothing is embedded, so nothing to pay")
    else:
        _add_tokens(table, plan)
    if plan.example:
        table.add_row("embeds", Text(f"e.g. {plan.example}"))
    if estimate.requests:
        table.add_row("requests", f"about {estimate.requests:,} to embed")
    if estimate.usd is not None and not plan.kept:
        table.add_row("cost", f"${estimate.usd:,.4f} at the price of {estimate.price_as_of}")
    if plan.budget.max_cost is not None or plan.budget.max_tokens_total is not None:
        table.add_row("budget", str(plan.budget))
    if estimate.seconds is not None or estimate.stage_seconds:
        table.add_row("time", _time_text(estimate))
    if estimate.memory_bytes:
        table.add_row("memory", f"about {human_bytes(estimate.memory_bytes)}")
    held = human_bytes(estimate.store_bytes) if estimate.store_bytes else "an unknown size"
    table.add_row("disk", f"{human_bytes(estimate.state_bytes)} for the run, {held} for the store")
    if plan.swap:
        table.add_row("swap", f"{plan.swap.kind} of {plan.swap.live!r}: {plan.swap.guarantee}")
    for command in plan.executes:
        table.add_row("executes", command)
    lines = warnings_text(plan.warnings)
    lines += [
        problem_text("lost", "bold red", Problem(str(loss), NEEDS_WORD)) for loss in plan.losses
    ]
    lines += [problem_text("blocked", "bold red", problem) for problem in plan.blockers]
    if plan.application_config is not None:
        lines.append(Text("the configuration to deploy with the swap:", "bold"))
        lines.append(Text(plan.application_config.rstrip()))
    if plan.ok:
        lines.append(Text("nothing blocks it", "green"))
    return Group(table, *lines)


def _time_text(estimate: Estimate) -> str:
    """Of each stage that takes any."""
    each = {"embed": estimate.seconds or 0.0} | estimate.stage_seconds
    told = [f"{human_time(took)} to {stage}" for stage, took in each.items() if took >= 1]
    whole = f"about {human_time(sum(each.values()))}"
    return f"{whole}: {', '.join(told)}" if told else whole


def _add_tokens(table: Table, plan: Plan) -> None:
    estimate = plan.estimate
    whole = estimate.sampled >= plan.records
    about = ("" if whole else "about ") if estimate.exact_tokens else "at most about "
    seen = "in all" if whole else f"estimated from {estimate.sampled:,} of"
    paid = max(0, estimate.tokens - estimate.new_tokens)
    told = f"; about {paid:,} of them are paid for already" if paid else ""
    table.add_row("tokens", f"{about}{estimate.tokens:,}, {seen} {plan.records:,} records{told}")


def result_text(result: RunResult) -> RenderableType:
    """Where a run stands, with its verdict."""
    table = pairs(f"{result.name} {result.run}".strip())
    table.add_row("state", result.state)
    if result.exported:
        table.add_row("records", f"{result.exported:,} exported = {result.loaded:,} loaded + "
                                 f"{result.quarantined:,} quarantined")  # fmt: skip
    _add_standing(table, result)
    _add_losses(table, result.losses)
    for message in result.messages:
        table.add_row("", message)
    parts: list[RenderableType] = [table, unbroken(f" run      {result.path}")]
    if result.verdict:
        parts.append(verdict_text(result.verdict, result.remedies))
    if result.swap:
        parts.append(_moved_text(result.swap))
    return Group(*parts, *steps_text([] if result.now else result.steps))


def _add_standing(table: Table, result: RunResult) -> None:
    """Who is at work, and how far each stage is."""
    if result.now is not None:
        table.add_row("at work", Text(result.now.holder))
    for stage in result.stages:
        table.add_row(stage.stage, f"{stage.done:,} of {stage.shards:,} shards done")
    for line in result.now.lines if result.now else ():
        table.add_row("now", Text(line))


def steps_text(steps: Sequence[Step]) -> list[RenderableType]:
    """What to type next, the natural command first."""
    lines: list[RenderableType] = []
    for number, step in enumerate(steps):
        line = unbroken("next: " if number == 0 else "or:   ", "bold" if number == 0 else "dim")
        line.append(step.command, "default")
        line.append(f"   # {step.does}", "dim")
        lines.append(line)
    return lines


def verdict_text(verdict: Verdict, ways: Sequence[Remedy] = ()) -> RenderableType:
    """What the verdict comes to, a line a gate with what was found, and what makes it pass."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for gate in verdict.gates:
        table.add_row(Text(gate.status, STATUS_STYLE[gate.status]), gate.name, Text(gate.message))
        for kind, samples in gate.samples.items():
            if samples:
                table.add_row("", "", Text(f"{kind}: {', '.join(samples[:5])}", "dim"))
    found = conclude(verdict)
    heading = Text(f"verdict: {found.headline}", TONE_STYLE[found.tone])
    return Group(heading, table, *ways_text(ways))


def ways_text(ways: Sequence[Remedy]) -> list[RenderableType]:
    """What makes the gates pass that are in the way."""
    return [
        Text("to pass: " if place == 0 else "or:      ", "bold").append(str(way), "default")
        for place, way in enumerate(ways)
    ]


def swap_text(result: SwapResult) -> RenderableType:
    """What a swap, rollback, sweep or clean did or would do, and what to type next."""
    if result.done:
        return Group(_moved_text(result), *steps_text(result.steps))
    do_it = "Leave --dry-run out" if result.action == "sweep" else "Add --yes"
    lines = [Text(f"Nothing was done. {do_it} to do it.", "bold")]
    steps = [one for one in result.steps if one.command.startswith(f"reembed {result.action} ")]
    return Group(_moved_text(result), *lines, *steps_text(steps))


def _moved_text(result: SwapResult) -> RenderableType:
    table = pairs(result.action if result.done else f"{result.action} (dry run)")
    if result.action in ("swap", "rollback"):
        table.add_row(result.live, _names_text(result))
    if result.kind:
        table.add_row("kind", f"{result.kind}: {result.guarantee}")
    if result.gap_seconds is not None:
        table.add_row("gap", f"{result.gap_seconds * 1000:.1f} ms measured")
    if result.held_seconds is not None:
        table.add_row("hold", f"writers waited {result.held_seconds:.2f} s, measured")
    if result.done and result.action == "sweep":
        table.add_row("writes", f"{result.swept:,} copied")
    elif result.done and result.action != "clean":
        table.add_row("writes", f"{result.caught_up:,} copied before the switch, {result.swept:,} "
                                "after")  # fmt: skip
    if result.conflicts:
        table.add_row("not copied", f"{len(result.conflicts):,} that the live collection changed "
                                    f"itself, e.g. {', '.join(result.conflicts[:5])}")  # fmt: skip
    if result.lost:
        table.add_row("lost", f"{len(result.lost):,} rows, e.g. {', '.join(result.lost[:5])}")
    _add_losses(table, result.losses)
    for message in result.messages:
        table.add_row("", message)
    return table


def cleaned_text(result: Cleaned) -> RenderableType:
    """What a database has brought along, and was removed or would be."""
    table = pairs("clean" if result.done else "clean (dry run)")
    for one in result.leftovers:
        table.add_row(one.kind, f"{one.name}: {one.about}")
    if not result.leftovers:
        return Text("This database holds nothing that runs had left in one that it is a copy of.")
    if result.done:
        return Group(table, Text(f"Removed {len(result.leftovers):,}."))
    return Group(table, Text("Nothing was done. Add --yes to remove all of this.", "bold"))


def _names_text(result: SwapResult) -> str:
    """Which collection the live name serves, and what the other one is called."""
    if result.kind == "config":
        ready = "is" if result.done else "would be"
        return f"no name moves; {result.collection} {ready} ready for the application"
    if result.done:
        kept = f"; the previous collection is kept as {result.parked}"
        return f"now serves {result.collection}{kept}"
    return (
        f"would serve {result.collection}; the present collection would be kept as {result.parked}"
    )


def _add_losses(table: Table, losses: list[Loss]) -> None:
    for loss in losses:
        table.add_row("lost", Text(f"{loss}: {NEEDS_WORD}", "bold red"))


def when(seconds: float) -> str:
    """A moment in this machine's time zone."""
    return time.strftime("%F %T", time.localtime(seconds))


def pairs(title: str) -> Table:
    """A table of names and what is to be said of each."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def unbroken(text: str, style: str = "") -> Text:
    """A line that is to be copied: the terminal breaks it, if it is longer, and not we."""
    return Text(text, style, no_wrap=True, overflow="ignore")


def warnings_text(problems: Sequence[Problem]) -> list[RenderableType]:
    """What is only worth knowing, and then what somebody should look at."""
    told = sorted(problems, key=lambda one: not one.note)
    return [
        problem_text("note", "dim", one) if one.note else problem_text("warning", "yellow", one)
        for one in told
    ]


def problem_text(label: str, style: str, problem: Problem) -> Text:
    """A warning or a blocker, with its way out."""
    text = Text(f"{label}: ", style)
    text.append(problem.message, "default")
    if problem.hint:
        text.append(f"\n  {problem.hint}", "dim")
    return text
