"""What a gate's figures are, told by their shape, so that a figure nobody foresaw is shown too.

A figure is a number or a text, an interval (`mean`, `low`, `high`), a histogram (`counts` and
`edges`), quantiles (`p5`, `p25`, `median`, ...), a table (a list of mappings, or a mapping of
mappings), or a mapping of other figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from reembed.report.html.labels import label

Number = int | float
EDGE_NAMES = ("edges", "bin_edges", "bins")
RANGE_NAMES = (("low", "high"), ("min", "max"))


@dataclass(frozen=True)
class Span:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: Sequence[float]
    counts: Sequence[float]


@dataclass(frozen=True)
class Quantiles:
    """Five of the quantiles of some values."""

    p5: float
    p25: float
    median: float
    p75: float
    p95: float


@dataclass(frozen=True)
class Grid:
    """A table: cells by row, under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


_MOST = 1e200


def is_number(value: object) -> TypeGuard[Number]:
    """Whether `value` is a number that can be drawn, sums and air about it included; a truth value
    is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def is_scalar(value: object) -> bool:
    """Whether `value` is shown in one line."""
    return value is None or isinstance(value, str | int | float)


def number(figures: Mapping[str, Any], *names: str) -> float | None:
    """The first of these figures that is a number."""
    return next((float(figures[n]) for n in names if is_number(figures.get(n))), None)


def as_span(value: object) -> Span | None:
    """`value` as an interval, None if it is none."""
    if not isinstance(value, Mapping):
        return None
    mean, low, high = (value.get(key) for key in ("mean", "low", "high"))
    if not (is_number(mean) and is_number(low) and is_number(high)):
        return None
    confidence, n = value.get("confidence"), value.get("n")
    return Span(
        float(mean), float(low), float(high),
        float(confidence) if is_number(confidence) else None, int(n) if is_number(n) else None,
    )  # fmt: skip


def as_histogram(value: object) -> Histogram | None:
    """`value` as a histogram, None if it is none."""
    if not isinstance(value, Mapping):
        return None
    counts = _numbers(value.get("counts"))
    if not counts:
        return None
    for name in EDGE_NAMES:
        edges = _numbers(value.get(name))
        if edges and len(edges) == len(counts) + 1:
            return Histogram(edges, counts)
    for first, last in RANGE_NAMES:
        low, high = value.get(first), value.get(last)
        if is_number(low) and is_number(high) and high > low:
            step = (high - low) / len(counts)
            return Histogram([low + step * i for i in range(len(counts) + 1)], counts)
    return None


def as_quantiles(value: object) -> Quantiles | None:
    """`value` as quantiles, None if it is none. The ends may be the least and the most."""
    if not isinstance(value, Mapping):
        return None
    found = [
        next((value[name] for name in names if is_number(value.get(name))), None)
        for names in (("p5", "min"), ("p25",), ("median", "p50"), ("p75",), ("p95", "max"))
    ]
    known = [float(v) for v in found if v is not None]
    return Quantiles(*known) if len(known) == 5 else None


def by_side(figures: Mapping[str, Any]) -> dict[str, Any]:
    """`{"old": {"a": 1}, "new": {"a": 2}}` as `{"a": {"old": 1, "new": 2}}`, so that what is alike
    stands together. Other figures are left as they are."""
    sides = {
        side: figures[side] for side in ("old", "new") if isinstance(figures.get(side), Mapping)
    }
    if not sides:
        return dict(figures)
    found = {name: value for name, value in figures.items() if name not in sides}
    if any(as_span(value) or as_quantiles(value) for value in sides.values()):
        return found | {"old and new": sides}
    names = list(dict.fromkeys(name for value in sides.values() for name in value))
    merged = {
        name: {side: value[name] for side, value in sides.items() if name in value}
        for name in names
    }
    plain = {name: pair for name, pair in merged.items() if all(map(is_scalar, pair.values()))}
    if plain:
        found["old and new"] = [{"": label(name), **pair} for name, pair in plain.items()]
    return found | {name: pair for name, pair in merged.items() if name not in plain}


def as_grid(value: object) -> Grid | None:
    """`value` as a table, None if it is none.

    Rows are the entries of a list of flat mappings, or of a mapping of flat mappings; for old and
    new, these are the columns instead.
    """
    if isinstance(value, list) and value and all(_is_flat(entry) for entry in value):
        columns = list(dict.fromkeys(str(key) for entry in value for key in entry))
        return Grid(columns, [[entry.get(column) for column in columns] for entry in value])
    if isinstance(value, Mapping) and value and all(_is_flat(entry) for entry in value.values()):
        if set(value) <= {"old", "new"}:
            names = list(dict.fromkeys(key for entry in value.values() for key in entry))
            rows = [[name, *(value[side].get(name) for side in value)] for name in names]
            return Grid(["", *value], rows)
        columns = list(dict.fromkeys(str(key) for entry in value.values() for key in entry))
        rows = [[name, *(entry.get(column) for column in columns)] for name, entry in value.items()]
        return Grid(["", *columns], rows)
    return None


def show(value: object) -> str:
    """A number or a text as it stands in a table."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "\N{EN DASH}"
        if value and abs(value) < 1e-4:
            return f"{value:.2e}"
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.5g}"
    return str(value)


def _numbers(value: object) -> list[float]:
    """`value` as a list of finite numbers, empty if it is anything else."""
    if isinstance(value, list | tuple) and all(is_number(item) for item in value):
        return [float(item) for item in value]
    return []


def _is_flat(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and bool(value) and all(map(is_scalar, value.values()))
