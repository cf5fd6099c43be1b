"""Opening Chroma: what is refused, what is left alone, what leaves this machine."""

from __future__ import annotations

import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from chromadb.errors import InternalError

from reembed.errors import (
    CollectionNotFoundError,
    DamagedStoreError,
    ManifestError,
    PreflightError,
    UnreachableError,
)
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.failures import mapped
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec, StoreOptions
from tests.stores.contract.records import MODEL, simple, vectors
from tests.support.chroma_cases import (
    PYTHON,
    RecordingServer,
    chroma_0_5,
    new_chroma_folder,
    points,
    silent_server,
    tables,
)
from tests.support.chroma_data import chroma
from tests.support.following import follows_hint
from tests.support.servers.chroma_server import free_port
from tests.support.stores import database_of, kinds_of, mark_of


def test_what_a_killed_writer_left_is_undone(tmp_path):
    """A rollback journal that belongs to nobody: a read-only connection cannot play it back."""
    killed = new_chroma_folder(tmp_path / "alive")
    with chroma(killed) as client:
        docs = client.create_collection("docs", embedding_function=None)
        docs.add(ids=[f"r{n}" for n in range(300)], embeddings=vectors(300), documents=["x"] * 300)
    writer = sqlite3.connect(killed / "chroma.sqlite3", isolation_level=None)
    writer.execute("PRAGMA cache_size = 2")  # so that some of it reaches the file before the end
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE embedding_metadata SET string_value = string_value || 'half'")
    shutil.copytree(killed, tmp_path / "dead")  # as they are, without the lock of a live writer
    writer.execute("ROLLBACK")
    writer.close()
    assert (tmp_path / "dead" / "chroma.sqlite3-journal").stat().st_size > 512
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        link = sqlite3.connect(f"file:{tmp_path}/dead/chroma.sqlite3?mode=ro", uri=True)
        link.execute("SELECT count(*) FROM collections")
    link.close()
    store = open_store(f"chroma:{tmp_path}/dead")
    found = store.catalog.describe("docs")
    rows = store.reader.fetch(found.id, ["r0", "r299"], vectors=False)
    assert (found.count, rows.column("document").to_pylist()) == (300, ["x", "x"])
    store.close()


def test_a_folder_that_does_not_exist_is_refused_and_not_made(tmp_path):
    with pytest.raises(CollectionNotFoundError):
        open_store(f"chroma:{tmp_path}/typo")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_database_is_refused_and_left_empty(tmp_path):
    with pytest.raises(CollectionNotFoundError):
        open_store(f"chroma:{tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "chroma.sqlite3").write_text("not a database at all, just some text" * 100)
    with pytest.raises((PreflightError, UnreachableError), match="database"):
        open_store(f"chroma:{tmp_path}")


@follows_hint("open the copy once with the new Chroma (python -c ")
def test_a_database_of_chroma_0_5_is_refused_unchanged_with_the_way_out(tmp_path):
    folder = chroma_0_5(tmp_path)
    before = (folder / "chroma.sqlite3").read_bytes()
    with pytest.raises(PreflightError, match="older version") as caught:
        open_store(f"chroma:{folder}")
    assert (folder / "chroma.sqlite3").read_bytes() == before
    copy, upgrade = re.findall(r"\((cp -r .*?|python -c .*?'\)?)\)[,.]", caught.value.hint)
    for words in (copy, upgrade.replace("python", f"{PYTHON} -W ignore", 1)):
        subprocess.run(words, shell=True, check=True)
    store = open_store(f"chroma:{folder}-upgraded")
    assert store.catalog.describe("really-cosine").count == 40
    store.close()


@follows_hint("Install a chromadb at least as new as the one that made it.")
def test_a_database_of_a_newer_chroma_is_refused(tmp_path, monkeypatch):
    folder = new_chroma_folder(tmp_path / "db")
    connection = sqlite3.connect(folder / "chroma.sqlite3")
    connection.execute("INSERT INTO migrations VALUES ('sysdb', 99, '00099-new.sql', '', '')")
    connection.commit()
    connection.close()
    with pytest.raises(PreflightError, match=r"newer version.*sysdb 99"):
        open_store(f"chroma:{folder}")
    newer = chroma_sqlite.known_migrations() | {("sysdb", 99)}  # of a Chroma that made it
    monkeypatch.setattr(chroma_sqlite, "known_migrations", lambda: newer)
    open_store(f"chroma:{folder}").close()


def test_opening_describing_and_reading_change_no_row(tmp_path):
    folder = new_chroma_folder(tmp_path / "db")
    with chroma(folder) as client:
        made = client.create_collection("docs", embedding_function=None)
        made.add(ids=["a", "b"], embeddings=points([1, 2], [3, 4]), documents=["x", "y"])
    before = tables(folder)
    store = open_store(f"chroma:{folder}")
    info = store.catalog.describe("docs")
    mark_of(store, info.id)
    ids = next(iter(store.reader.list_ids(info.id))).to_pylist()
    store.reader.fetch(info.id, ids, vectors=True)
    store.to_search().query(info.id, vectors(1, 2), 1)
    store.close()
    assert tables(folder) == before


def test_an_application_in_this_process_keeps_its_client(tmp_path):
    folder = new_chroma_folder(tmp_path / "db")
    with chroma(folder) as client:
        docs = client.create_collection("docs", embedding_function=None)
        docs.add(ids=["a"], embeddings=points([1, 2]))
        first, second = open_store(f"chroma:{folder}"), open_store(f"chroma:{folder}")
        assert first.catalog.describe("docs").count == second.catalog.describe("docs").count == 1
        first.close()
        second.close()
        assert docs.count() == 1


def test_a_closed_store_can_be_opened_again(tmp_path):
    url = f"chroma:{new_chroma_folder(tmp_path / 'db')}"
    for _ in range(2):
        store = open_store(url)
        assert store.catalog.collections() == []
        store.close()


def test_another_process_that_has_the_database_open_is_told(tmp_path):
    folder = new_chroma_folder(tmp_path / "db")
    code = (
        "import sys, chromadb; client = chromadb.PersistentClient(sys.argv[1]); "
        "print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [PYTHON, "-W", "ignore", "-c", code, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        store = open_store(f"chroma:{folder}")
        assert str(process.pid) in " ".join(store.catalog.capabilities.notes)
        store.close()
        process.communicate("")
    store = open_store(f"chroma:{folder}")
    assert "Open in other processes" not in " ".join(store.catalog.capabilities.notes)
    store.close()


# Over the network


def test_nobody_there_is_unreachable_at_once():
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        open_store(f"chroma+http://127.0.0.1:{free_port()}")
    assert caught.value.exit_code == 7
    assert time.monotonic() - began < 5


def test_a_server_that_never_answers_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(chroma_client, "ANSWER_SECONDS", 5.0)
    with silent_server() as port, pytest.raises(UnreachableError, match="Timeout"):
        open_store(f"chroma+http://127.0.0.1:{port}")


def test_every_later_call_is_bounded_too(chroma_server):
    store = open_store(chroma_server.url)
    timeout = database_of(store).client._server._session.timeout
    assert (timeout.connect, timeout.read) == (10.0, 300.0)
    store.close()


def test_a_proxys_error_page_is_unreachable_and_no_crash():
    with (
        RecordingServer(502, b"<html>Bad Gateway</html>") as server,
        pytest.raises((UnreachableError, PreflightError), match="Bad Gateway"),
    ):
        open_store(f"chroma+http://127.0.0.1:{server.port}")


@pytest.mark.parametrize("url", ["chroma+http://:8000", "chroma+http://host:port"])
def test_a_url_without_a_host_or_with_a_bad_port_is_no_url(url):
    with pytest.raises(ManifestError):
        open_store(url)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ManifestError) as caught:
        open_store("chroma+http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(caught.value.to_dict())


def test_the_clients_own_settings_make_it_send_a_bearer_token(monkeypatch):
    monkeypatch.setenv(
        "CHROMA_CLIENT_AUTH_PROVIDER", "chromadb.auth.token_authn.TokenAuthClientProvider"
    )
    monkeypatch.setenv("CHROMA_CLIENT_AUTH_CREDENTIALS", "of-the-proxy")
    with RecordingServer() as server:
        open_store(f"chroma+http://127.0.0.1:{server.port}").close()
        assert server.requests[-1][2]["authorization"] == "Bearer of-the-proxy"


def test_tenant_and_database_of_a_server_are_in_the_requests():
    with RecordingServer() as server:
        store = open_store(f"chroma+http://127.0.0.1:{server.port}?tenant=acme&database=prod")
        assert store.catalog.collections() == []
        store.close()
        assert server.requests[-1][1].startswith("/api/v2/tenants/acme/databases/prod/collections")


# Chroma Cloud


def test_cloud_requests_carry_token_tenant_and_database(monkeypatch):
    monkeypatch.setenv("CHROMA_API_KEY", "not-a-real-key")
    with RecordingServer() as server:
        monkeypatch.setenv("CHROMA_CLOUD_HOST", f"http://127.0.0.1:{server.port}")
        store = open_store("chroma+cloud://acme/prod")
        assert store.catalog.collections() == []
        store.close()
        _, path, headers = server.requests[-1]
    assert path.startswith("/api/v2/tenants/acme/databases/prod/collections")
    assert headers["x-chroma-token"] == "not-a-real-key"


def test_cloud_takes_tenant_and_database_from_the_environment_as_the_client_does(monkeypatch):
    monkeypatch.setenv("CHROMA_API_KEY", "not-a-real-key")
    monkeypatch.setenv("CHROMA_DATABASE", "prod")
    with RecordingServer() as server:
        monkeypatch.setenv("CHROMA_CLOUD_HOST", f"http://127.0.0.1:{server.port}")
        store = open_store("chroma+cloud://acme")
        store.catalog.collections()
        store.close()
        assert "/tenants/acme/databases/prod/" in server.requests[-1][1]


def test_cloud_without_a_key_is_refused_by_the_variables_name(monkeypatch):
    monkeypatch.delenv("CHROMA_API_KEY", raising=False)
    with RecordingServer() as server:
        monkeypatch.setenv("CHROMA_CLOUD_HOST", f"http://127.0.0.1:{server.port}")
        with pytest.raises(PreflightError, match="CHROMA_API_KEY"):
            open_store("chroma+cloud://acme/prod")


def test_cloud_is_chromas_own_host_over_tls_by_default(monkeypatch):
    monkeypatch.delenv("CHROMA_CLOUD_HOST", raising=False)
    address = chroma_client.parse("chroma+cloud://acme/prod")
    assert (address.host, address.port, address.tls) == ("api.trychroma.com", 443, True)


# The server's own directory


def test_the_servers_directory_makes_a_transaction_and_a_watermark_possible(chroma_server):
    over_http = open_store(chroma_server.url)
    made = over_http.to_write().create(
        CollectionSpec("at-hand", dimensions=4, metric="l2", index={}, metadata=None, model=MODEL)
    )
    assert "transaction" not in kinds_of(over_http)
    assert mark_of(over_http, made.id) is None
    at_hand = open_store(chroma_server.url, StoreOptions(chroma_server.folder))
    assert "transaction" in kinds_of(at_hand)
    before = mark_of(at_hand, made.id)
    at_hand.to_write().write(made.id, simple(3), vectors(3), "add")
    assert mark_of(at_hand, made.id) != before
    at_hand.to_write().drop(made.id)
    at_hand.close()
    over_http.close()


def test_a_directory_that_is_not_the_servers_is_refused(chroma_server, tmp_path):
    store = open_store(chroma_server.url)
    made = store.to_write().create(
        CollectionSpec("here", dimensions=4, metric="l2", index={}, metadata=None, model=MODEL)
    )
    with pytest.raises(PreflightError, match="not the directory"):
        open_store(chroma_server.url, StoreOptions(new_chroma_folder(tmp_path / "other")))
    with pytest.raises(PreflightError, match="data_dir"):
        open_store(chroma_server.url, StoreOptions(tmp_path))
    store.to_write().drop(made.id)
    store.close()


def test_a_copy_of_the_servers_directory_is_not_relied_on_for_records(chroma_server, tmp_path):
    store = open_store(chroma_server.url)
    made = store.to_write().create(
        CollectionSpec("copied", dimensions=4, metric="l2", index={}, metadata=None, model=MODEL)
    )
    shutil.copytree(chroma_server.folder, tmp_path / "copy")
    from_copy = open_store(chroma_server.url, StoreOptions(tmp_path / "copy"))
    store.to_write().write(made.id, simple(3), vectors(3), "add")
    assert mark_of(from_copy, made.id) is None
    assert [len(page) for page in from_copy.reader.list_ids(made.id)] == [3]
    from_copy.close()
    store.to_write().drop(made.id)
    store.close()


AS_MANY_AS_IT_MAY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[2])))
from reembed.stores.registry import open_store
open_store(sys.argv[1]).close()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_folder_of_many_collections_may_have_many_files_open(database):
    """Of more indexes than a fifth of the limit Chroma closes some that it cannot open again."""
    done = subprocess.run(
        [sys.executable, "-c", AS_MANY_AS_IT_MAY, f"chroma:{database}", "700"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "700"


def test_an_index_that_chroma_cannot_open_again_names_the_limit_of_files(monkeypatch):
    words = "Error creating hnsw segment reader: Nothing found on disk"
    for limit, told in ((1_024, True), (100_000, False), (-1, False)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        with pytest.raises(DamagedStoreError) as error, mapped("docs"):
            raise InternalError(words)
        assert ("204 indexes" in error.value.hint and "ulimit -n" in error.value.hint) == told
        assert "Running again changes nothing" in error.value.hint


def test_a_list_of_all_counts_what_chroma_counts(tmp_path):
    """Also what waits in the log until somebody reads it."""
    with chroma(tmp_path / "db") as client:
        for name in ("read", "waits", "shrinks", "emptied", "never"):
            found = client.create_collection(name, embedding_function=None)
            if name != "never":
                found.add(ids=["a", "b", "c"], embeddings=np.ones((3, 2), np.float32))
            if name != "waits":
                assert found.count() == (0 if name == "never" else 3)
            if name in ("shrinks", "emptied"):
                found.delete(ids=["a", "b", "c"] if name == "emptied" else ["a"])
    store = open_store(f"chroma:{tmp_path / 'db'}")
    try:
        assert store.listed is not None
        listed = store.listed()
        infos = {name: listed.describe(name) for name in listed.collections()}
        assert {name: info.count for name, info in infos.items()} == {
            "read": 3, "waits": 3, "shrinks": 2, "emptied": 0, "never": 0,
        }  # fmt: skip
        assert infos == {name: store.catalog.describe(name) for name in infos}
        assert listed.describe_id(infos["read"].id) == infos["read"]
        assert listed.find("other") is None and listed.describe_id("other") is None
    finally:
        store.close()
