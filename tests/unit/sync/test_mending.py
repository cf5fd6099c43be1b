"""A shard that is damaged or gone is found by its hash and made again, before every command that
needs it, and nothing that was written meanwhile is lost or brought back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reembed.errors import DamagedError, PreflightError
from reembed.run import events
from reembed.stores.chroma.writer import ChromaWriter
from reembed.stores.values import WriteMode
from tests.support.chroma_data import (
    Records,
    chroma,
    names_in,
    plain_collection,
    records_of,
    vectors_of,
)
from tests.support.commands import Calls, Command
from tests.support.crash import outcome, work
from tests.support.crossing import crossed
from tests.support.following import follows_hint
from tests.support.manifests import migration, quarantined, run_dir, write_manifest
from tests.support.texts import sentence, vector_of

SHARD_ROWS = 15
STAGES = ("export", "embed")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sync.difference", "stages.export", "stages.load", "sync.carry_back"):
        monkeypatch.setattr(f"reembed.{module}.SHARD_ROWS", SHARD_ROWS)


def harm(path: Path, how: str, name: str) -> Path:
    """Damage a file of the newest run."""
    file = run_dir(path).path / name
    if how == "delete":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:20])
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    return file


def lose_ledger(path: Path) -> None:
    for file in run_dir(path).path.glob("ledger.sqlite*"):
        file.unlink()


def check_whole(path: Path) -> None:
    run = run_dir(path)
    for stage in STAGES:
        assert all(run.is_whole(shard) for shard in run.shards(stage).values())


@contextmanager
def collection(database: Path, id: str) -> Iterator[Any]:
    """The collection of this object id, whatever its name is now."""
    with chroma(database) as client:
        (name,) = [found.name for found in client.list_collections() if str(found.id) == id]
        yield client.get_collection(name, embedding_function=None)


def put(docs: Any, id: str, text: str, model: str) -> None:
    docs.upsert(ids=[id], documents=[text], embeddings=[vector_of(model, text).tolist()])


def records(database: Path, id: str) -> Records:
    with collection(database, id) as docs:
        return records_of(docs)


class Ids:
    """Object ids of the old and of the new collection."""

    def __init__(self, path: Path, database: Path) -> None:
        run = run_dir(path)
        self.old = run.history.require(events.Census).source["id"]
        self.new = run.history.require(events.ShadowCreated).id
        assert {self.old, self.new} <= set(names_in(f"chroma:{database}").values())


def moved(tmp_path: Path, database: Path, **changes: Any) -> tuple[Path, Ids]:
    """A swapped migration with a delta in it: r1 is changed and r2 is deleted before the swap."""
    path = write_manifest(tmp_path, f"chroma:{database}", **changes)
    migration(path).run()
    old = run_dir(path).history.require(events.Census).source["id"]
    with collection(database, old) as docs:
        put(docs, "r1", "before the swap", "old")
        docs.delete(ids=["r2"])
    migration(path).run(swap=True)
    assert list(run_dir(path).shards("embed"))[-1] == "delta-00000"
    return path, Ids(path, database)


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("delete", "export/shard-00001"), ("flip", "export/delta-00000"),
        ("flip", "embed/shard-00001"), ("delete", "embed/delta-00000"),
    ],
)  # fmt: skip
def test_a_sweep_makes_it_again(
    tmp_path: Path, database: Path, calls: Calls, how: str, name: str
) -> None:
    path, ids = moved(tmp_path, database)
    with collection(database, ids.old) as docs:
        put(docs, "r25", "late", "old")
        docs.delete(ids=["r26"])
        for id in ("r22", "r27"):
            put(docs, id, "the old side", "old")
    with collection(database, ids.new) as docs:
        put(docs, "r22", "the new side", "new")
        put(docs, "r23", "newer", "new")
        docs.delete(ids=["r24", "r27"])
    harm(path, how, f"{name}.parquet")
    calls.clear()
    result = migration(path).sweep()
    assert (result.swept, result.conflicts) == (2, ["r22", "r27"])
    check_whole(path)
    assert calls.repeated("new", 40) == 0, "its vectors are in the cache"
    found = records(database, ids.new)
    assert [found[id][0] for id in ("r1", "r25", "r22", "r23")] == [
        "before the swap", "late", "the new side", "newer",
    ]  # fmt: skip
    assert not {"r2", "r24", "r26", "r27"} & found.keys()
    assert len(found) == 36
    verdict = migration(path).verify().verdict
    assert verdict is not None
    assert {gate.name: gate.status for gate in verdict.gates}["late writes"] == "pass"


def test_a_sweep_without_ledger_and_shard_loses_nothing(tmp_path: Path, database: Path) -> None:
    path, ids = moved(tmp_path, database)
    with collection(database, ids.old) as docs:
        put(docs, "r25", "late", "old")
        put(docs, "added", "late too", "old")
    before = records(database, ids.new)
    harm(path, "delete", "export/shard-00001.parquet")
    lose_ledger(path)
    result = migration(path).sweep()
    assert (result.swept, result.conflicts) == (1, ["r25"]), "who wrote r25 cannot be told any more"
    check_whole(path)
    found = records(database, ids.new)
    assert found.pop("added")[0] == "late too"
    assert found == before


@pytest.mark.parametrize(("how", "stage"), [("delete", "export"), ("flip", "embed")])
def test_a_swap_makes_it_again_and_checks_it(
    tmp_path: Path, database: Path, stage: str, how: str
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        put(docs, "r1", "changed", "old")
        docs.delete(ids=["r2"])
        expected = records_of(docs)
    harm(path, how, f"{stage}/shard-00000.parquet")
    assert migration(path).swap().done
    check_whole(path)
    assert records(database, Ids(path, database).new) == expected
    assert migration(path).sweep().swept == 0


def test_a_shard_made_again_with_wrong_vectors_is_not_swapped_in(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """The verdict knows nothing of it, so its integrity is checked before the move."""
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with chroma(database) as client:
        put(client.get_collection("docs", embedding_function=None), "r1", "changed", "old")
    harm(path, "delete", "export/shard-00000.parquet")
    write = ChromaWriter.write

    def spoil(self: ChromaWriter, id: str, rows: Any, vectors: Any, mode: WriteMode) -> None:
        write(self, id, rows, vectors[::-1] if mode == "replace" else vectors, mode)

    monkeypatch.setattr(ChromaWriter, "write", spoil)
    ended = command("swap", path, "--yes", "--json")
    assert ended.code == 4
    assert "with another vector" in ended.json["error"]["message"]
    assert migration(path).status().state == "verified"


@pytest.mark.parametrize(
    ("how", "name", "kind"),
    [
        ("delete", "export/shard-00000", "pointer"), ("delete", "export/delta-00000", "pointer"),
        ("flip", "export/delta-00000", "transaction"), ("flip", "embed/shard-00000", "transaction"),
        ("delete", "embed/delta-00000", "pointer"),
    ],
)  # fmt: skip
def test_a_swap_again_after_a_rollback_makes_it_again(
    tmp_path: Path, database: Path, how: str, name: str, kind: str
) -> None:
    """What was written since the rollback must not be taken for late writes to the shadow."""
    path, ids = moved(tmp_path, database, swap__kind=kind)
    with collection(database, ids.new) as docs:
        put(docs, "r16", "after the swap", "new")
    migration(path).rollback()
    with collection(database, ids.old) as docs:
        for id in ("r1", "r16", "r17"):
            put(docs, id, f"{id} after the rollback", "old")
        docs.delete(ids=["r18"])
        expected = records_of(docs)
    harm(path, how, f"{name}.parquet")
    result = migration(path).run(swap=True)
    assert result.state == "swapped"
    check_whole(path)
    assert records(database, ids.new) == expected
    with collection(database, ids.new) as docs:
        got = vectors_of(docs, ["r17"])[0]
    assert float(got @ vector_of("new", "r17 after the rollback")) > 0.9999


def test_late_writes_after_a_rollback_are_still_refused(tmp_path: Path, database: Path) -> None:
    path, ids = moved(tmp_path, database)
    migration(path).rollback()
    with collection(database, ids.new) as docs:
        put(docs, "r16", "late", "new")
    harm(path, "delete", "export/shard-00000.parquet")
    with pytest.raises(PreflightError, match=r"1 writes that came after the rollback, e\.g\. r16"):
        migration(path).run(swap=True)
    assert migration(path).sweep().swept == 1
    assert migration(path).run(swap=True).state == "swapped"
    assert records(database, ids.new)["r16"][0] == "late"


def test_a_cache_cut_at_the_rollback_is_made_anew_by_the_swap(
    tmp_path: Path, database: Path, calls: Calls
) -> None:
    path, ids = moved(tmp_path, database)
    (cache,) = (tmp_path / ".reembed" / "cache").glob("*.vectors")
    cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])
    migration(path).rollback()
    with collection(database, ids.old) as docs:
        docs.update(ids=["r3"], metadatas=[{"title": "the text stays"}])
        put(docs, "r4", "after the rollback", "old")
    calls.clear()
    assert migration(path).swap().done
    assert calls.of("new", "after the rollback") == 1
    assert calls.of("new", sentence(3)) == 0, "it is in a shard"


@pytest.mark.parametrize(("ledger", "stage"), crossed(["whole", "lost"], STAGES))
def test_a_rollback_goes_back_with_what_was_written(
    tmp_path: Path, database: Path, stage: str, ledger: str
) -> None:
    path, ids = moved(tmp_path, database)
    with collection(database, ids.new) as docs:
        put(docs, "r25", "after the swap", "new")
        put(docs, "added", "after the swap too", "new")
        expected = records_of(docs)
    harm(path, "delete", f"{stage}/shard-00001.parquet")
    if ledger == "lost":
        lose_ledger(path)
    assert migration(path).rollback().done
    assert records(database, ids.old) == expected
    assert migration(path).sweep().swept == 0
    assert migration(path).run(swap=True).state == "swapped"
    check_whole(path)
    assert records(database, ids.new) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_sweep_back_without_ledger_and_shard_brings_nothing_back(
    tmp_path: Path, database: Path, stage: str
) -> None:
    path, ids = moved(tmp_path, database)
    migration(path).rollback()
    with collection(database, ids.old) as docs:
        put(docs, "r25", "after the rollback", "old")
        docs.delete(ids=["r26"])
        expected = records_of(docs)
    harm(path, "delete", f"{stage}/shard-00001.parquet")
    lose_ledger(path)
    assert migration(path).sweep().swept == 0
    assert records(database, ids.old) == expected
    assert migration(path).run(swap=True).state == "swapped"
    check_whole(path)
    assert records(database, ids.new) == expected


def test_clean_makes_it_again_while_the_old_collection_is_there(
    tmp_path: Path, database: Path
) -> None:
    path, ids = moved(tmp_path, database, swap__keep_old="0d")
    for name in ("export/shard-00001.parquet", "export/delta-00000.parquet"):
        harm(path, "delete", name)
    assert migration(path).clean().done
    check_whole(path)
    exported = run_dir(path).read_shard(run_dir(path).shards("export")["shard-00001"])
    assert exported.column("embedding").null_count == 0
    assert ids.old not in names_in(f"chroma:{database}").values()


@pytest.mark.parametrize("ledger", ["whole", "lost"])
def test_giving_up_after_a_rollback_needs_no_shard(
    tmp_path: Path, database: Path, ledger: str
) -> None:
    path, ids = moved(tmp_path, database)
    migration(path).rollback()
    before = records(database, ids.old)
    harm(path, "delete", "export/shard-00001.parquet")
    if ledger == "lost":
        lose_ledger(path)
    assert migration(path).clean().done
    assert records(database, ids.old) == before
    assert ids.new not in names_in(f"chroma:{database}").values()


def test_a_swap_stopped_after_the_move_is_finished(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    with monkeypatch.context() as patch:
        patch.setattr("reembed.cutover.swap.sweep", _stopped)
        with pytest.raises(KeyboardInterrupt):
            migration(path).swap()
    ids = Ids(path, database)
    with collection(database, ids.new) as docs:
        docs.delete(ids=["r1"])
    with collection(database, ids.old) as docs:
        put(docs, "r10", "late", "old")
    harm(path, "delete", "export/shard-00000.parquet")
    assert migration(path).swap().swept == 1
    check_whole(path)
    found = records(database, ids.new)
    assert "r1" not in found, "what the application deleted is not brought back"
    assert found["r10"][0] == "late"


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


@follows_hint("or, where the live name has moved, by `reembed sweep`.")
def test_what_only_looks_names_the_file(tmp_path: Path, database: Path, command: Command) -> None:
    path, _ = moved(tmp_path, database)
    file = harm(path, "delete", "export/shard-00001.parquet")
    lose_ledger(path)
    told = command("status", path, "--json")
    assert told.code == 0, "it only counts the records of the shard"
    assert any(str(file) in line and "reembed sweep" in line for line in told.json["messages"])
    ended = command("verify", path, "--json")
    error = ended.json["error"]
    assert (ended.code, error["kind"]) == (5, DamagedError.kind)
    assert str(file) in error["message"]
    assert "reembed sweep" in error["hint"]
    migration(path).sweep()
    assert command("verify", path, "--json").code == 0
    assert not any(str(file) in line for line in command("status", path, "--json").json["messages"])


@pytest.mark.parametrize("kind", ["cut", "folder"])
def test_a_damaged_list_of_what_went_back_is_made_again(
    tmp_path: Path, database: Path, command: Command, kind: str
) -> None:
    path, ids = moved(tmp_path, database)
    with collection(database, ids.new) as docs:
        put(docs, "r25", "after the swap", "new")
        put(docs, "added", "after the swap too", "new")
    migration(path).rollback()
    expected = records(database, ids.old)
    file = run_dir(path).path / "carried-back.parquet"
    if kind == "folder":
        file.unlink()
        (file / "inside").mkdir(parents=True)
    else:
        harm(path, "cut", file.name)
    with collection(database, ids.new) as docs:
        put(docs, "late", "came late", "new")
    assert command("clean", path, "--yes").code == 5, "it would be lost"
    ended = command("sweep", path, "--json")
    assert (ended.code, ended.json["swept"]) == (0, 1)
    assert "carried-back.parquet: the list of what went back is damaged" in ended.err
    assert "compared again" in ended.err
    now = records(database, ids.old)
    assert now.pop("late")[0] == "came late"
    assert now == expected
    again = command("sweep", path, "--json")
    assert (again.json["swept"], "damaged" in again.err) == (0, False)
    assert migration(path).clean().done
    assert records(database, ids.old).keys() == {*expected, "late"}


def test_a_damaged_quarantine_list_is_made_again(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", verify__allow_quarantined=1)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["mute"], embeddings=[vector_of("old", "mute").tolist()])
    assert migration(path).run(until="embed").quarantined == 1
    (part,) = (run_dir(path).path / "quarantine").glob("*.parquet")
    harm(path, "cut", f"quarantine/{part.name}")
    result = migration(path).run()
    assert (result.state, result.quarantined) == ("verified", 1)
    assert pq.read_table(part).column("id").to_pylist() == ["mute"]
    harm(path, "cut", "quarantine.parquet")
    assert migration(path).verify().state == "verified"
    assert quarantined(run_dir(path)) == {"mute": "no_text"}


def test_a_shadow_that_was_live_and_whose_index_cannot_be_read_is_built_anew(
    tmp_path: Path,
) -> None:
    """Chroma writes the file in place, so a kill in that moment leaves half of it, or nothing. The
    commands are processes of their own, which have nothing of Chroma's in memory."""
    database = tmp_path / "db"
    with chroma(database) as client:
        docs = plain_collection(client)
        before = records_of(docs)
    often = {"sync_threshold": 10, "batch_size": 5}
    path = write_manifest(tmp_path, f"chroma:{database}", target__index=often)
    migration(path).run(swap=True)
    migration(path).rollback()
    shadow = run_dir(path).history.require(events.ShadowCreated).id
    with sqlite3.connect(database / "chroma.sqlite3") as connection:
        ((segment,),) = connection.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'VECTOR'", [shadow]
        ).fetchall()
    cut = database / segment / "index_metadata.pickle"
    cut.write_bytes(b"")
    assert work(path, "swap()") == 5
    error = outcome(path)["error"]
    assert error["kind"] == "damaged-store"
    assert "`reembed run --restart` deletes it" in error["hint"]
    assert work(path, "clean()") == 0, outcome(path)
    (told,) = outcome(path)["messages"]
    assert "could not be read" in told
    assert work(path, "run(swap=True)") == 0
    with chroma(database) as client:
        assert records_of(client.get_collection("docs", embedding_function=None)) == before
