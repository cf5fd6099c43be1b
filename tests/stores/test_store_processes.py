"""Other processes that have a store's files open: seen, named without their secrets, and told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reembed.stores import processes
from reembed.stores.processes import Holders, holders
from tests.support.manifests import migration, write_manifest

OPEN = """
import sys
import chromadb
client = chromadb.PersistentClient(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def application(folder: Path, script: Path) -> Iterator[subprocess.Popen[str]]:
    """An application that has the database open."""
    script.write_text(OPEN)
    command = [sys.executable, "-W", "ignore", str(script), str(folder), "--api-key=sk-secret"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.communicate("")


def test_plan_and_swap_say_who_has_the_database_open(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", verify__margin=0.5)
    assert migration(path).run().state == "verified"
    with application(database, tmp_path / "app.py") as process:
        named = f"pid {process.pid} (python"
        warnings = [problem.message for problem in migration(path).plan().warnings]
        (told,) = [one for one in warnings if "Only one process" in one]
        assert named in told
        assert "app.py)" in told
        assert "secret" not in told
        for result in (migration(path).swap(dry_run=True), migration(path).swap()):
            (message,) = [one for one in result.messages if "open in other" in one]
            assert named in message
            assert "stay on the old collection" in message
    warnings = [problem.message for problem in migration(path).plan().warnings]
    assert "No other process is seen" in " ".join(warnings)
    assert not migration(path).sweep().messages


def test_any_file_of_the_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "db" / "part").mkdir(parents=True)
    (tmp_path / "db-other").mkdir()
    code = "import sys; files = [open(p, 'w') for p in sys.argv[1:]]; print(1, flush=True); input()"
    for name, seen in (("db/part/link_lists.bin", True), ("db-other/chroma.sqlite3", False)):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            found = holders(tmp_path / "db")
            assert (process.pid in found.processes) == seen
            process.communicate("\n")


def test_this_process_does_not_count(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"):
        assert holders(tmp_path).processes == {}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["app.py", "--key", "sk-1"], "app.py"),
        (["-W", "ignore", "-u", "/srv/app/main.py"], "main.py"),
        (["-m", "uvicorn", "--token", "x"], "-m uvicorn"),
        (["-c", "secret = 'sk-1'"], ""),
        (["-", "x"], ""),
        (["-m"], ""),
        ([], ""),
    ],
)
def test_of_a_command_only_what_runs_is_shown(arguments: list[str], shown: str) -> None:
    assert processes._script(arguments) == shown


def test_what_cannot_be_seen_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = holders(tmp_path)
    assert found == Holders({}, "this system does not tell which processes have it open")
    monkeypatch.undo()

    def refused(path: Path) -> Iterator[Path]:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refused)
    assert "processes of other users cannot be looked at: " in holders(tmp_path).unseen
