"""What is folded below the first screen: every gate with its figures, stages, records left out, the
swap, the timeline and the manifest."""

from __future__ import annotations

import time

from reembed.display.markup import Child, Markup, h, join
from reembed.report.gather import Report
from reembed.report.html.drawing import plot_figure
from reembed.report.html.figures import Grid
from reembed.report.html.front import command
from reembed.report.html.gates import clip, count_of, gate_article, grid_table
from reembed.report.html.labels import label
from reembed.report.html.plots import bar_plot

Fold = tuple[str, str, str, Markup]
"""Anchor, heading, what it holds in a few words, and the content."""


def details(report: Report) -> Markup:
    """Everything that is folded, each part a line to open."""
    folds = [_fold(*one) for one in _folds(report)]
    heading = h("h2", "All details", id="details-title")
    return h("section", heading, folds, class_="details", aria_labelledby="details-title")


def _fold(anchor: str, title: str, note: str, content: Child) -> Markup:
    return h(
        "details",
        h("summary", h("h3", title), h("span", note, class_="muted")),
        h("div", content, class_="folded"), id=anchor,
    )  # fmt: skip


def _folds(report: Report) -> list[Fold]:
    folds: list[Fold] = []
    if report.verdict is not None:
        folds += [
            (f"gate-{index}", *gate_article(gate))
            for index, gate in enumerate(report.verdict.gates)
        ]
    if report.stages:
        folds.append(("stages", "Time and cost of each stage", "", _stages(report)))
    if report.foretold:
        folds.append(("foretold", "What the plan foretold", "", _foretold(report)))
    if report.quarantine:
        records = count_of(report.quarantined, "record")
        folds.append(("quarantine", "Records left out", records, _quarantine(report)))
    kind = str(report.swap.get("kind") or "")
    folds.append(("swap", "Swap and the way back", kind, _swap(report)))
    moments = [
        h("li", h("time", utc(m.t), datetime=iso(m.t)), h("bdi", clip(m.what)))
        for m in report.timeline
    ]
    folds.append(("timeline", "Timeline", count_of(len(moments), "step"),
                  h("ol", moments, class_="timeline")))  # fmt: skip
    if report.manifest:
        folds.append(("manifest", "Manifest, as run", "", h("pre", h("code", report.manifest))))
    return folds


def _stages(report: Report) -> Markup:
    stages = report.stages
    columns = ["stage", "seconds", "records", "records/s", "tokens", "requests", "retries"]
    rows = [
        [s.name, round(s.seconds, 2), s.records or None,
         round(s.records_per_second, 1) if s.records_per_second else None,
         *(int(s.stats[key]) if s.stats.get(key) else None
           for key in ("tokens", "requests", "retries"))]
        for s in stages
    ]  # fmt: skip
    if any(stage.usd is not None for stage in stages):
        columns.append("USD")
        rows = [[*row, stage.usd] for row, stage in zip(rows, stages, strict=True)]
    rates = {s.name: s.records_per_second for s in stages if s.records_per_second}
    plots = [plot_figure("Throughput", bar_plot("Records a second", rates, "/s"))] if rates else []
    notes: list[Child] = [
        h("p", f"{s.name}: {count_of(s.earlier, 'record')} made in calls that were stopped. Their "
               "time is not in the table.", class_="muted")
        for s in stages if s.earlier
    ]  # fmt: skip
    shown = [column for column, cells in zip(columns, zip(*rows, strict=True), strict=True)
             if any(cell is not None for cell in cells)]  # fmt: skip
    kept = [columns.index(column) for column in shown]
    rows = [[row[i] for i in kept] for row in rows]
    return join([grid_table(Grid([_column(name) for name in shown], rows), "stages"),
                 h("div", plots, class_="plots"), notes])  # fmt: skip


def _foretold(report: Report) -> Markup:
    rows = [
        [one.what, one.shown(one.foretold), one.shown(one.taken), one.times]
        for one in report.foretold
    ]
    columns = ["of", "foretold", "taken", "taken / foretold"]
    return grid_table(Grid(columns, rows), "what was foretold")


def _column(name: str) -> str:
    return "records" if name == "records" else label(name)


def _quarantine(report: Report) -> Markup:
    parts: list[Child] = [
        h("p", f"{count_of(report.quarantined, 'record')} not moved; quarantine.parquet holds "
               "each whole, with its reason."),
        grid_table(Grid(["reason", "count"], [[label(q.reason), q.count]
                                              for q in report.quarantine]), "records left out"),
    ]  # fmt: skip
    for found in report.quarantine:
        rows = [[id, detail] for id, detail in found.samples]
        parts.append(h("h4", f"{label(found.reason)}, e.g."))
        parts.append(grid_table(Grid(["id", "what was said"], rows), label(found.reason)))
    return join(parts)


def _swap(report: Report) -> Markup:
    swap, parts = report.swap, list[Child]()
    if swap.get("kind"):
        parts.append(h("p", "Kind of swap here: ", h("strong", str(swap["kind"])),
                       f", of the live name {swap.get('live', '')!r}."))  # fmt: skip
    if swap.get("guarantee"):
        parts.append(h("p", "What it guarantees: ", h("strong", str(swap["guarantee"])), "."))
    if swap.get("refused"):
        parts.append(h("p", f"As things stand it cannot be swapped: {swap['refused']}."))
        parts.append(h("p", str(swap.get("hint", "")), class_="muted"))
    if report.outcome == "refused":
        parts.append(
            h("p", "The live name was not moved, and will not be until every gate passes: the old "
                   "collection is still served.")
        )  # fmt: skip
    for step in report.commands:
        parts += [command(step.command), h("p", step.does, class_="muted")]
    return join(parts)


def utc(t: float) -> str:
    """A moment, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(t))


def iso(t: float) -> str:
    """A moment, for machines."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))
