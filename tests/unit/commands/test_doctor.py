"""`reembed doctor` tells what is not fit for work, and doing what it says mends it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from reembed.commands import doctor
from reembed.commands.doctor import Check, Diagnosis, diagnose
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest


def check(found: Diagnosis, name: str) -> Check:
    return next(one for one in found.checks if one.name == name)


def test_a_sound_installation_is_fit(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2hunter2hunter2")
    path = write_manifest(tmp_path, f"chroma:{database}")
    done = command("doctor", path)
    assert (done.code, "fit for work" in done.out) == (0, True), done.out
    assert "docs" in done.out and "dimensions" in done.out
    assert "hunter2" not in done.out
    assert not (tmp_path / ".reembed").exists(), "nothing is written"
    by_url = command("doctor", f"chroma:{database}", "--json")
    assert {"store", "packages", "disk"} <= {one["name"] for one in by_url.json["checks"]}
    assert by_url.json["exit_code"] == by_url.code == 0


def test_what_is_out_of_reach_is_told_beside_all_else(
    command: Command, tmp_path: Path, database: Path
) -> None:
    """A store that is not there hides nothing of the model, and the other way round."""
    path = write_manifest(
        tmp_path, f"chroma:{tmp_path / 'nowhere'}",
        model={"provider": "ollama", "name": "m", "base_url": "http://127.0.0.1:1",
               "options": {"tries": 1}},
    )  # fmt: skip
    done = command("doctor", path, "--json")
    failed = [one["name"] for one in done.json["checks"] if one["status"] == "failed"]
    assert failed == ["source store", "model"]
    assert done.code == 5
    assert all(one["hint"] for one in done.json["checks"] if one["status"] == "failed")


def test_a_missing_and_an_old_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Requirement("no-such-package>=1"), Requirement("numpy>=99")]
    monkeypatch.setattr(doctor, "_requirements", lambda extra="": iter([] if extra else wanted))
    found = check(diagnose(), "packages")
    assert found.status == "failed"
    assert "no-such-package is not installed" in found.message and "numpy" in found.message
    assert diagnose().exit_code == 5


def test_a_clock_that_is_behind_what_was_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = tmp_path / ".reembed" / "move" / "run" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.touch()
    os.utime(journal, (time.time() + 864_000,) * 2)
    assert check(diagnose(), "clock").status == "warning"


def test_a_state_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    found = check(diagnose(), "state directory")
    assert (found.status, "Permission denied" in found.message) == ("failed", True)


def forbidden(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def short_of(*names: str) -> Callable[..., Iterator[Requirement]]:
    return lambda extra="": iter(Requirement(name) for name in names)


Rows = list[tuple[str, object, str, pytest.MarkDecorator]]
WRONG: Rows = [
    ("reembed.commands.doctor._requirements", short_of("no-such-package"), "packages",
     follows_hint("pip install -U ", where="commands/doctor.py")),
    ("reembed.commands.doctor._requirements", short_of("no-such-package"), "extra ",
     follows_hint("If you need it: pip install ", where="commands/doctor.py")),
    ("sys.platform", "win32", "version", follows_hint("Use Linux, macOS, or WSL on Windows.")),
    ("tempfile.NamedTemporaryFile", forbidden, "state directory",
     follows_hint("Give it to this user, or let `state` in the manifest name another")),
    ("reembed.commands.doctor.LEAST_FREE", 1 << 80, "disk",
     follows_hint("Free some space, or let `state` name another disk; `plan` says")),
    ("time.time", lambda: 1e6, "clock", follows_hint("Set the clock (or wait): times in reports")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "wrong", "name"),
    [pytest.param(*row[:3], marks=row[3], id=row[2]) for row in WRONG],
)
def test_what_is_not_fit_is_fit_once_that_is_done(
    place: str, wrong: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, wrong)
        told = {one.name for one in diagnose().checks if one.name.startswith(name) and one.hint}
    assert any(one.name in told and one.status == "ok" for one in diagnose().checks)


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reembed", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
