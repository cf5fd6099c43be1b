"""The plots of docs/benchmarks.md are made of what grows with the records, in the order of size."""

from __future__ import annotations

from typing import Any

from tests.campaigns.benchmarks.tables import plots


def claim(value: float) -> dict[str, Any]:
    return {"says": "it", "median": value}


def test_what_grows_with_the_records_is_plotted_by_size() -> None:
    drawn = plots(
        {
            "grown, chroma, MB, 1,000,000 x 384": claim(310.0),
            "grown, chroma, MB, 100,000 x 384": claim(300.0),
            "grown, chroma, MB, 400,000 x 384": claim(305.5),
            "grown, postgres, MB, 100,000 x 384": claim(200.0),
            "export, 100,000 x 384": claim(0.4),
        }
    )
    assert drawn.splitlines() == [
        "```mermaid",
        "xychart-beta",
        '    title "chroma: MB of a whole run, 384 dimensions"',
        '    x-axis ["100,000", "400,000", "1,000,000"]',
        '    y-axis "MB" 0 --> 310',
        "    line [300.0, 305.5, 310.0]",
        "```",
    ]  # one point of Postgres is no line
