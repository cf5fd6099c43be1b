"""Write the table of docs/benchmarks.md from docs/benchmarks.json.

python -m tests.campaigns.benchmarks.tables
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.campaigns.benchmarks.measuring import KEPT

PAGE = KEPT.with_name("benchmarks.md")
BEGIN, END = "<!-- from benchmarks.json -->", "<!-- end -->"


def table(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table with a line for each claim."""
    lines = [
        "| measure | size | median | of rounds | aim | day, cores |",
        "|---|---|---|---|---|---|",
    ]
    for key, figure in kept.items():
        size = key.rpartition(", ")[2] if " x " in key else ""
        sign = "≤" if figure["at"] == "most" else "≥"
        aim = f"{sign} {figure['bar']:g}" if figure["bar"] is not None else ""
        lines.append(
            f"| {figure['says']} | {size} | {_figure(figure['median'])} | "
            f"{_figure(figure['low'])} to {_figure(figure['high'])} | {aim} | "
            f"{figure['day']}, {figure['cores']} |"
        )
    return "\n".join(lines)


def page() -> str:
    """The page with its table brought up to date."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    kept = json.loads(KEPT.read_text())
    return f"{before}{BEGIN}\n\n{table(kept)}\n\n{END}{after}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    PAGE.write_text(page())
