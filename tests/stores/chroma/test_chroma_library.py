"""A client on Chroma's own library answers as the package's client does, and gives way to it.

The program alone uses it, so each test is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest

BEGIN = """
import json, sys
from reembed.run.program import claim_process
claim_process()
from reembed.stores.chroma import client as chroma_client, delayed, library
import reembed.stores.chroma.store  # which imports all that opening one takes
from reembed.stores.chroma.names import by_id, by_name
folder = sys.argv[1]
def connect():
    return chroma_client.connect(chroma_client.parse("chroma:" + folder), folder)
client = connect()
assert library.local(client) is not None and delayed.is_delayed()
"""

CALLS = """
import numpy as np
def plain(value):
    if isinstance(value, np.ndarray):
        return value.astype(float).tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
def told(client):
    found = by_name(client, "docs")
    model = found.get_model()
    vectors = np.asarray(found.get(ids=["a"], include=["embeddings"])["embeddings"], np.float32)
    answers = [
        by_name(client, "nothing") is None, str(by_id(client, str(found.id)).id), found.name,
        found.metadata, model.dimension, model.configuration_json, model.serialized_schema,
        found.count(), client.get_max_batch_size(),
        [one.name for one in client.list_collections(limit=300, offset=0)],
        found.get(limit=2, offset=1, include=[]),
        found.get(ids=["c", "a"], include=["documents", "metadatas", "uris"]),
        found.get(ids=["c", "a"], include=["documents", "metadatas", "uris", "embeddings"]),
        found.query(query_embeddings=vectors, n_results=3, include=["distances", "embeddings"]),
        found.query(query_embeddings=vectors, n_results=3, include=[]),
        found.get(ids=["a"], where={"n": 1}, include=["documents"]) if CHANGES else None,
    ]
    if CHANGES:
        made = client.create_collection("made", metadata={"k": "v"}, embedding_function=None)
        made.add(ids=["x", "y"], embeddings=np.eye(2, 4, dtype=np.float32),
                 metadatas=[{"s": "t", "i": 1, "f": 0.1, "b": True}, None],
                 documents=["text", None], uris=[None, "file:x"])
        made.delete(ids=["x"])
        made.add(ids=["x", "z"], embeddings=np.eye(2, 4, dtype=np.float32),
                 metadatas=[{"list": ["a", "b"]}, {"s": "t"}], documents=["other", ""],
                 uris=[None, None])
        made.modify(name="renamed", metadata={"k": "w"})
        again = by_name(client, "renamed")
        answers += [made.name, made.metadata, again.metadata, again.get_model().serialized_schema,
                    again.get(include=["documents", "metadatas", "uris", "embeddings"])]
        client.delete_collection("renamed")
    return json.dumps([plain(one) for one in answers], default=str)
"""


def process(folder: Path, program: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, str(folder)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    client = chromadb.PersistentClient(tmp_path / "db")
    docs = client.create_collection("docs", metadata={"is": "mine"}, embedding_function=None)
    docs.add(
        ids=["a", "b", "c"],
        embeddings=np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        documents=["one", "two", "three"], metadatas=[{"n": 1}, {"n": 2.5, "t": True}, {"s": "x"}],
    )  # fmt: skip
    client.close()  # type: ignore[attr-defined]
    return tmp_path / "db"


@pytest.mark.parametrize("changes", [False, True], ids=["reading", "writing"])
def test_answers_are_the_packages(folder: Path, changes: bool) -> None:
    calls = f"CHANGES = {changes}\n" + CALLS
    ours, theirs, delayed = process(
        folder,
        calls + "ours, still = told(client), delayed.is_delayed()\n"
        "print(json.dumps([ours, told(client.whole()), still]))",
    )
    assert json.loads(ours) == json.loads(theirs)
    assert delayed is not changes, "a filter and a list are for the package"


@pytest.mark.parametrize(
    "need",
    [
        "import chromadb; chromadb.PersistentClient",
        "from chromadb.config import Settings; import chromadb.config as c; "
        "assert Settings is c.Settings",
        "import chromadb.api.shared_system_client",
    ],
)
def test_gives_way_to_whoever_imports_the_package(folder: Path, need: str) -> None:
    assert process(
        folder,
        f"""
found = by_name(client, "docs")
{need}
import chromadb, chromadb.api.shared_system_client as shared, chromadb.errors
from chromadb.errors import NotFoundError
theirs = chromadb.PersistentClient(folder, chromadb.Settings(anonymized_telemetry=False))
assert chromadb.errors.NotFoundError is NotFoundError
assert by_name(client, "nothing") is None and found.count() == 3
assert client._library._bindings is None, "two Chromas on one folder"
assert client._whole._server is theirs._server
assert len(shared.SharedSystemClient._identifier_to_system) == 1
theirs.close()
other = connect()
assert library.local(other) is None and by_name(other, "docs").count() == 3
other.close()
client.close()
print(json.dumps(len(shared.SharedSystemClient._identifier_to_system)))
""",
    ) == 0  # fmt: skip


def test_waits_for_calls_that_are_under_way(folder: Path) -> None:
    assert process(
        folder,
        """
import threading
begun, go, seen = threading.Event(), threading.Event(), []
def call():
    client.ask(lambda bindings: (begun.set(), go.wait(), seen.append("call")), lambda: None)
threads = [threading.Thread(target=call),
           threading.Thread(target=lambda: (client.whole(), seen.append("whole")))]
threads[0].start(); begun.wait(); threads[1].start()
threads[1].join(0.3)
go.set()
[one.join() for one in threads]
print(json.dumps(seen))
""",
    ) == ["call", "whole"]  # fmt: skip


def test_clients_of_a_folder_share_it_and_rest(folder: Path) -> None:
    assert process(
        folder,
        """
other = connect()
assert other._library is client._library
chroma_client.rest(client, other._library._folder)  # another one works with it
other.close()
first = client._library._bindings
chroma_client.rest(client, client._library._folder)
assert client._library._bindings is not first and by_name(client, "docs").count() == 3
client.close()
print(json.dumps([len(library._libraries), delayed.is_delayed()]))
""",
    ) == [0, True]  # fmt: skip


def test_settings_are_for_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("migrations", "apply")
    program = BEGIN.rpartition("client = connect()")[0]
    program += "print(json.dumps(library.local(connect()) is None))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout), done.stderr


def test_an_application_imports_all_at_once(folder: Path) -> None:
    program = (
        "import sys; from reembed.stores.chroma import client as c, library; "
        "assert 'chromadb.api' in sys.modules; url = 'chroma:' + sys.argv[1]; "
        "assert library.local(c.connect(c.parse(url), url)) is None"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
