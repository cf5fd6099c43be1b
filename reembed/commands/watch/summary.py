"""A cycle in Markdown, for the page of a CI job: counts and findings, no metadata values."""

from __future__ import annotations

from reembed.commands.watch.result import WatchResult

SIGN = {"alert": "❌", "warning": "⚠️", "ok": "✅"}


def to_markdown(result: WatchResult) -> str:
    """Tables of the collections and of what was found."""
    alerts = len(result.alerts)
    lines = [f"## reembed watch: {_cell(result.name)}", "",
             f"**Alerts: {alerts}**" if alerts else "All is well.", ""]  # fmt: skip
    if result.collections:
        lines += ["| collection | records | most of the week | dimensions | metric |",
                  "|---|--:|--:|--:|---|"]  # fmt: skip
        lines += [
            f"| {_cell(one.name)} | {one.count:,} | {result.good.get(one.name, 0):,} "
            f"| {one.info.dimensions or ''} | {one.info.metric} |"
            for one in result.collections
        ] + [""]
    lines += ["| | check | collection | what was found |", "|---|---|---|---|"]
    lines += [
        f"| {SIGN[one.status]} | {one.check} | {_cell(one.collection)} "
        f"| {_cell(one.sent or one.message)} |"
        for one in result.findings
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """A text that ends no cell and begins no markup."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
