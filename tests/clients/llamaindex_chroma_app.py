"""LlamaIndex's `VectorStoreIndex` over a Chroma collection, behind `lines.serve`.

The index, its nodes and what it embeds of them are LlamaIndex's own. Its package for Chroma is not
installed here; `Nodes` keeps what `node_to_metadata_dict` makes of a node, as that package does.
"""

from __future__ import annotations

from typing import Any

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, Document, IndexNode, MetadataMode, Node, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from tests.clients.lines import serve, with_chromadb
from tests.clients.openai_vectors import Vectors

KINDS = {"TextNode": TextNode, "Node": Node, "IndexNode": IndexNode, "Document": Document}
_opened: list[VectorStoreIndex] = []


class ServerEmbedding(BaseEmbedding):
    """LlamaIndex's view of the embedding server."""

    _vectors: Vectors = PrivateAttr()

    def __init__(self, vectors: Vectors) -> None:
        super().__init__(model_name=vectors.model)
        self._vectors = vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors.of([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors.of(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Nodes(BasePydanticVectorStore):
    """A Chroma collection of nodes."""

    stores_text: bool = True
    _collection: Any = PrivateAttr()

    def __init__(self, collection: Any) -> None:
        super().__init__()
        self._collection = collection

    @property
    def client(self) -> Any:
        return self._collection

    def add(self, nodes: list[BaseNode], **_: Any) -> list[str]:
        kept = [node_to_metadata_dict(node, remove_text=True, flat_metadata=True) for node in nodes]
        self._collection.add(
            ids=[node.node_id for node in nodes],
            embeddings=[node.get_embedding() for node in nodes],
            metadatas=[{k: "" if v is None else v for k, v in one.items()} for one in kept],
            documents=[node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes],
        )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        self._collection.delete(where={"document_id": ref_doc_id})

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        found = self._collection.query(
            query_embeddings=[query.query_embedding], n_results=query.similarity_top_k
        )
        nodes = []
        for text, metadata in zip(found["documents"][0], found["metadatas"][0], strict=True):
            node = metadata_dict_to_node(metadata)
            node.set_content(text)
            nodes.append(node)
        return VectorStoreQueryResult(
            nodes=nodes,
            ids=found["ids"][0],
            similarities=[-distance for distance in found["distances"][0]],
        )


def open_index(folder: str, collection: str, embedder: dict[str, str]) -> None:
    with_chromadb()
    import chromadb

    nodes = Nodes(chromadb.PersistentClient(folder).get_or_create_collection(collection))
    _opened.append(
        VectorStoreIndex.from_vector_store(
            nodes,
            embed_model=ServerEmbedding(Vectors(**embedder)),
            storage_context=StorageContext.from_defaults(vector_store=nodes),
        )
    )


def add(nodes: list[dict[str, Any]]) -> list[str]:
    """The ids. Each node: `kind`, one of KINDS, and what its class takes."""
    made = [KINDS[node.pop("kind", "TextNode")](**node) for node in nodes]
    _opened[-1].insert_nodes(made)
    return [node.node_id for node in made]


def embedded(nodes: list[dict[str, Any]]) -> list[str]:
    """The text that LlamaIndex embeds of each."""
    made = [KINDS[node.pop("kind", "TextNode")](**node) for node in nodes]
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in made]


def query(text: str, k: int = 2) -> list[dict[str, Any]]:
    found = _opened[-1].as_retriever(similarity_top_k=k).retrieve(text)
    return [{"id": one.node.node_id, "text": one.node.get_content()} for one in found]


if __name__ == "__main__":
    serve({"open": open_index, "add": add, "embedded": embedded, "query": query})
