"""More of what a watch finds, and what is done then; see `test_hints_watch.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.stories.test_hints_watch import (
    MEND,
    Row,
    Scene,
    built,
    drilled,
    environment,
    scene,
    steps,
)
from tests.support.chroma_data import chroma
from tests.support.following import follows_hint

__all__ = ["built", "scene"]


def wrong_database(_: Scene) -> None:
    """A copy of the database, which lacks the collection, is looked at."""
    shutil.copytree("db", "twin")
    with chroma(Path("twin")) as client:
        client.delete_collection("docs")


ROWS: list[Row] = [
    ("a mending of another database", MEND | {"source__url": "${APP}"},
     steps(wrong_database, environment("APP", "chroma:twin")),
     follows_hint("Find the right database first: nothing is restored into another one."),
     (environment("APP", "chroma:db"),)),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, marks=row[3], id=row[0]) for row in ROWS])
def test_what_a_watch_finds_says_what_to_do(row: Row, scene: Scene) -> None:
    _, changes, trouble, mark, onward = row
    scene.filled["watch"] = "watch m.yaml"
    scene.manifest(**changes)
    scene.follow("backup m.yaml -o snaps")
    scene.follow(drilled(passed=True))
    scene.well()
    scene.follow(trouble)
    scene.told(mark.args[0])
    for step in onward:
        scene.follow(step)
    scene.well()
