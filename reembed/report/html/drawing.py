"""Which figures of a gate say more as a picture, and which picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reembed.display.markup import Markup, h
from reembed.report.html.figures import (
    Histogram,
    Quantiles,
    Span,
    as_histogram,
    as_quantiles,
    as_span,
    is_number,
    number,
    show,
)
from reembed.report.html.labels import DATA, label
from reembed.report.html.plots import box_plot, difference_plot, dot_plot, histogram

MOST_ROWS = 8
NARROW = 1e-5
"""Values this close together, relative to their size, have no distribution worth a plot."""
SIDES = ("old", "new")
NAMES = {"ndcg": "nDCG", "mrr": "MRR"}
TITLES = {
    "all_histogram": "Similarity of all answers",
    "cosine_histogram": "Records by cosine of served and new vector",
    "cosines": "Cosine of served and new vector",
    "baseline": "What the old index finds, and the new one",
    "deeper": "What the index finds when it is asked for more",
    "differences": "Queries by difference in recall, new minus old",
    "first": "Similarity of the first answer",
    "first_histogram": "Similarity of the first answer",
    "groups": "By metadata key",
    "histogram": "Queries by recall",
    "jaccard": "Overlap of old and new answers (Jaccard)",
    "jaccard_histogram": "Queries by overlap (Jaccard)",
    "lengths": "Lengths of vectors",
    "made_as": "Queries made as",
    "most_changed": "Queries whose answers changed most",
    "rbo": "Rank-biased overlap of old and new answers",
    "scores": "Similarity of queries and answers",
    "settings": "Index settings",
    "tail": "Tail probe: does the end of a long text move its vector?",
    "worst": "Queries that lost most",
}
BOX = "median, quartiles, and 5th to 95th percentile"


def title(name: str, within: str = "") -> str:
    """What stands above a figure, which may belong to another one."""
    if within in DATA:
        return name
    return TITLES.get(name) or label(name).capitalize()


def plot_figure(above: str, drawing: Markup, note: str = "") -> Markup:
    """A plot under its title."""
    return h("figure", h("figcaption", above, h("small", note) if note else None), drawing)


def known_plots(figures: Mapping[str, Any]) -> tuple[list[Markup], set[str]]:
    """Plots of what several figures say together, and the names of those that are used up."""
    plots: list[Markup] = []
    used: set[str] = set()
    k = figures.get("k")
    at = f"@{k}" if is_number(k) else ""
    span = as_span(figures.get("difference"))
    if span is not None:
        above = f"Difference in recall{at}, new minus old"
        drawing = difference_plot(above, span, number(figures, "margin"))
        plots.append(plot_figure(above, drawing, _over(span)))
        used.add("difference")
    metrics = figures.get("metrics")
    if isinstance(metrics, Mapping) and metrics and all(map(_sides, metrics.values())):
        plots += [_compared(f"{metric_name(name)}{at}", _sides(metrics[name]))
                  for name in metrics]  # fmt: skip
        used.add("metrics")
    elif (sides := _sides(figures)) and "new" in sides:
        plots.append(_compared(f"recall{at}", sides))
    recall, limit = number(figures, "recall"), number(figures, "limit")
    if recall is not None and limit is not None:
        above = f"recall{at} of the index against its limit"
        plots.append(plot_figure(above, dot_plot(above, {"index": recall}, limit=limit)))
    return plots, used


def plot(name: str, value: Any) -> Markup | None:
    """A picture of one figure, None if it is none to be drawn."""
    above = title(name)
    if (shape := as_histogram(value)) is not None:
        return _histogram(above, {name: shape})
    if (span := as_span(value)) is not None:
        return plot_figure(above, dot_plot(above, {"": span}, bounds=None), _over(span))
    if (summary := as_quantiles(value)) is not None:
        return plot_figure(above, box_plot(above, {"": summary}), BOX)
    if not isinstance(value, Mapping) or not 0 < len(value) <= MOST_ROWS:
        return None
    parts = {str(key): item for key, item in value.items()}
    shapes = [as_histogram(item) for item in parts.values()]
    pair = {key: s for key, s in zip(parts, shapes, strict=True) if isinstance(s, Histogram)}
    if len(pair) == len(parts) and set(pair) <= set(SIDES):
        return _histogram(above, pair)
    spans = {key: s for key, item in parts.items() if isinstance(s := as_span(item), Span)}
    if len(spans) == len(parts):
        return plot_figure(above, dot_plot(above, dict(spans), bounds=None))
    boxes = {
        key: q for key, item in parts.items() if isinstance(q := as_quantiles(item), Quantiles)
    }
    if len(boxes) == len(parts):
        return plot_figure(above, box_plot(above, boxes), BOX)
    return None


def metric_name(name: str) -> str:
    """A metric as papers write it."""
    return NAMES.get(name, name)


def _histogram(above: str, series: Mapping[str, Histogram]) -> Markup:
    """Histograms over each other; where all values are the same, the value in words."""
    low = min(shape.edges[0] for shape in series.values())
    high = max(shape.edges[-1] for shape in series.values())
    if high - low < NARROW * max(1.0, abs(high)):
        count = sum(sum(shape.counts) for shape in series.values())
        return plot_figure(above, h("p", f"all {count:,.0f} values are {show((low + high) / 2)}"))
    note = "each as shares of its own values" if len(series) > 1 else ""
    return plot_figure(above, histogram(above, series), note)


def _compared(metric: str, sides: Mapping[str, float | Span]) -> Markup:
    above = f"{metric}, old and new" if len(sides) == 2 else f"{metric} of the new model"
    return plot_figure(above, dot_plot(above, sides))


def _sides(figures: object) -> dict[str, float | Span]:
    """The old and the new model's mean, each with its interval where it has one."""
    found: dict[str, float | Span] = {}
    if isinstance(figures, Mapping):
        for side in SIDES:
            value = as_span(figures.get(side)) or number(figures, side)
            if value is not None:
                found[side] = value
    return found


def _over(span: Span) -> str:
    level = f"{span.confidence:.0%} confidence" if span.confidence else "with its interval"
    return f"mean over {span.n:,} queries, {level}" if span.n else level
