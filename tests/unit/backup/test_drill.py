"""A drill proves a snapshot by restoring it, and says when it would not have helped."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reembed.backup.directory import folder_of, snapshots
from reembed.backup.drill import Drills, drill
from reembed.backup.take import Subject, Wanted, take
from reembed.errors import PreflightError
from reembed.progress import Progress
from tests.support.array_store import Row
from tests.unit.backup.test_take import Live, backup, flip_shard


def drilled(directory: Path) -> Drills:
    return drill(directory, progress=Progress())


def backup_of_postgres(live: Live, directory: Path) -> None:
    subject = Subject(live.store(), "postgresql://db", "docs")
    take(subject, folder_of(directory, "docs"), Wanted(), Progress())


def spread(live: Live) -> Live:
    """Vectors that can be told from each other, and metadata that no Chroma takes."""
    chance = np.random.default_rng(3)
    for id in live.rows:
        vector = chance.standard_normal(8).astype(np.float32)
        live.rows[id] = Row.make(id, f"text {id}", '{"a": {"b": [1, null]}}', None, vector)
    return live


def test_a_drill_restores_asks_notes_and_throws_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    live = spread(Live(80))
    live.rows["twin"] = Row.make("twin", None, "null", None, live.rows["r3"].vector)
    live.rows["zero"] = Row.make("zero", None, "null", None, np.zeros(8, np.float32))
    backup_of_postgres(live, tmp_path / "kept")
    assert snapshots(tmp_path / "kept")[0].drill is None
    found = drilled(tmp_path / "kept")
    assert found.exit_code == 0, found.to_dict()
    one = snapshots(tmp_path / "kept")[0].drill
    assert one is not None and one.passed and one.records == 82 and one.found == one.asked > 50
    assert not list(scratch.iterdir()), "it is thrown away"


def test_a_drill_of_a_damaged_snapshot_fails_and_says_so(tmp_path: Path) -> None:
    backup(spread(Live(20)), tmp_path)
    flip_shard(snapshots(tmp_path)[0])
    assert drilled(tmp_path).exit_code == 4
    one = snapshots(tmp_path)[0].drill
    assert one is not None and not one.passed and "damaged" in one.problems[0]


def test_a_manifest_that_counts_otherwise_than_the_shards_hold_fails_once(tmp_path: Path) -> None:
    backup_of_postgres(spread(Live(20)), tmp_path)
    (one,) = snapshots(tmp_path)
    replace(one, no_vector=1).write(one.alive())
    (found,) = drilled(tmp_path).collections
    assert found.drill.problems == ["20 records in the shards, where the manifest says 19"]


def test_a_snapshot_without_vectors_cannot_be_drilled(tmp_path: Path) -> None:
    backup(Live(20), tmp_path, with_vectors=False)
    with pytest.raises(PreflightError, match="without-vectors"):
        drilled(tmp_path)
