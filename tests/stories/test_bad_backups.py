"""What may be wrong with a backup directory, its disk, its clock or its source, as somebody meets
it who backs up at night: it is told, what it tells to do works, and no good snapshot is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reembed.backup.directory import folder_of
from reembed.stores.collection import Collection
from tests.support.chroma_data import chroma, plain_collection, records_of
from tests.support.commands import Command
from tests.support.texts import sentence, vector_of

COUNT = 30
YEAR = 365 * 86_400.0


class Nights:
    """A Chroma folder with `docs`, and two good snapshots of it in `kept`."""

    def __init__(self, command: Command) -> None:
        self.command = command
        with chroma(Path("db")) as client:
            plain_collection(client, "docs", COUNT)
        self.backup()
        self.change("one")
        self.backup()
        self.whole = self.live()

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        """A command's outcome; it ends with this code."""
        found = self.command(*arguments)
        assert found.code == code, (arguments, found.out, found.err)
        return found

    def backup(self, code: int = 0) -> Any:
        return self("backup", "chroma:db", "--collection", "docs", "-o", "kept", code=code)

    def change(self, word: str) -> None:
        text = f"{sentence(1)} {word}"
        with chroma(Path("db")) as client:
            client.get_collection("docs", embedding_function=None).update(
                ids=["r1"], documents=[text], embeddings=[vector_of("old", text)]
            )

    def live(self, name: str = "docs") -> Any:
        with chroma(Path("db")) as client:
            found = client.get_collection(name, embedding_function=None)
            return str(found.id), records_of(found)

    def newest(self) -> Path:
        return sorted(Path("kept/docs/snapshots").iterdir())[-1]


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Nights:
    monkeypatch.chdir(tmp_path)
    return Nights(command)


def half_written(snapshot: Path) -> None:
    manifest = snapshot / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:300])


def edited(snapshot: Path) -> None:
    manifest = snapshot / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"records": {COUNT}', '"records": 7'))


@pytest.mark.parametrize("harm", [half_written, edited, shutil.rmtree])
def test_an_older_snapshot_is_never_restored_without_a_word(
    nights: Nights, harm: Callable[[Path], object]
) -> None:
    newest = nights.newest()
    harm(newest)
    assert newest.name in nights("check", "kept", code=4).out.replace("\n", "")
    assert newest.name in nights("snapshots", "kept", "--json").json["damaged"][0]
    restored = nights("restore", "kept", "--json").json
    assert [newest.name in said for said in restored["messages"]] == [True]
    assert restored["snapshot"] < newest.name and nights.live() == nights.whole
    assert any(newest.name in said for said in
               json.loads(nights("backup", "chroma:db", "--collection", "docs", "-o", "kept",
                                 "--json").out)["collections"][0]["messages"])  # fmt: skip
    assert not nights("restore", "kept", "--json").json["messages"], "that one is newer, and whole"


def test_a_folder_that_lost_its_name_gets_it_back_from_a_manifest(nights: Nights) -> None:
    about = Path("kept/docs/folder.json")
    saved = json.loads(about.read_text())
    about.unlink()
    for refused in (
        nights("restore", "kept", "--collection", "docs", code=5), nights.backup(code=5),
    ):  # fmt: skip
        assert "every manifest.json below has them (folder_id for id)" in refused.err
    nights("check", "kept", code=4)
    manifest = json.loads((nights.newest() / "manifest.json").read_text())
    keys = {key: manifest[key] for key in ("format", "url", "collection")}
    about.write_text(json.dumps(keys | {"id": manifest["folder_id"]}))
    assert json.loads(about.read_text()) == saved
    nights("check", "kept")
    nights("restore", "kept", "--collection", "docs")


def test_a_directory_of_another_collection_is_refused(nights: Nights) -> None:
    with chroma(Path("db")) as client:
        plain_collection(client, "notes", 5)
    Path("kept/docs").rename("kept/notes")
    for refused in (
        nights("backup", "chroma:db", "--collection", "notes", "-o", "kept", code=5),
        nights("backup", "chroma:db", "--all", "-o", "kept", code=5),
    ):
        assert "holds the snapshots of 'docs'" in refused.out + refused.err
    nights("backup", "chroma:db", "--collection", "notes", "-o", "elsewhere")
    nights("check", "kept", code=4)
    shutil.rmtree("kept/docs")  # what --all has taken of it anew
    Path("kept/notes").rename("kept/docs")
    nights("check", "kept")


def test_a_restore_without_yes_touches_no_live_name(nights: Nights) -> None:
    nights.change("two")
    now = nights.live()
    told = nights("restore", "kept")
    assert "The live name was not touched" in told.out and nights.live() == now
    assert nights.live(f"docs__restored-{2:06d}")[1] == nights.whole[1]


def test_a_source_that_is_replaced_by_an_empty_one_is_no_backup(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Collection.fetch_page

    def replaced(self: Collection, ids: list[str], **options: Any) -> Any:
        found = fetch(self, ids, **options)
        with chroma(Path("db")) as client:
            client.delete_collection("docs")
            client.create_collection("docs", embedding_function=None)
        return found

    good = sorted(Path("kept/docs/snapshots").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "fetch_page", replaced)
        refused = nights.backup(code=5)
    assert "led to another collection" in refused.err and "0 records" in refused.err
    assert sorted(Path("kept/docs/snapshots").iterdir()) == good
    assert nights.backup(code=4), "the empty one is kept apart"
    nights("restore", "kept", "--yes", "--accept-window")
    assert nights.live()[1] == nights.whole[1]


def test_two_at_once_are_one_too_many(nights: Nights) -> None:
    with folder_of(Path("kept"), "docs").lock():
        assert "another run is active: pid " in nights.backup(code=6).err
        nights("prune", "kept", "--keep", 1, "--yes", code=6)
    nights.backup()


def test_a_clock_that_jumps_ahead_and_back_loses_no_backup(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ahead = time.time, 0.0
    gmtime = time.gmtime
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    monkeypatch.setattr(
        time, "gmtime", lambda at=None: gmtime(real() + ahead if at is None else at)
    )
    for number, ahead in enumerate((20 * YEAR, -20 * YEAR, 0.0)):
        nights.change(f"jump {number}")
        nights.backup()
        if ahead > 0:
            ahead = 0.0  # it was set right
            seen = nights("watch", "chroma:db", "--backups", "kept", "--json", code=4).json
            alerts = {one["check"]: one["message"] for one in seen["findings"]}
            assert "future" in alerts["backup"], "an age below zero is no fresh backup"
    last = nights.live()[1]
    kept = sorted(path.name for path in Path("kept/docs/snapshots").iterdir())
    assert [name.split("-")[0] for name in kept] == [f"{n:06d}" for n in range(1, 6)]
    nights("prune", "kept", "--keep", 3, "--keep-daily", 2, "--yes")
    assert sorted(p.name for p in Path("kept/docs/snapshots").iterdir())[-3:] == kept[-3:]
    restored = nights("restore", "kept", "--json").json
    assert restored["snapshot"] == kept[-1], "the newest is the one that was taken last"
    assert nights.live(restored["collection"])[1] == last


def test_a_backup_on_a_full_disk_is_restored_from_a_copy(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def full(path: Any, *rest: Any, **more: Any) -> None:
        if "kept" in Path(path).parts:
            raise OSError(errno.ENOSPC, "no space left on device")
        mkdir(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", full)
    refused = nights("restore", "kept", code=5)
    assert "copy this backup to another disk and restore from there" in refused.err
    shutil.copytree("kept", "copied")
    nights("restore", "copied", "--yes", "--accept-window")
    assert nights.live()[1] == nights.whole[1]
