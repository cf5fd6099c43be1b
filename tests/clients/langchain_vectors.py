"""LangChain's view of the embedding server."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from tests.clients.openai_vectors import Vectors


class ServerEmbeddings(Embeddings):
    """See the module's docstring."""

    def __init__(self, url: str, model: str) -> None:
        self._vectors = Vectors(url, model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._vectors.of(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._vectors.of([text])[0]
