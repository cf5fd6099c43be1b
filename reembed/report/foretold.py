"""What the plan foretold of a run, held against what the run took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reembed.progress import human_bytes, short_time
from reembed.report.timeline import Stage
from reembed.run import events
from reembed.run.history import History

WHOLE = "all stages"


@dataclass(frozen=True)
class Told:
    """One figure of the plan and what became of it.

    Attributes:
        what: `export`, ... and `all stages` (seconds), `tokens`, `usd`, `memory`, `run directory`
            and `store` (bytes).
        unit: seconds, tokens, usd or bytes.
        foretold, taken: in that unit.
    """

    what: str
    unit: str
    foretold: float
    taken: float

    @property
    def times(self) -> float | None:
        """How many times what was foretold; None where that was nothing."""
        return round(self.taken / self.foretold, 2) if self.foretold else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"times": self.times}

    def shown(self, value: float) -> str:
        """A value of it for a person."""
        if self.unit == "seconds":
            return short_time(value)
        if self.unit == "bytes":
            return human_bytes(value)
        return f"${value:,.4f}" if self.unit == "usd" else f"{value:,.0f}"


def foretold_of(history: History, stages: Sequence[Stage]) -> list[Told]:
    """Every figure that was foretold and is known by now; none before there is a verdict, and none
    of a run whose plan is not on record."""
    told, given = history.last(events.Foretold), history.all(events.VerdictGiven)
    if told is None or not given:
        return []
    took = {stage.name: stage.seconds for stage in stages}
    both = [name for name in took if name in told.seconds]
    found = [Told(name, "seconds", told.seconds[name], round(took[name], 3)) for name in both]
    if len(both) == len(took):
        sums = (sum(one.foretold for one in found), sum(one.taken for one in found))
        found.append(Told(WHOLE, "seconds", round(sums[0], 1), round(sums[1], 3)))
    tokens = sum(stage.stats.get("tokens", 0) for stage in stages)
    if told.tokens or tokens:
        found.append(Told("tokens", "tokens", told.tokens, tokens))
    usd = [stage.usd for stage in stages if stage.usd is not None]
    if told.usd is not None and usd:
        found.append(Told("usd", "usd", told.usd, sum(usd)))
    first = given[0]  # later ones know of what came after
    peaks = [one.peak_bytes for one in history.all(events.StageDone, events.VerdictGiven)]
    found.append(Told("memory", "bytes", told.memory_bytes, max(peaks)))
    grown = first.state_bytes - told.state_before, first.store_bytes - told.store_before
    found.append(Told("run directory", "bytes", told.state_bytes, grown[0]))
    found.append(Told("store", "bytes", told.store_bytes, grown[1]))
    return [one for one in found if one.unit != "bytes" or (one.foretold and one.taken > 0)]
