"""Backup, restore and prune are killed at every step: a good backup is never lost, and a live name
never leads to half a restore. `tests/campaigns/soak/nights.py` does so at random moments, again and
again, and in Postgres.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from reembed.backup.check import check
from reembed.backup.directory import folder_of, snapshots
from reembed.backup.index import row_digests
from reembed.backup.shards import records_of
from reembed.progress import Progress
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.steps import count_steps, small_shards
from tests.support.texts import sentence, vector_of

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["reembed.migration", "reembed.stores.chroma.store"])
ROWS = 10
"""Of a shard, so that 40 records make several."""
FEW, MANY = 1, 100
"""Kills of a command in every run, and in a long one."""


def run(arguments: list[str], at: int, folder: Path) -> tuple[int, int]:
    """`reembed` in a process of its own, killed before its `at`-th step; 0 for never. Returns its
    exit code, and how many steps it made."""
    counted = folder / "steps"
    counted.unlink(missing_ok=True)
    process = _context.Process(target=_run, args=(arguments, at, counted, dict(os.environ)))
    process.start()
    process.join(180)
    assert process.exitcode is not None, "it hangs"
    steps = int(counted.read_text()) if counted.exists() else at
    return process.exitcode, steps


def _run(arguments: list[str], at: int, counted: Path, environment: dict[str, str]) -> None:
    os.environ.clear()  # of the first test that forked
    os.environ.update(environment)
    small_shards(ROWS)
    count_steps(at, counted)
    sys.argv = ["reembed", *arguments]
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    from reembed.cli.entry import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    os._exit(code)


class Scene:
    """A Chroma folder with `docs`, and snapshots of it."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder, self.command = folder, command
        self.db, self.kept = folder / "db", folder / "kept"
        self.url = f"chroma:{self.db}"

    def write(self, *numbers: int) -> None:
        texts = [sentence(number) for number in numbers]
        with chroma(self.db) as client:
            client.get_or_create_collection("docs", embedding_function=None).upsert(
                ids=[f"r{number}" for number in numbers], documents=texts,
                embeddings=[vector_of("old", text) for text in texts],
            )  # fmt: skip

    def backup(self) -> None:
        assert self.command("backup", self.url, "--collection", "docs", "-o", self.kept).code == 0

    def live(self) -> dict[str, str]:
        """What an application finds under the name; nothing where there is no such collection."""
        with chroma(self.db) as client:
            if "docs" not in [one.name for one in client.list_collections()]:
                return {}
            found: Any = client.get_collection("docs", embedding_function=None).get()
            return dict(zip(found["ids"], found["documents"], strict=True))

    def good(self) -> dict[str, dict[str, bytes]]:
        """Every good snapshot with what it holds."""
        folder = folder_of(self.kept, "docs")
        return {
            one.id: {
                id: digest
                for batch in records_of(one, folder.shards)
                for id, digest in zip(
                    batch.column("id").to_pylist(), row_digests(batch), strict=True
                )
            }
            for one in snapshots(self.kept)
            if one.good
        }

    def copy(self, folder: Path) -> Scene:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        about = folder / "kept" / "docs" / "folder.json"
        about.write_text(about.read_text().replace(str(self.folder), str(folder)))
        return Scene(folder, self.command)

    def restorable(self) -> set[str]:
        found = check(self.kept, progress=Progress())
        return {id for one in found.folders for id in one.restorable}


@pytest.fixture
def scene(tmp_path: Path, database: Path, command: Command) -> Scene:
    """Four snapshots, each with a few records of its own."""
    made = Scene(tmp_path / "scene", command)
    made.folder.mkdir()
    database.rename(made.db)
    for night in range(4):
        made.write(*range(100 + 4 * night, 104 + 4 * night), night)
        made.backup()
    return made


def places(steps: int, kills: int) -> list[int]:
    """Which steps to be killed before: all, or so many of them."""
    chance = random.Random(steps)
    every = range(1, steps + 1)
    return sorted(chance.sample(every, kills)) if kills < steps else [*every]


kills = pytest.mark.parametrize(
    "kills", [FEW, pytest.param(MANY, marks=(pytest.mark.long, pytest.mark.timeout(1800)))]
)


@kills
def test_a_backup_that_is_killed_loses_no_good_one(
    scene: Scene, tmp_path: Path, kills: int
) -> None:
    scene.write(*range(200, 230))
    before = scene.good()
    arguments = ["backup", "URL", "--collection", "docs", "-o", "DIR"]
    for at in every_step(scene, tmp_path, arguments, kills):
        now = at.good()
        assert {id: now[id] for id in before} == before
        assert at.restorable() >= before.keys()
        at.backup()
        assert check(at.kept, progress=Progress()).exit_code == 0
        assert len(at.good()[snapshots(at.kept)[-1].id]) == len(at.live())


@kills
def test_a_prune_that_is_killed_loses_no_good_one(scene: Scene, tmp_path: Path, kills: int) -> None:
    before = scene.good()
    stay = sorted(before)[-2:]
    arguments = ["prune", "DIR", "--keep", "2", "--yes"]
    for at in every_step(scene, tmp_path, arguments, kills):
        now = at.good()
        assert {id: now[id] for id in stay} == {id: before[id] for id in stay}
        assert at.restorable() >= {*stay}
        assert at.command("prune", at.kept, "--keep", 2, "--yes").code == 0
        assert sorted(at.good()) == stay
        assert check(at.kept, progress=Progress()).exit_code == 0
        needed = {shard.name for one in snapshots(at.kept) for shard in one.shards}
        assert {path.name for path in (at.kept / "docs" / "shards").iterdir()} == needed


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "emptied"])
@kills
def test_a_restore_that_is_killed_leaves_no_half_of_one(
    scene: Scene, tmp_path: Path, kills: int, gone: bool
) -> None:
    whole, before = scene.live(), scene.good()
    with chroma(scene.db) as client:
        client.delete_collection("docs")
    if not gone:
        scene.write(300)  # the application has begun anew
    old = scene.live()
    arguments = ["restore", "DIR", "--yes"]
    for at in every_step(scene, tmp_path, arguments, kills):
        assert at.live() in (old, old | whole), "it is as it was, or whole"
        assert at.good() == before
        assert at.command("restore", at.kept, "--yes").code == 0
        assert at.live() == old | whole
        assert at.good() == before and at.restorable() == before.keys()


@kills
def test_a_watch_that_is_killed_as_it_mends_leaves_no_half_of_it(
    scene: Scene, tmp_path: Path, kills: int
) -> None:
    """`on_empty: restore`: the next cycle comes to the end, whatever one before has left."""
    whole, before = scene.live(), scene.good()
    watch = {"on_empty": "restore", "backups": "./kept", "probe": False}
    cycle = ["watch", str(write_manifest(scene.folder, scene.url, watch=watch))]
    assert run(cycle, 0, tmp_path)[0] == 0, "it was well once"
    with chroma(scene.db) as client:
        client.delete_collection("docs")
    cycle.append("--yes")
    shutil.copytree(scene.folder, tmp_path / "saved")  # another place is another database
    mended, steps = run(cycle, 0, tmp_path)
    assert mended in (0, 4) and steps > 5 and scene.live() == whole
    for at in places(steps, kills):
        shutil.rmtree(scene.folder)
        shutil.copytree(tmp_path / "saved", scene.folder)
        code, _ = run(cycle, at, tmp_path)
        assert code == -signal.SIGKILL, f"step {at} of {steps}: {code}"
        assert scene.live() in ({}, whole), "it is gone, or whole"
        assert scene.good() == before and scene.restorable() == before.keys()
        run(cycle, 0, tmp_path)  # the cycle that mends tells that it was gone
        assert scene.live() == whole, f"step {at} of {steps}"
        assert scene.good() == before and scene.restorable() == before.keys()


def every_step(scene: Scene, tmp_path: Path, arguments: list[str], kills: int) -> Any:
    """A copy of the scene for each kill, as the kill left it."""

    def told(one: Scene) -> list[str]:
        names = {"URL": one.url, "DIR": str(one.kept)}
        return [names.get(argument, argument) for argument in arguments]

    first = scene.copy(tmp_path / "counted")
    code, steps = run(told(first), 0, tmp_path)
    assert code == 0 and steps > 5
    for at in places(steps, kills):
        one = scene.copy(tmp_path / "killed")
        code, _ = run(told(one), at, tmp_path)
        assert code == -signal.SIGKILL, f"step {at} of {steps}: {code}"
        yield one
