"""A call of a following job is killed before each step, and the next one finishes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.stories.test_follow import Scene
from tests.support.commands import Calls, Command
from tests.support.crash import work

KINDS = ("journal", "torn", "add", "reembed.stores.chroma.writer:ChromaWriter.delete")
MOST = int(os.environ.get("REEMBED_KILLS", "80"))
FIRST = int(os.environ.get("REEMBED_FIRST_KILL", "1"))


@pytest.fixture
def scene(tmp_path: Path, command: Command, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.chdir(tmp_path)
    made = Scene(tmp_path, command, calls)
    made.texts = dict(list(made.texts.items())[:60])
    made.write()
    return made


def whole(scene: Scene, *was: dict[str, str]) -> None:
    """The live collection's records are each of the one corpus or of the other, with their
    vectors; only one that is being replaced may be missing for a moment."""
    found = scene.read()
    for id, (text, right) in found.items():
        assert text in {one.get(id) for one in was}, id
        assert right, f"{id} has the vector of another text"


def kill_everywhere(
    scene: Scene, kind: str, change: int, every: int, *, rebuilt: bool = False
) -> None:
    for at in range(FIRST, MOST, every):
        before = dict(scene.texts)
        scene.change(change, change, change, seed=at)
        scene.calls.clear()
        code = work(scene.path, "run(swap=True)", kind, at)
        assert code in (0, -9), code
        whole(scene, before, scene.texts)
        scene.done()
        scene.check()
        new = set(scene.texts.values()) - set(before.values())
        again = sum(scene.calls.of("new", text) - 1 for text in new)
        assert rebuilt or again <= len(new), "what was in flight alone is paid for again"
        if code == 0:
            return
    raise AssertionError("it was killed every time")


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_a_carry_that_is_killed_anywhere_is_finished(scene: Scene, kind: str) -> None:
    scene.done()
    kill_everywhere(scene, kind, 2, every=int(os.environ.get("REEMBED_EVERY", "1")))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuild_that_is_killed_anywhere_is_finished(scene: Scene, kind: str) -> None:
    scene.manifest(follow__rebuild_above=0.01)
    scene.done()
    kill_everywhere(scene, kind, 3, every=int(os.environ.get("REEMBED_EVERY", "1")), rebuilt=True)
    assert len(scene.names()) <= 2 and len(list((scene.folder / ".reembed/move").glob("2*"))) <= 2
