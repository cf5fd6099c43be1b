"""LlamaIndex's `VectorStoreIndex` over its `ChromaVectorStore`, behind `lines.serve`."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core import PropertyGraphIndex, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.graph_stores import SimplePropertyGraphStore
from llama_index.core.graph_stores.types import KG_NODES_KEY, EntityNode
from llama_index.core.indices.property_graph import ImplicitPathExtractor
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import VectorMemoryBlock
from llama_index.core.schema import (
    Document,
    ImageDocument,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from tests.clients.lines import serve, toured, with_chromadb
from tests.clients.openai_vectors import Vectors

with_chromadb()

import chromadb  # noqa: E402
from llama_index.vector_stores.chroma import ChromaVectorStore  # noqa: E402

KINDS = {
    one.__name__: one for one in (TextNode, Node, IndexNode, Document, ImageDocument)
}  # fmt: skip
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


def open_index(
    folder: str, collection: str, embedder: dict[str, str], by: str = "collection",
    where: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """`by`: how the store is opened, from a `collection` or from `params`; `where`: of a client's
    arguments, a server's `host` and `port`, or `tenant` and `database`."""
    where = where or {}
    if by == "params":
        store = ChromaVectorStore.from_params(collection, persist_dir=folder)
    else:
        at_server = "host" in where
        client = (
            chromadb.HttpClient(**where)
            if at_server
            else chromadb.PersistentClient(folder, **where)
        )
        store = ChromaVectorStore(chroma_collection=client.get_or_create_collection(collection))
    _opened.append(
        VectorStoreIndex.from_vector_store(
            store,
            embed_model=ServerEmbedding(Vectors(**embedder)),
            storage_context=StorageContext.from_defaults(vector_store=store),
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


def remember(name: str, said: str) -> list[str]:
    """Ids of an entity of a graph and of a message of a chat, whose vectors LlamaIndex makes of
    their texts alone, whatever their metadata say."""
    store, model = _opened[-1].vector_store, _opened[-1]._embed_model
    before = set(store.client.get()["ids"])
    entity = EntityNode(name=name, label="person", properties={"born": 1815, "of": "London"})
    read = TextNode(id_="read", text="of whom it was read", metadata={KG_NODES_KEY: [entity]})
    PropertyGraphIndex(
        [read], llm=MockLLM(), kg_extractors=[ImplicitPathExtractor()], use_async=False,
        property_graph_store=SimplePropertyGraphStore(), vector_store=store, embed_model=model,
    )  # fmt: skip
    block = VectorMemoryBlock(vector_store=store, embed_model=model)
    asyncio.run(block.aput([ChatMessage(said)], session_id="s-7"))
    made = store.client.get(ids=[id for id in store.client.get()["ids"] if id not in before])
    told = dict(zip(made["documents"], made["ids"], strict=True))
    return [told[text] for text in sorted(told)]


def query(text: str, k: int = 2) -> list[dict[str, Any]]:
    found = _opened[-1].as_retriever(similarity_top_k=k).retrieve(text)
    return [{"id": one.node.node_id, "text": one.node.get_content()} for one in found]


def tour(text: str, id: str) -> dict[str, Any]:
    """Every method, asked for a text that is stored under this id; see `toured`. Its metadata has
    `file_name` a.md."""
    index = _opened[-1]
    store = index.vector_store
    only = MetadataFilters(filters=[MetadataFilter(key="file_name", value="a.md")])

    def mine(id: str) -> TextNode:
        return TextNode(id_=id, text="a node of the application's own", metadata={"own": "yes"})

    def found(**how: Any) -> list[Any]:
        nodes = index.as_retriever(**how).retrieve(text)
        return [nodes[0].node.node_id, len(nodes)]

    async def asked() -> list[Any]:
        nodes = await index.as_retriever(similarity_top_k=2).aretrieve(text)
        return [nodes[0].node.node_id, len(nodes)]

    def scores() -> Any:
        nodes = index.as_retriever(similarity_top_k=4).retrieve(text)
        return [round(nodes[0].score, 3) <= 1, len([one for one in nodes if one.score > 0])]

    def added() -> Any:
        index.insert_nodes([mine("n1"), mine("n2"), mine("n3")])
        first = index.as_retriever(similarity_top_k=1).retrieve(
            mine("x").get_content(metadata_mode=MetadataMode.EMBED)
        )[0]
        store.delete_nodes(["n1"])
        own = MetadataFilters(filters=[MetadataFilter(key="own", value="yes")])
        left = [node.node_id for node in store.get_nodes(None, own)]
        store.delete_nodes(left)
        return [first.node.metadata, sorted(left), store.get_nodes(["n1", "n2", "n3"], None)]

    def document() -> Any:
        index.insert(Document(id_="doc", text="a document of the application's own"))
        made = len(store.client.get(where={"document_id": "doc"})["ids"])
        index.delete_ref_doc("doc")
        return [made, store.client.get(where={"document_id": "doc"})["ids"]]

    def updated() -> Any:
        index.update_ref_doc(Document(id_="doc", text="another text"))
        made = store.client.get(where={"document_id": "doc"})["documents"]
        index.delete_ref_doc("doc")
        return made

    return toured(
        {
            "retriever": lambda: found(similarity_top_k=2),
            "mmr": lambda: found(similarity_top_k=2, vector_store_query_mode="mmr"),
            "filters": lambda: found(similarity_top_k=9, filters=only),
            "async retriever": lambda: asyncio.run(asked()),
            "scores": scores,
            "get_nodes": lambda: [node.get_content() for node in store.get_nodes([id])],
            "get_nodes of filters": lambda: [node.node_id for node in store.get_nodes([], only)],
            "add and delete_nodes": added,
            "insert and delete_ref_doc": document,
            "update_ref_doc": updated,
        }
    )


if __name__ == "__main__":
    serve(
        {
            "open": open_index,
            "add": add,
            "embedded": embedded,
            "query": query,
            "remember": remember,
            "tour": tour,
        }
    )
