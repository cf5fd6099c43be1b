"""Plots as inline SVG, built by hand: no library, no script, no font.

All are drawn 340 units wide and shown between 260 and 420 pixels, so that their text stays readable
on a phone. Colours come from the page's style sheet, hence follow dark and light. Each plot has a
title and a description for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reembed.display.markup import Child, Markup, h
from reembed.report.html.figures import Histogram, Quantiles, Span

WIDTH = 340
LEFT, RIGHT = 44, 16
ROW = 28
TICK_LETTER = 7.4
"""Width of a tick's digit in the widest of the fonts."""


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to units across the plot."""

    low: float
    high: float
    left: float = LEFT
    right: float = WIDTH - RIGHT

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.left + min(1.0, max(0.0, share)) * (self.right - self.left), 1)

    def ticks(self, wanted: int = 4) -> list[float]:
        """About `wanted` round values within the axis."""
        step = _round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [tick * step for tick in range(first, last + 1)]


def around(values: Sequence[float], least: float, bounds: tuple[float, float] | None) -> Axis:
    """An axis that holds all values with a little air, at least `least` long, within `bounds`."""
    low, high = min(values), max(values)
    least = max(least, 1e-6 * max(abs(low), abs(high)))
    air = max((high - low) * 0.15, (least - (high - low)) / 2)
    low, high = low - air, high + air
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Axis(low, high if high > low else low + least)


def dot_plot(
    title: str, dots: Mapping[str, float | Span], *, limit: float | None = None,
    limit_label: str = "limit", bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Markup:  # fmt: skip
    """A dot for each value on one axis, with its interval where it has one, and a limit."""
    spans = {name: v if isinstance(v, Span) else Span(v, v, v) for name, v in dots.items()}
    ends = [end for s in spans.values() for end in (s.low, s.mean, s.high)]
    axis = around([*ends, *([limit] if limit is not None else [])], 0.1, bounds)
    bottom = 14 + ROW * len(spans)
    parts: list[Child] = [_x_axis(axis, bottom)]
    if limit is not None:
        parts.append(_marker(axis(limit), bottom, f"{limit_label} {_short(limit)}", "limit"))
    for row, (name, span) in enumerate(spans.items()):
        y = 14 + ROW * row + ROW / 2
        if name:
            parts.append(_text(LEFT - 8, y + 4, name, "end"))
        parts += _whisker(axis, span, y, "old" if name == "old" else "new")
    words = "; ".join(
        f"{name}: {_spoken(span)}" if name else _spoken(span) for name, span in spans.items()
    )
    if limit is not None:
        words += f"; {limit_label}: {_short(limit)}"
    return _svg(title, words, bottom + 24, parts)


def difference_plot(title: str, span: Span, margin: float | None) -> Markup:
    """New minus old with its interval; what lies beyond the margin is shaded."""
    ends = [span.low, span.high, 0.0]
    if margin is not None:
        ends += [-margin * 1.6, margin * 0.8]
    axis = around(ends, 0.02, None)
    bottom = 14 + ROW + 14
    parts: list[Child] = []
    if margin is not None:
        edge = axis(-margin)
        parts.append(h("rect", x=axis.left, y=14, width=round(edge - axis.left, 1),
                       height=bottom - 14, class_="worse"))  # fmt: skip
        parts.append(_marker(edge, bottom, f"margin \N{MINUS SIGN}{_short(margin)}", "limit"))
    parts.append(h("line", x1=axis(0), x2=axis(0), y1=14, y2=bottom, class_="zero"))
    parts.append(_x_axis(axis, bottom))
    parts += _whisker(axis, span, 14 + (bottom - 14) / 2, "new")
    words = f"new minus old: {_spoken(span)}"
    if margin is not None:
        words += f"; the margin is -{_short(margin)}"
    return _svg(title, words, bottom + 24, parts)


def histogram(
    title: str, series: Mapping[str, Histogram], *, mark: float | None = None, mark_label: str = ""
) -> Markup:
    """One histogram as bars, or old and new over each other: old as a line, new as bars.

    Each is drawn as shares of its own total, so that different totals can be compared.
    """
    low = min(shape.edges[0] for shape in series.values())
    high = max(shape.edges[-1] for shape in series.values())
    axis = Axis(low, high if high > low else low + 1, left=RIGHT)
    height, top = 96.0, 18.0
    bottom = top + height
    tallest = max((max(_densities(s)) for s in series.values()), default=0.0) or 1.0
    parts: list[Child] = []
    for name in sorted(series, key=lambda name: name == "old"):
        shape, as_line = series[name], name == "old" and len(series) > 1
        tops = [round(bottom - height * density / tallest, 1) for density in _densities(shape)]
        parts.append(
            _outline(axis, shape, tops, bottom) if as_line
            else _bars(axis, shape, tops, bottom, "old" if name == "old" else "new")
        )  # fmt: skip
    if mark is not None and low <= mark <= high:
        parts.append(_marker(axis(mark), bottom, mark_label, "limit"))
    elif low < 0 < high:
        parts.append(h("line", x1=axis(0), x2=axis(0), y1=top, y2=bottom, class_="zero"))
    parts.append(_x_axis(axis, bottom))
    if len(series) > 1:
        parts.append(_legend(bottom + 40))
    words = "; ".join(
        f"{name}: {sum(shape.counts):,.0f} values, most between "
        + "{} and {}".format(*map(_short, _mode(shape)))
        for name, shape in series.items()
    )
    return _svg(title, words, bottom + (48 if len(series) > 1 else 24), parts)


def box_plot(title: str, boxes: Mapping[str, Quantiles]) -> Markup:
    """A box for each: median, quartiles, and a line from the 5th to the 95th percentile."""
    ends = [end for q in boxes.values() for end in (q.p5, q.p95)]
    axis = around(ends, max(map(abs, ends)) * 0.02 or 0.02, None)
    bottom = 8 + ROW * len(boxes)
    parts: list[Child] = [_x_axis(axis, bottom)]
    for row, (name, q) in enumerate(boxes.items()):
        y, kind = 8 + ROW * row + ROW / 2, "old" if name == "old" else "new"
        if name:
            parts.append(_text(LEFT - 8, y + 4, name, "end"))
        parts.append(h("line", x1=axis(q.p5), x2=axis(q.p95), y1=y, y2=y, class_=f"range {kind}"))
        width = round(max(1.0, axis(q.p75) - axis(q.p25)), 1)
        parts.append(
            h("rect", x=axis(q.p25), y=y - 7, width=width, height=14, class_=f"box {kind}")
        )
        parts.append(h("line", x1=axis(q.median), x2=axis(q.median), y1=y - 7, y2=y + 7,
                       class_="median"))  # fmt: skip
    words = "; ".join(
        f"{name} median {_short(q.median)}, quartiles {_short(q.p25)} to {_short(q.p75)}, "
        f"5th to 95th percentile {_short(q.p5)} to {_short(q.p95)}".strip()
        for name, q in boxes.items()
    )
    return _svg(title, words, bottom + 24, parts)


def bar_plot(title: str, bars: Mapping[str, float], unit: str) -> Markup:
    """A horizontal bar for each value, with the value beside it."""
    most = max(bars.values(), default=0) or 1
    names = max((len(name) for name in bars), default=0)
    left = min(130, 16 + 7 * names)
    axis = Axis(0, most, left=left, right=WIDTH - 74)
    parts: list[Child] = []
    for row, (name, value) in enumerate(bars.items()):
        y = 6 + ROW * row
        parts.append(_text(left - 8, y + 17, name, "end"))
        width = round(max(1.0, axis(value) - left), 1)
        parts.append(h("rect", x=left, y=y + 5, width=width, height=ROW - 11, class_="bar"))
        parts.append(_text(left + width + 6, y + 17, f"{_short(value)} {unit}".strip()))
    words = "; ".join(f"{name}: {_short(value)} {unit}" for name, value in bars.items())
    return _svg(title, words, 12 + ROW * len(bars), parts)


# Parts


def _svg(title: str, words: str, height: float, parts: Sequence[Child]) -> Markup:
    return h(
        "svg", h("title", title), h("desc", words), parts, role="img", focusable="false",
        viewBox=f"0 0 {WIDTH} {round(height)}", aria_label=f"{title}. {words}",
    )  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str | None = None, kind: str = "") -> Markup:
    return h("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_=kind or None)


def _x_axis(axis: Axis, y: float) -> Markup:
    ticks = axis.ticks()
    places = _places(ticks[1] - ticks[0]) if len(ticks) > 1 else 2
    parts: list[Child] = [h("line", x1=axis.left, x2=axis.right, y1=y, y2=y, class_="axis")]
    for tick in ticks:
        parts.append(h("line", x1=axis(tick), x2=axis(tick), y1=y, y2=y + 4, class_="axis"))
        shown = f"{tick:,.{places}f}".replace("-", "\N{MINUS SIGN}")
        half = TICK_LETTER * len(shown) / 2
        x = min(max(axis(tick), half), WIDTH - half)
        parts.append(_text(x, y + 17, shown, "middle", "tick"))
    return h("g", parts, aria_hidden="true")


def _marker(x: float, bottom: float, text: str, kind: str) -> Markup:
    anchor = "end" if x > WIDTH * 0.7 else "start" if x < WIDTH * 0.3 else "middle"
    line = h("line", x1=x, x2=x, y1=14, y2=bottom, class_=kind)
    return h("g", line, _text(x, 10, text, anchor, "tick"))


def _whisker(axis: Axis, span: Span, y: float, kind: str) -> list[Child]:
    x = axis(span.mean)
    parts: list[Child] = []
    if span.high > span.low:
        parts.append(h("line", x1=axis(span.low), x2=axis(span.high), y1=y, y2=y,
                       class_=f"whisker {kind}"))  # fmt: skip
    return [*parts, h("circle", cx=x, cy=y, r=5, class_=f"dot {kind}")]


def _bars(axis: Axis, shape: Histogram, tops: Sequence[float], bottom: float, kind: str) -> Markup:
    pairs = zip(shape.edges, shape.edges[1:], tops, strict=False)
    return h(
        "g",
        [h("rect", x=axis(a), y=y, width=max(0.5, round(axis(b) - axis(a) - 0.7, 1)),
           height=round(bottom - y, 1), class_=f"bar {kind}") for a, b, y in pairs if y < bottom],
    )  # fmt: skip


def _outline(axis: Axis, shape: Histogram, tops: Sequence[float], bottom: float) -> Markup:
    steps = [f"M{axis(shape.edges[0])} {bottom}"]
    for a, b, y in zip(shape.edges, shape.edges[1:], tops, strict=False):
        steps += [f"L{axis(a)} {y}", f"L{axis(b)} {y}"]
    steps.append(f"L{axis(shape.edges[-1])} {bottom}")
    return h("path", d="".join(steps), class_="outline old")


def _legend(y: float) -> Markup:
    return h(
        "g", h("rect", x=RIGHT, y=y - 9, width=12, height=9, class_="bar new"),
        _text(RIGHT + 18, y, "new"),
        h("line", x1=RIGHT + 60, x2=RIGHT + 76, y1=y - 4, y2=y - 4, class_="outline old"),
        _text(RIGHT + 82, y, "old"), aria_hidden="true",
    )  # fmt: skip


def _densities(shape: Histogram) -> list[float]:
    """Share per unit of the axis, so that bins of different widths compare."""
    total = sum(shape.counts) or 1.0
    widths = [b - a or 1.0 for a, b in zip(shape.edges, shape.edges[1:], strict=False)]
    return [count / total / abs(width) for count, width in zip(shape.counts, widths, strict=True)]


def _mode(shape: Histogram) -> tuple[float, float]:
    most = max(range(len(shape.counts)), key=lambda i: shape.counts[i])
    return shape.edges[most], shape.edges[most + 1]


def _spoken(span: Span) -> str:
    if span.high > span.low:
        return f"{span.mean:.4g}, interval {span.low:.4g} to {span.high:.4g}"
    return f"{span.mean:.4g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _places(step: float) -> int:
    """Decimal places that tell two ticks `step` apart."""
    return next((n for n in range(9) if abs(round(step, n) - step) < step * 1e-6), 9)


def _round_step(step: float) -> float:
    """The nearest of 1, 2, 2.5, 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)
