"""LangChain on a live name: the right collection and the right query model at every call.

    from reembed.integrations.langchain import LiveVectorStore
    store = LiveVectorStore.open("postgresql://app@db/app", "docs")
    retriever = store.as_retriever(search_kwargs={"k": 4})

Records are as `langchain-chroma` and `langchain-postgres` (`PGVectorStore`) keep them: the page's
content is the document. Needs `langchain-core` (extra `langchain`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from reembed import live as reembed_live
from reembed.errors import SourceChangedError
from reembed.manifest import Model
from reembed.stores.live import Live, one_condition, similarity

__all__ = ["LiveEmbeddings", "LiveVectorStore"]

_SWAPS_PER_CALL = 20


class LiveEmbeddings(Embeddings):
    """The model of a live name, for a store of LangChain's own.

    Each call embeds with the model that the name leads to at that moment. A swap between it and the
    store's query is not seen: `LiveVectorStore` has no such gap.
    """

    def __init__(self, live: Live) -> None:
        self.live = live

    @classmethod
    def open(cls, url: str, name: str, *, model: Model | None = None) -> Self:
        """Raise as `reembed.live.open`."""
        return cls(reembed_live.open(url, name, model=model))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        return self._listed(self.live.vectors(texts, query=False))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._listed(self.live.vectors([text], query=True))[0]

    @staticmethod
    def _listed(vectors: Any) -> list[list[float]]:
        return [[float(value) for value in vector] for vector in vectors]


class LiveVectorStore(VectorStore):
    """A live name as a vector store. Filters are Chroma's: `{"lang": "en"}`, `{"n": {"$gt": 3}}`.

    The async methods are LangChain's own, which run these in threads.
    """

    def __init__(self, live: Live) -> None:
        self.live = live

    @classmethod
    def open(cls, url: str, name: str, *, model: Model | None = None) -> Self:
        """The live name `name` of the store at `url`. Raises as `reembed.live.open`."""
        return cls(reembed_live.open(url, name, model=model))

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None, *, ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Add texts to a live name that is there already.

        Args:
            embedding: not used: the live name knows its model.
            kwargs: `live`, an opened live name.
        """
        store = cls(kwargs["live"])
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        """The model of the live name."""
        return LiveEmbeddings(self.live)

    # --- writing ---------------------------------------------------------------------------------

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *,
        ids: list[str] | None = None, **kwargs: Any,
    ) -> list[str]:  # fmt: skip
        """Write texts, also over records that are there. Returns their ids."""
        listed = list(texts)
        metas = metadatas or [{} for _ in listed]
        named: list[str | None] = [*ids] if ids else [None for _ in listed]
        named = [id or (str(uuid.uuid4()) if self.live.names_records else None) for id in named]
        new = [place for place, id in enumerate(named) if id is None]
        known = [place for place, id in enumerate(named) if id is not None]
        if known:
            self.live.upsert(
                [named[place] for place in known],
                documents=[listed[place] for place in known],
                metadatas=[metas[place] or None for place in known],
            )
        if new:
            made = self.live.add(
                None,
                documents=[listed[place] for place in new],
                metadatas=[metas[place] or None for place in new],
            )
            for place, id in zip(new, made, strict=True):
                named[place] = id
        return [str(id) for id in named]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete records by id; ids that are not there are passed over."""
        if ids is None:
            raise ValueError("delete takes ids: it never deletes all")
        if ids:
            self.live.delete(ids=ids)
        return True

    # --- reading ---------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Records by id, those that are there, in that order."""
        if not ids:
            return []
        found = self.live.get(ids=list(ids))
        rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        by_id = {row[0]: _document(*row) for row in rows}
        return [by_id[id] for id in ids if id in by_id]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` nearest documents. `filter`: a condition."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The `k` nearest documents with their distances, as Chroma has them."""
        return _scored(
            self.live.query(query_texts=[query], n_results=k, where=one_condition(filter))
        )

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:  # fmt: skip
        """The documents nearest to a vector. Whether it is of the right model is known only where
        `embeds_with` was given to `reembed.live.open`."""
        found = self.live.query(
            query_embeddings=[embedding], n_results=k, where=one_condition(filter)
        )
        return [document for document, _ in _scored(found)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The `k` of the `fetch_k` nearest that are near and unlike one another."""
        for _ in range(_SWAPS_PER_CALL):
            before = self.live.leads().key
            vector = self.live.vectors([query], query=True)[0]
            found = self.live.query(
                query_texts=[query], n_results=fetch_k, where=one_condition(kwargs.get("filter")),
                include=["documents", "metadatas", "distances", "embeddings"],
            )  # fmt: skip
            if self.live.leads().key == before:
                break
        else:
            raise SourceChangedError(f"{self.live.name} moved {_SWAPS_PER_CALL} times in one call")
        candidates = [np.asarray(one, np.float32).tolist() for one in found["embeddings"][0]]
        if not candidates:
            return []
        chosen = maximal_marginal_relevance(vector, candidates, lambda_mult=lambda_mult, k=k)
        documents = [document for document, _ in _scored(found)]
        return [documents[place] for place in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        metric = self.live.leads().metric
        return lambda distance: similarity(metric, distance)


def _document(id: str, text: str | None, metadata: Any) -> Document:
    return Document(id=id, page_content=text or "", metadata=dict(metadata or {}))


def _scored(found: Any) -> list[tuple[Document, float]]:
    rows = zip(found["ids"][0], found["documents"][0], found["metadatas"][0], strict=True)
    return [
        (_document(*row), float(distance))
        for row, distance in zip(rows, found["distances"][0], strict=True)
    ]
