"""Swaps of a Chroma live name under readers, kills, intruders and rivals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import chromadb
import pytest

from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import Model
from reembed.stores.chroma import move as chroma_swap
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import pointer as chroma_pointer
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.sqlite_calls import name_between
from reembed.stores.chroma.sqlite_process import beside
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec, Exchange, StoreOptions
from tests.stores.contract.records import MODEL, simple, vectors
from tests.support.chroma_cases import PYTHON, new_chroma_folder, points, tables
from tests.support.chroma_data import chroma, chroma_at
from tests.support.chroma_reader import RECORDS
from tests.support.following import follows_hint
from tests.support.servers.chroma_server import chroma_server as run_server
from tests.support.stores import database_of, is_pointer

SWAPS = int(os.environ.get("REEMBED_TEST_SWAPS", "10"))
OLD = Model(provider="python", name="tests.support.chroma_reader:embed_old", dimensions=4)
NEW = Model(provider="python", name="tests.support.chroma_reader:embed_new", dimensions=6)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    yield opened
    opened.close()


def make(store, name, version="old", model=MODEL, dimensions=4):
    info = store.to_write().create(
        CollectionSpec(
            name, dimensions=dimensions, metric="cosine", index={}, metadata=None, model=model
        )
    )
    store.to_write().write(
        info.id, simple(RECORDS, version=version), vectors(RECORDS, dimensions), "add"
    )
    return info.id


def there_and_back(store, old, new, parked="docs__parked-r1"):
    there = Exchange("docs", new, old, parked, NEW.settings())
    return there, Exchange("docs", old, new, parked, OLD.settings())


@contextmanager
def reader(url, kind):
    """A process that reads the live name; gives a list that holds its report after the block."""
    process = subprocess.Popen(
        [PYTHON, "-W", "ignore", "-m", "tests.support.chroma_reader", url, "docs", kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    report = list[dict[str, Any]]()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        yield report
        report.append(json.loads(process.communicate("", timeout=60)[0]))
    finally:
        process.kill()
        process.wait()


def swap_under_a_reader(store, kind, reader_kind, old, new):
    there, back = there_and_back(store, old, new)
    with reader(store.url, reader_kind) as report:
        for number in range(SWAPS):
            store.to_move().exchange(kind, there if number % 2 == 0 else back)
            time.sleep(0.15)
    [seen] = report
    assert seen["problems"] == []
    assert seen["seen"]["old"] > 0
    assert seen["seen"]["new"] > 0


# Readers in another process


def test_a_reader_of_a_local_path_sees_old_or_new_across_transactions(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    swap_under_a_reader(store, "transaction", "plain", old, new)


def test_a_reader_of_a_server_sees_old_or_new_across_transactions(tmp_path):
    with run_server(tmp_path / "served") as server:
        store = open_store(server.url)
        old, new = make(store, "docs"), make(store, "docs-new", "new")
        store.close()
        store = open_store(server.url, StoreOptions(server.folder))
        swap_under_a_reader(store, "transaction", "plain", old, new)
        store.close()


def test_a_reader_of_a_pointer_asks_each_side_with_its_own_model(store):
    old, new = make(store, "docs", "old", OLD), make(store, "docs-new", "new", NEW, 6)
    swap_under_a_reader(store, "pointer", "live", old, new)


def test_a_reader_through_live_follows_transactions_too(store):
    old, new = make(store, "docs", "old", OLD), make(store, "docs-new", "new", NEW, 6)
    swap_under_a_reader(store, "transaction", "live", old, new)


def test_a_reader_through_live_sits_out_the_gap_of_a_rename(store):
    old, new = make(store, "docs", "old", OLD), make(store, "docs-new", "new", NEW, 6)
    swap_under_a_reader(store, "rename", "live", old, new)


# Transaction


def test_a_transaction_changes_two_names_and_nothing_else(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    before = tables(tmp_path / "db")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange("transaction", there)
    after = tables(tmp_path / "db")
    names = {row[0]: row[1] for row in after["collections"]}
    assert names == {new: "docs", old: "docs__parked-r1"}
    for table in before:
        if table != "collections":
            assert after[table] == before[table], table
    store.to_move().exchange("transaction", back)
    names = {row[0]: row[1] for row in tables(tmp_path / "db")["collections"]}
    assert names == {old: "docs", new: "docs__parked-r1"}


def test_a_thread_that_writes_through_chroma_meets_the_moves_of_its_own_process(store, tmp_path):
    """Two copies of SQLite in one process do not see each other's locks, so Chroma's own is the
    only one here; the moves and the reads of the file are another process's."""
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    written, stop = list[str](), threading.Event()

    def write() -> None:
        docs = database_of(store).handle(old)
        while not stop.is_set():
            docs.add(ids=[f"w{len(written)}"], embeddings=[[1.0, 2, 3, 4]], documents=["late"])
            written.append(f"w{len(written)}")

    with ThreadPoolExecutor() as pool:
        writer = pool.submit(write)
        try:
            for move in there_and_back(store, old, new) * 30:
                store.to_move().exchange("transaction", move)
                assert int(chroma_sqlite.watermark(tmp_path / "db", old)) >= len(written)
                assert store.catalog.describe("docs").id == move.incoming_id
        finally:
            stop.set()
        writer.result()
    assert len(written) > 10
    assert {*written} <= {id for page in store.reader.list_ids(old) for id in page.to_pylist()}
    with closing(sqlite3.connect(tmp_path / "db" / "chroma.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_process_that_has_the_file_open_may_be_killed(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange("transaction", there)
    assert beside._process is not None
    beside._process.kill()
    beside._process.wait()
    store.to_move().exchange("transaction", back)
    assert store.catalog.describe("docs").id == old


def test_a_bug_in_the_process_that_has_the_file_open_is_told_as_one(store, tmp_path):
    """And not as a process that ended, after which one would run the same command again."""
    id = make(store, "docs")
    mark = chroma_sqlite.watermark(tmp_path / "db", id)
    process = beside._process
    with pytest.raises(RuntimeError, match="UnicodeEncodeError"):
        chroma_sqlite.watermark(tmp_path / "db", "half a surrogate pair: \ud800")
    assert chroma_sqlite.watermark(tmp_path / "db", id) == mark
    assert beside._process is process


def test_what_was_asked_for_before_ctrl_c_does_not_happen_after_it(store, tmp_path, monkeypatch):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, _ = there_and_back(store, old, new)
    # In a process of its own: in this one, Chroma's closing of the file may drop the lock.
    holds = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "held.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(tmp_path / "db" / "chroma.sqlite3")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        def interrupted() -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(beside, "_receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.to_move().exchange("transaction", there)
    assert store.catalog.describe("docs").id == old
    store.to_move().exchange("transaction", there)
    assert store.catalog.describe("docs").id == new


def test_killed_before_its_commit_a_transaction_has_changed_nothing(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    code = (
        "import sys, time; "
        "from reembed.stores.chroma.sqlite import known_migrations; "
        "from reembed.stores.values import Exchange; "
        "from reembed.stores.chroma.sqlite_calls import File, exchange_names\n"
        "file = File(sys.argv[1] + '/chroma.sqlite3', known=known_migrations())\n"
        "with file.writing() as connection:\n"
        "    exchange_names(connection, Exchange('docs', sys.argv[2], sys.argv[3], 'docs-old'))\n"
        "    print('inside', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [PYTHON, "-W", "ignore", "-c", code, str(tmp_path / "db"), new, old],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGKILL)
    assert store.catalog.describe("docs").id == old
    assert store.catalog.describe("docs-new").id == new
    store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
    assert store.catalog.describe("docs").id == new


def test_an_unknown_format_is_refused_inside_the_transaction(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    connection = sqlite3.connect(tmp_path / "db" / "chroma.sqlite3")
    connection.execute("INSERT INTO migrations VALUES ('sysdb', 99, '00099-new.sql', '', '')")
    connection.commit()
    connection.close()
    with pytest.raises(PreflightError, match="newer version"):
        store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
    assert store.catalog.describe("docs").id == old


def test_a_transaction_waits_for_chromas_own_writers(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    code = (
        "import sqlite3, sys, time\n"
        "writer = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "writer.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "time.sleep(0.7)\n"
        "writer.execute('ROLLBACK')\n"
    )
    writer = subprocess.Popen(
        [PYTHON, "-c", code, str(tmp_path / "db" / "chroma.sqlite3")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        began = time.monotonic()
        store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
        assert time.monotonic() - began > 0.5
    assert store.catalog.describe("docs").id == new


@follows_hint("Set source.data_dir to the server's own directory, or leave it out.")
def test_a_copy_of_the_servers_directory_is_found_out_by_the_server(tmp_path):
    with run_server(tmp_path / "served") as server:
        store = open_store(server.url)
        old, new = make(store, "docs"), make(store, "docs-new", "new")
        store.close()
        shutil.copytree(server.folder, tmp_path / "copy")
        store = open_store(server.url, StoreOptions(tmp_path / "copy"))
        with pytest.raises(PreflightError, match="not the one the server reads"):
            store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
        assert store.catalog.describe("docs").id == old
        store.close()
        store = open_store(server.url, StoreOptions(server.folder))
        store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
        assert store.catalog.describe("docs").id == new
        store.close()


def test_without_the_file_a_transaction_is_refused(chroma_server):
    store = open_store(chroma_server.url)
    old, new = make(store, "tx-docs"), make(store, "tx-new")
    with pytest.raises(PreflightError, match="transaction"):
        store.to_move().exchange("transaction", Exchange("tx-docs", new, old, "tx-parked"))
    store.to_write().drop(old)
    store.to_write().drop(new)
    store.close()


def test_a_collection_of_the_same_name_in_another_database_is_left_alone(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    with chroma(tmp_path / "db") as client:
        admin = chromadb.AdminClient(client.get_settings())
        admin.create_database("other")
        client.set_database("other")
        theirs = client.create_collection("docs", embedding_function=None).id
        store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
        assert client.get_collection("docs", embedding_function=None).id == theirs
    assert store.catalog.describe("docs").id == new


# Rename


def test_a_rename_measures_its_gap(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    receipt = store.to_move().exchange("rename", there_and_back(store, old, new)[0])
    assert receipt.gap_seconds is not None
    assert 0 < receipt.gap_seconds < 1


def test_what_an_application_makes_in_the_gap_is_moved_aside_and_told(store, monkeypatch):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    take_name = chroma_swap._take_name

    def with_an_intruder(client, incoming, move):
        made = client.get_or_create_collection("docs", embedding_function=None)
        made.add(ids=["written in the gap"], embeddings=points([1, 2, 3, 4]))
        return take_name(client, incoming, move)

    monkeypatch.setattr(chroma_swap, "_take_name", with_an_intruder)
    there, back = there_and_back(store, old, new)
    receipt = store.to_move().exchange("rename", there)
    assert store.catalog.describe("docs").id == new
    assert receipt.intruder is not None
    assert receipt.intruder.startswith("docs__intruder-")
    intruder = store.catalog.describe(receipt.intruder)
    assert store.reader.fetch(intruder.id, ["written in the gap"], vectors=True).num_rows == 1
    again = store.to_move().exchange("rename", there)
    assert again.intruder == receipt.intruder, "a call that was killed before it could tell"
    assert store.to_move().exchange("rename", back).intruder not in (None, receipt.intruder)


def test_of_several_intruders_of_one_gap_the_one_told_holds_all_records(store, monkeypatch):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    made = list[str]()

    def and_another(collection, name):
        chroma_names.modify_name(collection, name)
        if len(made) < 3:
            made.append(f"written {len(made)}")
            intruder = database_of(store).client.create_collection("docs", embedding_function=None)
            intruder.add(ids=[made[-1]], embeddings=points([1, 2, 3, 4]), documents=["x"])

    monkeypatch.setattr("reembed.stores.chroma.move.modify_name", and_another)
    receipt = store.to_move().exchange("rename", there_and_back(store, old, new)[0])
    assert store.catalog.describe("docs").id == new
    assert len([name for name in store.catalog.collections() if "__intruder-" in name]) == 3
    kept = store.catalog.describe(receipt.intruder).id
    assert store.reader.fetch(kept, made, vectors=True).column("id").to_pylist() == made
    assert len(made) == 3


def test_an_intruder_of_an_earlier_swap_is_not_told_again(store, monkeypatch):
    """Its records were merged then; merging them again could bring back what was deleted since."""
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    take_name = chroma_swap._take_name

    def with_an_intruder(client, incoming, move):
        client.create_collection("docs", embedding_function=None)
        return take_name(client, incoming, move)

    with monkeypatch.context() as patch:
        patch.setattr(chroma_swap, "_take_name", with_an_intruder)
        assert store.to_move().exchange("rename", there).intruder is not None
    assert store.to_move().exchange("rename", back).intruder is None
    assert store.to_move().exchange("rename", there).intruder is None


def test_an_application_that_makes_the_name_all_the_time_loses_nothing(chroma_server):
    store = open_store(chroma_server.url)
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    stop, written = threading.Event(), list[str]()

    def application():
        with chroma_at(chroma_server.url) as client:
            while not stop.is_set():
                id = f"live-{len(written)}"
                found = client.get_or_create_collection("docs", embedding_function=None)
                found.add(ids=[id], embeddings=points([1, 2, 3, 4]), metadatas=[{"version": "app"}])
                written.append(id)

    thread = threading.Thread(target=application)
    thread.start()
    intruders = set()
    for number in range(20):
        receipt = store.to_move().exchange("rename", there if number % 2 == 0 else back)
        assert store.catalog.describe("docs").id == (new if number % 2 == 0 else old)
        intruders |= {receipt.intruder} - {None}
    stop.set()
    thread.join()
    kept = set()
    for name in store.catalog.collections():
        kept |= {
            i
            for page in store.reader.list_ids(store.catalog.describe(name).id)
            for i in page.to_pylist()
        }
    assert set(written) <= kept
    left = {name for name in store.catalog.collections() if "__intruder-" in name}
    assert intruders <= left
    for name in store.catalog.collections():
        store.to_write().drop(store.catalog.describe(name).id)
    store.close()


@pytest.mark.parametrize("intruded", [False, True])
def test_killed_between_its_two_renames_a_rename_is_finished_by_the_next_call(store, intruded):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, _ = there_and_back(store, old, new)
    database_of(store).handle(old).modify(name=there.parked)
    if intruded:
        database_of(store).client.create_collection("docs", embedding_function=None)
    receipt = store.to_move().exchange("rename", there)
    assert store.catalog.describe("docs").id == new
    assert store.catalog.describe(there.parked).id == old
    assert (receipt.intruder is not None) == intruded


@pytest.mark.parametrize("kind", ["rename", "transaction"])
def test_killed_with_a_name_crossing_a_rollback_is_finished_by_the_next_call(store, kind):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange(kind, there)
    database_of(store).handle(old).modify(name=name_between(back))
    store.to_move().exchange(kind, back)
    assert store.catalog.describe("docs").id == old
    assert store.catalog.describe(back.parked).id == new


@follows_hint("It should be ", where="stores/chroma/sqlite_calls.py")
def test_a_renamed_outgoing_collection_stops_the_swap(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    database_of(store).handle(old).modify(name="somebody-elses-choice")
    for kind in ("rename", "transaction"):
        with pytest.raises(SourceChangedError, match="somebody-elses-choice") as told:
            store.to_move().exchange(kind, there_and_back(store, old, new)[0])
    meant = told.value.hint.split("'")[1]
    database_of(store).handle(old).modify(name=meant)
    store.to_move().exchange("transaction", there_and_back(store, old, new)[0])
    assert store.catalog.describe("docs").id == new


# Pointer


def test_a_pointer_holds_what_its_readers_need_in_one_piece_of_metadata(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange("pointer", there)
    assert store.catalog.describe("docs__pointer").count == 0
    said = store.catalog.describe("docs__pointer").metadata
    assert said.pop("moved").endswith(" UTC")
    assert said == {
        "reembed:pointer": 1, "live": "docs", "target_id": new, "target": "docs-new",
        "generation": 1, "plain_id": old, "model": json.dumps(NEW.settings(), sort_keys=True),
    }  # fmt: skip
    store.to_move().exchange("pointer", back)
    held = store.catalog.describe("docs__pointer").metadata
    assert (held["target_id"], held["generation"]) == (old, 2)


def test_the_plain_name_is_taken_from_the_old_collection_and_given_back(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange("pointer", there)
    assert store.catalog.collections() == ["docs-new", "docs__parked-r1", "docs__pointer"]
    store.to_move().exchange("pointer", back)
    assert store.catalog.collections() == ["docs", "docs-new", "docs__pointer"]
    store.to_move().exchange("pointer", there)
    assert store.catalog.collections() == ["docs-new", "docs__parked-r1", "docs__pointer"]


def test_a_rollback_whose_parked_name_is_the_incoming_ones_own_goes_both_ways(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    store.to_move().exchange("pointer", Exchange("docs", new, old, "docs__parked-r1"))
    store.to_move().exchange("pointer", Exchange("docs", old, new, "docs__parked-r1"))
    store.to_move().exchange("pointer", Exchange("docs", new, old, "docs-new"))
    assert store.resolve("docs").id == new
    assert store.catalog.describe("docs-new").id == old


def test_killed_after_its_flip_a_pointer_swap_is_finished_by_the_next_call(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, _ = there_and_back(store, old, new)
    chroma_pointer.flip(database_of(store).client, there, "docs-new")
    assert store.resolve("docs").id == new
    assert "docs" in store.catalog.collections()
    store.to_move().exchange("pointer", there)
    assert store.catalog.describe(there.parked).id == old
    assert store.catalog.describe("docs__pointer").metadata["generation"] == 1


def test_a_pointer_for_a_name_that_never_was_a_collection(store):
    old, new = make(store, "docs-v1"), make(store, "docs-v2", "new")
    store.to_move().exchange("pointer", Exchange("docs", new, old, "docs__parked-r1"))
    assert store.resolve("docs").id == new
    assert store.catalog.describe("docs-v1").id == old
    store.to_move().exchange("pointer", Exchange("docs", old, new, "docs__parked-r1"))
    assert store.resolve("docs").id == old
    assert "docs" not in store.catalog.collections()


def test_two_processes_that_make_the_same_pointer_make_one(store, tmp_path):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, _ = there_and_back(store, old, new)
    stores = [open_store(store.url) for _ in range(4)]
    failed = list[Exception]()

    def swap(one):
        try:
            one.to_move().exchange("pointer", there)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=swap, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in stores:
        one.close()
    assert failed == []
    assert store.catalog.describe("docs__pointer").metadata["generation"] == 1


def test_a_pointer_to_a_third_collection_is_not_moved(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    third = make(store, "third")
    store.to_move().exchange("pointer", Exchange("docs", third, old, "docs__parked-r1"))
    with pytest.raises(SourceChangedError, match="third"):
        store.to_move().exchange("pointer", Exchange("docs", new, old, "docs__parked-r2"))
    assert store.resolve("docs").id == third


def test_a_pointer_whose_target_is_gone_is_an_error_that_says_so(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    store.to_move().exchange("pointer", there_and_back(store, old, new)[0])
    store.to_write().drop(new)
    with pytest.raises(SourceChangedError, match="gone"):
        store.resolve("docs")


def test_a_collection_that_only_is_named_like_a_pointer_is_none(store):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    database_of(store).client.create_collection("docs__pointer", embedding_function=None)
    assert not is_pointer(store.cutover, "docs")
    assert store.resolve("docs").id == old
    with pytest.raises(PreflightError, match="is not a pointer"):
        store.to_move().exchange("pointer", there_and_back(store, old, new)[0])


@follows_hint("Use swap.kind: pointer (or auto).")
@pytest.mark.parametrize("kind", ["rename", "transaction"])
def test_a_name_that_is_a_pointer_moves_as_one_only(store, kind):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    there, back = there_and_back(store, old, new)
    store.to_move().exchange("pointer", there)
    with pytest.raises(PreflightError, match="pointer"):
        store.to_move().exchange(kind, back)
    store.to_move().exchange("pointer", back)
    assert store.resolve("docs").id == old


@pytest.mark.parametrize("kind", ["rename", "transaction", "pointer"])
def test_an_illegal_parking_name_is_refused_before_anything_moves(store, kind):
    old, new = make(store, "docs"), make(store, "docs-new", "new")
    with pytest.raises(PreflightError, match="a/b"):
        store.to_move().exchange(kind, Exchange("docs", new, old, "a/b"))
    assert store.catalog.collections() == ["docs", "docs-new"]


# Names


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("abc", True), ("ab", False), ("a" * 512, True), ("a" * 513, False), ("A_b-c.d", True),
        ("a..b", False), ("-abc", False), ("abc-", False), ("abc.", False), ("127.0.0.1", False),
        ("999.999.999.999", True), ("127.0.0.01", True), ("1.2.3", True), ("1.2.3.4.5", True),
        ("été", False), ("a b", False), ("::1", False), ("abc\n", False), ("1.2.3.255", False),
    ],
)  # fmt: skip
def test_the_rule_for_names_is_chromas_own(store, name, legal):
    def ours():
        chroma_names.check_name(name)

    def chromas():
        database_of(store).client.create_collection(name, embedding_function=None)

    for check in (ours, chromas):
        if legal:
            check()
        else:
            with pytest.raises(Exception, match=r"(?i)name|character|address"):
                check()


def test_a_long_name_leaves_room_for_the_dimensions(store):
    name = store.to_write().default_target("d" * 480, "m" * 200, 1536)
    chroma_names.check_name(name)
    assert name.endswith("-1536")
