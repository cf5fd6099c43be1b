"""What a plan foretold against what a run took."""

from __future__ import annotations

from pathlib import Path

from reembed.report.foretold import foretold_of
from reembed.report.timeline import stages
from reembed.run import events
from reembed.run.directory import RunDir

PLAN = events.Foretold(
    seconds={"export": 2.0, "embed": 10.0, "load": 8.0, "verify": 5.0}, tokens=1000, usd=0.02,
    memory_bytes=400, state_bytes=50, store_bytes=90, state_before=7, store_before=1000,
)  # fmt: skip


def journal(folder: Path, *, planned: bool = True, verified: bool = True) -> RunDir:
    """The journal of a run that was stopped once while it embedded."""
    run = RunDir.create(folder, "", {})
    for event in (
        *([PLAN] if planned else ()),
        events.StageDone(stage="export", seconds=3.0, peak_bytes=300),
        events.StageDone(stage="embed", seconds=4.0, stats={"tokens": 400}, usd=0.01, peak_bytes=9),
        events.StageDone(stage="embed", seconds=1.0, stats={"tokens": 500}, usd=0.01),
        events.StageDone(stage="load", seconds=8.0, peak_bytes=800),
        *([events.VerdictGiven(passed=True, seconds=4.0, stats={"tokens": 100}, peak_bytes=500,
                               state_bytes=57, store_bytes=1180)] if verified else ()),
    ):  # fmt: skip
        run.history.record(event)
    return run


def test_every_figure_of_the_plan_is_held_against_what_came(tmp_path: Path) -> None:
    history = journal(tmp_path).history
    found = {one.what: one for one in foretold_of(history, stages(history.read()))}
    assert {what: (one.foretold, one.taken, one.times) for what, one in found.items()} == {
        "export": (2.0, 3.0, 1.5),
        "embed": (10.0, 5.0, 0.5),
        "load": (8.0, 8.0, 1.0),
        "verify": (5.0, 4.0, 0.8),
        "all stages": (25.0, 20.0, 0.8),
        "tokens": (1000, 1000, 1.0),
        "usd": (0.02, 0.02, 1.0),
        "memory": (400, 800, 2.0),
        "run directory": (50, 50, 1.0),
        "store": (90, 180, 2.0),
    }


def test_of_a_later_verification_only_the_time_counts(tmp_path: Path) -> None:
    """The folders hold by then what came after the run."""
    history = journal(tmp_path).history
    history.record(
        events.VerdictGiven(passed=True, seconds=6.0, state_bytes=900, store_bytes=9000)
    )  # fmt: skip
    found = {one.what: one.taken for one in foretold_of(history, stages(history.read()))}
    assert (found["verify"], found["run directory"], found["store"]) == (10.0, 50, 180)


def test_nothing_is_said_without_a_plan_or_before_the_verdict(tmp_path: Path) -> None:
    """Runs that an earlier version began have no plan on record."""
    for number, run in enumerate((
        journal(tmp_path / "a", planned=False), journal(tmp_path / "b", verified=False),
    )):  # fmt: skip
        assert foretold_of(run.history, stages(run.history.read())) == [], number
