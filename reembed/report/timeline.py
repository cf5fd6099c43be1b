"""A run's journal as stages with their cost, and as a timeline for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reembed.progress import human_time
from reembed.run import events
from reembed.run.directory import DELTA
from reembed.run.events import Event

STAGES = ("export", "embed", "load", "verify")
SLACK = 0.05
"""Seconds by which a stage's own clock and the journal's may differ."""
LONGEST = 200
"""Lines of a timeline; those in the middle of a longer one are left out, and counted."""


@dataclass
class Stage:
    """What a stage took, over all calls that finished it.

    Attributes:
        name: export, embed, load or verify.
        seconds: of these calls.
        records: made in them.
        earlier: records made in calls that were stopped, whose time is not known.
        usd: at the listed price, None where it is unknown or free.
        stats: what the model was asked for: requests, texts, tokens, retries, ...
    """

    name: str
    seconds: float = 0.0
    records: int = 0
    earlier: int = 0
    usd: float | None = None
    stats: dict[str, float] = field(default_factory=dict)

    @property
    def records_per_second(self) -> float | None:
        return self.records / self.seconds if self.records and self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"records_per_second": self.records_per_second}


@dataclass(frozen=True)
class Moment:
    """Something that happened, at `t` seconds since the epoch."""

    t: float
    what: str


def stages(history: Sequence[Event]) -> list[Stage]:
    """The stages that ran to their end at least once, in order."""
    found: dict[str, Stage] = {}
    rows: dict[str, int] = {}
    waiting: dict[str, list[tuple[float, int, bool]]] = {}
    for event in history:
        if isinstance(event, events.ShardWritten):
            stem = event.shard.stem
            if event.stage == "embed":
                rows[stem] = event.rows
            entry = (event.t, event.rows, stem.startswith(DELTA))
            waiting.setdefault(event.stage, []).append(entry)
        elif isinstance(event, events.Loaded):
            entry = (event.t, rows.get(event.stem, 0), event.stem.startswith(DELTA))
            waiting.setdefault("load", []).append(entry)
        elif isinstance(event, events.StageDone):
            _add(found, waiting, event.stage, event.seconds, event)
        elif isinstance(event, events.VerdictGiven) and event.seconds is not None:
            _add(found, waiting, "verify", event.seconds, event)
    return [found[name] for name in STAGES if name in found]


def _add(
    found: dict[str, Stage],
    waiting: dict[str, list[tuple[float, int, bool]]],
    name: str,
    seconds: float,
    done: events.StageDone | events.VerdictGiven,
) -> None:
    stage = found.setdefault(name, Stage(name))
    stage.seconds += seconds
    for at, count, is_delta in waiting.pop(name, []):
        if at >= done.t - seconds - SLACK:
            stage.records += count
        elif not is_delta:  # catch-up makes deltas within another stage
            stage.earlier += count
    for key, value in done.stats.items():
        stage.stats[key] = stage.stats.get(key, 0) + value
    if done.usd is not None:
        stage.usd = (stage.usd or 0.0) + done.usd


def timeline(history: Sequence[Event]) -> list[Moment]:
    """What happened when, shards left out."""
    found = [Moment(event.t, words) for event in history if (words := _words(event))]
    if len(found) <= LONGEST:
        return found
    head, tail = found[: LONGEST // 4], found[-(LONGEST - LONGEST // 4) :]
    left_out = f"… {len(found) - LONGEST:,} more, in journal.jsonl …"
    return [*head, Moment(tail[0].t, left_out), *tail]


def _words(event: Event) -> str:
    """An event in a few words, empty for those that say too little."""
    match event:
        case events.RunCreated():
            return f"run {event.run} begun"
        case events.Census():
            return f"census of {event.source['name']!r}: {event.rows:,} records"
        case events.StageDone():
            return f"{event.stage} done in {human_seconds(event.seconds)}"
        case events.BudgetReached():
            return f"stopped at the budget, with {event.tokens:,} tokens spent"
        case events.ShadowCreated():
            return f"shadow {event.name!r} made"
        case events.CaughtUp():
            carried = event.carried
            return f"caught up with the source: {carried:,} records copied" if carried else ""
        case events.VerdictGiven():
            return f"verdict: {'pass' if event.passed else 'the swap is refused'}"
        case events.SliceVerdict():
            return f"slice {event.slice} checked: {'pass' if event.passed else 'fail'}"
        case events.MoveBegun():
            return f"{event.action} begun ({event.kind})"
        case events.MoveDone():
            gap = event.receipt.get("gap_seconds")
            held = event.receipt.get("held_seconds")
            measured = f", gap of {gap * 1000:.1f} ms" if gap is not None else ""
            measured += f", writers waited {human_seconds(held)}" if held is not None else ""
            return f"{event.action} done{measured}"
        case events.CleanBegun():
            return "cleaning begun"
        case events.Cleaned():
            return f"cleaned: {event.what}"
    return ""


def human_seconds(seconds: float) -> str:
    """`0.48 s`, `3 min 20 s`, `2 h 5 min`."""
    return f"{seconds:.2g} s" if seconds < 9.5 else human_time(seconds)
