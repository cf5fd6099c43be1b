"""Write the table and the plots of docs/benchmarks.md from docs/benchmarks.json.

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


def plots(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Line charts (Mermaid) of what grows with the records: time, and peak memory, of each store.

    A claim is a point of one where its key is `grown, STORE, FIGURE, RECORDS x DIMENSIONS`.
    """
    lines: dict[tuple[str, str], dict[int, tuple[float, str]]] = {}
    for key, claim in kept.items():
        if key.startswith("grown, "):
            store, figure, size = key.removeprefix("grown, ").split(", ", 2)
            records, _, dimensions = size.partition(" x ")
            point = int(records.replace(",", "")), (claim["median"], dimensions)
            lines.setdefault((store, figure), {}).update([point])
    return "\n\n".join(
        _chart(f"{store}: {figure} of a whole run", dict(sorted(points.items())))
        for (store, figure), points in lines.items()
        if len(points) > 1
    )


def _chart(title: str, points: Mapping[int, tuple[float, str]]) -> str:
    sizes = ", ".join(f'"{records:,}"' for records in points)
    values = [value for value, _ in points.values()]
    dimensions = next(iter(points.values()))[1]
    return (
        "```mermaid\nxychart-beta\n"
        f'    title "{title}, {dimensions} dimensions"\n'
        f"    x-axis [{sizes}]\n"
        f'    y-axis "{title.split()[1]}" 0 --> {max(values):.0f}\n'
        f"    line [{', '.join(f'{value:.1f}' for value in values)}]\n```"
    )


def page() -> str:
    """The page with its table and plots brought up to date."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    kept = json.loads(KEPT.read_text())
    made = "\n\n".join(filter(None, (table(kept), plots(kept))))
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    PAGE.write_text(page())
