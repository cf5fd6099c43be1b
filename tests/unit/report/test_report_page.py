"""The report of a real run: what it says, that it is safe, and that it is written in time."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import reembed.report.write
from reembed.errors import PreflightError, UsageError
from reembed.report.gather import Report, read_report
from reembed.report.html.drawing import TITLES
from reembed.report.html.labels import DATA, NAMES
from reembed.report.timeline import LONGEST, stages, timeline
from reembed.run import events
from reembed.run.directory import RunDir
from tests.support.commands import Command
from tests.support.manifests import migration, run_dir
from tests.support.report_cases import HOSTILE, finished_run, hostile_report
from tests.support.report_page import read_page

DRAWN = frozenset(
    """
    mean min max p5 p25 median p75 p95 low high confidence n edges counts
    metrics ndcg mrr success recall cosine_histogram tail examples asked equal_vectors
    """.split()  # noqa: SIM905
)
"""Keys that are parts of a plot, or that the page shows in words of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def report(made: Path) -> Report:
    return migration(made).report()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A finished migration to go on with."""
    return finished_run(tmp_path)


def test_the_page_says_what_was_done(report: Report, made: Path) -> None:
    reader = read_page(report.to_html())
    text = "".join(reader.text)
    for words in (
        "Safe to swap without 1 record that could not be moved", "Every gate passed",
        "Integrity", "Fidelity", "Index", "Recall", "Time and cost", "Verification is included",
        "What the plan foretold", "taken / foretold",
        "151", "1 record was left out", "no text", "docs__counting_model-new-64",
        "counting_model:old (python)", "counting_model:new (python)",
        *(f"reembed {command} {made} --yes" for command in ("swap", "rollback", "clean")),
        report.swap["guarantee"], "census of 'docs'", "verdict: pass", "provider: python",
    ):  # fmt: skip
        assert words in text, words
    assert set(reader.links) <= set(reader.ids), "every link leads somewhere"
    assert reader.headings[0] == 1 and reader.headings.count(1) == 1
    steps = [b - a for a, b in itertools.pairwise(reader.headings)]
    assert max(steps) == 1, "no level of headings is left out"
    assert {stage.name for stage in report.stages} == {"export", "embed", "load", "verify"}
    assert [(q.reason, q.count) for q in report.quarantine] == [("no_text", 1)]
    assert report.quarantine[0].samples[0][0] == HOSTILE


@pytest.mark.parametrize("hostile", [False, True])
def test_the_page_needs_and_runs_nothing(report: Report, hostile: bool) -> None:
    page = (hostile_report(report) if hostile else report).to_html()
    assert len(page.encode()) < 300_000
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}" in policy[1]
    assert "url(" not in style and "@import" not in style
    assert "<script" not in page.lower() and "<img" not in page.lower()
    text = "".join(read_page(page).text)
    assert not hostile or text.count(HOSTILE) > 30, "shown, as text"


def test_a_report_at_every_state_of_a_run(made: Path, tmp_path: Path) -> None:
    lines = (run_dir(made).path / "journal.jsonl").read_text().splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        run = tmp_path / str(count) / run_dir(made).run_id
        shutil.copytree(run_dir(made).path, run, ignore=shutil.ignore_patterns("ledger*"))
        (run / "journal.jsonl").write_text("".join(lines[:count]))
        found = read_report("move", RunDir(run))
        read_page(found.to_html())
        assert found.to_markdown().startswith("### reembed move: ")
        json.dumps(found.to_dict())
        assert found.outcome == ("pass" if count == len(lines) else "none")


def test_markdown_is_a_table_of_the_gates(report: Report) -> None:
    summary = report.to_markdown()
    assert summary.startswith("### reembed move: ⚠️ safe to swap without 1 record that could")
    assert "| integrity | ✅ pass | all 150 records equal" in summary
    assert "Quarantined: 1 no\\_text." in summary
    hostile = hostile_report(report).to_markdown()
    assert "### reembed" in hostile and "❌ the swap is refused" in hostile
    assert "To pass: " in hostile
    assert not re.search(r"(?<!\\)<", re.sub(r"`[^`]*`", "", hostile)), "no tag outside of code"
    rows = [line for line in hostile.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_the_report_is_beside_the_verdict_and_follows_the_swap(own: Path) -> None:
    run = run_dir(own).path
    assert "Safe to swap" in (run / "report.html").read_text()
    assert "safe to swap" in (run / "summary.md").read_text()
    done = migration(own)
    done.swap()
    page = (run / "report.html").read_text()
    assert "The run is swapped" in page and "swap done" in page
    assert ">Swapped without 1 record" in page
    assert f"reembed swap {own}" not in page
    done.rollback()
    assert "The run is rolled back" in (run / "report.html").read_text()
    assert not done.swap(dry_run=True).done
    assert "rolled back" in (run / "report.html").read_text()


def test_a_report_that_cannot_be_written_is_told(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise PreflightError(f"{path}: no space left on the device")

    monkeypatch.setattr(reembed.report.write, "write_atomic", full)
    with pytest.raises(PreflightError, match=r"report\.html: no space left"):
        migration(own).verify()
    assert isinstance(run_dir(own).history.read()[-1], events.VerdictGiven), (
        "the verdict stands all the same"
    )
    done = migration(own).swap()
    assert done.done and any("report could not be written" in m for m in done.messages)


def test_the_command(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Command(capsys, monkeypatch)
    run = run_dir(made).path
    assert command("report", made).out.strip() == str(run / "report.html")
    wanted = tmp_path / "r.html"
    assert command("report", made, "-o", wanted).code == 0
    assert wanted.read_text().startswith("<!doctype html>")
    assert command("report", made, "--markdown").out.startswith("### reembed move")
    document = json.loads(command("report", made, "--json").out)
    assert document["outcome"] == "pass" and document["verdict"]["passed"]
    assert command("report", made, "--json", "--markdown").code == 2
    assert command("report", made, "-o", tmp_path / "no" / "r.html").code == 2


def test_no_run_no_report(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(made.read_text() + f"state: {tmp_path / 'nowhere'}\n")
    with pytest.raises(UsageError, match="there is no run yet"):
        migration(path).report()


def test_refused_and_undecided_verdicts_say_why(report: Report) -> None:
    page = hostile_report(report).to_html()
    assert "The swap is refused" in page and "The live name was not moved" in page
    refused = replace(report, swap={"refused": "no way", "hint": "take another"})
    assert "it cannot be swapped: no way" in refused.to_html()


def test_every_figure_of_a_verdict_has_a_name(report: Report) -> None:
    """Names are words, never a key of verdict.json."""
    assert report.verdict is not None
    for gate in report.verdict.gates:
        unnamed = set(keys_of(gate.figures)) - set(NAMES) - set(TITLES) - DRAWN
        assert not unnamed, f"{gate.name}: reembed/report/html/labels.py has no name for {unnamed}"


def keys_of(figures: dict[str, object], within: str = "") -> Iterator[str]:
    for key, value in figures.items():
        if within not in DATA and key.isidentifier():
            yield key
        if isinstance(value, dict) and key != "asked":
            yield from keys_of(value, key)


def test_three_examples_mark_the_expected_record(report: Report) -> None:
    assert report.verdict is not None
    recall = next(gate for gate in report.verdict.gates if gate.name == "recall")
    entries = recall.figures["examples"]
    assert len(entries) == 3
    for entry in entries:
        [wanted] = entry["expected"]
        for side in ("old", "new"):
            rank, answers = entry[f"{side}_rank"], entry[side]
            marked = [place for place, one in enumerate(answers, 1) if one["expected"]]
            assert marked == ([rank] if rank and rank <= len(answers) else [])
            assert all(answers[place - 1]["id"] == wanted["id"] for place in marked)
    text = "".join(read_page(report.to_html()).text)
    assert "Three of the questions" in text and "right: " in text


def test_stages_count_only_what_their_time_covers() -> None:
    def shard(t: float, name: str, rows: int) -> events.ShardWritten:
        return events.ShardWritten(
            t=t, stage="embed", name=f"embed/{name}.parquet", rows=rows, sha256="", source="",
            deleted=(),
        )  # fmt: skip

    embed, load = stages([
        shard(10, "shard-00000", 5), shard(100, "shard-00001", 7),
        events.StageDone(t=101, stage="embed", seconds=2.0, usd=0.5, stats={"tokens": 70}),
        events.Loaded(t=102, stem="shard-00001", sha256=""), shard(102.5, "delta-00000", 1),
        events.StageDone(t=103, stage="load", seconds=1.5),
        events.StageDone(t=200, stage="embed", seconds=1.0, usd=0.25, stats={"tokens": 1}),
    ])  # fmt: skip
    assert (embed.records, embed.earlier, embed.seconds, embed.usd) == (7, 5, 3.0, 0.75)
    assert embed.stats == {"tokens": 71}
    assert (load.records, load.records_per_second) == (7, 7 / 1.5)


def test_a_long_timeline_is_cut_in_the_middle() -> None:
    found = timeline([events.CaughtUp(t=t, watermark=None, carried=1) for t in range(500)])
    assert len(found) == LONGEST + 1
    assert any("300 more" in moment.what for moment in found)
