"""LangChain's two stores and LlamaIndex's, unmodified, before, between and after the moves of their
tables from 1536 to 768 dimensions.

The library writes; reembed moves; the library with the new embedder searches, adds and deletes;
rollback; the library with the old embedder goes on. The embedding server gives both models the same
angles, so the nearest neighbours are the same whichever model is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml

from reembed.migration import Migration
from tests.clients.driver import Application, ApplicationError, application, needs_clients
from tests.support.manifests import migration
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import sentence

pytestmark = needs_clients

OLD, NEW = "text-embedding-3-small", "nomic-embed-text:latest"
WIDTHS = {OLD: 1536, NEW: 768}
TEXTS = [
    "the cat sleeps on the sofa", "taxes are due in April", "Berlin is cold in winter",
    *(sentence(number) for number in range(9)),
]  # fmt: skip
QUERIES = ["a kitten is napping on the couch", "when do I pay the state?", "snow in Germany"]


def manifest(
    folder: Path, url: str, embedder: EmbeddingServer, table: str, **changes: Any
) -> Migration:
    """From the old model to the new one, both at the embedding server."""
    models = {
        name: {"provider": "openai", "name": name, "base_url": embedder.openai_url,
               "dimensions": width, "api_key_env": "TESTS_KEY"}
        for name, width in WIDTHS.items()
    }  # fmt: skip
    data = {
        "name": "frameworks",
        "source": {"url": url, "collection": table, "model": models[OLD]},
        "model": models[NEW],
        "swap": {"keep_old": "0d"},
    } | changes
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(data))
    return migration(path)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_KEY", "of the tests")


class Client:
    """One library's store, opened for a model."""

    def __init__(self, running: Application, url: str, embedder: EmbeddingServer) -> None:
        self._run, self._url, self._embedder = running, url, embedder

    def _model(self, name: str) -> dict[str, str]:
        return {"url": self._embedder.openai_url, "model": name}


class LangChain(Client):
    """`version` v1: one table for all collections; v2: one each."""

    version = ""

    def open(self, model: str, make: bool = False, collection: str = "docs") -> None:
        url = self._url.replace("postgresql:", "postgresql+psycopg:")
        arguments = {"dimensions": WIDTHS[model]} if make and self.version == "v2" else {}
        self._run(
            f"open_{self.version}", database=url, collection=collection,
            embedder=self._model(model), **arguments,
        )  # fmt: skip

    def add(self, texts: list[str]) -> list[str]:
        metadatas = [{"n": n, "b": 1.10, "a": {"title": text[:9]}} for n, text in enumerate(texts)]
        return list(self._run("add", texts=texts, metadatas=metadatas))

    def search(self, query: str, k: int = 3) -> list[tuple[str, str, dict[str, Any]]]:
        found = self._run("search", query=query, k=k)
        return [(one["id"], one["text"], one["metadata"]) for one in found]

    def delete(self, id: str) -> None:
        self._run("delete", ids=[id])


class V1(LangChain):
    version, table = "v1", "langchain_pg_embedding"


class V2(LangChain):
    version, table = "v2", "docs"


class LlamaIndex(Client):
    """Each text is of a document of its own, whose id is the text's beginning."""

    table = "data_docs"

    def open(self, model: str, make: bool = False, collection: str = "docs") -> None:
        self._run(
            "open", database=self._url, table=collection, embedder=self._model(model),
            dimensions=WIDTHS[model], hybrid_search=True, use_jsonb=True,
            hnsw_kwargs={"hnsw_m": 8, "hnsw_ef_construction": 32, "hnsw_ef_search": 40},
        )  # fmt: skip

    def add(self, texts: list[str]) -> list[str]:
        metadatas = [{"n": n, "b": 1.10, "a": {"title": text[:9]}} for n, text in enumerate(texts)]
        return list(self._run("add", texts=texts, metadatas=metadatas, documents=texts))

    def search(self, query: str, k: int = 3) -> list[tuple[str, str, dict[str, Any]]]:
        found = self._run("query", text=query, k=k)
        both = self._run("query", text=query, k=k, mode="hybrid")
        assert {one["id"] for one in found} <= {one["id"] for one in both}
        return [(one["id"], one["text"], one["metadata"]) for one in found]

    def delete(self, id: str) -> None:
        found = self._run("query", text="any", k=99)
        self._run("delete", document=next(one["text"] for one in found if one["id"] == id))


CLIENTS: dict[str, type[V1] | type[V2] | type[LlamaIndex]] = {
    "v1": V1, "v2": V2, "llamaindex": LlamaIndex,
}  # fmt: skip


@pytest.fixture(params=CLIENTS)
def client(
    request: pytest.FixtureRequest, postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> Iterator[V1 | V2 | LlamaIndex]:
    name = "llamaindex_app" if request.param == "llamaindex" else "langchain_app"
    with application(name, tmp_path) as running:
        yield CLIENTS[request.param](running, postgres_url, embedder)


def rows(url: str, table: str) -> list[str]:
    """Every row without its vector, each value as Postgres's own text of it."""
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT string_agg(quote_ident(attname) || '::text', ', ') FROM pg_attribute WHERE "
            "attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> "
            "'embedding'",
            [table],
        ).fetchone()
        assert names
        found = connection.execute(f"SELECT row({names[0]})::text FROM {table} ORDER BY 1")
        return [row for (row,) in found]


def width(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"SELECT DISTINCT vector_dims(embedding) FROM {table}"
        ).fetchall()
    ((dimensions,),) = found
    return int(dimensions)


def vector_of(url: str, client: V1 | V2 | LlamaIndex, id: str) -> list[float]:
    """The vector of what the library calls by this id."""
    key = {"data_docs": "node_id", "docs": "langchain_id"}.get(client.table, "id")
    with psycopg.connect(url) as connection:
        ((found,),) = connection.execute(
            f"SELECT embedding::text FROM {client.table} WHERE {key}::text = %s", [id]
        ).fetchall()
    return list(json.loads(found))


def answers(client: V1 | V2 | LlamaIndex) -> list[list[tuple[str, str, dict[str, Any]]]]:
    return [client.search(query) for query in QUERIES]


def test_the_library_goes_on_with_the_new_model_and_back(
    client: V1 | V2 | LlamaIndex, postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    client.open(OLD, make=True)
    ids = client.add(TEXTS)
    first = answers(client)
    assert [found[0][1] for found in first] == TEXTS[:3]
    before = rows(postgres_url, client.table)
    moving = manifest(tmp_path, postgres_url, embedder, client.table)
    plan = moving.plan()
    assert plan.ok, plan.blockers
    assert plan.source.layout == ("llamaindex" if client.table == "data_docs" else "langchain")
    result = moving.run()
    assert result.verdict is not None and result.verdict.passed

    moving.swap()
    assert width(postgres_url, client.table) == 768
    assert rows(postgres_url, client.table) == before
    with pytest.raises(ApplicationError, match="1536"):
        client.search(QUERIES[0])
    client.open(NEW)
    assert answers(client) == first
    (late,) = client.add(["a dog barks at the postman"])
    assert client.search("the hound growls at the mailman", 1)[0][0] == late
    client.delete(ids[1])
    assert ids[1] not in {id for id, _, _ in client.search(QUERIES[1])}
    then = rows(postgres_url, client.table)
    assert len(then) == len(TEXTS)

    moving.rollback()
    assert width(postgres_url, client.table) == 1536
    assert rows(postgres_url, client.table) == then
    client.open(OLD)
    assert client.search("the hound growls at the mailman", 1)[0][0] == late
    assert client.search(QUERIES[0], 1)[0][0] == ids[0]
    assert ids[1] not in {id for id, _, _ in client.search(QUERIES[1])}
    (again,) = client.add(["the tide is out at noon"])
    client.delete(late)

    moving.swap()
    client.open(NEW)
    assert client.search("low water at midday", 1)[0][0] == again
    assert late not in {id for id, _, _ in client.search("the hound growls at the mailman")}
    moving.clean()
    (same,) = client.add(TEXTS[:1])
    moved, added = (vector_of(postgres_url, client, id) for id in (ids[0], same))
    np.testing.assert_allclose(moved, added, atol=1e-5)
    client.add(["one more after all"])
    assert len(rows(postgres_url, client.table)) == len(TEXTS) + 2


def test_two_collections_of_langchain_v1_share_a_table_and_move_together(
    postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    with application("langchain_app", tmp_path) as running:
        client = V1(running, postgres_url, embedder)
        found = {}
        for collection, texts in (("animals", TEXTS[:1]), ("places", TEXTS[2:])):
            client.open(OLD, collection=collection)
            client.add(texts)
            found[collection] = answers(client)
        assert [len(one[0]) for one in found.values()] == [1, 3]
        moving = manifest(tmp_path, postgres_url, embedder, client.table)
        moving.run(swap=True)
        for collection, first in found.items():
            client.open(NEW, collection=collection)
            assert answers(client) == first
        moving.rollback()
        for collection, first in found.items():
            client.open(OLD, collection=collection)
            assert answers(client) == first


def test_a_template_reaches_into_nested_metadata(
    client: V1 | V2 | LlamaIndex, postgres_url: str, embedder: EmbeddingServer, tmp_path: Path
) -> None:
    """`{metadata.COLUMN.KEY}` where the row has more columns than one of JSON."""
    client.open(OLD, make=True)
    client.add(TEXTS)
    key = {"langchain_pg_embedding": "cmetadata.a.title", "docs": "a.title",
           "data_docs": "metadata_.a.title"}[client.table]  # fmt: skip
    moving = manifest(
        tmp_path, postgres_url, embedder, client.table,
        text=f"{{metadata.{key}}}: {{document}}", swap={"kind": "config"},
    )  # fmt: skip
    moving.run(until="embed")
    for text in TEXTS:
        assert embedder.served[f"{text[:9]}: {text}"]
