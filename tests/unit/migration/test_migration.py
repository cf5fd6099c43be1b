"""The state machine: killed anywhere, the same command finishes with the same records."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reembed.live  # noqa: F401  (an application that opens a migrated collection imports it)
from reembed.errors import GateError, PreflightError
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of, vectors_of
from tests.support.commands import Calls
from tests.support.crash import outcome, work
from tests.support.crossing import crossed
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import sentence, vector_of

ALL = bool(os.environ.get("REEMBED_CRASH_ALL"))
RECORDS = 130
BATCH = 8
KILLS = ("journal", "torn", "fsync", "add")


class Prepared:
    """A folder that can be put back to how it was saved, at the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "m.yaml"
        self.url = f"chroma:{folder / 'db'}"
        self.calls = Calls(folder / "calls.jsonl")

    def save(self, name: str) -> None:
        shutil.copytree(self.folder, self.folder.with_name(name))

    def restore(self, name: str) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name(name), self.folder)

    def work(self, step: str, kill: str = "", at: int = 0) -> int:
        return work(self.path, step, kill, at, REEMBED_TEST_CALLS=str(self.calls.path))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Saved as `new`, `loaded`, `verified` and `swapped`, the last with writes on both sides."""
    prepared = Prepared(tmp_path_factory.mktemp("crash") / "work")
    prepared.folder.mkdir()
    with chroma(prepared.folder / "db") as client:
        made = plain_collection(client, count=RECORDS)
        made.add(ids=["mute"], embeddings=[vector_of("old", "mute")])
    write_manifest(
        prepared.folder, prepared.url, model__options={"batch_items": BATCH},
        embed__concurrency=2, verify__allow_quarantined=1,
    )  # fmt: skip
    prepared.save("new")
    assert prepared.work("run(until='load')") == 0
    prepared.save("loaded")
    assert prepared.work("run()") == 0
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        _write(docs, "old", "before")
    prepared.save("verified")
    assert prepared.work("swap()") == 0
    with chroma(prepared.folder / "db") as client:
        _write(client.get_collection("docs", embedding_function=None), "new", "after")
    prepared.save("swapped")
    yield prepared
    shutil.rmtree(prepared.folder.parent)


def _write(collection: Any, model: str, word: str) -> None:
    first = 10 if word == "before" else 60
    collection.add(ids=[word], documents=[word], embeddings=[vector_of(model, word)])
    collection.update(
        ids=[f"r{first}"], documents=[f"{word} text"], embeddings=[vector_of(model, word)]
    )
    collection.update(ids=[f"r{first + 1}"], metadatas=[{"title": word}])
    collection.delete(ids=[f"r{first + 2}"])


def points(kills: dict[str, int], seed: int, few: int) -> list[tuple[str, int]]:
    """Where to be killed: everywhere with REEMBED_CRASH_ALL, else at a few places by chance."""
    everywhere = [(kill, at) for kill, most in kills.items() for at in range(1, most + 1)]
    return everywhere if ALL else random.Random(seed).sample(everywhere, few)


def check_shards(prepared: Prepared) -> None:
    run = run_dir(prepared.path)
    assert not list(run.path.rglob("*.tmp")) or ALL is not None
    for stage in ("export", "embed"):
        assert all(run.is_whole(shard) for shard in run.shards(stage).values())


@pytest.mark.parametrize(
    ("kill", "at"), points({"journal": 18, "torn": 18, "fsync": 61, "add": 3}, 1, 5)
)
def test_killed_before_the_swap(prepared: Prepared, kill: str, at: int) -> None:
    prepared.restore("new")
    with chroma(prepared.folder / "db") as client:
        source = records_of(client.get_collection("docs", embedding_function=None))
    killed = prepared.work("run(until='load')", kill, at)
    assert killed in (-9, 0)
    assert prepared.work("run(until='load')") == 0
    result = outcome(prepared.path)
    assert (result["state"], result["exit_code"]) == ("loaded", 3)
    assert (result["exported"], result["loaded"], result["quarantined"]) == (
        RECORDS + 1, RECORDS, 1,
    )  # fmt: skip
    in_flight = 2 * BATCH
    plan_s_sample = 32 * 2
    assert prepared.calls.repeated("new", RECORDS) <= in_flight + plan_s_sample
    check_shards(prepared)
    names = names_in(prepared.url)
    assert names.keys() == {"docs", "docs__counting_model-new-64"}
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        shadow = client.get_collection("docs__counting_model-new-64", embedding_function=None)
        assert records_of(docs) == source
        del source["mute"]
        assert records_of(shadow) == source
        assert vectors_of(shadow, ["r5"])[0] == pytest.approx(vector_of("new", sentence(5)))


@pytest.mark.parametrize(("kill", "at"), points({"journal": 11, "torn": 11, "fsync": 26}, 2, 4))
def test_killed_in_the_swap(prepared: Prepared, kill: str, at: int) -> None:
    prepared.restore("verified")
    with chroma(prepared.folder / "db") as client:
        expected = records_of(client.get_collection("docs", embedding_function=None))
    del expected["mute"]
    assert prepared.work("swap()", kill, at) in (-9, 0)
    names = names_in(prepared.url)
    assert "docs" in names, "the live name is always there"
    assert prepared.work("swap()") == 0
    assert prepared.work("status()") == 0
    assert outcome(prepared.path)["state"] == "swapped"
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs) == expected
        assert docs.get_model().dimension == 64
    assert len(names_in(prepared.url)) == 2
    check_shards(prepared)


@pytest.mark.parametrize(("kill", "at"), points({"journal": 7, "torn": 7, "fsync": 20}, 3, 4))
def test_killed_in_the_rollback(prepared: Prepared, kill: str, at: int) -> None:
    prepared.restore("swapped")
    with chroma(prepared.folder / "db") as client:
        expected = records_of(client.get_collection("docs", embedding_function=None))
    killed = prepared.work("rollback()", kill, at)
    assert killed in (-9, 0)
    assert prepared.work("status()") == 0
    if outcome(prepared.path)["state"] != "rolled back":
        assert prepared.work("rollback()") == 0
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        found = records_of(docs)
        assert found.pop("mute") is not None
        assert found == expected
        assert docs.get_model().dimension == 48
        assert vectors_of(docs, ["after"])[0] == pytest.approx(vector_of("old", "after"))
    # and forward again
    assert prepared.work("run(swap=True)") == 0
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs) == expected
        assert docs.get_model().dimension == 64


@pytest.mark.parametrize(
    ("kill", "at"), points({"journal": 4, "torn": 4, "fsync": 12, "add": 1}, 4, 3)
)
def test_killed_in_the_sweep(prepared: Prepared, kill: str, at: int) -> None:
    prepared.restore("swapped")
    parked = next(name for name in names_in(prepared.url) if "parked" in name)
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        expected = records_of(docs)
        old = client.get_collection(parked, embedding_function=None)
        old.add(ids=["late"], documents=["late"], embeddings=[vector_of("old", "late")])
        old.delete(ids=["r90"])
        for id in ("r91", "r92"):
            old.update(ids=[id], documents=["late"], embeddings=[vector_of("old", "late")])
            expected[id] = ("late", expected[id][1], None)
        expected["late"] = ("late", "null", None)
        del expected["r90"]
    assert prepared.work("sweep()", kill, at) in (-9, 0)
    with chroma(prepared.folder / "db") as client:  # the application goes on meanwhile
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r92"], documents=["newer"], embeddings=[vector_of("new", "newer")])
        expected["r92"] = ("newer", expected["r92"][1], None)
    assert prepared.work("sweep()") == 0
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs) == expected
        assert vectors_of(docs, ["late"])[0] == pytest.approx(vector_of("new", "late"))
    assert prepared.work("rollback()") == 0
    with chroma(prepared.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        found = records_of(docs)
        assert found.pop("mute") is not None
        assert found == expected


def test_the_same_run_and_verdict_after_a_kill(prepared: Prepared) -> None:
    prepared.restore("loaded")
    assert prepared.work("run()") == 0
    whole = outcome(prepared.path)
    prepared.restore("loaded")
    assert prepared.work("run()", "fsync", 3) == -9
    assert prepared.work("run()") == 0
    again = outcome(prepared.path)
    assert again["run"] == whole["run"]
    gates = [
        [(gate["name"], gate["status"]) for gate in result["verdict"]["gates"]]
        for result in (whole, again)
    ]
    assert gates[0] == gates[1]


# Damage


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("stage", "harm"), crossed(["export", "embed"], ["flip", "delete", "cut"]))
def test_a_damaged_shard_is_made_again(
    tmp_path: Path, database: Path, calls: Calls, stage: str, harm: str
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert migration(path).run().state == "verified"
    shard = next((run_dir(path).path / stage).glob("*.parquet"))
    before = shard.read_bytes()
    if harm == "flip":
        damaged(shard)
    elif harm == "delete":
        shard.unlink()
    else:
        shard.write_bytes(before[: len(before) // 2])
    calls.clear()
    assert migration(path).run(until="load").state == "loaded"
    assert shard.read_bytes() == before
    assert calls.repeated("new", 40) == 0
    result = migration(path).run(swap=True)
    assert (result.state, result.loaded) == ("swapped", 40)


def test_temporary_files_and_a_torn_line_do_no_harm(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="embed")
    run = run_dir(path)
    folder = run.path / "export"
    dead, own = (folder / f".shard-00000.parquet.{pid}.tmp" for pid in (2**22 + 1, os.getpid()))
    alive = folder / f".shard-00000.parquet.{os.getppid()}.tmp"
    for temporary in (dead, own, alive):
        temporary.write_bytes(b"half")
    with run.journal.path.open("ab") as file:
        file.write(b'{"t": 1, "event": "swap-do')
    assert migration(path).status().state == "embedded"
    assert migration(path).run().state == "verified"
    assert [one.exists() for one in (dead, own, alive)] == [False, False, True]


def test_a_damaged_journal_line_is_refused(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="embed")
    journal = run_dir(path).journal.path
    lines = journal.read_bytes().split(b"\n")
    lines[2] = lines[2][: len(lines[2]) // 2]
    journal.write_bytes(b"\n".join(lines))
    with pytest.raises(PreflightError, match="line 3 is damaged"):
        migration(path).run()
    with pytest.raises(PreflightError, match="line 3 is damaged"):
        migration(path).status()


def test_a_half_made_run_directory_is_passed_over(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    (tmp_path / ".reembed" / "move" / "99991231t000000-ffff").mkdir(parents=True)
    assert migration(path).status().run == ""
    assert migration(path).run(until="export").state == "exported"


@pytest.mark.parametrize(
    ("name", "harm"), crossed(["ledger.sqlite", "ids.parquet"], ["flip", "delete", "garbage"])
)
def test_what_can_be_made_again_is(tmp_path: Path, database: Path, name: str, harm: str) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run()
    file = run_dir(path).path / name
    for suffix in ("-wal", "-shm"):
        file.with_name(name + suffix).unlink(missing_ok=True)
    if harm == "flip":
        damaged(file)
    elif harm == "delete":
        file.unlink()
    else:
        file.write_bytes(b"garbage " * 1_000)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        _write(docs, "old", "before")
        expected = records_of(docs)
    result = migration(path).run(swap=True)
    assert result.state == "swapped"
    assert result.loaded == 40
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs) == expected


def test_until_plan_embeds_nothing_of_a_run_that_was_begun(
    tmp_path: Path, database: Path, calls: Calls
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(until="export")
    calls.clear()
    assert migration(path).run(until="plan").state == "exported"
    assert calls.texts("new") == []


def test_an_early_stage_run_again_undoes_no_later_one(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    moving = migration(path)
    assert moving.run().state == "verified"
    assert moving.run(until="export").state == "verified"
    assert moving.run(until="load").state == "loaded"
    with pytest.raises(GateError, match="no verdict"):
        moving.swap()
