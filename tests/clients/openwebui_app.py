"""open-webui's way with Chroma, behind `lines.serve`.

open-webui itself is half a gigabyte. What stands here are the calls that the class of its file
`backend/open_webui/retrieval/vector/dbs/chroma.py` makes: which methods of Chroma, with which
arguments; and how it embeds: line breaks sent as blanks, by its own client of the embeddings API.
"""

from __future__ import annotations

from typing import Any

from tests.clients.lines import serve, toured, with_chromadb
from tests.clients.openai_vectors import Vectors

with_chromadb()

import chromadb  # noqa: E402
from chromadb.config import Settings  # noqa: E402
from chromadb.utils.batch_utils import create_batches  # noqa: E402

COSINE = {"hnsw:space": "cosine"}
_opened: list[tuple[Any, Vectors]] = []


def open_client(folder: str, embedder: dict[str, str], where: dict[str, Any] | None = None) -> None:
    """`where`: a server's `host` and `port`, as of CHROMA_HTTP_HOST; `tenant` and `database`."""
    settings = Settings(allow_reset=True, anonymized_telemetry=False)
    asked = {"tenant": "default_tenant", "database": "default_database"} | (where or {})
    if "host" in asked:
        client = chromadb.HttpClient(headers=None, ssl=False, settings=settings, **asked)
    else:
        client = chromadb.PersistentClient(path=folder, settings=settings, **asked)
    _opened.append((client, Vectors(**embedder)))


def embedded(texts: list[str]) -> Any:
    return _opened[-1][1].of([text.replace("\n", " ") for text in texts])


def insert(collection: str, texts: list[str], ids: list[str]) -> None:
    """Adds to a collection, which is made if it is not there: one for each file."""
    client, vectors = _opened[-1]
    found = client.get_or_create_collection(name=collection, metadata=COSINE)
    config = f'{{"engine": "openai", "model": "{vectors.model}"}}'
    batches = create_batches(
        api=client,
        documents=texts,
        embeddings=embedded(texts),
        ids=ids,
        metadatas=[{"file_id": collection, "embedding_config": config} for _ in texts],
    )
    for batch in batches:
        found.add(*batch)


def upsert(collection: str, id: str, text: str, metadata: dict[str, Any]) -> None:
    client, _ = _opened[-1]
    found = client.get_or_create_collection(name=collection, metadata=COSINE)
    found.upsert(
        ids=[id], documents=[text], embeddings=embedded([text]), metadatas=[metadata]
    )  # fmt: skip


def delete(collection: str, ids: list[str]) -> None:
    client, _ = _opened[-1]
    client.get_collection(name=collection).delete(ids=ids)


def tour(collection: str, id: str) -> dict[str, Any]:
    """Every call, asked for the record of this id; see `toured`."""
    client, _ = _opened[-1]

    def there() -> Any:
        return client.get_collection(name=collection)

    whole = there().get(ids=[id])
    text, metadata = whole["documents"][0], whole["metadatas"][0]

    def searched() -> Any:
        found = there().query(query_embeddings=embedded([text, text]), n_results=1)
        distances = [abs(round(one[0], 3)) for one in found["distances"]]
        return [found["ids"], found["documents"], found["metadatas"], distances]

    def filtered() -> Any:
        found = there().get(where={"file_id": collection}, limit=None)
        return sorted(found["ids"])

    def put() -> Any:
        insert(collection, ["a text of the application's own"], ["own"])
        found = there().query(query_embeddings=embedded(["a text of the application's own"]),
                              n_results=1)["ids"]  # fmt: skip
        there().delete(ids=["own"])
        return [found, there().get(ids=["own"])["ids"]]

    def changed() -> Any:
        upsert(collection, id, "another text", {**metadata, "changed": True})
        found = there().query(query_embeddings=embedded(["another text"]), n_results=1)["ids"]
        there().delete(where={"changed": True})
        upsert(collection, id, text, metadata)
        return [found, there().get(ids=[id])["documents"]]

    def whole_file() -> Any:
        insert("of-the-tour", ["x y z"], ["x"])
        names = {one if isinstance(one, str) else one.name for one in client.list_collections()}
        client.delete_collection(name="of-the-tour")
        return [collection in names, "of-the-tour" in names]

    return toured(
        {
            "search": searched,
            "query": filtered,
            "get": lambda: sorted(there().get()["ids"]),
            "insert and delete": put,
            "upsert and delete where": changed,
            "collections": whole_file,
        }
    )


if __name__ == "__main__":
    serve({"open": open_client, "insert": insert, "delete": delete, "tour": tour})
