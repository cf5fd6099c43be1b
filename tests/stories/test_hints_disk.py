"""A disk that is full, read-only or fails, files that are in the way, gone or damaged: what the
error says is done, and the same command goes on.

A row has what is wrong, the command that it stops, the words of the hint, and what a person does.
Where the hint says to give the same command again, it is given in the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.disk_faults import Disk, Place
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data
from tests.support.texts import CASES

RUN = "state/move/RUN"
SHARD = Place("write", f"{RUN}/export/shard-N.parquet")
EMBEDDED = Place("write", f"{RUN}/embed/shard-N.parquet")


@dataclass
class Scene:
    """A migration in the working directory, on a disk that may fail."""

    command: Command
    monkeypatch: pytest.MonkeyPatch
    disk: Disk
    kept: str = ""

    def manifest(self, **changes: object) -> None:
        data = manifest_data("chroma:db", **{"state": "./state"} | changes)
        Path("m.yaml").write_text(yaml.safe_dump(data))

    def run_id(self) -> str:
        """Of the only run."""
        (journal,) = Path().glob("*/move/*/journal.jsonl")
        return journal.parent.name

    def do(self, steps: tuple[Step, ...]) -> None:
        self.command.take(one if isinstance(one, str) else partial(one, self) for one in steps)


Step = str | Callable[[Scene], object]
Row = tuple[str, tuple[Step, ...], str, pytest.MarkDecorator, tuple[Step, ...]]


def fails(place: Place, number: int) -> Step:
    return lambda scene: scene.disk.fail(place, number)


def mended(scene: Scene) -> None:
    scene.disk.mend()


def settings(**changes: object) -> Step:
    return lambda scene: scene.manifest(**changes)


def text(path: str, words: str = "") -> Step:
    return lambda scene: Path(path).write_text(words)


def move(source: str, target: str) -> Step:
    return lambda scene: shutil.move(source, target)


def no_temporary_folder(scene: Scene) -> None:
    """TMPDIR leads nowhere, and what Python tries besides cannot be written to."""
    scene.monkeypatch.setenv("TMPDIR", "nowhere")
    scene.monkeypatch.setattr(tempfile, "tempdir", None)
    scene.monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ["TMPDIR"]])


def temporary_folder(scene: Scene) -> None:
    Path("tmp").mkdir()
    scene.monkeypatch.setenv("TMPDIR", str(Path("tmp").absolute()))


def begun(scene: Scene) -> None:
    scene.kept = scene.run_id()


def resumed(scene: Scene) -> None:
    assert scene.kept == scene.run_id(), "it goes on, and pays for nothing again"


ROWS: list[Row] = [
    ("a full disk", (fails(SHARD, errno.ENOSPC),), "run m.yaml",
     follows_hint("Free some space, or ", where="run/disk.py"), (mended, "run m.yaml")),
    ("a full disk, and another one", (fails(EMBEDDED, errno.ENOSPC),), "run m.yaml",
     follows_hint("Free some space, or ", where="run/disk.py"),
     (begun, move("state", "other"), settings(state="./other"), "run m.yaml", resumed)),
    ("a disk that fails", (fails(SHARD, errno.EIO),), "run m.yaml",
     follows_hint("Check the disk and its limits (`dmesg`, `ulimit -f`), or"),
     (mended, "run m.yaml")),
    ("a read-only disk", (fails(Place("create", f"{RUN}/export/shard-N.parquet"), errno.EROFS),),
     "run m.yaml", follows_hint("Give this user the right to write there, or "),
     (mended, "run m.yaml")),
    ("a file in the way", (text("state"),), "run m.yaml",
     follows_hint("Move what is in the way, or ", where="run/disk.py"),
     (move("state", "old"), "run m.yaml")),
    ("a folder in the way", ("run m.yaml --until export", lambda scene: Path("r.html").mkdir()),
     "report m.yaml -o r.html",
     follows_hint("choose another file with -o", where="run/disk.py"),
     ("report m.yaml -o s.html",)),
    ("backups", (fails(Place("create", "snaps/docs/lock"), errno.ENOSPC),),
     "backup m.yaml -o snaps", follows_hint("keep the snapshots on another disk (`-o`)"),
     ("backup m.yaml -o other", "check other")),
    ("the database", ("run m.yaml", fails(Place("sqlite", "db/chroma.sqlite3"), errno.ENOSPC)),
     "swap m.yaml --yes", follows_hint("move the database to a larger disk that is mounted at the"),
     (mended, "swap m.yaml --yes")),
    ("a database whose disk fails",
     ("run m.yaml", fails(Place("sqlite", "db/chroma.sqlite3"), errno.EIO)),
     "swap m.yaml --yes", follows_hint("Check the disk and its limits (`dmesg`, `ulimit -f`), or"),
     (mended, "swap m.yaml --yes")),
    ("no temporary folder", (no_temporary_folder,), "run m.yaml",
     follows_hint("set TMPDIR to a folder on another disk", where="run/disk.py"),
     (temporary_folder, "run m.yaml")),
]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    with chroma(folder / "db") as client:
        plain_collection(client)
    shutil.copy(CASES / "counting_model.py", folder)
    return folder


@pytest.fixture
def scene(built: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Scene:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = Scene(command, monkeypatch, Disk(tmp_path, monkeypatch))
    found.manifest()
    return found


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[3], id=row[0]) for row in ROWS])
def test_what_the_disk_refuses_says_what_to_do(row: Row, scene: Scene) -> None:
    _, trouble, stopped, mark, onward = row
    scene.do(trouble)
    refused = scene.command(*stopped.split(), "--json")
    assert refused.code in (5, 7), refused.out
    assert mark.args[0] in refused.json["error"]["hint"], refused.out
    scene.do(onward)
