"""`reembed runs`: what is on the disk, and what of it goes when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.manifests import run_dir, write_group_manifest, write_manifest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def goes(document: dict[str, Any], kind: str = "runs") -> list[bool]:
    return [one["goes"] for one in document[kind]]


def test_cleaned_runs_go_but_the_newest_and_every_one_with_a_way_on(
    here: Path, database: Path, command: Command
) -> None:
    assert command("runs").out.strip() == "no runs in .reembed"
    path = write_manifest(here, f"chroma:{database}")
    assert command("run", path).code == 0
    first = run_dir(path)
    listed = command("runs", path, "--json").json
    assert goes(listed) == [False]
    assert listed["runs"][0]["bytes"] > 10_000
    assert listed["caches"][0]["used_by"] == ["move"]
    assert command("clean", path, "--yes").code == 0
    assert goes(command("runs", path, "--json").json) == [False], "the newest stays"
    assert command("run", path).code == 0
    again = run_dir(path)
    listed = command("runs", "--json").json
    assert [one["run"] for one in listed["runs"]] == [again.run_id, first.run_id]
    assert goes(listed) == [False, True]

    dry = command("runs", path, "--prune")
    assert "goes" in dry.out and "Add --yes to remove what goes" in dry.out
    assert first.path.is_dir()
    done = command("runs", path, "--prune", "--yes", "--json").json
    assert done["removed"] and done["freed"] == listed["freed"] > 0
    assert not first.path.exists()
    assert command("run", path, "--swap").code == 0, "what stayed goes on"
    assert "There is nothing to remove" in command("runs", "--prune").out


def test_a_run_that_never_began_is_not_the_newest(
    here: Path, database: Path, command: Command
) -> None:
    path = write_manifest(here, f"chroma:{database}")
    assert command("run", path).code == 0
    assert command("clean", path, "--yes").code == 0
    only = run_dir(path)
    only.path.with_name("20990101t000000-0000").mkdir()  # killed before its first line
    listed = command("runs", path, "--json").json
    assert [one["state"] for one in listed["runs"]] == ["never began", "cleaned"]
    assert goes(listed) == [False, False]
    assert "There is nothing to remove" in command("runs", path, "--prune").out
    only.journal.path.unlink()
    (_, lost) = command("runs", path, "--json").json["runs"]
    assert lost["state"].startswith("damaged") and not lost["goes"]


def test_a_cache_that_no_run_uses_goes(here: Path, database: Path, command: Command) -> None:
    path = write_manifest(here, f"chroma:{database}")
    assert command("run", path).code == 0
    assert command("clean", path, "--yes").code == 0
    old = {"provider": "python", "name": "counting_model:other"}
    path = write_manifest(here, f"chroma:{database}", model=old)
    assert command("run", path).code == 0
    listed = command("runs", "--json").json
    assert sorted(goes(listed, "caches")) == [False, True]
    assert goes(command("runs", path, "--json").json, "caches") == [False], "its own alone"
    gone = next(Path(one["path"]) for one in listed["caches"] if one["goes"])
    assert command("runs", "--prune", "--yes").code == 0
    assert not gone.exists() and not gone.with_suffix(".model.json").exists()
    assert goes(command("runs", "--json").json, "caches") == [False]


def test_runs_of_several_collections_and_damaged_ones_are_listed(
    here: Path, database: Path, command: Command
) -> None:
    path = write_group_manifest(here, f"chroma:{database}")
    assert command("run", path).code == 0
    (one,) = command("runs", path, "--json").json["runs"]
    assert (one["state"], one["goes"]) == ("verified", False)
    run = run_dir(path)
    run.journal.path.write_text("nonsense\n")
    listed = command("runs", "--json")
    assert listed.code == 0
    (one,) = listed.json["runs"]
    assert one["state"].startswith("damaged") and not one["goes"]
