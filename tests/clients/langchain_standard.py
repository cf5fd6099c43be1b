"""LangChain's own standard suite for vector stores, over a live name of either store. Run by the
clients' interpreter: `python -m pytest tests/clients/langchain_standard.py`, with the URL of an
empty database in LIVE_POSTGRES."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from tests.clients.lines import with_chromadb

with_chromadb()

import chromadb  # noqa: E402
import psycopg  # noqa: E402

from reembed import live  # noqa: E402
from reembed.integrations.langchain import LiveVectorStore  # noqa: E402
from reembed.manifest import Model  # noqa: E402

MODEL = Model(provider="python", name="tests.clients.langchain_standard:embed")


def embed(texts: list[str]) -> list[list[float]]:
    """The vectors that the suite expects."""
    found: list[list[float]] = VectorStoreIntegrationTests.get_embeddings().embed_documents(texts)
    return found


class TestChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        client = chromadb.PersistentClient(str(tmp_path))
        client.create_collection("docs", embedding_function=None)
        with live.LiveCollection.from_client(client, "docs", model=MODEL) as docs:
            yield LiveVectorStore(docs)


class TestPostgres(VectorStoreIntegrationTests):
    @pytest.fixture(params=["plain", "langchain"])
    def vectorstore(self, request: Any) -> Iterator[VectorStore]:
        columns = "id text PRIMARY KEY, content text, meta jsonb"
        if request.param == "langchain":  # as its PGVectorStore makes them, with ids of the suite's
            columns = "langchain_id text PRIMARY KEY, content text, langchain_metadata json"
        url = os.environ["LIVE_POSTGRES"]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS docs")
            connection.execute(f"CREATE TABLE docs ({columns}, embedding vector(6))")
        with live.open(url, "docs", model=MODEL) as docs:
            yield LiveVectorStore(docs)
