"""The two charts of the first screen, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping

from reembed.display.markup import Child, Markup, h
from reembed.report.html.figures import Span
from reembed.report.html.plots import around
from reembed.report.timeline import human_seconds

WIDTH = 380
LEFT, RIGHT = 34, 70
BAR, ROW = 16, 26
LEAST = 84
"""Where the longest name of a margin ends at the least."""
LONGEST = 19
"""Characters of a name beside a bar."""
SCALE = 62
"""Height of the scale on which the difference is shown."""


def quality_chart(
    title: str, shares: Mapping[str, float], spans: Mapping[str, Span | None], difference: Span,
    margin: float | None,
) -> Markup:  # fmt: skip
    """The share of right answers of old and new as bars, and below them their difference with its
    interval: what lies left of the margin is more than may be lost.

    Args:
        shares: old and new, from 0 to 1.
        spans: their intervals, where they are known.
    """
    parts = _bars(shares, spans, LEFT)
    top = 4 + len(shares) * ROW + 10
    parts += _scale(difference, margin, top)
    words = ", ".join(f"{name} {share * 100:.1f} %" for name, share in shares.items())
    words += (f"; difference {difference.mean * 100:+.1f} points, interval "
              f"{difference.low * 100:+.1f} to {difference.high * 100:+.1f}")  # fmt: skip
    if margin is not None:
        words += f"; {margin * 100:.0f} points may be lost"
    return _svg(title, words, top + SCALE, parts)


def share_chart(
    title: str, shares: Mapping[str, float], spans: Mapping[str, Span | None]
) -> Markup:
    """A bar for each of several models, the first one of `current` in the colour of what is old."""
    longest = max((len(name) for name in shares), default=0)
    parts = _bars(shares, spans, min(150, 14 + 7 * longest))
    words = ", ".join(f"{name} {share * 100:.1f} %" for name, share in shares.items())
    return _svg(title, words, 4 + len(shares) * ROW, parts)


def _bars(
    shares: Mapping[str, float], spans: Mapping[str, Span | None], left: float
) -> list[Child]:
    parts: list[Child] = []
    room = WIDTH - left - RIGHT
    for row, (name, share) in enumerate(shares.items()):
        y = 4 + row * ROW
        span = spans.get(name)
        kind = "old" if name in ("old", "current") else "new"
        shown = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
        parts += [
            _text(left - 8, y + 13, shown, "end"),
            h("rect", x=left, y=y, width=round(room, 1), height=BAR, rx=3, class_="track"),
            h("rect", x=left, y=y, width=round(room * min(1.0, share), 1), height=BAR, rx=3,
              class_=f"fill {kind}"),
            _text(WIDTH - RIGHT + 8, y + 13, f"{share * 100:.1f} %", "start", "strong"),
        ]  # fmt: skip
        if span is not None and span.high > span.low:
            low, high = (round(left + room * min(1.0, max(0.0, end)), 1)
                         for end in (span.low, span.high))  # fmt: skip
            parts.append(h("line", x1=low, x2=high, y1=y + BAR / 2, y2=y + BAR / 2,
                           class_="interval"))  # fmt: skip
    return parts


def _scale(span: Span, margin: float | None, top: float) -> list[Child]:
    """The difference in points, from worse to better."""
    ends = [span.low, span.high, 0.0, *([-margin * 1.5, margin] if margin is not None else [])]
    axis = around(ends, 0.04, None)
    left, right = 8, WIDTH - 8
    ends_at = (axis.low, axis.high)

    def x(value: float) -> float:
        share = (value - ends_at[0]) / (ends_at[1] - ends_at[0])
        return round(left + min(1.0, max(0.0, share)) * (right - left), 1)

    middle = top + 26
    parts: list[Child] = []
    if margin is not None:
        parts.append(h("rect", x=left, y=middle - 11, width=round(x(-margin) - left, 1), height=22,
                       class_="worse"))  # fmt: skip
    parts += [
        h("line", x1=left, x2=right, y1=middle, y2=middle, class_="axis"),
        h("line", x1=x(0), x2=x(0), y1=middle - 11, y2=middle + 11, class_="same"),
        h("line", x1=x(span.low), x2=x(span.high), y1=middle, y2=middle, class_="whisker new"),
        h("circle", cx=x(span.mean), cy=middle, r=5.5, class_="dot new"),
        _text(_within(x(span.mean)), top + 9, f"difference {span.mean * 100:+.1f} points", "middle",
              "strong"),
    ]  # fmt: skip
    below = middle + 27
    apart = margin is None or x(0) - x(-margin) > 110
    same = x(0)
    if margin is not None:
        edge = x(-margin) if apart else max(LEAST, x(-margin))
        same = same if apart else max(same, edge + 8)
        allowed = f"\N{MINUS SIGN}{margin * 100:g} is allowed"
        parts.append(_text(edge, below, allowed, "middle" if apart else "end", "tick"))
    parts.append(_text(same, below, "the same", "middle" if apart else "start", "tick"))
    if margin is None or x(-margin) - left > 160:
        parts.append(_text(left, below, "\N{LEFTWARDS ARROW} worse", "start", "tick"))
    if right - x(0) > (110 if apart else 130):
        parts.append(_text(right, below, "better \N{RIGHTWARDS ARROW}", "end", "tick"))
    return parts


def _within(x: float) -> float:
    return min(WIDTH - 80, max(80, x))


def time_chart(title: str, seconds: Mapping[str, float]) -> Markup:
    """Stages as parts of one bar, each named below with its time."""
    total = sum(seconds.values()) or 1.0
    width = 320
    parts: list[Child] = []
    x = 0.0
    for place, value in enumerate(seconds.values()):
        part = width * value / total
        parts.append(h("rect", x=round(x, 1), y=0, width=max(0.8, round(part - 1, 1)), height=14,
                       class_=f"stage s{place}"))  # fmt: skip
        x += part
    for place, (name, value) in enumerate(seconds.items()):
        column, row = place % 2, place // 2
        parts += [
            h("rect", x=column * 162, y=26 + row * 19, width=9, height=9, rx=2,
              class_=f"stage s{place}"),
            _text(column * 162 + 14, 35 + row * 19, f"{name} {human_seconds(value)}", "start"),
        ]  # fmt: skip
    words = ", ".join(f"{name} {human_seconds(value)}" for name, value in seconds.items())
    return _svg(title, words, 24 + 19 * -(-len(seconds) // 2), parts, width)


def _svg(title: str, words: str, height: float, parts: list[Child], width: int = WIDTH) -> Markup:
    return h("svg", *parts, viewBox=f"0 0 {width} {round(height)}", role="img",
             aria_label=f"{title}: {words}", class_="chart")  # fmt: skip


def _text(x: float, y: float, words: str, anchor: str, kind: str | None = None) -> Markup:
    return h("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_=kind)
