"""A gate as HTML: its figures, plots for those that say more as a picture, tables for the rest.

What a gate is known to hold is drawn specially; everything else is shown by its shape (see
`figures.py`), so a figure added to a gate is in the report before the report knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reembed.display.markup import Child, Markup, h, join
from reembed.quality.verdict import Gate, Status
from reembed.report.html.drawing import known_plots, metric_name, plot, title
from reembed.report.html.figures import Grid, as_grid, as_span, by_side, is_number, is_scalar, show
from reembed.report.html.labels import label

SYMBOL: dict[Status, str] = {
    "pass": "\N{CHECK MARK}", "fail": "\N{BALLOT X}", "inconclusive": "?",
    "shown": "i",
}  # fmt: skip
WORDS: dict[Status, str] = {
    "pass": "passed", "fail": "failed", "inconclusive": "not proven", "shown": "to know",
}  # fmt: skip
TITLES = {
    "integrity": "Integrity: is every record there, unchanged?",
    "opening": "Opening: can an application open it as it opens the old one?",
    "late writes": "Late writes: is what was written to the old collection late in the new one?",
    "fidelity": "Fidelity: does a text embedded again give the vector that is served?",
    "index": "Index: does the collection's own search find what exact search finds?",
    "recall": "Recall: does the new model find what the old one found?",
    "overlap": "Overlap: how much do the old and the new answers agree?",
    "old index": "Old index: what does the index that is replaced find?",
    "scores": "Scores: how near are the answers?",
    "latency": "Latency: how long does a query take?",
    "vectors": "Vectors: lengths and hubs",
}
ON_FRONT = ("examples", "asked")
"""Figures of the recall gate that the first screen shows."""
MOST_ROWS = 50
DEEPEST = 4
"""Figures within figures; deeper ones are printed as they are."""


def status(value: Status) -> Markup:
    """A gate's status, told by a sign and a word, not by colour alone."""
    sign = h("span", SYMBOL.get(value, "?"), aria_hidden="true")
    return h("span", sign, f" {WORDS.get(value, value)}", class_=f"status {value}")


def gate_article(gate: Gate) -> tuple[str, Markup, Markup]:
    """A gate's title, its status, and all of its figures."""
    drawn, used = known_plots(gate.figures)
    shown = {*used, *ON_FRONT} if gate.name == "recall" else used
    left = {name: value for name, value in gate.figures.items() if name not in shown}
    if gate.name == "opening":
        left |= {side: {way: why or "works" for way, why in (left.get(side) or {}).items()}
                 for side in ("old", "new") if isinstance(left.get(side), dict)}  # fmt: skip
    samples = {kind: ids for kind, ids in gate.samples.items() if ids}
    if is_answers(gate.figures.get("worst")):
        samples.pop("lost most", None)  # the same queries, and with their answers
    figures = join(
        [
            h("p", gate.message),
            _mapping(left, drawn, metrics_table(gate.figures.get("metrics"))),
            [[h("h4", f"{kind}, e.g."), sample_list(ids)] for kind, ids in samples.items()],
        ]
    )
    return TITLES.get(gate.name, gate.name), status(gate.status), figures


def figure_list(figures: Mapping[str, Any], within: str = "") -> Markup | None:
    """Numbers and short texts by name. What is zero or not known is folded into one line.

    Args:
        within: name of the figure that these belong to.
    """
    told = {name: value for name, value in figures.items() if value or isinstance(value, bool)}
    nothing = [name for name in figures if name not in told]
    parts = [h("dl", [_figure(name, value, within) for name, value in told.items()],
               class_="figures")] if told else []  # fmt: skip
    if nothing:
        names = ", ".join(label(name, within) for name in nothing)
        count = f"{len(nothing)} more, all zero or not given" if len(nothing) > 1 else (
            "1 more, zero or not given")  # fmt: skip
        parts.append(h("details", h("summary", count), h("p", names), class_="nothing"))
    return join(parts) if parts else None


def sample_list(ids: Sequence[Any]) -> Markup:
    """Record ids, each kept apart from its neighbours whatever is in it."""
    return h("ul", [h("li", h("bdi", clip(str(id)))) for id in ids[:MOST_ROWS]], class_="samples")


def clip(text: str, longest: int = 400) -> str:
    """`text`, or its beginning if it is very long."""
    return text if len(text) <= longest else text[:longest] + "…"


def count_of(n: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def grid_table(grid: Grid, caption: str) -> Markup:
    """A table that scrolls within itself where the page is narrow."""
    numeric = [all(is_number(row[i]) or row[i] is None for row in grid.rows)
               for i in range(len(grid.columns))]  # fmt: skip
    head = [h("th", label(name), scope="col", class_="number" if is_n else None)
            for name, is_n in zip(grid.columns, numeric, strict=True)]  # fmt: skip
    rows = [
        h("tr", [_cell(value, is_n, first=i == 0 and not is_n)
                 for i, (value, is_n) in enumerate(zip(row, numeric, strict=True))])
        for row in grid.rows[:MOST_ROWS]
    ]  # fmt: skip
    table = h("table", h("thead", h("tr", head)), h("tbody", rows))
    more = len(grid.rows) - MOST_ROWS
    return h(
        "div", table, h("p", f"and {more:,} more in verdict.json", class_="muted") if more > 0
        else None, class_="scroll", tabindex=0, role="region", aria_label=caption,
    )  # fmt: skip


def metrics_table(metrics: object) -> Markup | None:
    """Old, new and their difference in each metric with its interval, None without metrics."""
    if not isinstance(metrics, Mapping) or "metrics" not in known_plots({"metrics": metrics})[1]:
        return None
    columns = [side for side in ("old", "new", "difference")
               if any(as_span(found.get(side)) for found in metrics.values())]  # fmt: skip
    rows = [
        [metric_name(name), *(_interval(found.get(side), signed=side == "difference")
                              for side in columns)]
        for name, found in metrics.items()
    ]  # fmt: skip
    return grid_table(Grid(["", *columns], rows), "metrics with their intervals")


def _interval(value: object, *, signed: bool) -> str | None:
    span = as_span(value)
    sign = "+" if signed else ""
    if span is None:
        return None
    return f"{span.mean:{sign}.4f} [{span.low:{sign}.4f}, {span.high:{sign}.4f}]"


def _mapping(
    figures: Mapping[str, Any], drawn: Sequence[Markup] = (), table: Markup | None = None,
    depth: int = 0, within: str = "",
) -> Markup:  # fmt: skip
    """Figures by name: short ones as a list, then plots beside each other, then the rest.

    Args:
        drawn: plots that come first.
        table: what comes after the plots.
    """
    figures = by_side(figures)
    plots, rest = list(drawn), list[Child]()
    for name, value in figures.items():
        if is_scalar(value) or _is_empty(value):
            continue
        drawing = plot(name, value)
        if drawing is not None:
            plots.append(drawing)
        else:
            rest.append(_nested(name, value, depth, within))
    scalars = {name: value for name, value in figures.items() if is_scalar(value) and value != ""}
    small = h("div", plots, class_="plots") if plots else None
    return join([figure_list(scalars, within), small, table, rest])


def _nested(name: str, value: Any, depth: int, within: str) -> Child:
    """A figure that is no plot: side by side answers, a table, a list, or figures within it."""
    heading = h("h4", title(name, within))
    if is_answers(value):
        note = h("p", "Answers that both models give are grey.", class_="muted")
        return [heading, note, answers(value)]
    grid = as_grid(value)
    if grid is not None:
        return [heading, grid_table(grid, label(name))]
    if isinstance(value, Mapping) and depth < DEEPEST:
        inner = {str(k): v for k, v in value.items()}
        return [heading, _mapping(inner, depth=depth + 1, within=name)]
    if isinstance(value, list | tuple):
        return [heading, sample_list([show(v) if is_scalar(v) else v for v in value])]
    return [heading, h("p", clip(str(value)))]


def _is_empty(value: Any) -> bool:
    """Whether there is nothing to show of a figure, such as the histogram of no values."""
    if isinstance(value, Mapping):
        return all(_is_empty(item) for item in value.values())
    return isinstance(value, list | tuple) and not value


def _figure(name: str, value: Any, within: str) -> Markup:
    return h("div", h("dt", label(name, within)), h("dd", h("bdi", clip(show(value)))))


def _cell(value: Any, is_number_column: bool, *, first: bool) -> Markup:
    text = h("bdi", clip(show(value)))
    if first:
        return h("th", text, scope="row")
    return h("td", text, class_="number" if is_number_column else None)


SIDES = ("old", "new")
QUERY_NAMES = ("query", "text", "question", "id")
MOST_QUERIES = 20
MOST_ANSWERS = 10
LONGEST = 300
UNFOLDED = 3
"""Queries whose answers are open from the start, and in print."""


def is_answers(value: object) -> bool:
    """Whether `value` is a list of queries, each with a list of answers of old, new or both."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(entry, Mapping) and any(isinstance(entry.get(s), list) for s in SIDES)
            for entry in value
        )
    )


def answers(entries: Sequence[Mapping[str, Any]]) -> Markup:
    """The queries one under the other, the first ones open; old and new beside each other where
    there is room."""
    shown = entries[:MOST_QUERIES]
    return h("div", [_query(entry, unfolded=i < UNFOLDED) for i, entry in enumerate(shown)])


def _query(entry: Mapping[str, Any], *, unfolded: bool) -> Markup:
    name = next((name for name in QUERY_NAMES if is_scalar(entry.get(name, []))), "")
    notes = [
        f"{label(key)} {show(value)}"
        for key, value in entry.items()
        if key != name and is_scalar(value) and value is not None
    ]
    found = {side: [_id(answer) for answer in entry.get(side) or []] for side in SIDES}
    common = set(found["old"]) & set(found["new"])
    title = h("bdi", clip(show(entry.get(name, "query")), LONGEST), dir="auto")
    return h(
        "details",
        h("summary", title, h("span", ", ".join(notes), class_="note") if notes else None),
        h("div", [_side(side, entry.get(side), common) for side in SIDES], class_="sides"),
        class_="query", open=unfolded,
    )  # fmt: skip


def _side(side: str, found: Any, common: set[str]) -> Markup:
    items: list[Child] = [
        h("li", _answer(answer), class_="common" if _id(answer) in common else None)
        for answer in (found if isinstance(found, list) else [])[:MOST_ANSWERS]
    ]
    shown = h("ol", items) if items else h("p", "no answer", class_="muted")
    return h("div", h("h5", f"{side} model"), shown)


def _id(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return str(answer.get("id", answer))
    return str(answer)


def _answer(answer: Any) -> Child:
    """An answer with what is known of it: its id, its text, a score."""
    if not isinstance(answer, Mapping):
        return h("bdi", clip(str(answer), LONGEST), dir="auto")
    known = {key: value for key, value in answer.items() if key != "id" and is_scalar(value)}
    scores = [show(value) for value in known.values() if is_number(value)]
    texts = [value for value in known.values() if isinstance(value, str) and value]
    return [
        h("bdi", clip(_id(answer), LONGEST), dir="auto") if "id" in answer else None,
        h("span", f"  {', '.join(scores)}", class_="muted") if scores else None,
        [h("bdi", clip(text, LONGEST), dir="auto", class_="note") for text in texts],
    ]
