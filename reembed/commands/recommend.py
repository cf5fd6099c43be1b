"""Which model to take, in words: one of the candidates, or the one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reembed.quality.noninferiority import FEWEST_QUERIES
from reembed.quality.statistics import Interval, Values, paired_difference, queries_to_settle

SMALLER = 0.75
"""Share of the dimensions from which a model that is as good is worth a migration."""


@dataclass(frozen=True)
class Rival:
    """What a recommendation looks at.

    Attributes:
        recall: of each query, `(q,) float64`.
        change: of recall from the current model; None where that could not be asked.
    """

    name: str
    dimensions: int
    usd: float | None
    recall: Values
    change: Interval | None


@dataclass(frozen=True)
class Recommendation:
    """Advice.

    Attributes:
        choice: name of a candidate's manifest; empty to stay with the current model, or where the
            figures do not say.
        headline: one line.
        why: the figures that decided.
    """

    choice: str
    headline: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recommend(
    rivals: Sequence[Rival], dimensions: int | None, margin: float, confidence: float
) -> Recommendation:
    """Take the candidate that is shown to find more than the current model; else stay, unless one
    is as good and clearly smaller. Without a current model: the best, or the smallest of those that
    cannot be told from it.

    Args:
        dimensions: of the current model's vectors; None where it could not be asked.
        margin: how much recall a model that is as good may lose.
        confidence: of the intervals.
    """
    best = max(rivals, key=lambda one: (float(one.recall.mean()), -one.dimensions))
    if len(best.recall) < FEWEST_QUERIES:
        why = f"{len(best.recall)} queries are too few; at least {FEWEST_QUERIES} are needed."
        return Recommendation("", "the figures do not say yet", why)
    if dimensions is None or best.change is None:
        return _among(rivals, best, confidence)
    alike = _smallest_alike([one for one in rivals if one.change and one.change.low > 0], best,
                            confidence)  # fmt: skip
    if best.change.low > 0 or alike is not best:
        chosen = alike
        assert chosen.change is not None
        why = f"Against the current model: {_points(chosen.change)}."
        if chosen is not best:
            why += f" {best.name} is not shown to be better, and its vectors are longer."
        return Recommendation(chosen.name, f"take {chosen.name}", why)
    small = [one for one in rivals if one.change and one.change.low >= -margin
             and one.dimensions <= SMALLER * dimensions]  # fmt: skip
    if small:
        chosen = min(small, key=lambda one: one.dimensions)
        assert chosen.change is not None
        why = (f"It is as good as the current model ({_points(chosen.change)}), with "
               f"{chosen.dimensions} dimensions instead of {dimensions}.")  # fmt: skip
        return Recommendation(chosen.name, f"take {chosen.name}, for its smaller vectors", why)
    why = (f"No candidate is shown to find more. The best of them is {best.name}: "
           f"{_points(best.change)}.")  # fmt: skip
    needed = queries_to_settle(best.change, 0.0) if best.change.mean > 0 else None
    if needed:
        why += f" About {needed:,} queries would show whether that is real."
    return Recommendation("", "stay with the current model", why)


def _among(rivals: Sequence[Rival], best: Rival, confidence: float) -> Recommendation:
    chosen = _smallest_alike(rivals, best, confidence)
    others = [
        one.name for one in rivals if one is not chosen and not _behind(one, chosen, confidence)
    ]
    why = f"It finds the right record in {chosen.recall.mean() * 100:.1f} % of the queries."
    if others:
        why += f" It is not shown to be better than {', '.join(others)}; its vectors are no longer."
    why += " The current model was not compared, so this does not say that a change is worth it."
    return Recommendation(chosen.name, f"of the candidates, {chosen.name}", why)


def _smallest_alike(rivals: Sequence[Rival], best: Rival, confidence: float) -> Rival:
    """The one with the fewest dimensions of those that cannot be told from the best."""
    alike = [one for one in rivals if one is not best and not _behind(one, best, confidence)]
    return min([best, *alike], key=lambda one: one.dimensions)


def _behind(one: Rival, best: Rival, confidence: float) -> bool:
    """Whether `one` is shown to find less."""
    return paired_difference(one.recall, best.recall, confidence).high < 0


def _points(change: Interval) -> str:
    return (f"{change.mean * 100:+.1f} points of recall, between {change.low * 100:+.1f} and "
            f"{change.high * 100:+.1f}")  # fmt: skip
