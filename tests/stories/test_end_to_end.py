"""A whole collection with every awkward record, moved by path, by server, and to an HTTP model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from reembed.records import list_array_to_vectors, row_hash
from reembed.stores.chroma.keeping import MODEL_KEY
from tests.support.awkward import (
    COLLECTION_METADATA,
    HNSW,
    LOST,
    NORMAL,
    awkward_collection,
    lose_vector,
)
from tests.support.chroma_data import chroma_at, names_in, records_of, rows_in_file, vectors_of
from tests.support.commands import Command
from tests.support.manifests import migration, quarantined, run_dir, write_manifest
from tests.support.servers.chroma_server import ChromaServer, chroma_server
from tests.support.servers.embedding_server import OPENAI, EmbeddingServer, Fault
from tests.support.texts import sentence, vector_of

TEMPLATE = "{metadata.title}\n{document}"
NO_TEXT = {"uri only", "nothing at all", "blank document"}


@pytest.fixture
def own_server(tmp_path: Path) -> Any:
    with chroma_server(tmp_path / "served") as server:
        yield server


@pytest.fixture(params=["path", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """URL and folder of an empty store."""
    if request.param == "path":
        return f"chroma:{tmp_path / 'db'}", tmp_path / "db"
    server: ChromaServer = request.getfixturevalue("own_server")
    return server.url, server.folder


def docs(client: Any, name: str = "docs") -> Any:
    return client.get_collection(name, embedding_function=None)


def test_every_awkward_record_moves_and_the_old_collection_stays_as_it_was(
    place: tuple[str, Path], tmp_path: Path, command: Command
) -> None:
    url, folder = place
    over_http = url.startswith("chroma+http")
    with chroma_at(url) as client:
        source_id = str(awkward_collection(client, "docs", NORMAL).id)
    if not over_http:  # a server has the record's segment open
        lose_vector(folder, source_id)
    with chroma_at(url) as client:
        expected = records_of(docs(client))
        ids = [id for id in expected if id != LOST]
        old_vectors = vectors_of(docs(client), ids)
    before = rows_in_file(folder, source_id)

    settings: dict[str, Any] = {"text": TEMPLATE, "swap__accept_window": True}
    path = write_manifest(tmp_path, url, **settings)
    refused = command("run", path, "--swap", "--json")
    assert refused.code == 5, "a plan sees it first"
    assert "sampled records will be quarantined" in refused.json["error"]["message"]
    path = write_manifest(tmp_path, url, **settings, verify__allow_quarantined=3)
    assert command("run", path, "--until", "export", "--json").code == 0
    path = write_manifest(tmp_path, url, **settings)
    outcome = command("run", path, "--swap", "--json")
    assert outcome.code == 4, "three records give no text, and none is allowed"
    assert "3 quarantined, 0 allowed" in outcome.json["error"]["message"]
    assert "docs" in names_in(url)

    path = write_manifest(tmp_path, url, **settings, verify__allow_quarantined=3)
    outcome = command("run", path, "--swap", "--json")
    assert outcome.code == 3, outcome.err
    document = outcome.json
    total = len(expected)
    assert (document["exported"], document["loaded"], document["quarantined"]) == (
        total, total - 3, 3,
    )  # fmt: skip
    assert document["state"] == "swapped"
    assert all(gate["status"] in ("pass", "shown") for gate in document["verdict"]["gates"])

    # the old collection: every row as it was, but for its name
    assert rows_in_file(folder, source_id) == before
    parked = document["swap"]["parked"]
    assert names_in(url)[parked] == source_id
    with chroma_at(url) as client:
        assert records_of(docs(client, parked)) == expected
        np.testing.assert_array_equal(vectors_of(docs(client, parked), ids), old_vectors)

    # the new one: every record, unaltered, with a vector of its own text
    with chroma_at(url) as client:
        now = docs(client)
        moved = records_of(now)
        assert moved == {id: row for id, row in expected.items() if id not in NO_TEXT}
        checked = ["r50", "types", "no metadata", "null document", "x" * 4_000]
        texts = {
            "r50": f"title 50\n{sentence(50)}", "types": "\nevery type",
            "no metadata": "\na text without metadata", "null document": "no document\n",
            "x" * 4_000: "\na long id",
        }  # fmt: skip
        np.testing.assert_allclose(
            vectors_of(now, checked), [vector_of("new", texts[id]) for id in checked], rtol=1e-4
        )
        if not over_http:
            np.testing.assert_allclose(
                vectors_of(now, [LOST])[0], vector_of("new", "lost\nits vector is lost"), rtol=1e-4
            )
        note = now.metadata.pop(MODEL_KEY)
        assert now.metadata == COLLECTION_METADATA
        assert json.loads(note)["name"] == "counting_model:new", "for reembed.live"
        hnsw = {key: now.configuration_json["hnsw"][key] for key in HNSW}
        assert hnsw == HNSW
        assert now.configuration_json["embedding_function"] == {"type": "legacy"}, "as before"
        asked = [vector_of("new", f"title 77 {sentence(77)}")]
        assert now.query(query_embeddings=asked, n_results=1)["ids"] == [["r77"]]

    check_run(run_dir(path).path, expected, over_http)
    if not over_http:
        assert migration(path).rollback().done
        assert rows_in_file(folder, source_id) == before
        assert names_in(url)["docs"] == source_id


def check_run(run: Path, expected: dict[str, Any], over_http: bool) -> None:
    """The run directory's files are what the contract says, for whoever reads them."""
    exported = ds.dataset(sorted(run.glob("export/*.parquet"))).to_table()
    assert exported.schema.remove_metadata() == pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("document", pa.large_string()),
            pa.field("metadata", pa.large_string(), nullable=False),
            pa.field("uri", pa.string()),
            pa.field("embedding", pa.list_(pa.float32())),
            pa.field("row_sha256", pa.binary(32), nullable=False),
        ]
    )
    assert sorted(exported.column("id").to_pylist()) == sorted(expected)
    for row in exported.select(["id", "document", "metadata", "uri", "row_sha256"]).to_pylist():
        assert (row["document"], row["uri"]) == (expected[row["id"]][0], expected[row["id"]][2])
        hashed = row_hash(row["id"], row["document"], row["metadata"], row["uri"])
        assert row["row_sha256"] == hashed
    lost = exported.filter(exported.column("embedding").is_null()).column("id").to_pylist()
    assert lost == ([] if over_http else [LOST])
    vectors, _ = list_array_to_vectors(exported.column("embedding"))
    assert vectors.shape[1] == 48

    embedded = ds.dataset(sorted(run.glob("embed/*.parquet"))).to_table()
    assert embedded.schema.remove_metadata() == pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text_sha256", pa.binary(32), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), 64), nullable=False),
        ]
    )
    assert set(embedded.column("id").to_pylist()) == set(expected) - NO_TEXT
    table = pq.read_table(run / "quarantine.parquet")
    assert {row["id"]: (row["reason"], row["uri"]) for row in table.to_pylist()} == {
        id: ("no_text", expected[id][2]) for id in NO_TEXT
    }
    assert {file.name for file in run.iterdir()} >= {
        "manifest.yaml", "journal.jsonl", "export", "embed", "quarantine.parquet", "verdict.json",
    }  # fmt: skip
    assert all(file.stat().st_mode & 0o077 == 0 for file in run.rglob("*"))


@pytest.mark.parametrize("kind", ["pointer", "transaction"])
def test_a_reader_sees_old_or_new_in_every_answer(
    tmp_path: Path, database: Path, kind: str
) -> None:
    """A few swaps and rollbacks in turn; each look-up finds all 40 records."""
    from reembed import live

    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__kind=kind)
    migration(path).run()
    with live.open(url, "docs") as opened:
        for _ in range(3):
            assert migration(path).swap().done
            assert opened.count() == 40
            assert opened.collection.get_model().dimension == 64
            assert migration(path).rollback().done
            assert opened.count() == 40
            assert opened.collection.get_model().dimension == 48


def test_an_openai_server_with_faults(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "k" * 24)
    faults = [None, None, Fault("status", 429, retry_after="0"), Fault("nan"), Fault("shuffled"),
              Fault("reset"), Fault("status", 500), Fault("too_few")]  # fmt: skip
    with EmbeddingServer(OPENAI, faults=faults, api_key="k" * 24) as server:
        path = write_manifest(
            tmp_path, f"chroma:{database}", embed={"concurrency": 2},
            model={"provider": "openai", "name": "wordllama", "base_url": server.openai_url,
                   "api_key_env": "SOME_KEY", "dimensions": 128},
        )  # fmt: skip
        result = migration(path).run(swap=True)
        assert result.state == "swapped"
        assert server.served[sentence(3)] >= 1
        with chroma_at(f"chroma:{database}") as client:
            shadow = docs(client)
            assert shadow.get_model().dimension == 128
            expected = server._model.vector(server._model.ids(sentence(3)), 128)
            np.testing.assert_allclose(vectors_of(shadow, ["r3"])[0], expected, atol=1e-6)
    everything = b"".join(file.read_bytes() for file in (tmp_path / ".reembed").rglob("*.*"))
    assert b"k" * 24 not in everything, "no secret in the run directory"


def test_too_long_texts_go_to_quarantine_with_their_reason(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chroma_at(f"chroma:{database}") as client:
        docs(client).add(
            ids=["long"], documents=["word " * 5_000], embeddings=[vector_of("old", "word")]
        )
    path = write_manifest(
        tmp_path, f"chroma:{database}", model__max_tokens=100, verify__allow_quarantined=1
    )
    result = migration(path).run(swap=True)
    assert (result.exit_code, result.state) == (3, "swapped")
    assert quarantined(run_dir(path)) == {"long": "too_long"}
    with chroma_at(f"chroma:{database}") as client:
        assert "long" not in records_of(docs(client))
    assert migration(path).rollback().done
    with chroma_at(f"chroma:{database}") as client:
        assert "long" in records_of(docs(client)), "it never left the old collection"


def test_a_wordllama_run_that_an_application_queries(tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", model={"provider": "static", "name": "wordllama"},
        target__embedding_function="record",
    )  # fmt: skip
    assert migration(path).run(swap=True).state == "swapped"
    client = chromadb.PersistentClient(database)
    try:
        found = client.get_collection("docs").query(query_texts=[sentence(9)], n_results=1)
        assert found["ids"] == [["r9"]]
    finally:
        client.close()  # type: ignore[attr-defined]
