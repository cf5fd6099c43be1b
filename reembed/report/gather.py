"""What a report says of a run, gathered from its run directory alone: no store, no model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow.parquet as pq

import reembed
from reembed.display.markup import h
from reembed.display.shown import Face, Shown
from reembed.errors import DamagedError
from reembed.quality.conclusion import Conclusion, Tone, basis, conclude
from reembed.quality.remedies import Remedy
from reembed.quality.verdict import Verdict
from reembed.redaction import redacted_values
from reembed.redaction.terminal import harmless
from reembed.report.foretold import Told, foretold_of
from reembed.report.results import RunResult, run_result
from reembed.report.timeline import Moment, Stage, stages, timeline
from reembed.run import events, files
from reembed.run.directory import RunDir
from reembed.run.files import RunFile
from reembed.run.history import History, State
from reembed.run.steps import Step

Outcome = Literal["pass", "refused", "none"]
Mood = Tone | Literal["none"]
"""The colour of a report: of its verdict, or none before there is one."""
Found = TypeVar("Found")
QUARANTINE_SAMPLES = 10


@dataclass(frozen=True)
class Quarantined:
    """The records quarantined for one reason.

    Attributes:
        samples: up to 10 of them: id and what the provider or reembed said.
    """

    reason: str
    count: int
    samples: list[tuple[str, str]]


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """Everything that the report's forms (HTML, Markdown, JSON) show.

    Attributes:
        name: of the migration.
        run: run id.
        path: run directory.
        written: seconds since the epoch.
        state: how far the run is.
        outcome: `pass`, `refused`, or `none` before there is a verdict.
        mood: good, caution, bad, or none before there is a verdict.
        headline: the verdict in one line.
        sentence: what it rests on.
        source: the collection as the census found it; empty before.
        target: name of the shadow; empty before there is one.
        old_model: the old model as it was asked, else as the store recorded it; as manifest keys.
        model: the new model, as manifest keys; empty where vectors are kept.
        runs_on: the device that it ran on when the run began; "" for a server's.
        dimensions: of the new vectors, None before the model was asked.
        exported, loaded, quarantined: records.
        stages: time, records and tokens of each.
        foretold: what the plan said of the run's time, tokens, memory and disk, and what it took.
        quarantine: by reason, most frequent first.
        timeline: what happened when.
        swap: `kind`, `guarantee` and `live`, or `refused` and `hint`; empty if not known yet.
        commands: how to swap, go back and clean.
        remedies: what makes the gates pass that are in the way.
        manifest: YAML, as resolved.
        kept: whether vectors are moved as they are.
    """

    name: str
    run: str
    path: str
    written: float
    state: State
    outcome: Outcome
    mood: Mood
    headline: str
    sentence: str
    source: dict[str, Any]
    target: str
    old_model: dict[str, Any]
    model: dict[str, Any]
    dimensions: int | None
    exported: int
    loaded: int
    quarantined: int
    verdict: Verdict | None
    stages: list[Stage]
    quarantine: list[Quarantined]
    timeline: list[Moment]
    swap: dict[str, Any]
    commands: list[Step]
    remedies: list[Remedy]
    manifest: str
    runs_on: str = ""
    kept: bool = False
    foretold: list[Told] = field(default_factory=list)
    reembed: str = field(default=reembed.__version__)

    @property
    def next(self) -> str:
        """The command that goes on from here."""
        return self.commands[0].command if self.commands else ""

    def with_name_lost(self, told: list[str]) -> Report:
        """The report of a run whose live name leads to none of its collections by now.

        Args:
            told: what is to be said of it.
        """
        sentence = " ".join([self.sentence, *told])
        return replace(self, state="name lost", sentence=sentence, commands=[])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "next": self.next,
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "stages": [stage.to_dict() for stage in self.stages],
            "foretold": [one.to_dict() for one in self.foretold],
        }

    def to_html(self) -> str:
        """One page that needs nothing else."""
        from reembed.report.html.page import page

        return harmless(redacted_values(page(self), words=False))

    def _face(self) -> Face:
        return Face(f"{self.name}: {self.state}, {self.headline}")

    def _repr_html_(self) -> str:
        """The page itself, in a frame of its own, where its style is not the notebook's."""
        style = "width: 100%; height: 40em; border: 1px solid #ccc"
        return h("iframe", srcdoc=self.to_html(), sandbox="", title="report", style=style)

    def to_markdown(self) -> str:
        """A short summary for pull requests and CI job pages."""
        from reembed.report.markdown import summary

        return harmless(redacted_values(summary(self)))


def read_report(name: str, run: RunDir, manifest: Path | None = None) -> Report:
    """Gather a report.

    Args:
        name: of the migration.
        manifest: the file that the user keeps, for the commands; default: the run's own copy.
    """
    result = run_result(name, run, manifest)
    history = run.history
    identity = history.created.identity
    census, shadow = history.census, history.last(events.ShadowCreated)
    taken = history.last(events.FingerprintTaken)
    fingerprint = taken.fingerprint if taken else {}
    model = identity["model"] if isinstance(identity["model"], dict) else {}
    outcome, found, sentence = _outcome(result)
    notes = list(result.messages)
    taken_by = stages(history.read())
    quarantine = _shown(run, files.QUARANTINE, _quarantine, notes) or []
    copy = _shown(run, files.MANIFEST, lambda path: path.read_text("utf-8"), notes) or ""
    return Report(
        name=name, run=run.run_id, path=result.path, written=round(time.time(), 3),
        state=result.state, outcome=outcome, mood=found.tone if found else "none",
        headline=found.headline if found else "no verdict yet",
        sentence=" ".join([sentence, *notes]),
        source=census.source if census else {}, target=shadow.name if shadow else "",
        old_model=_old_model(result.verdict, census),
        model=model, kept=not model,
        dimensions=fingerprint.get("dimensions") or model.get("dimensions")
        or (census.source.get("dimensions") if census and not model else None),
        exported=result.exported, loaded=result.loaded, quarantined=result.quarantined,
        verdict=result.verdict, stages=taken_by, quarantine=quarantine,
        timeline=timeline(history.read()), swap=_swap(history),
        commands=result.steps, remedies=result.remedies,
        manifest=copy, runs_on=str((fingerprint.get("details") or {}).get("runs on", "")),
        foretold=foretold_of(history, taken_by),
    )  # fmt: skip


def _outcome(result: RunResult) -> tuple[Outcome, Conclusion | None, str]:
    verdict = result.verdict
    if verdict is None:
        return "none", None, f"The run is {result.state}; its gates have not been checked."
    found = conclude(verdict, "swapped" if result.state == "swapped" else "safe to swap")
    return "pass" if verdict.passed else "refused", found, basis(verdict)


def _old_model(verdict: Verdict | None, census: events.Census | None) -> dict[str, Any]:
    """The old model as the gates asked it, else as the store has it on record."""
    for gate in verdict.gates if verdict else ():
        asked = gate.figures.get("asked")
        if isinstance(asked, dict) and asked.get("old"):
            return dict(asked["old"])
    recorded = census.source.get("model") if census else None
    return dict(recorded or {})


def _shown(
    run: RunDir, file: RunFile, parse: Callable[[Path], Found], notes: list[str]
) -> Found | None:
    """What a file holds that only the report shows. One that is damaged is told in a line."""
    try:
        return files.read(run.path / file.name, file, parse)
    except DamagedError as error:
        notes.append(f"{error.message}. {error.hint}")
        return None


def _quarantine(path: Path) -> list[Quarantined]:
    counts: dict[str, int] = {}
    samples: dict[str, list[tuple[str, str]]] = {}
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(columns=["id", "reason", "detail"]):
            for row in batch.to_pylist():
                reason = row["reason"]
                counts[reason] = counts.get(reason, 0) + 1
                kept = samples.setdefault(reason, [])
                if len(kept) < QUARANTINE_SAMPLES:
                    kept.append((row["id"], row["detail"]))
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [Quarantined(reason, counts[reason], samples[reason]) for reason in ordered]


def _swap(history: History) -> dict[str, Any]:
    """What the swap may claim, as the newest verdict noted it; its kind as it was done."""
    noted: dict[str, Any] = {}
    for event in history.all(events.VerdictGiven, events.SwapBegun):
        if isinstance(event, events.SwapBegun):
            if event.kind != noted.get("kind"):
                noted = {"kind": event.kind, "live": event.exchange["live"]}
        elif event.swap:
            noted = dict(event.swap)
    return noted
