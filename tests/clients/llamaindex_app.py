"""LlamaIndex's `PGVectorStore`, unmodified, behind `lines.serve`."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.postgres import PGVectorStore

from tests.clients.lines import serve
from tests.clients.openai_vectors import Vectors

_opened: list[tuple[PGVectorStore, Vectors]] = []


def open_store(
    database: str, table: str, embedder: dict[str, str], dimensions: int, **arguments: Any
) -> None:
    """`database`: a libpq URL. `arguments`: PGVectorStore's own, e.g. hybrid_search, hnsw_kwargs.
    Its table is `data_<table>`."""
    plain = database.removeprefix("postgresql://")
    made = PGVectorStore(
        f"postgresql+psycopg2://{plain}",
        f"postgresql+asyncpg://{plain}",
        table,
        embed_dim=dimensions,
        initialization_fail_on_error=True,
        **arguments,
    )
    _opened.append((made, Vectors(**embedder)))


def add(texts: list[str], metadatas: list[dict[str, Any]], documents: list[str]) -> list[str]:
    """The nodes' ids. `documents`: of each text, the document that it is a part of. What is
    embedded is what LlamaIndex embeds."""
    store, vectors = _opened[-1]
    nodes = [
        TextNode(
            text=text,
            metadata=metadata,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
        )
        for text, metadata, document in zip(texts, metadatas, documents, strict=True)
    ]
    embedded = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    for node, vector in zip(nodes, vectors.of(embedded), strict=True):
        node.embedding = vector
    return list(store.add(nodes))


def query(text: str, k: int = 4, mode: str = "default") -> list[dict[str, Any]]:
    """`mode`: default or hybrid."""
    store, vectors = _opened[-1]
    (vector,) = vectors.of([text])
    result = store.query(
        VectorStoreQuery(
            query_embedding=vector,
            query_str=text,
            similarity_top_k=k,
            sparse_top_k=k,
            mode=VectorStoreQueryMode(mode),
        )
    )
    return [
        {"id": node.node_id, "text": node.get_content(), "metadata": node.metadata, "score": score}
        for node, score in zip(result.nodes or [], result.similarities or [], strict=True)
    ]


def delete(document: str) -> None:
    """Every node of a document."""
    _opened[-1][0].delete(document)


if __name__ == "__main__":
    serve({"open": open_store, "add": add, "query": query, "delete": delete})
