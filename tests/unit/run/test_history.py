"""The history of a run: typed, read once, and compatible with what earlier versions wrote."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

from reembed.errors import DamagedError, PreflightError
from reembed.run import events
from reembed.run.directory import RunDir
from tests.support.chroma_data import chroma
from tests.support.manifests import migration, run_dir
from tests.support.texts import CASES

RUNS = CASES / "runs-0.1.tar.xz"
"""Two migrations of 120 records as the version before checksums left them, with their databases:
`embedded` was stopped after that stage, `swapped` went through. @FOLDER@ is where they were."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "state", "", {"name": "m"})


@pytest.fixture(autouse=True)
def model_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that lies beside the manifests is another one than that of other tests."""
    monkeypatch.delitem(sys.modules, "counting_model", raising=False)


def unpack(name: str, folder: Path) -> Path:
    """One of RUNS. Returns its manifest."""
    with tarfile.open(RUNS) as archive:
        archive.extractall(folder, filter="data")
    place = folder / name
    for pattern in ("journal.jsonl", "manifest.yaml", "verdict.json"):
        for path in place.rglob(pattern):
            path.write_text(path.read_text().replace("@FOLDER@", str(place)))
    return place / "m.yaml"


def titles(path: Path) -> dict[str, object]:
    """Title of each record of the live collection."""
    with chroma(path.parent / "db") as client:
        page = client.get_collection("docs").get(include=["metadatas"])
    return {
        id: (metadata or {}).get("title")
        for id, metadata in zip(page["ids"], page["metadatas"] or [], strict=True)
    }


class TestRunsOfTheVersionBefore:
    def test_a_stopped_one_is_resumed_swapped_and_rolled_back(self, tmp_path: Path) -> None:
        path = unpack("embedded", tmp_path)
        begun = run_dir(path).run_id
        done = migration(path).run(swap=True)
        assert (done.run, done.state, done.loaded) == (begun, "swapped", 120)
        assert '"crc"' not in (run_dir(path).path / "journal.jsonl").read_text().splitlines()[0]
        migration(path).rollback()
        assert migration(path).status().state == "rolled back"
        assert len(titles(path)) == 120

    def test_a_swapped_one_is_rolled_back_and_swapped_again(self, tmp_path: Path) -> None:
        path = unpack("swapped", tmp_path)
        assert migration(path).status().state == "swapped"
        assert migration(path).report().to_html()
        with chroma(path.parent / "db") as client:
            docs = client.get_collection("docs")
            docs.update(ids=["r3"], metadatas=[{"title": "new"}])
            docs.delete(ids=["r4"])
        assert migration(path).rollback().caught_up == 2
        assert len(titles(path)) == 119 and titles(path)["r3"] == "new"
        assert migration(path).run(swap=True).state == "swapped"
        assert len(titles(path)) == 119 and titles(path)["r3"] == "new"
        assert migration(path).clean().done


def test_every_event_reads_as_it_was_written(run: RunDir) -> None:
    """What is read back by another process is what was written, field by field."""
    assert len({kind.event for kind in events.EVENTS.values()}) == len(events.EVENTS) > 25
    written: list[events.Event] = [
        events.Census(rows=3, watermark=None, source={"id": "a"}, sha256="f"),
        events.StageDone(stage="load", seconds=0.5, stats={"tokens": 3, "waited": 0.5}),
        events.Displaced(stem="", ids=("ü", "\u2028")),
        events.SwapBegun(kind="rename", exchange={"live": "docs"}),
        events.Recheck(),
    ]
    for event in written:
        run.history.record(event)
    again = RunDir(run.path).history.read()[1:]
    assert [event.model_copy(update={"t": 0.0}) for event in again] == written


def test_the_journal_is_parsed_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    loads = json.loads

    def counted(text: bytes) -> object:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    for stem in ("shard-00000", "shard-00001"):
        run.history.record(events.Loaded(stem=stem, sha256=""))
        assert stem in run.history.loaded_stems
        assert run.history.state == "created"
    assert len(parsed) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"event": "shadow-created", "id": 7, "name": "x"}, "id: "),
        ({"event": "loaded", "stem": "shard-00000"}, "sha256: "),
        ({"event": "census", "rows": 10**30, "watermark": None, "source": {}, "sha256": ""},
         "rows: "),
        ({"event": "stage-done", "stage": "load", "seconds": float("nan")}, "seconds: "),
        ({"event": "stage-done", "stage": "sing", "seconds": 1}, "stage: "),
        ({"event": "verdict", "passed": [1]}, "passed: "),
        ({"event": "displaced", "stem": "", "ids": "abc"}, "ids: "),
        ({"event": "cleaned", "what": "x", "t": 1e300}, "t: "),
        ({"event": "loaded", "stem": "\ud800", "sha256": ""}, ""),
        ({"event": "shard", "stage": "embed", "name": "../../x.parquet", "rows": 1, "sha256": "",
          "source": "", "deleted": []}, "name: "),
    ],
)  # fmt: skip
def test_an_odd_value_is_damage_and_names_line_and_value(
    run: RunDir, line: dict[str, object], told: str
) -> None:
    with run.journal.path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DamagedError, match=rf"journal\.jsonl: line 2 is damaged.*{told}"):
        _ = run.history.state


def test_an_event_of_a_newer_version_is_refused(run: RunDir) -> None:
    run.journal.append("teleported", to="elsewhere")
    with pytest.raises(PreflightError, match="line 2 holds 'teleported'") as caught:
        _ = run.history.state
    assert "newer version" in caught.value.hint


def test_a_new_field_of_a_newer_version_is_passed_over(run: RunDir) -> None:
    run.journal.append("loaded", stem="shard-00000", sha256="", speed=7)
    assert run.history.loaded_stems == {"shard-00000"}
