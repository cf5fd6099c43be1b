"""The report as a short Markdown summary, for pull requests and CI job pages."""

from __future__ import annotations

import re

from reembed.quality.remedies import Remedy
from reembed.quality.verdict import Status
from reembed.report.foretold import WHOLE
from reembed.report.gather import Mood, Report
from reembed.report.timeline import human_seconds

MARK: dict[Mood, str] = {"good": "✅", "caution": "⚠️", "bad": "❌", "none": "⏳"}
SIGN: dict[Status, str] = {"pass": "✅", "fail": "❌", "inconclusive": "❓", "shown": "ℹ️"}  # noqa: RUF001
MENTION = re.compile(r"(?<![\w@])@(?=\w)")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def summary(report: Report) -> str:
    """Headline, facts, and a table of the gates."""
    lines = [f"### reembed {plain(report.name)}: {MARK[report.mood]} {plain(report.headline)}", ""]
    lines += [plain(report.sentence), "", _facts(report), ""]
    if report.verdict is not None:
        lines += ["| gate | status | what was found |", "| --- | --- | --- |"]
        lines += [
            f"| {plain(gate.name)} | {SIGN.get(gate.status, '')} {gate.status} "
            f"| {plain(gate.message)} |"
            for gate in report.verdict.gates
        ]
        lines.append("")
    lines += [f"To pass: {_way(remedy)}" for remedy in report.remedies]
    if report.remedies:
        lines.append("")
    if report.quarantine:
        counts = ", ".join(f"{found.count:,} {plain(found.reason)}" for found in report.quarantine)
        lines += [f"Quarantined: {counts}.", ""]
    next_step = f" · next: {code(report.next)}" if report.next else ""
    lines.append(f"run {code(report.run)} · {plain(report.state)}{next_step}")
    return "\n".join(lines) + "\n"


def _way(remedy: Remedy) -> str:
    return f"{plain(remedy.does)}, then {code(remedy.command)}" if remedy.does else (
        code(remedy.command))  # fmt: skip


def _facts(report: Report) -> str:
    source = str(report.source.get("name", ""))
    facts = [f"{code(source)} → {code(report.target)}" if source and report.target else ""]
    facts.append(f"{report.exported:,} records exported = {report.loaded:,} loaded + "
                 f"{report.quarantined:,} quarantined" if report.exported else "")  # fmt: skip
    before, after = report.source.get("dimensions"), report.dimensions
    facts.append(f"{before} → {after} dimensions" if before and after and not report.kept else "")
    facts.append(f"vectors kept ({after} dimensions), nothing embedded" if report.kept else "")
    facts.append(f"embedded on {plain(report.runs_on)}" if report.runs_on else "")
    seconds = sum(stage.seconds for stage in report.stages)
    whole = [one for one in report.foretold if one.what == WHOLE]
    told = "".join(f" (foretold: {one.shown(one.foretold)})" for one in whole)
    facts.append(human_seconds(seconds) + told if seconds else "")
    return " · ".join(fact for fact in facts if fact)


def plain(text: str) -> str:
    """`text` as itself on one line: no markup, no table cell's end, nobody mentioned."""
    shown = SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
    return MENTION.sub("@\N{ZERO WIDTH SPACE}", shown)


def code(text: str) -> str:
    """`text` in a code span, whatever backticks it holds."""
    flat = " ".join(str(text).split()).replace("|", "\N{FULLWIDTH VERTICAL LINE}")
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"
