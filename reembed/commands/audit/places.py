"""Where the bad ones are: the values of a key, the time or the range that tells them best from the
good ones.

A place is chosen by the likelihood ratio of two shares against one (G, Sokal and Rohlf 1981), over
all keys, values and ranges. So many are tried that some place always looks good: its chance is that
of the best place in labels that were shuffled, over all of the places again (Westfall and Young
1993, "Resampling-based multiple testing").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reembed.commands.audit.held import MILLISECONDS, Column, Held, Rows

Numbers = npt.NDArray[np.float64]
SHUFFLES = 199
CHANCE = 0.01
"""Of a place that is told, at most."""
MOST_PLACES = 3
"""That are told."""
MOST = 4_000
"""Records of a kind that are looked at."""
ENDS = 48
"""Bad records that a range may begin or end at."""
FEWEST = 4
"""Bad records; fewer have no place."""


@dataclass(frozen=True)
class Place:
    """Where bad records are.

    Attributes:
        key: metadata key; `id` or `order of insertion`.
        low, high: ends of a range, as they are shown; a single value has both the same.
        inside, inside_bad: records that were looked at there, and of these the bad ones.
        outside, outside_bad: likewise of the others.
        records: of the whole collection that are there.
        chance: that the best place of records without one looks as good.
        rows: those of the whole collection that are there.
    """

    key: str
    low: str
    high: str
    inside: int
    inside_bad: int
    outside: int
    outside_bad: int
    records: int
    chance: float
    rows: Rows = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "rows"}

    def __str__(self) -> str:
        where = f"{self.key} {self.low}"
        if self.low != self.high:
            where = f"{self.key} from {self.low} to {self.high}"
        return (
            f"{where}: {self.inside_bad:,} of the {self.inside:,} looked at there, "
            f"{self.outside_bad:,} of {self.outside:,} elsewhere"
        )


@dataclass(frozen=True)
class _Feature:
    """A figure of every record by which it has a place.

    Attributes:
        numbers: `(n,)`, NaN where a record has none.
        values: of a key with few values: numbers are places in it.
    """

    name: str
    kind: Literal["value", "number", "time", "order", "id"]
    numbers: Numbers
    values: tuple[str, ...] = ()

    def shown(self, number: float, held: Held) -> str:
        if self.kind == "value":
            return self.values[int(number)]
        if self.kind == "time":
            seconds = number / 1_000 if number >= MILLISECONDS[0] else number
            return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        if self.kind in ("order", "id"):
            return held.ids[int(number)] if self.kind == "order" else _at(held, number)
        return f"{number:g}"


def _at(held: Held, rank: float) -> str:
    return sorted(held.ids)[int(rank)]


def _features(held: Held) -> list[_Feature]:
    order = np.arange(held.count, dtype=np.float64)
    ranks = np.empty(held.count)
    ranks[np.array(sorted(range(held.count), key=held.ids.__getitem__), np.int64)] = order
    found = [feature for column in held.columns for feature in _of(column)]
    return [
        *found, _Feature("order of insertion, ids", "order", order), _Feature("id", "id", ranks)
    ]  # fmt: skip


def _of(column: Column) -> list[_Feature]:
    found = []
    if np.isfinite(column.numbers).any():
        kind: Literal["time", "number"] = "time" if column.is_time else "number"
        found.append(_Feature(column.name, kind, column.numbers))
    if len(column.values) > 1 and (column.codes >= 0).sum() >= 2 * len(column.values):
        codes = np.where(column.codes >= 0, column.codes, np.nan).astype(np.float64)
        found.append(_Feature(column.name, "value", codes, tuple(column.values)))
    return found


def places(held: Held, bad: Rows, good: Rows, rng: np.random.Generator) -> list[Place]:
    """The places that tell bad records from good ones, best first; usually none or one.

    Args:
        good: such as a random sample has them.
    """
    bad = bad if len(bad) <= MOST else np.sort(rng.choice(bad, MOST, replace=False))
    good = good if len(good) <= MOST else np.sort(rng.choice(good, MOST, replace=False))
    if len(bad) < FEWEST or len(good) < FEWEST:
        return []
    rows = np.concatenate([bad, good])
    labels = np.zeros(len(rows), np.bool_)
    labels[: len(bad)] = True
    features = [one for one in _features(held) if np.isfinite(one.numbers[rows]).any()]
    sorted_ = [_Sorted.of(one.numbers[rows], one.kind == "value") for one in features]
    found = [one.best(labels) for one in sorted_]
    mixed = [rng.permutation(labels) for _ in range(SHUFFLES)]
    shuffled = np.sort([max(one.best(each)[0] for one in sorted_) for each in mixed])
    told = []
    for feature, (gain, low, high) in zip(features, found, strict=True):
        chance = (1 + int((shuffled >= gain).sum())) / (1 + SHUFFLES)
        if chance <= CHANCE:
            told.append((gain, feature, low, high, chance))
    told.sort(key=lambda one: -one[0])
    kept: list[Place] = []
    for gain, feature, low, high, chance in told:
        place = _place(held, feature, (low, high), rows, labels, chance)
        same = any(np.array_equal(place.rows, one.rows) for one in kept)
        if gain >= 0.5 * told[0][0] and not same and len(kept) < MOST_PLACES:
            kept.append(place)
    return kept


@dataclass(frozen=True)
class _Sorted:
    """A feature of the records that are looked at, in the order of its values.

    Attributes:
        order: places of records, those without a value left out.
        starts: where each different value begins in it, and its end.
        values: the different values.
        single: whether only single values are places, not ranges.
    """

    order: Rows
    starts: Rows
    values: Numbers
    single: bool

    @classmethod
    def of(cls, numbers: Numbers, single: bool) -> _Sorted:
        there = np.flatnonzero(np.isfinite(numbers))
        order = there[np.argsort(numbers[there], kind="stable")]
        values, starts = np.unique(numbers[order], return_index=True)
        return cls(order, np.append(starts, len(order)), values, single)

    def best(self, labels: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
        """Gain, lowest and highest value of the best place; who has no value is outside."""
        bad = np.concatenate([[0], np.cumsum(labels[self.order])])[self.starts]
        at = self.starts
        if self.single:
            first, last = np.arange(len(self.values)), np.arange(len(self.values))
        else:
            there = np.flatnonzero(np.diff(bad))  # different values that bad records have
            step = max(1, len(there) // ENDS)
            ends = np.unique(np.append(there[::step], there[-1:]))
            one, other = np.triu_indices(len(ends))
            first, last = ends[one], ends[other]
        if not len(first):
            return 0.0, np.nan, np.nan
        inside = (at[last + 1] - at[first]).astype(np.float64)
        inside_bad = (bad[last + 1] - bad[first]).astype(np.float64)
        gains = _gain(inside, inside_bad, float(len(labels)), float(labels.sum()))
        best = int(np.argmax(gains))
        return float(gains[best]), self.values[first[best]], self.values[last[best]]


def _gain(inside: Numbers, inside_bad: Numbers, n: float, bad: float) -> Numbers:
    """G = 2 Σ O ln(O / E) of a table of two by two; 0 where the share inside is not higher."""
    total = np.zeros(len(inside))
    for seen, row, column in (
        (inside_bad, inside, bad), (inside - inside_bad, inside, n - bad),
        (bad - inside_bad, n - inside, bad),
        (n - bad - inside + inside_bad, n - inside, n - bad),
    ):  # fmt: skip
        expected = row * column / n
        with np.errstate(divide="ignore", invalid="ignore"):
            total += np.where(seen > 0, seen * np.log(seen / expected), 0.0)
    higher = inside_bad * n > inside * bad
    return np.where(higher, 2 * total, 0.0)


def _place(
    held: Held, feature: _Feature, ends: tuple[float, float], rows: Rows,
    labels: npt.NDArray[np.bool_], chance: float,
) -> Place:  # fmt: skip
    low, high = ends
    with np.errstate(invalid="ignore"):
        all_inside = (feature.numbers >= low) & (feature.numbers <= high)
    inside = all_inside[rows]
    return Place(
        feature.name, feature.shown(low, held), feature.shown(high, held), int(inside.sum()),
        int((inside & labels).sum()), int((~inside).sum()), int((~inside & labels).sum()),
        int(all_inside.sum()), round(chance, 4), np.flatnonzero(all_inside),
    )  # fmt: skip
