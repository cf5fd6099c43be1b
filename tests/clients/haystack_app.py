"""Haystack's `ChromaDocumentStore`, its retriever and its embedders of OpenAI's API, unmodified,
behind `lines.serve`: every method that a store in a folder has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.document_stores.types import DuplicatePolicy

from tests.clients.lines import serve, toured, with_chromadb

with_chromadb()

from haystack_integrations.components.retrievers.chroma import (  # noqa: E402
    ChromaEmbeddingRetriever,
)
from haystack_integrations.document_stores.chroma import ChromaDocumentStore  # noqa: E402

Opened = tuple[ChromaDocumentStore, OpenAIDocumentEmbedder, OpenAITextEmbedder]
_opened: list[Opened] = []


def open_store(embedder: dict[str, str], fields: list[str], **arguments: Any) -> None:
    """`fields`: of the metadata, which are embedded before the text; `arguments`: of the store."""
    asked = {"api_base_url": embedder["url"], "model": embedder["model"]}
    documents = OpenAIDocumentEmbedder(
        **asked, meta_fields_to_embed=fields, progress_bar=False
    )  # fmt: skip
    _opened.append((ChromaDocumentStore(**arguments), documents, OpenAITextEmbedder(**asked)))


def embedded(documents: list[Document]) -> list[Document]:
    return list(_opened[-1][1].run(documents=documents)["documents"])


def text_of(document: Document) -> str:
    """What the embedder embeds of it."""
    return str(next(iter(_opened[-1][1]._prepare_texts_to_embed([document]).values())))


def add(documents: list[dict[str, Any]]) -> int:
    made = embedded([Document(**one) for one in documents])
    return int(_opened[-1][0].write_documents(made))


def ids(found: Iterable[Document]) -> list[str]:
    return [one.id for one in found]


def tour(id: str) -> dict[str, Any]:
    """Every method, asked for the document of this id; see `toured`. Its metadata has `n` 3, and
    those of the documents are 0, 1, ..."""
    store, _, asker = _opened[-1]
    own = Document(id="own", content="a document of the application's own", meta={"n": 900})

    def where(operator: str, value: Any, field: str = "meta.n") -> dict[str, Any]:
        return {"field": field, "operator": operator, "value": value}

    (mine,) = [one for one in store.filter_documents() if one.id == id]
    text = text_of(mine)
    every = {"field": "meta.n", "operator": ">=", "value": 0}

    def retrieved(**asked: Any) -> list[Document]:
        pipeline = Pipeline()
        pipeline.add_component("asker", asker.__class__.from_dict(asker.to_dict()))
        pipeline.add_component("found", ChromaEmbeddingRetriever(store, **asked))
        pipeline.connect("asker.embedding", "found.query_embedding")
        return list(pipeline.run({"asker": {"text": text}})["found"]["documents"])

    def retriever(**asked: Any) -> list[Document]:
        vector = asker.run(text=text)["embedding"]
        return list(ChromaEmbeddingRetriever(store, **asked).run(vector)["documents"])

    def first() -> Any:
        (found,) = retriever(top_k=1)
        return [found.id, found.content, found.meta, abs(round(found.score or 0.0, 3))]

    def searched() -> Any:
        vectors = [asker.run(text=text)["embedding"] for _ in range(2)]
        return [ids(each) for each in store.search_embeddings(vectors, top_k=1)]

    def written() -> Any:
        made = embedded([own])
        told: list[Any] = [store.write_documents(made)]
        told.append(store.write_documents(made, DuplicatePolicy.SKIP))
        told.append(store.write_documents(made, DuplicatePolicy.OVERWRITE))
        try:
            store.write_documents(made)
        except Exception as error:
            told.append(type(error).__name__)
        told.append(ids(store.search_embeddings([made[0].embedding], top_k=1)[0]))
        store.delete_documents(["own"])
        return [*told, store.count_documents()]

    def updated() -> Any:
        store.write_documents(embedded([own]))
        changed = store.update_by_filter(where("==", 900), {"said": "yes"})
        found = store.filter_documents(where("==", "yes", "meta.said"))
        gone = store.delete_by_filter(where("==", 900))
        return [changed, [(one.id, one.meta) for one in found], gone, store.count_documents()]

    return toured(
        {
            "count_documents": store.count_documents,
            "filter_documents": lambda: sorted(ids(store.filter_documents(where("<", 5)))),
            "filter of content": lambda: ids(
                store.filter_documents(where("contains", mine.content, "content"))
            ),
            "filter of several": lambda: sorted(
                ids(
                    store.filter_documents(
                        {"operator": "AND", "conditions": [where(">", 1), where("<=", 4)]}
                    )
                )
            ),
            "document": lambda: [mine.id, mine.content, mine.meta],
            "retriever": first,
            "retriever with a filter": lambda: ids(retriever(top_k=9, filters=where("==", 3))),
            "pipeline": lambda: ids(retrieved(top_k=1)),
            "search_embeddings": searched,
            "write_documents": written,
            "update and delete_by_filter": updated,
            "count by filter": lambda: store.count_documents_by_filter(where("<", 5)),
            "count unique": lambda: store.count_unique_metadata_by_filter(every, ["n", "title"]),
            "fields": store.get_metadata_fields_info,
            "min and max": lambda: store.get_metadata_field_min_max("n"),
            "unique values": lambda: store.get_metadata_field_unique_values("title", None, 0, 3),
            "serialized": lambda: ChromaDocumentStore.from_dict(store.to_dict()).count_documents(),
        }
    )


if __name__ == "__main__":
    serve({"open": open_store, "add": add, "tour": tour})
