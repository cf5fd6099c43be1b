"""Run directories that a disk or a hand has harmed: no command ends as a bug, and the live name
always holds what the application wrote.

Each trial takes a migration in some state, harms one file of its state directory and gives a few
commands. `REEMBED_TRIALS=17` tells one trial of the long form again, `0-99` a hundred.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.manifests import migration, write_manifest
from tests.support.texts import vector_of

RECORDS = 110
COMMANDS = (
    ("status",), ("report", "-o", "page.html"), ("plan",), ("run",), ("run", "--swap"), ("verify",),
    ("swap", "--yes"), ("sweep",), ("rollback", "--yes"), ("clean", "--yes"),
)  # fmt: skip
READING = ("status", "report", "plan")


class Scene:
    """A migration in each state, and one place where they take their turns.

    What the state directory holds names the database by its path, so every trial has the same.
    """

    def __init__(self, folder: Path, command: Command) -> None:
        self.work, self.kept, self.command = folder / "work", folder / "kept", command
        self.work.mkdir()
        with chroma(self.work / "db") as client:
            docs = plain_collection(client, count=RECORDS)
            docs.add(ids=["mute"], embeddings=[vector_of("old", "mute")])
        self.manifest = write_manifest(
            self.work, f"chroma:{self.work / 'db'}", state="state", swap__keep_old="0d",
            verify__sample=100, verify__allow_quarantined=1,
        )  # fmt: skip
        self.expected: dict[str, dict[str, str | None]] = {}
        done = migration(self.manifest)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("embedded", lambda: done.run(until="embed")),
            ("verified", done.run),
            ("swapped", done.swap),
            ("written", lambda: self.write("r1")),
            ("rolled back", done.rollback),
            ("swapped again", lambda: done.run(swap=True)),
            ("cleaned", lambda: done.clean(accept_loss=True)),
        ]
        for name, step in steps:
            step()
            self.expected[name] = self.live()
            shutil.copytree(self.work, self.kept / name)

    def write(self, id: str) -> None:
        """The application changes a record of the live collection."""
        with chroma(self.work / "db") as client:
            text = f"written to {id} after the swap"
            client.get_collection("docs").update(
                ids=[id], documents=[text], embeddings=[vector_of("new", text)]
            )

    def live(self) -> dict[str, str | None]:
        """Text of each record of the live collection; each vector is its text's."""
        with chroma(self.work / "db") as client:
            page = client.get_collection("docs").get(include=["documents", "embeddings"])
        texts: dict[str, str | None] = dict(zip(page["ids"], page["documents"] or [], strict=True))
        vectors = np.asarray(page["embeddings"], np.float32)
        model = {48: "old", 64: "new"}[vectors.shape[1]]
        for (id, text), vector in zip(texts.items(), vectors, strict=True):
            if text is not None:
                wanted = vector_of(model, text)
                assert np.allclose(vector, wanted, atol=1e-4), f"{id} has another text's vector"
        return texts

    def trial(self, number: int) -> str:
        """Harm, commands, looks. Returns what was done, for whoever looks into a failure."""
        chance = random.Random(number)
        state = chance.choice(list(self.expected))
        shutil.rmtree(self.work)
        shutil.copytree(self.kept / state, self.work, symlinks=True)
        files = sorted(path for path in (self.work / "state").rglob("*") if path.is_file())
        told = [f"trial {number}", state, harm(chance.choice(files), chance)]
        expected = self.expected[state]
        for _ in range(2):
            words = chance.choice(COMMANDS)
            before = tree(self.work / "state")
            ended = self.command(words[0], self.manifest, *words[1:])
            told.append(f"{' '.join(words)}: {ended.code}")
            assert ended.code != 1, f"{told}\n{ended.err}"
            if words[0] in READING:
                assert tree(self.work / "state") == before, f"{told}: it wrote something"
            now = self.live()
            if now != expected:  # the record without a text is not in the new collection
                now, wanted = dict(now), dict(expected)
                now.pop("mute", None), wanted.pop("mute", None)
                assert now == wanted, told
        return ", ".join(told)


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file, folder and link below a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else ""
        )
        for path in sorted(folder.rglob("*"))
    }


def harm(path: Path, chance: random.Random) -> str:
    """Harm a file in one of the ways in which disks and people do. Returns how."""
    data = bytearray(path.read_bytes())
    kind = chance.choice(["flip", "flip", "flip", "bytes", "cut", "empty", "delete", "folder",
                          "dangling", "circle", "other"])  # fmt: skip
    if kind in ("flip", "bytes", "cut") and not data:
        kind = "delete"
    match kind:
        case "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        case "bytes":
            start = chance.randrange(len(data))
            end = min(len(data), start + chance.choice([4, 100, 4096]))
            data[start:end] = chance.randbytes(end - start)
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[: chance.randrange(len(data))])
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to(path.parent / "nowhere" / "at all")
        case "circle":
            path.symlink_to(path.name)
        case "other":
            path.write_text("something else\n")
    return f"{kind} {path.parent.name}/{path.name}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corruption")


@pytest.fixture
def scene(base: Path, command: Command) -> Scene:
    return Scene(base, command)


def test_a_harmed_run_directory_is_mended_or_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene.work.parent)
    for number in range(12):
        scene.trial(number)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_harms(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.work.parent)
    first, _, last = os.environ.get("REEMBED_TRIALS", "0-999").partition("-")
    wrong = []
    for number in range(int(first), int(last or first) + 1):
        try:
            told = scene.trial(number)
        except AssertionError as error:
            wrong.append(told := str(error))
        print(told, file=sys.__stdout__, flush=True)  # not to the commands' own output
    assert not wrong, "\n\n".join(wrong)
