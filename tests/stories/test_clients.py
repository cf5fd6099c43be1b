"""The applications of tests/clients on their own, and what they do when their settings do not fit:
this is what `reembed.applications.mem0` and docs/mem0.md say of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.clients.driver import Application, ApplicationError, application, needs_clients
from tests.clients.incident import COLLECTION, NAMESPACES, USER, Incident, mem0_config
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer

pytestmark = needs_clients

ANN = {"user_id": "ann"}
TEXTS = ["the cat sleeps on the sofa", "taxes are due in April", "Berlin is cold in winter"]


@pytest.fixture
def mem0(tmp_path: Path) -> Iterator[Application]:
    with application("mem0_app", tmp_path) as running:
        yield running


def config(
    url: str, embedder: EmbeddingServer, folder: Path, provider: str = "openai"
) -> dict[str, Any]:
    return mem0_config(url, embedder.url, folder / "history.db", provider)


def rows(url: str, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


def dimensions(url: str, table: str, column: str = "vector") -> int:
    ((found,),) = rows(
        url,
        f"pg_attribute WHERE attrelid = '{table}'::regclass AND attname = '{column}'",
        "atttypmod",
    )
    return int(found)


@pytest.mark.parametrize(("provider", "width"), [("openai", 1536), ("ollama", 768)])
def test_mem0_keeps_and_finds_memories(
    mem0: Application,
    postgres_url: str,
    embedder: EmbeddingServer,
    tmp_path: Path,
    provider: str,
    width: int,
) -> None:
    mem0("open", config=config(postgres_url, embedder, tmp_path, provider))
    ids = [mem0("add", text=text, metadata={"n": n}, **ANN) for n, text in enumerate(TEXTS)]
    assert dimensions(postgres_url, COLLECTION) == width

    best, *_ = mem0("search", query="a kitten is napping on the couch", filters=ANN, threshold=0)
    assert (best["id"], best["memory"], best["metadata"]) == (ids[0], TEXTS[0], {"n": 0})
    assert mem0("search", query="cat", filters={"user_id": "bob"}) == []

    mem0("update", id=ids[1], text="taxes are due in May")
    assert mem0("get", id=ids[1])["memory"] == "taxes are due in May"
    mem0("delete", id=ids[2])
    assert mem0("get", id=ids[2]) is None
    assert {found["id"] for found in mem0("get_all", filters=ANN)} == set(ids[:2])
    events = [[event["event"] for event in mem0("history", id=id)] for id in ids]
    assert events == [["ADD"], ["ADD", "UPDATE"], ["ADD", "DELETE"]]
    mem0("close")


def test_mem0_links_entities_in_a_table_of_their_own(
    mem0: Application, postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    mem0("open", config=config(postgres_url, embedder, tmp_path), entities=True)
    ids = [mem0("add", text=f"my friend {name} lives in Oslo", **ANN) for name in ("Ada", "Bruno")]
    mem0("link", ids=ids, filters=ANN)
    linked = {row["data"]: row["linked_memory_ids"] for row in mem0("entities", filters=ANN)}
    assert linked == {"Ada": ids[:1], "Bruno": ids[1:], "Oslo": ids}
    assert dimensions(postgres_url, f"{COLLECTION}_entities") == 1536
    mem0("delete", id=ids[0])
    linked = {row["data"]: row["linked_memory_ids"] for row in mem0("entities", filters=ANN)}
    assert linked == {"Bruno": ids[1:], "Oslo": ids[1:]}


def test_mem0_with_a_narrower_embedder_looks_healthy_until_it_is_asked(
    mem0: Application, postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    mem0("open", config=config(postgres_url, embedder, tmp_path))
    ids = [mem0("add", text=text, **ANN) for text in TEXTS]
    mem0("close")
    mem0("open", config=config(postgres_url, embedder, tmp_path, "ollama"))
    failing: dict[str, dict[str, Any]] = {
        "search": {"query": "cat", "filters": ANN},
        "add": {"text": "another", **ANN},
        "update": {"id": ids[0], "text": "changed"},
    }
    for operation, arguments in failing.items():
        with pytest.raises(ApplicationError, match="1536") as caught:
            mem0(operation, **arguments)
        assert caught.value.kind == "DataException"
    assert mem0("get", id=ids[0])["memory"] == TEXTS[0]
    assert len(mem0("get_all", filters=ANN)) == 3
    assert len(mem0("history", id=ids[0])) == 1
    mem0("delete", id=ids[2])
    assert len(rows(postgres_url, COLLECTION)) == 2


def test_mem0_on_a_fresh_database_is_empty_without_an_error(
    mem0: Application, incident: Incident, postgres_url: str, embedder: EmbeddingServer
) -> None:
    mem0("open", config=mem0_config(postgres_url, embedder.url, incident.history, "ollama"))
    scope = {"user_id": USER, "agent_id": "research"}
    id = incident.ids["research"][0]
    assert mem0("search", query="tea", filters=scope) == []
    assert mem0("get_all", filters=scope) == []
    assert mem0("get", id=id) is None
    assert mem0("history", id=id)[0]["event"] == "ADD"


def test_the_incident_is_all_there(
    mem0: Application, incident: Incident, postgres: PostgresServer, embedder: EmbeddingServer
) -> None:
    url = incident.url(postgres)
    assert sum(NAMESPACES.values()) == 1968
    assert {namespace: len(ids) for namespace, ids in incident.ids.items()} == NAMESPACES
    everything = {id for ids in incident.ids.values() for id in ids}
    assert {str(id) for (id,) in rows(url, COLLECTION, "id")} == everything
    mem0("open", config=mem0_config(url, embedder.url, incident.history), entities=True)
    for namespace, ids in incident.ids.items():
        scope = {"user_id": USER, "agent_id": namespace}
        assert len(mem0("get_all", filters=scope, top_k=2000)) == len(ids)
        links = [id for row in mem0("entities", filters=scope) for id in row["linked_memory_ids"]]
        assert links and set(links) <= set(ids)
        wanted = mem0("get", id=ids[-1])
        found = mem0("search", query=wanted["memory"], filters=scope, top_k=3)
        assert wanted["memory"] in {match["memory"] for match in found}
    for id in incident.deleted:
        assert [event["event"] for event in mem0("history", id=id)] == ["ADD", "DELETE"]


def test_copied_memories_have_the_form_of_those_that_mem0_added(
    mem0: Application, incident: Incident, postgres: PostgresServer, embedder: EmbeddingServer
) -> None:
    url = incident.url(postgres)
    first, last = incident.ids["operations"][0], incident.ids["operations"][-1]
    mem0("open", config=mem0_config(url, embedder.url, incident.history))
    text = mem0("get", id=last)["memory"]
    scope = {"user_id": USER, "agent_id": "operations"}
    again = mem0("add", text=text, metadata=mem0("get", id=last)["metadata"], **scope)
    found = {str(id): (vector, payload) for id, vector, payload in rows(url, COLLECTION)}
    stamps = "created_at", "updated_at"
    mine, theirs = (
        {key: value for key, value in found[id][1].items() if key not in stamps}
        for id in (last, again)
    )
    assert mine == theirs
    assert found[last][0] == found[again][0]
    assert found[first][1].keys() >= {"data", "hash", "text_lemmatized", *stamps}
    with closing(sqlite3.connect(incident.history)) as db:
        columns = "old_memory, new_memory, event, is_deleted, actor_id, role, typeof(created_at)"
        same = [
            db.execute(f"SELECT {columns} FROM history WHERE memory_id = ?", (id,)).fetchall()
            for id in (last, again)
        ]
    assert same[0] == same[1]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_langchain_keeps_and_finds_texts(
    postgres_url: str, embedder: EmbeddingServer, tmp_path: Path, version: str
) -> None:
    database = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    model = {"url": embedder.openai_url, "model": "text-embedding-3-small"}
    arguments = {} if version == "v1" else {"dimensions": 1536}
    with application("langchain_app", tmp_path) as langchain:
        langchain(
            f"open_{version}", database=database, collection="docs", embedder=model, **arguments
        )
        metadatas = [{"n": n, "long": 1.10} for n in range(3)]
        ids = langchain("add", texts=TEXTS, metadatas=metadatas)
        (best,) = langchain("search", query="a kitten is napping", k=1)
        assert (best["id"], best["text"], best["metadata"]) == (ids[0], TEXTS[0], metadatas[0])
        langchain("delete", ids=ids[:1])
        assert ids[0] not in {found["id"] for found in langchain("search", query="kitten", k=3)}
    table = {"v1": "langchain_pg_embedding", "v2": "docs"}[version]
    assert dimensions(postgres_url, table, "embedding") == {"v1": -1, "v2": 1536}[version]
    assert len(rows(postgres_url, table)) == 2


def test_llamaindex_keeps_and_finds_nodes(
    postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    model = {"url": embedder.openai_url, "model": "text-embedding-3-small"}
    hnsw = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}
    with application("llamaindex_app", tmp_path) as llamaindex:
        llamaindex(
            "open", database=postgres_url, table="docs", embedder=model, dimensions=1536,
            hybrid_search=True, hnsw_kwargs=hnsw,
        )  # fmt: skip
        metadatas = [{"n": n} for n in range(3)]
        ids = llamaindex("add", texts=TEXTS, metadatas=metadatas, documents=["a", "a", "b"])
        (best,) = llamaindex("query", text="a kitten is napping", k=1)
        assert (best["id"], best["text"], best["metadata"]) == (ids[0], TEXTS[0], metadatas[0])
        both = llamaindex("query", text="winter", k=1, mode="hybrid")
        assert ids[2] in {found["id"] for found in both}
        llamaindex("delete", document="a")
        assert [found["id"] for found in llamaindex("query", text="kitten", k=3)] == ids[2:]
    assert dimensions(postgres_url, "data_docs", "embedding") == 1536


def test_an_application_that_ends_says_why(tmp_path: Path) -> None:
    ended = pytest.raises(RuntimeError, match=r"ended; it wrote: .*No module named")
    with application("no_such_app", tmp_path) as missing, ended:
        missing("open")
    with application("mem0_app", tmp_path) as mem0, pytest.raises(ApplicationError) as caught:
        mem0("open", config={"vector_store": {"provider": "no such"}})
    assert caught.value.kind == "ValidationError"
