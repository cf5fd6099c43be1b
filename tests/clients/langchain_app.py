"""LangChain's two stores on Postgres, unmodified, behind `lines.serve`.

`v1` is `PGVector`: one table for all collections, its vectors without a dimension. `v2` is
`PGVectorStore`: a table of its own, here with an HNSW index.
"""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_postgres import PGEngine, PGVector, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex

from tests.clients.langchain_vectors import ServerEmbeddings
from tests.clients.lines import serve

_opened: list[VectorStore] = []


def store() -> VectorStore:
    return _opened[-1]


def open_v1(database: str, collection: str, embedder: dict[str, str], **arguments: Any) -> None:
    """`database`: a URL of SQLAlchemy's. `arguments`: PGVector's own, e.g. embedding_length."""
    embeddings = ServerEmbeddings(**embedder)
    _opened.append(
        PGVector(embeddings, connection=database, collection_name=collection, **arguments)
    )


def open_v2(
    database: str, collection: str, embedder: dict[str, str], dimensions: int | None = None
) -> None:
    """With `dimensions` the table is made, and its index."""
    engine = PGEngine.from_connection_string(database)
    if dimensions:
        engine.init_vectorstore_table(collection, dimensions)
    opened = PGVectorStore.create_sync(engine, ServerEmbeddings(**embedder), collection)
    if dimensions:
        opened.apply_vector_index(HNSWIndex())
    _opened.append(opened)


def add(
    texts: list[str], metadatas: list[dict[str, Any]] | None = None, ids: list[str] | None = None
) -> list[str]:
    return list(store().add_texts(texts, metadatas, ids=ids))


def found(document: Document, score: float) -> dict[str, Any]:
    return {
        "id": document.id,
        "text": document.page_content,
        "metadata": document.metadata,
        "distance": score,
    }


def search(query: str, k: int = 4, filter: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    matches = store().similarity_search_with_score(query, k=k, filter=filter)
    return [found(document, score) for document, score in matches]


if __name__ == "__main__":
    serve(
        {
            "open_v1": open_v1,
            "open_v2": open_v2,
            "add": add,
            "search": search,
            "delete": lambda ids: store().delete(ids),
        }
    )
