"""Which snapshots go, and what never does."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from reembed.backup.directory import snapshots
from reembed.backup.folder import Folder
from reembed.backup.prune import Keep, Prune, prune
from reembed.errors import LockedError, PreflightError, UsageError
from tests.unit.backup.test_take import (
    Live,
    backup,
    flip_removed,
    held,
    lose_shard,
    only,
    problems,
    row,
    there,
)

DAY = 86_400


def nights(
    live: Live, directory: Path, monkeypatch: pytest.MonkeyPatch, moments: list[float]
) -> list[str]:
    """Back up at each of these moments, with a change before each. Returns the good ones' ids."""
    for number, moment in enumerate(moments):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        live.rows[f"r{number}"] = row(f"r{number}", number + 1)
        backup(live, directory)
    monkeypatch.undo()
    return [one.id for one in snapshots(directory) if one.good]


def pruned(directory: Path, *, dry_run: bool = False, **keep: int) -> Prune:
    return prune(directory, keep=Keep(**keep), dry_run=dry_run)


def test_the_last_good_ones_stay_whatever_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(60)
    good = nights(live, tmp_path, monkeypatch, [1e9 + n * DAY for n in range(9)])
    whole = there(live)
    live.rows.clear()
    for _ in range(17):
        assert backup(live, tmp_path).exit_code == 4
        pruned(tmp_path, last=7)
    left = snapshots(tmp_path)
    assert [one.id for one in left if one.good] == good[-7:]
    assert held(tmp_path) == whole
    assert not problems(tmp_path)


def test_what_nobody_needs_any_more_is_freed_and_all_else_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(60)
    nights(live, tmp_path, monkeypatch, [1e9] * 3)
    nights(live, tmp_path, monkeypatch, [1e9] * 2)
    for n in range(3):
        live.rows[f"r{n}"] = row(f"r{n}", 9)
    backup(live, tmp_path)
    good = [one.id for one in snapshots(tmp_path)]
    before = {id: held(tmp_path, id) for id in good}
    told = pruned(tmp_path, last=1, dry_run=True)
    assert told.folders[0].removed == good[:5] and len(snapshots(tmp_path)) == 6
    done = pruned(tmp_path, last=1)
    assert done.folders[0].removed == good[:5] and done.folders[0].freed > 0
    assert held(tmp_path) == before[good[5]]
    needed = {shard.name for one in snapshots(tmp_path) for shard in one.shards}
    assert {path.name for path in only(tmp_path).shards.iterdir()} == needed
    assert not problems(tmp_path)


def test_days_weeks_and_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = 1_767_225_600.0  # 2026-01-01
    live = Live(60)
    good = nights(
        live, tmp_path, monkeypatch, [start + n * DAY / 2 for n in range(4)] + [start + 40 * DAY]
    )
    kept = pruned(tmp_path, last=1, daily=2, monthly=2, dry_run=True).folders[0].kept
    assert kept == [good[3], good[4]]
    kept = pruned(tmp_path, last=1, daily=3, dry_run=True).folders[0].kept
    assert kept == [good[1], good[3], good[4]]


@pytest.mark.parametrize("jump", [-30 * 365 * DAY, 60 * 365 * DAY])
def test_a_clock_that_jumped_takes_no_good_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    moments = [1e9 + n * DAY for n in range(6)]
    moments[3] += jump
    good = nights(Live(60), tmp_path, monkeypatch, moments)
    kept = pruned(tmp_path, last=3, daily=4).folders[0].kept
    assert kept[-3:] == good[-3:], "the order is that in which they were taken"
    assert len(kept) == 4


@pytest.mark.parametrize("harm", [lose_shard, flip_removed])
def test_one_that_is_not_whole_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: object
) -> None:
    live = Live(60)
    good = nights(live, tmp_path, monkeypatch, [1e9] * 3)
    newest = snapshots(tmp_path)[-1]
    if harm == lose_shard:
        (only(tmp_path).shards / newest.shards[-1].name).unlink()
    else:
        flip_removed(newest)
    found = pruned(tmp_path, last=1).folders[0]
    assert found.kept == good[1:] and "not whole" in found.notes[0]
    assert held(tmp_path, good[1])


def test_nothing_is_removed_while_somebody_reads_or_writes(tmp_path: Path) -> None:
    live = Live(5)
    backup(live, tmp_path)
    folder: Folder = only(tmp_path)
    with folder.reading(), pytest.raises(LockedError, match="reads"):
        pruned(tmp_path, last=1)
    with folder.lock(), pytest.raises(LockedError):
        pruned(tmp_path, last=1)
    with folder.reading(alone=True), pytest.raises(LockedError, match="removes"):
        problems(tmp_path)
    with pytest.raises(UsageError):
        pruned(tmp_path, last=0)


def test_a_prune_makes_room_on_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is not even room for a line of the journal, or a name on the lock."""
    good = nights(Live(60), tmp_path, monkeypatch, [1e9] * 3)
    folder = only(tmp_path)
    oldest, write = folder.good / good[0], os.write
    full = OSError(errno.ENOSPC, "no space left on device")

    def no_room(*given: Any) -> int:
        if oldest.exists():
            raise full
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_room)
        patch.setattr(os, "write", no_room)
        with pytest.raises(PreflightError, match="no space left"):
            folder.note("anything")
        assert pruned(tmp_path, last=1).folders[0].kept == good[2:]
    assert not problems(tmp_path) and held(tmp_path)
    assert folder.noted()[-1]["snapshots"] == good[:2]
