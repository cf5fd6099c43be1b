"""Snapshots: what is written, shared, refused and found damaged, over a store in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reembed.backup.check import Check, check
from reembed.backup.directory import folder_name, folder_of, folders, snapshots
from reembed.backup.folder import Folder
from reembed.backup.index import digests
from reembed.backup.shards import ShardWriter, records_of
from reembed.backup.snapshot import Snapshot
from reembed.backup.take import Subject, Taken, Wanted, take
from reembed.errors import (
    CollectionNotFoundError,
    LockedError,
    PreflightError,
    SourceChangedError,
    UsageError,
)
from reembed.progress import Progress
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS
from reembed.stores.values import CollectionInfo, Where
from tests.support.array_store import Arrays, Collection, Row
from tests.support.disk_faults import FAULTS, Disk

D = 4


def row(id: str, version: int = 0, user: str | None = None) -> Row:
    vector = np.full(D, float(version + 1), np.float32)
    user = user if user is not None else f"u{int(id[1:]) % 3}"
    return Row.make(id, f"text of {id}, {version}", json.dumps({"user_id": user}), None, vector)


class Live(Arrays):
    """One collection, `docs`, of `count` records r0, r1, ..."""

    def __init__(self, count: int) -> None:
        super().__init__()
        info = CollectionInfo("c1", "docs", 0, D, "cosine")
        self.held = {"docs": Collection(info, {f"r{n}": row(f"r{n}") for n in range(count)})}

    @property
    def rows(self) -> dict[str, Row]:
        return self.held["docs"].rows

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        return super().list_ids("docs", where)

    def fetch(self, id: str, ids: Any, *, vectors: bool, where: Where = None) -> pa.RecordBatch:
        return super().fetch("docs", ids, vectors=vectors, where=where)


def backup(live: Arrays, directory: Path, **wanted: Any) -> Taken:
    subject = Subject(live.store(), "chroma:/db", "docs")
    return take(subject, folder_of(directory, "docs"), Wanted(**wanted), Progress())


def held(directory: Path, id: str | None = None) -> dict[str, bytes]:
    """What a snapshot holds: a digest of each record."""
    folder = folder_of(directory, "docs")
    found: dict[str, bytes] = {}
    for batch in records_of(folder.choose(id), folder.shards):
        assert batch.schema == EXPORT_SCHEMA
        for one, digest in zip(batch.column("id").to_pylist(), digests(batch), strict=True):
            assert one not in found, "each id once"
            found[one] = digest
    return found


def there(live: Live) -> dict[str, bytes]:
    batch = live.fetch("docs", list(live.rows), vectors=True)
    return dict(zip(live.rows, digests(batch), strict=True))


def looked_at(directory: Path, **options: Any) -> Check:
    return check(directory, progress=Progress(), **options)


def problems(directory: Path, **options: Any) -> list[str]:
    return [told for one in looked_at(directory, **options).folders for told in one.problems]


def only(directory: Path) -> Folder:
    (found,) = folders(directory)
    return found


def test_a_snapshot_holds_every_record_and_its_shards_are_plain_parquet(tmp_path: Path) -> None:
    live = Live(SHARD_ROWS + 300)
    taken = backup(live, tmp_path, by=("user_id",))
    assert taken.good and taken.exit_code == 0 and taken.snapshot is not None
    assert held(tmp_path) == there(live)
    one = taken.snapshot
    assert one.records == len(live.rows) and sum(one.by["user_id"].values()) == one.records
    assert [shard.rows for shard in one.shards] == [SHARD_ROWS, 300]
    for shard in one.shards:
        assert pq.read_schema(only(tmp_path).shards / shard.name) == EXPORT_SCHEMA
    assert not problems(tmp_path)
    assert [found.id for found in snapshots(tmp_path)] == [one.id]


def test_a_second_one_costs_what_changed_and_both_are_whole(tmp_path: Path) -> None:
    live = Live(4 * SHARD_ROWS)
    first = backup(live, tmp_path)
    before = there(live)
    for n in range(0, 4 * SHARD_ROWS, 100):  # 1 %, scattered over every shard
        live.rows[f"r{n}"] = row(f"r{n}", 1)
    del live.rows["r7"]
    live.rows["r999999"] = row("r999999")
    second = backup(live, tmp_path)
    assert second.changed == 4 * SHARD_ROWS // 100 + 1
    assert second.written < 0.02 * first.written
    assert first.snapshot and second.snapshot
    assert held(tmp_path, first.snapshot.id) == before
    assert held(tmp_path, second.snapshot.id) == there(live) != before
    assert not problems(tmp_path)
    third = backup(live, tmp_path)
    assert third.written == 0 and third.changed == 0


def test_what_is_dead_in_shards_does_not_pile_up(tmp_path: Path) -> None:
    live = Live(1000)
    for version in range(1, 30):
        for n in range(20):
            id = f"r{(version * 20 + n) % 1000}"
            live.rows[id] = row(id, version)
        taken = backup(live, tmp_path)
    assert taken.snapshot is not None
    assert held(tmp_path) == there(live)
    assert len(taken.snapshot.shards) <= 20
    assert sum(shard.rows for shard in taken.snapshot.shards) <= 2500


def test_vectors_may_be_left_out_and_come_back(tmp_path: Path) -> None:
    live = Live(50)
    without = backup(live, tmp_path, with_vectors=False)
    assert without.snapshot and without.snapshot.no_vector == 50
    assert held(tmp_path) != there(live)
    again = backup(live, tmp_path)
    assert again.changed == 50 and held(tmp_path) == there(live)


@pytest.mark.parametrize("left", [0, 19])
def test_an_empty_or_collapsed_collection_is_kept_apart(tmp_path: Path, left: int) -> None:
    live = Live(40)
    good = backup(live, tmp_path).snapshot
    before = there(live)
    for id in list(live.rows)[left:]:
        del live.rows[id]
    for _ in range(17):
        refused = backup(live, tmp_path)
        assert refused.exit_code == 4 and not refused.good
    found = snapshots(tmp_path)
    assert good and [one.id for one in found if one.good] == [good.id]
    assert sum(not one.good for one in found) == 17
    assert held(tmp_path) == before
    assert refused.snapshot and held(tmp_path, refused.snapshot.id) == there(live)
    accepted = backup(live, tmp_path, accept_drop="the trial has ended")
    assert accepted.good and accepted.snapshot
    assert accepted.snapshot.accepted_drop == "the trial has ended"
    assert "the trial has ended" in (tmp_path / "docs" / "journal.jsonl").read_text()
    assert not problems(tmp_path)


def test_half_of_them_may_go_and_max_drop_says_otherwise(tmp_path: Path) -> None:
    live = Live(40)
    backup(live, tmp_path)
    for n in range(20):
        del live.rows[f"r{n}"]
    assert not backup(live, tmp_path, max_drop=49).good
    assert backup(live, tmp_path).good


def test_the_records_of_one_user_may_not_go_unseen(tmp_path: Path) -> None:
    live = Live(40)
    live.rows["r1000"] = row("r1000", user="alice")
    backup(live, tmp_path, by=("user_id",))
    del live.rows["r1000"]
    refused = backup(live, tmp_path)  # the key is remembered
    assert refused.exit_code == 4 and "user_id='alice'" in refused.reason


def test_a_first_backup_of_an_empty_collection_is_refused(tmp_path: Path) -> None:
    assert backup(Live(0), tmp_path).exit_code == 4


def test_a_collection_that_is_gone_is_refused_where_there_was_one(tmp_path: Path) -> None:
    live = Live(5)
    backup(live, tmp_path)
    live.held = {}
    refused = backup(live, tmp_path)
    assert refused.exit_code == 4 and refused.snapshot is None
    assert refused.to_dict()["error"]["kind"] == "gate"
    with pytest.raises(CollectionNotFoundError):
        backup(live, tmp_path / "new")


class Replaced(Live):
    """Its name leads to a new, empty collection once it was listed."""

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        yield from super().list_ids(id)
        self.held["docs"].info = CollectionInfo("c2", "docs", 0, D, "cosine")


class Emptied(Live):
    """Somebody deletes everything while it is read."""

    def fetch(self, id: str, ids: Any, *, vectors: bool, where: Where = None) -> pa.RecordBatch:
        found = super().fetch(id, ids, vectors=vectors)
        self.rows.clear()
        return found


def test_a_source_that_is_replaced_between_list_and_read_is_noticed(tmp_path: Path) -> None:
    backup(Live(20), tmp_path)
    with pytest.raises(SourceChangedError, match="another collection"):
        backup(Replaced(20), tmp_path)
    assert len(snapshots(tmp_path)) == 1 and not problems(tmp_path)
    refused = backup(Emptied(20), tmp_path)
    assert refused.exit_code == 4 and held(tmp_path) == there(Live(20))


def test_two_at_once_are_refused_by_name(tmp_path: Path) -> None:
    live = Live(5)
    backup(live, tmp_path)
    with folder_of(tmp_path, "docs").lock(), pytest.raises(LockedError, match="pid "):
        backup(live, tmp_path)


def test_a_folder_of_another_collection_is_refused(tmp_path: Path) -> None:
    backup(Live(5), tmp_path)
    subject = Subject(Live(5).store(), "chroma:/elsewhere", "docs")
    with pytest.raises(PreflightError, match="holds the snapshots"):
        take(subject, folder_of(tmp_path, "docs"), Wanted(), Progress())


def test_a_clock_that_jumped_back_changes_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(5)
    backup(live, tmp_path)
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((1999, 1, 1, 0, 0, 0, 4, 1, 0)))
    live.rows["r77"] = row("r77")
    backup(live, tmp_path)
    newest = snapshots(tmp_path)[-1]
    assert "19990101" in newest.id and newest.sequence == 2
    assert held(tmp_path) == there(live)


def test_a_shard_that_rots_is_written_again_by_the_next_backup(tmp_path: Path) -> None:
    live = Live(50)
    first = backup(live, tmp_path).snapshot
    assert first is not None
    flip(only(tmp_path).shards / first.shards[0].name)
    live.rows["r77"] = row("r77")
    again = backup(live, tmp_path)
    assert again.changed == 51 and any("written again" in told for told in again.messages)
    assert held(tmp_path) == there(live)
    found = looked_at(tmp_path)
    assert again.snapshot and found.folders[0].restorable == [again.snapshot.id]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def edit_manifest(snapshot: Snapshot) -> None:
    path = snapshot.path / "manifest.json"
    path.write_text(path.read_text().replace("text", "test").replace("cosine", "l2"))


def lose_manifest(snapshot: Snapshot) -> None:
    (snapshot.path / "manifest.json").unlink()


def flip_shard(snapshot: Snapshot) -> None:
    flip(snapshot.path.parents[1] / "shards" / snapshot.shards[0].name)


def lose_shard(snapshot: Snapshot) -> None:
    (snapshot.path.parents[1] / "shards" / snapshot.shards[0].name).unlink()


def flip_removed(snapshot: Snapshot) -> None:
    flip(snapshot.path / "removed.parquet")


def lose_removed(snapshot: Snapshot) -> None:
    (snapshot.path / "removed.parquet").unlink()


def lose_all_of_it(snapshot: Snapshot) -> None:
    for path in snapshot.path.iterdir():
        path.unlink()
    snapshot.path.rmdir()


def rename_folder(snapshot: Snapshot) -> None:
    folder = snapshot.path.parents[1]
    folder.rename(folder.with_name("other"))


@pytest.mark.parametrize(
    "harm",
    [edit_manifest, lose_manifest, flip_shard, lose_shard, flip_removed, lose_removed,
     lose_all_of_it, rename_folder],
)  # fmt: skip
def test_check_finds(tmp_path: Path, harm: Any) -> None:
    live = Live(50)
    backup(live, tmp_path)
    live.rows["r7"] = row("r7", 1)
    taken = backup(live, tmp_path)
    assert taken.snapshot is not None and not problems(tmp_path)
    harm(taken.snapshot)
    found = looked_at(tmp_path)
    assert found.exit_code == 4 and not found.to_dict()["passed"]
    whole = {id for one in found.folders for id in one.restorable}
    assert taken.snapshot.id not in whole or harm == rename_folder


def test_check_finds_the_snapshot_of_another_folder(tmp_path: Path) -> None:
    first, other = tmp_path / "a", tmp_path / "b"
    one = backup(Live(5), first).snapshot
    backup(Live(5), other)
    backup(Live(5), other)
    two = snapshots(other)[1]
    assert one is not None
    two.path.rename(one.path.with_name(two.id))
    assert "taken into another folder" in problems(first)[0]
    assert [found.id for found in snapshots(first)] == [one.id]


def test_the_slices_of_a_check_are_all_of_it(tmp_path: Path) -> None:
    backup(Live(3 * SHARD_ROWS), tmp_path)
    one = snapshots(tmp_path)[0]
    flip_shard(one)
    told = [problems(tmp_path, slice=f"{n}/3") for n in (1, 2, 3)]
    assert sum(map(bool, told)) == 1
    assert sum(looked_at(tmp_path, slice=f"{n}/3").folders[0].shards for n in (1, 2, 3)) == 3
    for bad in ("0/3", "4/3", "x"):
        with pytest.raises(UsageError):
            looked_at(tmp_path, slice=bad)


def test_what_a_killed_backup_left_is_removed_by_the_next(tmp_path: Path) -> None:
    live = Live(20)
    backup(live, tmp_path)
    folder = only(tmp_path)
    (folder.good / "000002-20260101T000000Z").mkdir()
    (folder.shards / ("0" * 64 + ".parquet")).write_bytes(b"x")
    (folder.shards / ".x.parquet.77.tmp").write_bytes(b"x")
    assert "half written" in problems(tmp_path)[0]
    backup(live, tmp_path)
    assert not problems(tmp_path)
    assert len(list(folder.shards.iterdir())) == 1


def test_a_full_disk_leaves_the_good_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(20)
    backup(live, tmp_path)
    before = there(live)
    live.rows["r7"] = row("r7", 1)

    def full(*_: Any) -> None:
        raise PreflightError("no space left on the device")

    monkeypatch.setattr(ShardWriter, "finish", full)
    with pytest.raises(PreflightError, match="no space"):
        backup(live, tmp_path)
    monkeypatch.undo()
    assert len(snapshots(tmp_path)) == 1 and not problems(tmp_path)
    assert held(tmp_path) == before


def test_a_damaged_journal_keeps_no_backup_from_being_taken(tmp_path: Path) -> None:
    live = Live(5)
    backup(live, tmp_path)
    (tmp_path / "docs" / "journal.jsonl").write_text("no line\n")
    assert backup(live, tmp_path).good


@pytest.mark.parametrize(
    "name", ["docs", "Docs", "a/b", "..", "x" * 300, "público.t", "-x", "con "]
)
def test_every_collection_has_a_folder_of_its_own(name: str) -> None:
    found = folder_name(name)
    assert found == "docs" if name == "docs" else found.lower() != "docs"
    assert "/" not in found and not found.startswith((".", "-")) and len(found) < 100


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_disk_that_fails_anywhere_leaves_the_good_ones_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    live = Live(20)
    backup(live, tmp_path)
    good, before = snapshots(tmp_path)[0].id, there(live)
    disk = Disk(tmp_path, monkeypatch)
    live.rows["r7"] = row("r7", 1)
    del live.rows["r8"]
    backup(live, tmp_path)
    hit = 0
    for number, place in enumerate([*disk.seen]):
        if place.operation not in FAULTS[kind]:
            continue
        live.rows["r7"] = row("r7", 2 + number)
        disk.fail(place, FAULTS[kind][place.operation])
        try:
            backup(live, tmp_path)
        except PreflightError as error:
            hit += 1
            assert "-o" in error.hint or "right" in error.hint, error.hint
        disk.mend()
        assert held(tmp_path, good) == before
    assert hit > 3
    assert backup(live, tmp_path).good and held(tmp_path) == there(live)
    assert not problems(tmp_path)
