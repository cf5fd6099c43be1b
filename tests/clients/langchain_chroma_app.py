"""LangChain's `Chroma`, unmodified, behind `lines.serve`: every method that it has for texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from langchain_core.documents import Document

from tests.clients.langchain_vectors import ServerEmbeddings
from tests.clients.lines import serve, toured, with_chromadb

with_chromadb()

from langchain_chroma import Chroma  # noqa: E402

Opening = dict[str, Any]
_opened: list[tuple[Chroma, Opening]] = []


def open_store(embedder: dict[str, str], **arguments: Any) -> None:
    """`arguments`: of `Chroma`, e.g. collection_name, persist_directory, collection_metadata."""
    opening = {**arguments, "embedding_function": ServerEmbeddings(**embedder)}
    _opened.append((Chroma(**opening), opening))


def ids(found: Iterable[Document]) -> list[str | None]:
    return [document.id for document in found]


def scored(found: list[tuple[Document, float]]) -> list[list[Any]]:
    """Id, and the score of the text itself, which is 0 or 1 with every model."""
    return [[document.id, abs(round(score, 3))] for document, score in found]


def tour(text: str, id: str) -> dict[str, Any]:
    """Every method, asked for a text that is stored under this id; see `toured`. Its record has
    `n` 3 among its metadata, and those of the records are 0, 1, ..."""
    store, opening = _opened[-1]
    embed = opening["embedding_function"].embed_query
    mine = Document("a document of the application's own", metadata={"n": 900})

    def waited(asked: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run(asked())

    def retriever(kind: str, **asked: Any) -> Any:
        return store.as_retriever(search_type=kind, search_kwargs=asked)

    def added() -> Any:
        made = store.add_texts([mine.page_content], [mine.metadata], ids=["added"])
        found = scored(store.similarity_search_with_score(mine.page_content, k=1))
        store.delete(made)
        return [found, ids(store.get_by_ids(made))]

    def added_documents() -> Any:
        made = store.add_documents([mine], ids=["one"])
        return [made, store.delete(ids=made), store.get(ids=made)["ids"]]

    def updated() -> Any:
        before = store.get_by_ids([id])[0]
        store.update_document(id, mine)
        found = ids(store.similarity_search(mine.page_content, k=1))
        store.update_documents([id], [before])
        return [found, ids(store.similarity_search(text, k=1))]

    def of_texts() -> Any:
        others = {key: value for key, value in opening.items() if key != "embedding_function"}
        made = Chroma.from_texts(
            [mine.page_content], opening["embedding_function"], ids=["of texts"], **others
        )
        found = ids(made.similarity_search(mine.page_content, k=1))
        made.delete(["of texts"])
        return found

    async def async_writes() -> Any:
        made = await store.aadd_documents([mine], ids=["async"])
        found = ids(await store.aget_by_ids(made))
        await store.adelete(made)
        return [found, ids(await store.aget_by_ids(made))]

    def with_vectors() -> Any:
        ((document, vector),) = store.similarity_search_with_vectors(text, k=1)
        return [document.id, max(abs(vector - embed(text))) < 1e-5]

    def relevant(found: list[Document]) -> list[Any]:
        return [ids(found)[0], len(found)]

    return toured(
        {
            "similarity_search": lambda: ids(store.similarity_search(text, k=1)),
            "with_score": lambda: scored(store.similarity_search_with_score(text, k=1)),
            "relevance": lambda: scored(
                store.similarity_search_with_relevance_scores(text, k=1, score_threshold=0.99)
            ),
            "by_vector": lambda: ids(store.similarity_search_by_vector(embed(text), k=1)),
            "by_vector with relevance": lambda: scored(
                store.similarity_search_by_vector_with_relevance_scores(embed(text), k=1)
            ),
            "with_vectors": with_vectors,
            "mmr": lambda: relevant(store.max_marginal_relevance_search(text, k=3, fetch_k=8)),
            "mmr by_vector": lambda: relevant(
                store.max_marginal_relevance_search_by_vector(embed(text), k=3, fetch_k=8)
            ),
            "filter": lambda: ids(store.similarity_search(text, k=9, filter={"n": 3})),
            "where_document": lambda: ids(
                store.similarity_search(text, k=9, where_document={"$contains": text})
            ),
            "retriever": lambda: relevant(retriever("similarity", k=2).invoke(text)),
            "threshold retriever": lambda: ids(
                retriever("similarity_score_threshold", score_threshold=0.999).invoke(text)
            ),
            "mmr retriever": lambda: relevant(retriever("mmr", k=2, fetch_k=6).invoke(text)),
            "get": lambda: store.get(ids=[id]),
            "get where": lambda: sorted(store.get(where={"n": {"$lt": 3}})["ids"]),
            "get where_document": lambda: store.get(where_document={"$contains": text})["ids"],
            "get all": lambda: sorted(store.get(limit=100, offset=0, include=[])["ids"]),
            "get_by_ids": lambda: ids(store.get_by_ids([id, "nowhere"])),
            "add_texts": added,
            "add_documents": added_documents,
            "update": updated,
            "from_texts": of_texts,
            "async search": lambda: ids(waited(lambda: store.asimilarity_search(text, k=1))),
            "async with_score": lambda: scored(
                waited(lambda: store.asimilarity_search_with_score(text, k=1))
            ),
            "async relevance": lambda: scored(
                waited(lambda: store.asimilarity_search_with_relevance_scores(text, k=1))
            ),
            "async mmr": lambda: relevant(
                waited(lambda: store.amax_marginal_relevance_search(text, k=3, fetch_k=8))
            ),
            "async retriever": lambda: relevant(
                waited(lambda: retriever("similarity", k=2).ainvoke(text))
            ),
            "async writes": lambda: waited(async_writes),
            "embeddings": lambda: store.embeddings is not None,
        }
    )


def add(texts: list[str], ids: list[str], start: int = 0) -> list[str]:
    store, _ = _opened[-1]
    metadatas = [{"n": start + number, "of": "LangChain"} for number in range(len(texts))]
    return list(store.add_texts(texts, metadatas, ids=ids))


if __name__ == "__main__":
    serve(
        {
            "open": open_store,
            "add": add,
            "delete": lambda ids: _opened[-1][0].delete(ids),
            "tour": tour,
        }
    )
