"""LlamaIndex on a live name: the right collection and the right query model at every call.

    from reembed.integrations.llamaindex import open_index
    index = open_index("chroma:./chroma_db", "docs")
    index.as_retriever(similarity_top_k=4).retrieve("how to parse dates")

Records are as LlamaIndex's own stores for Chroma and Postgres keep them. Needs `llama-index-core`
(extra `llamaindex`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from reembed import live as reembed_live
from reembed.manifest import Model
from reembed.stores.live import Live, one_condition, similarity

__all__ = ["LiveEmbedding", "LiveVectorStore", "open_index"]

_OPERATORS = {"==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte",
              "in": "$in", "nin": "$nin"}  # fmt: skip


def open_index(url: str, name: str, *, model: Model | None = None, **kwargs: Any) -> Any:
    """A `VectorStoreIndex` over a live name.

    Args:
        kwargs: more for `VectorStoreIndex.from_vector_store`.

    Raises:
        as `reembed.live.open`.
    """
    live = reembed_live.open(url, name, model=model)
    return VectorStoreIndex.from_vector_store(
        LiveVectorStore(live), embed_model=LiveEmbedding(live), **kwargs
    )


class LiveEmbedding(BaseEmbedding):
    """The model of a live name. What it embeds is embedded again only if a swap came before it is
    written through `LiveVectorStore`."""

    _live: Live = PrivateAttr()

    def __init__(self, live: Live, **kwargs: Any) -> None:
        super().__init__(model_name=f"live:{live.name}", **kwargs)
        self._live = live

    def _vectors(self, texts: list[str], query: bool) -> list[list[float]]:
        found = self._live.vectors(texts, query=query)
        return [[float(value) for value in vector] for vector in found]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text], False)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts, False)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query], True)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)


class LiveVectorStore(BasePydanticVectorStore):
    """A live name as a vector store. Queries are embedded by the live name itself, so a retriever
    asks for no vector; nodes are embedded as LlamaIndex does (`MetadataMode.EMBED`)."""

    stores_text: bool = True
    is_embedding_query: bool = False
    flat_metadata: bool = True
    _live: Live = PrivateAttr()

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for it."""
        return "ReembedLiveVectorStore"

    @property
    def client(self) -> Live:
        """The live name."""
        return self._live

    # --- writing ---------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Write nodes, also over those that are there. Their `embedding` is not used: it may be of
        another model by now."""
        if not nodes:
            return []
        self._live.upsert(
            [node.node_id for node in nodes],
            documents=[node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes],
            texts=[node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes],
            metadatas=[
                node_to_metadata_dict(
                    node, remove_text=True, flat_metadata=not self._live.keeps_nested
                )
                for node in nodes
            ],
        )
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, for asyncio."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete every node of a document."""
        self._live.delete(where={"document_id": ref_doc_id})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete`, for asyncio."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:  # fmt: skip
        """Delete nodes by id or condition, one of which is needed."""
        self._live.delete(ids=node_ids, where=_condition(filters))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:  # fmt: skip
        """`delete_nodes`, for asyncio."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    # --- reading ---------------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id or condition."""
        found = self._live.get(ids=node_ids, where=_condition(filters))
        rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        return [_node(*row) for row in rows]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes`, for asyncio."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to `query_str`, embedded with the model that fits; to
        `query_embedding` where there is no text.

        Raises:
            ValueError: a mode that it does not have.
        """
        if query.mode != VectorStoreQueryMode.DEFAULT:
            raise ValueError(f"reembed's LiveVectorStore has no mode {query.mode.value!r}")
        asked: dict[str, Any] = {"query_texts": [query.query_str]}
        if not query.query_str:
            asked = {"query_embeddings": [query.query_embedding]}
        where = _condition(query.filters)
        for key, wanted in (("document_id", query.doc_ids), ("_node_id", query.node_ids)):
            if wanted and key == "_node_id":
                raise ValueError("reembed's LiveVectorStore takes no node_ids: use get_nodes")
            if wanted:
                one = {key: {"$in": list(wanted)}}
                where = {"$and": [where, one]} if where else one
        found = self._live.query(**asked, n_results=query.similarity_top_k, where=where)
        metric = self._live.leads().metric
        rows = zip(found["ids"][0], found["documents"][0], found["metadatas"][0], strict=True)
        return VectorStoreQueryResult(
            nodes=[_node(*row) for row in rows],
            similarities=[similarity(metric, float(one)) for one in found["distances"][0]],
            ids=list(found["ids"][0]),
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, for asyncio."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _node(id: str, text: str | None, metadata: Any) -> BaseNode:
    """A record as a node, also one that LlamaIndex has not written."""
    metadata = dict(metadata or {})
    if "_node_content" not in metadata:
        return TextNode(id_=id, text=text or "", metadata=metadata)
    return metadata_dict_to_node(metadata, text=text or "")


def _condition(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """LlamaIndex's filters in Chroma's form. Raises ValueError for one that has none."""
    if filters is None or not filters.filters:
        return None
    parts = []
    for one in filters.filters:
        if isinstance(one, MetadataFilters):
            inner = _condition(one)
            parts += [inner] if inner else []
            continue
        operator = getattr(one.operator, "value", one.operator) or "=="
        if operator not in _OPERATORS:
            raise ValueError(f"reembed's LiveVectorStore has no filter operator {operator!r}")
        parts.append({one.key: {_OPERATORS[operator]: one.value}})
    word = getattr(filters.condition, "value", filters.condition) or "and"
    if word not in ("and", "or"):
        raise ValueError(f"reembed's LiveVectorStore has no filter condition {word!r}")
    if word == "and":
        return one_condition(parts)
    return parts[0] if len(parts) == 1 else {"$or": parts}
