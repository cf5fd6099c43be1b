"""A run's journal as stages with their cost, and as a timeline for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reembed.run.directory import DELTA

Event = Mapping[str, Any]
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


def stages(events: Sequence[Event]) -> list[Stage]:
    """The stages that ran to their end at least once, in order."""
    found: dict[str, Stage] = {}
    rows: dict[str, int] = {}
    waiting: dict[str, list[tuple[float, int, bool]]] = {}
    for event in events:
        kind, t = event["event"], float(event["t"])
        if kind == "shard":
            stem = event["name"].rsplit("/", 1)[-1].removesuffix(".parquet")
            if event["stage"] == "embed":
                rows[stem] = event["rows"]
            entry = (t, event["rows"], stem.startswith(DELTA))
            waiting.setdefault(event["stage"], []).append(entry)
        elif kind == "loaded":
            entry = (t, rows.get(event["stem"], 0), event["stem"].startswith(DELTA))
            waiting.setdefault("load", []).append(entry)
        elif kind == "stage-done" or (kind == "verdict" and "seconds" in event):
            name, seconds = str(event.get("stage", "verify")), float(event["seconds"])
            stage = found.setdefault(name, Stage(name))
            stage.seconds += seconds
            for at, count, is_delta in waiting.pop(name, []):
                if at >= t - seconds - SLACK:
                    stage.records += count
                elif not is_delta:  # catch-up makes deltas within another stage
                    stage.earlier += count
            _add(stage, event)
    return [found[name] for name in STAGES if name in found]


def _add(stage: Stage, event: Event) -> None:
    for key, value in event.get("stats", {}).items():
        stage.stats[key] = stage.stats.get(key, 0) + value
    if event.get("usd") is not None:
        stage.usd = (stage.usd or 0.0) + float(event["usd"])


def timeline(events: Sequence[Event]) -> list[Moment]:
    """What happened when, shards left out."""
    found = [Moment(float(event["t"]), words) for event in events if (words := _words(event))]
    if len(found) <= LONGEST:
        return found
    head, tail = found[: LONGEST // 4], found[-(LONGEST - LONGEST // 4) :]
    left_out = f"… {len(found) - LONGEST:,} more, in journal.jsonl …"
    return [*head, Moment(tail[0].t, left_out), *tail]


def _words(event: Event) -> str:
    """An event in a few words, empty for those that say too little."""
    match event["event"]:
        case "run-created":
            return f"run {event['run']} begun"
        case "census":
            source = event["source"]
            return f"census of {source['name']!r}: {event['rows']:,} records"
        case "stage-done":
            return f"{event['stage']} done in {human_seconds(float(event['seconds']))}"
        case "budget-reached":
            return f"stopped at the budget, with {event['tokens']:,} tokens spent"
        case "shadow-created":
            return f"shadow {event['name']!r} made"
        case "caught-up":
            carried = int(event.get("carried", 0))
            return f"caught up with the source: {carried:,} records carried" if carried else ""
        case "verdict":
            return f"verdict: {'pass' if event['passed'] else 'the swap is refused'}"
        case "slice-verdict":
            return f"slice {event['slice']} checked: {'pass' if event['passed'] else 'fail'}"
        case "swap-begun" | "rollback-begun":
            return f"{event['event'].removesuffix('-begun')} begun ({event['kind']})"
        case "swap-done" | "rollback-done":
            gap = event.get("receipt", {}).get("gap_seconds")
            measured = f", gap of {gap * 1000:.1f} ms" if gap is not None else ""
            return f"{event['event'].removesuffix('-done')} done{measured}"
        case "clean-begun":
            return "cleaning begun"
        case "cleaned":
            return f"cleaned: {event['what']}"
    return ""


def human_seconds(seconds: float) -> str:
    """`0.48 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
