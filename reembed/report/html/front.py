"""The first screen: verdict, old against new, what to type next, what was checked, time and cost.

Whoever reads nothing else can decide here. All figures are below, folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reembed.display.markup import Child, Markup, h, join
from reembed.quality.conclusion import check
from reembed.quality.remedies import Remedy
from reembed.quality.verdict import Gate, Status
from reembed.report.gather import Mood, Report
from reembed.report.html.charts import quality_chart, time_chart
from reembed.report.html.figures import as_span, number, show
from reembed.report.timeline import human_seconds
from reembed.run.steps import Step

SIGN: dict[Mood, str] = {
    "good": "\N{CHECK MARK}", "caution": "!", "bad": "\N{MULTIPLICATION SIGN}",
    "none": "\N{HORIZONTAL ELLIPSIS}",
}  # fmt: skip
SYMBOL: dict[Status, str] = {
    "pass": "\N{CHECK MARK}", "fail": "\N{MULTIPLICATION SIGN}", "inconclusive": "?", "shown": "!",
}  # fmt: skip
STILL_OLD = "The live name was not moved: applications still search the old collection."
SHOWN_ONLY = ("overlap", "vectors", "latency", "scores")
"""Gates that only inform: no line among what was checked."""


def verdict_banner(mood: Mood, headline: str, sentence: str) -> Markup:
    """The verdict, as the page's heading."""
    return h(
        "section",
        h("span", SIGN[mood], class_="sign", aria_hidden="true"),
        h("div", h("h1", sentence_case(headline), id="verdict"),
          h("p", ticked(sentence), class_="lead")),
        class_=f"verdict {mood}", aria_labelledby="verdict",
    )  # fmt: skip


def card(title: str, content: Child, kind: str) -> Markup:
    """A part of the first screen."""
    return h("section", h("h2", title, id=f"{kind}-title"), content, class_=f"card {kind}",
             aria_labelledby=f"{kind}-title")  # fmt: skip


def front(report: Report) -> Markup:
    """Everything above what is folded, but for the examples."""
    steps = next_steps(report.remedies, report.commands)
    cards = [
        card("Old against new", _compared(report), "compared"),
        card("What to do next", steps, "next"),
    ]
    checks = _checks(report)
    if checks is not None:
        cards.append(card("What was checked", checks, "checks"))
    if report.stages:
        cards.append(card("Time and cost", _cost(report), "cost"))
    return join([verdict_banner(report.mood, report.headline, report.sentence),
                 h("div", cards, class_="cards")])  # fmt: skip


def next_steps(ways: Sequence[Remedy], steps: Sequence[Step]) -> Markup:
    """The next command and the way back; where the swap is refused, what makes it pass.

    Args:
        ways: what makes the gates pass that are in the way.
        steps: the commands that can be taken now, the natural next one first.
    """
    parts: list[Child] = []
    for place, way in enumerate(ways):
        does = f"{'or ' if place else ''}{way.does or 'type'}"
        parts += [h("p", ticked(sentence_case(does)), ":", class_="does"), command(way.command)]
    if ways:
        return join([*parts, h("p", STILL_OLD, class_="muted")])
    if not steps:
        return h("p", "This migration is done. There is nothing left to do.")
    return join((h("p", sentence_case(step.does), class_="does"), command(step.command))
                for step in steps[:2])  # fmt: skip


def command(text: str) -> Markup:
    """A command to copy, whose options are not torn where a line ends."""
    parts = [
        h("span", part, class_="whole") if part.startswith("--") else part
        for part in re.split(r"((?<!\S)--\S+)", text)
    ]
    return h("pre", h("code", parts))


def ticked(text: str) -> list[Child]:
    """A sentence whose manifest keys (`verify.margin: 0.05`) are set as code."""
    keys = re.compile(r"((?:verify|model|target|source|embed|swap)\.[a-z_.]+(?:: [\w.]+)?|`[^`]+`)")
    return [h("code", part.strip("`")) if keys.fullmatch(part) else part
            for part in keys.split(text)]  # fmt: skip


def sentence_case(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def percent(value: float) -> str:
    """`92.0 %`."""
    return f"{value * 100:.1f} %"


# Old against new


def _compared(report: Report) -> Markup:
    figures = {gate.name: gate.figures for gate in (report.verdict.gates if report.verdict else ())}
    recall = figures.get("recall", {})
    sides = {side: value for side in ("old", "new") if (value := number(recall, side)) is not None}
    parts: list[Child] = []
    span = as_span(recall.get("difference"))
    if span is not None and len(sides) == 2:
        found = {name: as_span((recall.get("metrics") or {}).get("recall", {}).get(name))
                 for name in sides}  # fmt: skip
        title = f"Right record among the first {show(recall.get('k'))} answers"
        chart = quality_chart(title, sides, found, span, number(recall, "margin"))
        parts.append(h("figure", h("figcaption", title), chart))
    rows = [(name, old, new) for name, old, new in _rows(report, figures) if old or new]
    body = [h("tr", h("th", name, scope="row"), *(h("td", h("bdi", value or "\N{EN DASH}"))
                                                  for value in (old, new)))
            for name, old, new in rows]  # fmt: skip
    head = h("tr", h("th", h("span", "what", class_="unseen"), scope="col"),
             h("th", "old", scope="col"), h("th", "new", scope="col", class_="accent"))  # fmt: skip
    parts.append(h("table", h("thead", head), h("tbody", body), class_="sides-table"))
    return join(parts)


def _rows(report: Report, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    old, new = report.old_model, report.model
    source = report.source
    latency = figures.get("latency", {})
    old_time, new_time = (_milliseconds(latency.get(side)) for side in ("old", "new"))
    before, after = source.get("dimensions"), report.dimensions
    return [
        ("model", _model(old) or "not recorded", "the same: vectors kept" if report.kept
         else _model(new)),
        ("called with", _called(old), _called(new)),
        ("runs on", "", report.runs_on),
        ("collection", str(source.get("name", "")), report.target),
        ("records", _records(source.get("count") or report.exported), _records(report.loaded)),
        ("dimensions", show(before) if before else "", show(after) if after else ""),
        ("vectors", _size(report.exported, before), _size(report.loaded, after)),
        ("one search", old_time, new_time),
    ]  # fmt: skip


def _milliseconds(times: Any) -> str:
    median = number(times or {}, "median")
    return "" if median is None else f"{median:.1f} ms"


def _model(model: Mapping[str, Any]) -> str:
    name = str(model.get("name") or "")
    return f"{name.removeprefix('package:')} ({model.get('provider')})" if name else ""


def _called(model: Mapping[str, Any]) -> str:
    """The prefixes that a model is called with; empty without any."""
    parts = [f"{what} \N{LEFT DOUBLE QUOTATION MARK}{model[key]}\N{RIGHT DOUBLE QUOTATION MARK}"
             for key, what in (("document_prefix", "texts"), ("query_prefix", "questions"))
             if model.get(key)]  # fmt: skip
    return ", ".join(parts)


def _records(count: Any) -> str:
    return show(count) if count else ""


def _size(records: int, dimensions: Any) -> str:
    if not (records and dimensions):
        return ""
    size, unit = records * int(dimensions) * 4 / 1e3, "kB"
    for larger in ("MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:,.3g} {unit}"


# What was checked


def _checks(report: Report) -> Markup | None:
    if report.verdict is None:
        return None
    lines = [_check(gate, index) for index, gate in enumerate(report.verdict.gates)
             if gate.name not in SHOWN_ONLY]  # fmt: skip
    if report.quarantined and report.verdict.passed:
        records = "record was" if report.quarantined == 1 else "records were"
        mark = h("span", "!", class_="mark caution", aria_hidden="true")
        words = f"{report.quarantined:,} {records} left out"
        link = h("a", words, href="#quarantine") if report.quarantine else h("span", words)
        lines.append(h("li", mark, link))
    return h("ul", lines, class_="checklist")


def _check(gate: Gate, index: int) -> Markup:
    tone = {"pass": "good", "shown": "caution"}.get(gate.status, "bad")
    words = {"pass": "passed: ", "shown": "to know: "}.get(gate.status, f"{gate.status}: ")
    return h(
        "li", h("span", SYMBOL.get(gate.status, "?"), class_=f"mark {tone}", aria_hidden="true"),
        h("a", h("span", words, class_="unseen"), sentence_case(check(gate)),
          href=f"#gate-{index}"),
    )  # fmt: skip


# Time and cost


def _cost(report: Report) -> Markup:
    stages = report.stages
    seconds = sum(stage.seconds for stage in stages)
    tokens = int(sum(stage.stats.get("tokens", 0) for stage in stages))
    usd = [stage.usd for stage in stages if stage.usd is not None]
    facts: list[tuple[str, str]] = [("time", human_seconds(seconds))]
    if tokens:
        facts.append(("tokens", f"{tokens:,}"))
    facts.append(("cost", f"${sum(usd):,.4f}" if usd else _no_price(report)))
    verified = any(stage.name == "verify" for stage in stages)
    return join([
        h("dl", [h("div", h("dt", name), h("dd", value)) for name, value in facts], class_="facts"),
        time_chart("Time of each stage", {stage.name: stage.seconds for stage in stages}),
        h("p", "Verification is included." if verified else "Verification is not included: it has "
          "not run yet.", class_="muted"),
    ])  # fmt: skip


def _no_price(report: Report) -> str:
    if report.kept:
        return "nothing: vectors kept"
    local = report.model.get("provider") in LOCAL
    return "none (local)" if local else "no known price"


LOCAL: Sequence[str] = ("onnx", "static", "sentence-transformers", "fastembed")
