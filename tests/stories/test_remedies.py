"""What a refused verdict says, done exactly as it is printed, leads to one that passes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.report_cases import finished_run


def follow(command: Command, manifest: Path, place: int = 0) -> Any:
    """Set the keys that a remedy names in the manifest, and type its command."""
    way = command("status", manifest, "--json").json["remedies"][place]
    data = yaml.safe_load(manifest.read_text())
    for section, key, value in re.findall(r"set (\w+)\.(\w+): ([\w.]+)", way["does"]):
        data[section] = (data.get(section) or {}) | {key: yaml.safe_load(value)}
    manifest.write_text(yaml.safe_dump(data))
    return command(*shlex.split(way["command"])[1:], "--json")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@follows_hint("The live name was not moved.", where="report/results.py")
def test_records_that_may_be_left_out(command: Command, tmp_path: Path) -> None:
    manifest = finished_run(tmp_path)
    text = manifest.read_text().replace("allow_quarantined: 1", "allow_quarantined: 0")
    manifest.write_text(text)
    assert command("verify", manifest).code == 4
    refused = command("swap", manifest, "--yes", "--json").json["error"]
    assert refused["hint"].startswith("The live name was not moved. ")
    done = follow(command, manifest)
    assert done.code == 3 and done.json["verdict"]["passed"] and not done.json["remedies"]


def test_records_that_somebody_took_out_of_the_new_collection(
    command: Command, tmp_path: Path
) -> None:
    manifest = finished_run(tmp_path)
    with chroma(tmp_path / "chroma") as client:
        [name] = [one.name for one in client.list_collections() if one.name.startswith("docs__")]
        client.get_collection(name, embedding_function=None).delete(ids=["r1", "r2"])
    told = command("verify", manifest)
    assert told.code == 4 and "to pass: write them again from the run's own files" in told.out
    done = follow(command, manifest)
    assert done.code == 3 and done.json["verdict"]["passed"]
