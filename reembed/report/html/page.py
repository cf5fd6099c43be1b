"""The report as one HTML page: no script, no font, no picture, nothing that is fetched.

Its style sheet is inlined and named by its hash in the page's Content-Security-Policy, which allows
nothing else, so that whatever a record's id or text holds cannot run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from importlib import resources

from reembed.report.gather import Outcome, Report
from reembed.report.html.drawing import plot_figure
from reembed.report.html.figures import Grid, label, show
from reembed.report.html.gates import clip, count_of, gate_article, gates_table, grid_table
from reembed.report.html.markup import Child, Markup, h, join
from reembed.report.html.plots import bar_plot
from reembed.report.timeline import human_seconds

BANNER: dict[Outcome, tuple[str, str]] = {
    "pass": ("\N{CHECK MARK}", "Pass"),
    "refused": ("\N{BALLOT X}", "The swap is refused"),
    "none": ("\N{EN DASH}", "No verdict yet"),
}
Section = tuple[str, str, Markup]
"""Anchor, heading and content."""


def page_head(title: str) -> Markup:
    """The head of a page of ours: its style, and a policy that allows nothing else."""
    style = resources.files("reembed.report.html").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", f"{title} · reembed"),
        h("style", Markup(style)),
    )


def page(report: Report) -> str:
    """The whole document."""
    sections = _sections(report)
    head = page_head(f"{report.name}: {BANNER[report.outcome][1].lower()}")
    links = [h("li", h("a", title, href=f"#{anchor}")) for anchor, title, _ in sections]
    body = h(
        "body",
        h("header", _header(report)),
        h("nav", h("ul", links), aria_label="Sections"),
        h(
            "main",
            [h("section", h("h2", title, id=f"{anchor}-title"), content, id=anchor,
               aria_labelledby=f"{anchor}-title") for anchor, title, content in sections],
        ),
        _footer(report),
    )  # fmt: skip
    return "<!doctype html>\n" + h("html", head, "\n", body, lang="en") + "\n"


def _sections(report: Report) -> list[Section]:
    sections: list[Section] = []
    if report.verdict is not None:
        gates = report.verdict.gates
        articles = [gate_article(gate, index) for index, gate in enumerate(gates)]
        sections.append(("gates", "Gates", join([gates_table(gates), articles])))
    if report.stages:
        sections.append(("stages", "Time and cost", _stages(report)))
    sections.append(("quarantine", "Quarantine", _quarantine(report)))
    sections.append(("swap", "Swap and the way back", _swap(report)))
    moments = [
        h("li", h("time", _utc(m.t), datetime=_iso(m.t)), h("bdi", clip(m.what)))
        for m in report.timeline
    ]
    sections.append(("timeline", "Timeline", h("ol", moments, class_="timeline")))
    if report.manifest:
        sections.append(("manifest", "Manifest, as run", h("pre", h("code", report.manifest))))
    return sections


def _header(report: Report) -> Markup:
    sign, words = BANNER[report.outcome]
    source = str(report.source.get("name", ""))
    names: list[Child] = [h("bdi", source or report.name)]
    if report.target:
        names += [h("span", " → ", class_="arrow"), h("bdi", report.target)]
    state = f"The run is {report.state}" + (f"; next: {report.next}." if report.next else ".")
    return join(
        [
            h("p", f"reembed migration report · {report.name} · run {report.run}",
              class_="eyebrow"),
            h("h1", names),
            h(
                "section",
                h("h2", h("span", sign, aria_hidden="true"), f" {words}", id="verdict-title"),
                h("p", report.sentence), h("p", state, class_="muted"),
                class_=f"verdict {report.outcome}", aria_labelledby="verdict-title",
            ),
            h("dl", _key_figures(report), class_="key"),
        ]
    )  # fmt: skip


def _key_figures(report: Report) -> list[Child]:
    old = report.source.get("model") or {}
    tokens = sum(stage.stats.get("tokens", 0) for stage in report.stages if stage.name == "embed")
    usd = [stage.usd for stage in report.stages if stage.usd is not None]
    seconds = sum(stage.seconds for stage in report.stages)
    before, after = report.source.get("dimensions"), report.dimensions
    figures: list[tuple[str, str, str]] = [
        ("records", show(report.exported),
         f"{report.loaded:,} loaded, {report.quarantined:,} quarantined"),
        ("old model", str(old.get("name", "not recorded")), str(old.get("provider", ""))),
        ("new model", str(report.model.get("name")), str(report.model.get("provider", ""))
         + (f" on {report.runs_on}" if report.runs_on else "")),
        ("dimensions", f"{show(before)} → {show(after)}", str(report.source.get("metric", ""))),
    ]  # fmt: skip
    if seconds:
        figures.append(("time", human_seconds(seconds), "all stages"))
    if tokens:
        cost = f"${sum(usd):,.4f}" if usd else "no listed price"
        figures.append(("tokens", show(int(tokens)), cost))
    return [
        h("div", h("dt", name), h("dd", h("bdi", value), h("small", note) if note else None,
                                  class_="text" if len(value) > 14 else None))
        for name, value, note in figures
    ]  # fmt: skip


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
    seconds = {stage.name: stage.seconds for stage in stages}
    rates = {s.name: s.records_per_second for s in stages if s.records_per_second}
    plots = [plot_figure("Time", bar_plot("Time of each stage", seconds, "s"))]
    if rates:
        plots.append(plot_figure("Throughput", bar_plot("Records a second", rates, "/s")))
    notes: list[Child] = [
        h("p", f"{s.name}: {count_of(s.earlier, 'record')} made in calls that were stopped, whose "
               "time is not in the table.", class_="muted")
        for s in stages if s.earlier
    ]  # fmt: skip
    return join([h("div", plots, class_="plots"), grid_table(Grid(columns, rows), "stages"), notes])


def _quarantine(report: Report) -> Markup:
    if not report.quarantine:
        return h("p", "No record was quarantined.")
    parts: list[Child] = [
        h("p", f"{count_of(report.quarantined, 'record')} not moved; quarantine.parquet holds "
               "each whole, with its reason."),
        grid_table(Grid(["reason", "records"],
                        [[label(q.reason), q.count] for q in report.quarantine]), "quarantine"),
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
    for command in report.commands:
        parts.append(h("pre", h("code", _unbroken(command.command))))
        parts.append(h("p", command.does, class_="muted"))
    if not report.commands:
        parts.append(h("p", "This migration is done; there is nothing left to do."))
    return join(parts)


def _unbroken(command: str) -> list[Child]:
    """A command whose options are not torn where a line ends."""
    return [
        h("span", part, class_="whole") if part.startswith("--") else part
        for part in re.split(r"((?<!\S)--\S+)", command)
    ]


def _footer(report: Report) -> Markup:
    seed = f" · seed {report.verdict.seed}" if report.verdict else ""
    words = f"reembed {report.reembed} · written {_utc(report.written)}{seed}"
    return h("footer", h("p", words), h("p", "Run directory: ", h("code", report.path)))


def _utc(t: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(t))


def _iso(t: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))
