"""Files of a run that are locked, damaged or may not be read: what the error says is done, and the
same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from reembed.run import sqlite
from reembed.run.directory import RunDir
from reembed.run.journal import Journal
from reembed.run.ledger import Ledger
from reembed.run.lock import StateLock
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data
from tests.support.texts import CASES


@dataclass
class Scene:
    """A migration that has embedded everything, in the working directory."""

    command: Command
    monkeypatch: pytest.MonkeyPatch

    @property
    def run(self) -> Path:
        run = RunDir.latest(Path(".reembed/move"))
        assert run is not None
        return run.path

    @property
    def journal(self) -> Path:
        (path,) = Path().glob(".reembed/move/*/journal.jsonl")
        return path

    def do(self, steps: tuple[Step, ...]) -> None:
        self.command.take(one if isinstance(one, str) else partial(one, self) for one in steps)


Step = str | Callable[[Scene], object]
Row = tuple[str, Step, str, pytest.MarkDecorator, tuple[Step, ...]]


def changed_line(scene: Scene) -> None:
    """A byte of the journal is another one."""
    data = scene.journal.read_bytes()
    scene.journal.write_bytes(data.replace(b"shard-00000", b"shard-00009", 1))


def newer(scene: Scene) -> None:
    Journal(scene.journal).append("teleported", to="elsewhere")


def old_journal(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Step:
    """The journal of a version that wrote no checksums, with something else in it."""

    def write(scene: Scene) -> None:
        lines = [orjson.loads(line) for line in scene.journal.read_bytes().splitlines()]
        for line in lines:
            del line["crc"]
        text = b"".join(orjson.dumps(line) + b"\n" for line in change(lines))
        scene.journal.write_bytes(text)

    return write


def without(event: str) -> Step:
    return old_journal(lambda lines: [line for line in lines if line["event"] != event])


def odd_source(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for line in lines:
        if line["event"] == "census":
            line["source"]["count"] = "many"
    return lines


def put_back(scene: Scene) -> None:
    """Of the backup of the folder."""
    shutil.rmtree(".reembed")
    shutil.copytree("backup", ".reembed")


def move_away(scene: Scene) -> None:
    shutil.move(scene.journal.parent, "away")


MEMORY = Path(".reembed/move/watch.json")


def folder_in_place(scene: Scene) -> None:
    MEMORY.mkdir()


def out_of_place(scene: Scene) -> None:
    MEMORY.rmdir()


def forbidden(scene: Scene) -> None:
    """This user may not read the journal. (Who runs the tests may be root, who may.)"""

    def refuse(self: Path, *given: Any, **more: Any) -> Any:
        if self.name == "journal.jsonl":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return OPEN(self, *given, **more)

    scene.monkeypatch.setattr(Path, "open", refuse)


OPEN = Path.open


def allowed(scene: Scene) -> None:
    scene.monkeypatch.setattr(Path, "open", OPEN)


LOCKS: list[StateLock] = []


def locked(scene: Scene) -> None:
    LOCKS.append(StateLock(Path(".reembed/move/lease")))
    LOCKS[-1].acquire()


def let_go(scene: Scene) -> None:
    LOCKS.pop().release()


HELD: list[sqlite3.Connection] = []


def during(name: str, harm: Callable[[Ledger], object]) -> Callable[[Scene], None]:
    """What befalls the ledger under the hands of a command, in this method."""
    method = getattr(Ledger, name)

    def step(scene: Scene) -> None:
        def harmed(self: Ledger, *given: Any) -> Any:
            if ".reembed" in self._path.parts:  # and no copy to count by
                scene.monkeypatch.setattr(Ledger, name, method)
                harm(self)
            return method(self, *given)

        scene.monkeypatch.setattr(sqlite, "WAIT", 0.01)
        scene.monkeypatch.setattr(Ledger, name, harmed)

    return step


def held(ledger: Ledger) -> None:
    """Another program writes to it, and does not end."""
    HELD.append(sqlite3.connect(ledger._path, isolation_level=None, check_same_thread=False))
    HELD[-1].execute("BEGIN IMMEDIATE")


def held_anew(scene: Scene) -> None:
    """It is, when it is made: the run begins anew."""
    move_away(scene)
    during("_fold", held)(scene)


def interrupted(scene: Scene) -> None:
    """Somebody presses Ctrl-C in the middle of it."""

    def stop(_: Ledger) -> None:
        raise KeyboardInterrupt

    move_away(scene)
    during("_fold", stop)(scene)


def ended(scene: Scene) -> None:
    HELD.pop().close()


def damaged(ledger: Ledger) -> None:
    ledger._db.execute("DROP TABLE records")


EMBED = "run m.yaml --until embed"
ROWS: list[Row] = [
    ("locked", locked, EMBED,
     follows_hint("Wait until it ends, or stop it; running again", where="run/lock.py"),
     (let_go, EMBED)),
    ("a changed journal", changed_line, EMBED,
     follows_hint("Put the file back from a backup; or move"), (put_back, EMBED)),
    ("a changed journal without a backup", changed_line, EMBED,
     follows_hint("or move the run directory away and run again"), (move_away, EMBED)),
    ("a newer version", newer, EMBED, follows_hint("If a newer version has worked on this"),
     (put_back, EMBED)),
    ("lost lines", without("run-created"), EMBED, follows_hint("Lines of it are gone: put it"),
     (put_back, EMBED)),
    ("an odd line", old_journal(odd_source), EMBED,
     follows_hint("The disk or another program changed it: put", where="run/history.py"),
     (put_back, EMBED)),
    ("a folder in its place", folder_in_place, "watch m.yaml",
     follows_hint("Move away what is in its place", ", and run the same command again.",
                  where="run/disk.py"), (out_of_place, "watch m.yaml")),
    ("no right to read", forbidden, EMBED,
     follows_hint("Give this user the right to read it", where="run/disk.py"),
     (allowed, EMBED)),
    ("interrupted", interrupted, EMBED,
     follows_hint("Run the same command again to go on where", where="cli/entry.py"), (EMBED,)),
    ("a ledger that is held", held_anew, EMBED,
     follows_hint("Another process may be using it; run the same", where="run/sqlite.py"),
     (ended, EMBED)),
    ("a damaged ledger", during("lookup", damaged), "run m.yaml",
     follows_hint("It is removed. Run the same command again: it is made"), ("run m.yaml",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with chroma(folder / "db") as client:
        plain_collection(client)
    shutil.copy(CASES / "counting_model.py", folder)
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest_data("chroma:db")))
    return folder


@pytest.fixture
def scene(built: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Scene:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = Scene(command, monkeypatch)
    found.do((EMBED,))
    shutil.copytree(".reembed", "backup")
    return found


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[3], id=row[0]) for row in ROWS])
def test_what_is_wrong_with_a_run_says_what_to_do(row: Row, scene: Scene) -> None:
    _, trouble, stopped, mark, onward = row
    scene.do((trouble,))
    refused = scene.command(*stopped.split(), "--json")
    assert refused.code in (5, 6, 7, 130), refused.out
    assert mark.args[0] in refused.json["error"]["hint"], refused.out
    scene.do(onward)
