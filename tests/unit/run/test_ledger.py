"""The ledger: a fold over the shards that can be thrown away."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from reembed.records import embed_schema, export_batch, row_hash, text_hash, vectors_to_fixed_array
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.run.ledger import FILE, UNKNOWN, Ledger
from reembed.run.shards import Besides


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "state", "name: x\n", {"name": "x"})


def add(
    run: RunDir, stem: str, rows: dict[str, str], quarantined: set[str] | None = None,
    deleted: tuple[str, ...] = (),
) -> Shard:  # fmt: skip
    """An export and an embed shard of records (id to document)."""
    ids = list(rows)
    batch = export_batch(ids, list(rows.values()), ["null"] * len(ids), [None] * len(ids))
    export = run.write_shard(
        "export", stem, pa.Table.from_batches([batch]), besides=Besides(deleted)
    )
    kept = [id for id in ids if id not in (quarantined or set())]
    table = pa.table(
        [
            pa.array(kept, pa.string()),
            pa.array([text_hash(rows[id]) for id in kept], pa.binary(32)),
            pa.array([1] * len(kept), pa.int32()),
            vectors_to_fixed_array(np.ones((len(kept), 2), np.float32)),
        ],
        schema=embed_schema(2),
    )
    run.write_shard("embed", stem, table, source=export.sha256)
    return export


def test_it_knows_every_record_of_the_shards(run: RunDir) -> None:
    add(run, "shard-00000", {"a": "x", "b": "y", "c": ""}, quarantined={"c"})
    with Ledger(run) as ledger:
        assert ledger.counts() == (3, 1)
        found = ledger.lookup(["a", "c", "unknown"])
        assert found["a"] == (row_hash("a", "x", "null", None), "shard-00000", False)
        assert found["c"].quarantined
        assert "unknown" not in found
        assert ledger.current("shard-00000") == {"a", "b"}


def test_a_later_shard_speaks_for_its_records(run: RunDir) -> None:
    add(run, "shard-00000", {"a": "x", "b": "y", "c": "z"})
    with Ledger(run) as ledger:
        add(run, "delta-00000", {"a": "new", "d": "d"}, quarantined={"d"}, deleted=("b",))
        ledger.fold()
        assert ledger.counts() == (3, 1)
        assert ledger.lookup(["a"])["a"].row_sha256 == row_hash("a", "new", "null", None)
        assert ledger.lookup(["a"])["a"].shard == "delta-00000"
        assert ledger.current("shard-00000") == {"c"}
        assert "b" not in ledger.lookup(["b"])


def test_a_shard_that_is_not_embedded_yet_does_not_count(run: RunDir) -> None:
    batch = export_batch(["a"], ["x"], ["null"], [None])
    run.write_shard("export", "shard-00000", pa.Table.from_batches([batch]))
    with Ledger(run) as ledger:
        assert ledger.counts() == (0, 0)


def test_a_shard_made_again_is_folded_again_in_the_old_order(run: RunDir) -> None:
    add(run, "shard-00000", {"a": "x", "b": "y"})
    add(run, "delta-00000", {"a": "newer"})
    Ledger(run).close()
    add(run, "shard-00000", {"a": "x", "b": "y2"})
    with Ledger(run) as ledger:
        assert ledger.lookup(["a"])["a"].shard == "delta-00000"
        assert ledger.lookup(["b"])["b"].row_sha256 == row_hash("b", "y2", "null", None)


@pytest.mark.parametrize("harm", ["delete", "garbage", "empty", "cut"])
def test_it_is_built_again_if_lost_or_damaged(run: RunDir, harm: str) -> None:
    add(run, "shard-00000", {str(number): "x" for number in range(500)})
    Ledger(run).close()
    path = run.path / FILE
    data = path.read_bytes()
    for suffix in ("-wal", "-shm"):
        path.with_name(FILE + suffix).unlink(missing_ok=True)
    match harm:
        case "delete":
            path.unlink()
        case "garbage":
            path.write_bytes(b"garbage " * 2_000)
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
    with Ledger(run) as ledger:
        assert ledger.counts() == (500, 0)
        assert len(ledger.current("shard-00000")) == 500


def test_scans_find_what_was_not_seen(run: RunDir) -> None:
    add(run, "shard-00000", {"a": "", "b": "", "c": ""}, quarantined={"c"})
    with Ledger(run) as ledger:
        for _ in range(2):
            ledger.begin_scan()
            ledger.mark_seen(["a", "other", "nul\0inside"])
            ledger.mark_seen(["ü🙂"])
            assert sorted(ledger.strange()) == ["nul\0inside", "other", "ü🙂"]
            assert sorted(id for page in ledger.unseen() for id in page) == ["b", "c"]
            assert [id for p in ledger.unseen(include_quarantined=False) for id in p] == ["b"]
            ledger.mark_seen(["c"])
            assert "c" in ledger.strange(), "it is in quarantine"


def test_thousands_are_looked_up_at_once(run: RunDir) -> None:
    add(run, "shard-00000", {str(number): "x" for number in range(4_000)})
    with Ledger(run) as ledger:
        assert len(ledger.lookup([str(number) for number in range(-10, 4_010)])) == 4_000


def test_several_may_fold_at_once(run: RunDir) -> None:
    for number in range(12):
        add(run, f"shard-{number:05d}", {f"{number}-{row}": "x" for row in range(50)})
    errors: list[BaseException] = []

    def fold() -> None:
        try:
            with Ledger(run) as ledger:
                assert ledger.counts() == (600, 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_file_that_is_locked_is_no_damage(run: RunDir) -> None:
    add(run, "shard-00000", {"a": "x"})
    Ledger(run).close()
    inode = (run.path / FILE).stat().st_ino
    db = sqlite3.connect(run.path / FILE, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    with Ledger(run) as ledger:  # nothing to fold, so nothing to wait for
        assert ledger.counts() == (1, 0)
    db.execute("ROLLBACK")
    db.close()
    assert (run.path / FILE).stat().st_ino == inode


def test_what_was_displaced_is_unknown_until_the_shard_that_speaks_for_it_is_loaded(
    run: RunDir,
) -> None:
    def load(stem: str) -> None:
        run.history.record(events.Loaded(stem=stem, sha256=""))

    add(run, "shard-00000", {"a": "x", "b": "y", "c": "z"}, quarantined={"c"})
    load("shard-00000")
    with Ledger(run) as ledger:
        assert ledger.displaced() == set()
        run.history.record(events.Displaced(stem="delta-00000", ids=("b", "c", "stray")))
        load("delta-00000")  # which made it go, and does not speak for it
        assert ledger.displaced() == {"b"}
        assert ledger.lookup(["a", "b"])["b"] == (UNKNOWN, "shard-00000", False)
        assert ledger.lookup(["a"])["a"].row_sha256 != UNKNOWN
        assert ledger.current("shard-00000") == {"a", "b"}, "the shadow must have it"
        add(run, "delta-00001", {"b": "new"})
        ledger.fold()
        assert ledger.displaced() == {"b"}, "it is not loaded yet"
        load("delta-00001")
        assert ledger.displaced() == set()
        assert ledger.lookup(["b"])["b"].row_sha256 == row_hash("b", "new", "null", None)
        run.history.record(events.Displaced(stem="shard-00000", ids=("b",)))  # it was made again
        assert ledger.displaced() == {"b"}
        add(run, "delta-00002", {}, deleted=("b",))
        ledger.fold()
        assert ledger.displaced() == set()
