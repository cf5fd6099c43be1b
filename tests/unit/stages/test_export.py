"""Stage 1: a census, then shards that hold every record of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reembed.errors import PreflightError, SourceChangedError, UnreachableError
from reembed.progress import Progress
from reembed.records import EXPORT_SCHEMA
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.stages import export as stage
from reembed.stages.export import Census, export, export_delta, take_census
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionSpec
from tests.support.awkward import LOST, lose_vector
from tests.support.chroma_data import chroma, plain_collection
from tests.support.texts import vector_of


class Notes(Progress):
    """What the user is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "state", "name: x\n", {"name": "x"})


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    opened = open_store(f"chroma:{database}")
    yield opened
    opened.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 15 records."""
    monkeypatch.setattr(stage, "SHARD_ROWS", 15)


def census_of(store: Store, run: RunDir, where: Any = None) -> Census:
    docs = store.catalog.describe("docs")
    return take_census(Collection(store, docs.id, where), docs, run)


def exported(run: RunDir) -> list[str]:
    return [
        id
        for shard in run.shards("export").values()
        for id in run.read_shard(shard, ["id"]).column("id").to_pylist()
    ]


def test_shards_hold_every_record_once(store: Store, run: RunDir, small: None) -> None:
    census = census_of(store, run)
    assert (census.rows, census.stems) == (40, ["shard-00000", "shard-00001", "shard-00002"])
    shards = export(Collection(store, census.source_id), census, run, Progress())
    assert [shard.rows for shard in shards.values()] == [15, 15, 10]
    assert sorted(exported(run)) == sorted(f"r{n}" for n in range(40))
    assert all(run.read_shard(shard).schema.equals(EXPORT_SCHEMA) for shard in shards.values())


def test_a_finished_export_is_left_alone(store: Store, run: RunDir, small: None) -> None:
    census = census_of(store, run)
    export(Collection(store, census.source_id), census, run, Progress())
    journal = run.journal.path.read_bytes()
    assert census_of(store, run) == census
    export(Collection(store, census.source_id), census, run, Progress())
    assert run.journal.path.read_bytes() == journal


def test_a_shard_that_cannot_be_written_ends_the_export(
    store: Store, run: RunDir, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written while the next is fetched, and no later one is begun."""
    written: list[str] = []
    write = RunDir.write_shard

    def full(self: RunDir, stage: str, stem: str, *args: Any, **given: Any) -> Any:
        written.append(stem)
        if stem == "shard-00001":
            raise PreflightError("no space left on the device")
        return write(self, stage, stem, *args, **given)

    census = census_of(store, run)
    monkeypatch.setattr(RunDir, "write_shard", full)
    with pytest.raises(PreflightError, match="no space left"):
        export(Collection(store, census.source_id), census, run, Progress())
    assert written == ["shard-00000", "shard-00001"]
    assert list(run.shards("export")) == ["shard-00000"]
    monkeypatch.setattr(RunDir, "write_shard", write)
    export(Collection(store, census.source_id), census, run, Progress())
    assert sorted(exported(run)) == sorted(f"r{n}" for n in range(40))


def test_a_shard_in_work_is_finished_when_the_next_cannot_be_fetched(
    store: Store, run: RunDir, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    census = census_of(store, run)
    fetch = type(store.reader).fetch
    calls: list[int] = []

    def lost(self: Any, *args: Any, **given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise UnreachableError("the connection was lost")
        return fetch(self, *args, **given)

    monkeypatch.setattr(type(store.reader), "fetch", lost)
    with pytest.raises(UnreachableError):
        export(Collection(store, census.source_id), census, run, Progress())
    shards = run.shards("export")
    assert list(shards) == ["shard-00000"]
    assert run.is_whole(shards["shard-00000"])


def test_a_damaged_shard_alone_is_exported_again(store: Store, run: RunDir, small: None) -> None:
    census = census_of(store, run)
    export(Collection(store, census.source_id), census, run, Progress())
    path = run.path / "export" / "shard-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    notes = Notes()
    written = len(run.history.all(events.ShardWritten))
    export(Collection(store, census.source_id), census, run, notes)
    assert path.read_bytes() == whole
    assert len(run.history.all(events.ShardWritten)) == written + 1
    assert notes.said == ["export/shard-00001.parquet is damaged or gone: exporting it again"]


def test_records_deleted_since_the_census_are_not_in_the_shards(
    store: Store, run: RunDir, small: None
) -> None:
    census = census_of(store, run)
    store.to_write().delete(census.source_id, ["r3", "r4"])
    shards = export(Collection(store, census.source_id), census, run, Progress())
    assert sum(shard.rows for shard in shards.values()) == 38


def test_where_is_kept_to_the_last_record(store: Store, run: RunDir, database: Path) -> None:
    where = {"n": {"$lt": 10}}
    census = census_of(store, run, where)
    assert census.rows == 10
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r4"], metadatas=[{"n": 99}])
    export(Collection(store, census.source_id, where), census, run, Progress())
    assert sorted(exported(run)) == sorted(f"r{n}" for n in range(10) if n != 4)


def test_a_lost_vector_is_null_and_the_record_is_there(tmp_path: Path, run: RunDir) -> None:
    with chroma(tmp_path / "lossy") as client:
        id = str(plain_collection(client, count=5).id)
    lose_vector(tmp_path / "lossy", id)
    store = open_store(f"chroma:{tmp_path / 'lossy'}")
    census = census_of(store, run)
    shards = export(Collection(store, census.source_id), census, run, Progress())
    table = run.read_shard(shards["shard-00000"])
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows[LOST]["embedding"] is None
    assert rows[LOST]["document"] == "its vector is lost"
    assert rows["r2"]["embedding"] == pytest.approx(list(vector_of("old", rows["r2"]["document"])))
    store.close()


def test_a_census_of_nothing_is_refused(store: Store, run: RunDir, database: Path) -> None:
    with pytest.raises(PreflightError, match="matches none"):
        census_of(store, run, {"n": -1})
    store.to_write().delete(store.catalog.describe("docs").id, [f"r{n}" for n in range(40)])
    with pytest.raises(PreflightError, match="is empty"):
        census_of(store, run)
    assert run.history.census is None


def test_another_collection_of_the_name_is_refused(store: Store, run: RunDir) -> None:
    census_of(store, run)
    store.to_write().drop(store.catalog.describe("docs").id)
    store.to_write().create(CollectionSpec(
        "docs", dimensions=4, metric="l2", index={}, metadata=None,
        model=stage.__dict__.get("model") or _model(),
    ))  # fmt: skip
    for damaged in (False, True):
        if damaged:
            (run.path / "ids.parquet").unlink()
        with pytest.raises(SourceChangedError, match="another collection"):
            census_of(store, run)


def _model() -> Any:
    from reembed.manifest import Model

    return Model(provider="python", name="m:f")


def test_a_census_taken_again_trusts_no_watermark(store: Store, run: RunDir) -> None:
    assert census_of(store, run).watermark is not None
    (run.path / "ids.parquet").unlink()
    assert census_of(store, run).watermark is None


def test_deltas_are_numbered_on_and_carry_deletions(store: Store, run: RunDir, small: None) -> None:
    census = census_of(store, run)
    export(Collection(store, census.source_id), census, run, Progress())
    export_delta(Collection(store, census.source_id), run, [f"r{n}" for n in range(20)], ["gone"])
    export_delta(Collection(store, census.source_id), run, [], ["r5"])
    deltas = {k: v for k, v in run.shards("export").items() if k.startswith("delta-")}
    assert {stem: (d.rows, d.deleted, d.foreign) for stem, d in deltas.items()} == {
        "delta-00000": (15, ("gone",), False),
        "delta-00001": (5, (), False),
        "delta-00002": (0, ("r5",), False),
    }


def test_a_delta_from_another_collection_is_foreign(
    store: Store, run: RunDir, database: Path
) -> None:
    census_of(store, run)
    with chroma(database) as client:
        other = plain_collection(client, "other", 2)
    export_delta(Collection(store, str(other.id)), run, ["r0"], [])
    assert run.shards("export")["delta-00000"].foreign


def test_a_damaged_delta_is_emptied_and_everything_compared_again(
    store: Store, run: RunDir
) -> None:
    census = census_of(store, run)
    export(Collection(store, census.source_id), census, run, Progress())
    export_delta(Collection(store, census.source_id), run, ["r1"], ["gone"])
    (run.path / "export" / "delta-00000.parquet").unlink()
    shards = export(Collection(store, census.source_id), census, run, Notes())
    assert (shards["delta-00000"].rows, shards["delta-00000"].deleted) == (0, ("gone",))
    assert run.history.compared_until is None


@pytest.mark.parametrize("sizes", [[], [1], [15], [16], [7, 7, 7], [40], [15, 15], [1] * 31])
def test_pages_of_any_size_become_full_slices(small: None, sizes: list[int]) -> None:
    ids = [str(number) for number in range(sum(sizes))]
    pages, start = [], 0
    for size in sizes:
        pages.append(pa.array(ids[start : start + size], pa.string()))
        start += size
    slices = [part.to_pylist() for part in stage._full_slices(iter(pages))]
    assert [id for part in slices for id in part] == ids
    assert all(len(part) == 15 for part in slices[:-1])
    assert all(0 < len(part) <= 15 for part in slices)


def test_shards_are_plain_parquet(store: Store, run: RunDir) -> None:
    census = census_of(store, run)
    export(Collection(store, census.source_id), census, run, Progress())
    table = pq.read_table(run.path / "export")
    assert table.num_rows == 40
