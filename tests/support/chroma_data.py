"""Collections as an application makes and reads them, by a client of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings

from tests.support.texts import sentence, vector_of


@contextmanager
def chroma(folder: Path) -> Iterator[ClientAPI]:
    """An application's own client on a folder."""
    client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
    try:
        yield client
    finally:
        client.close()  # type: ignore[attr-defined]


@contextmanager
def chroma_at(url: str) -> Iterator[ClientAPI]:
    """An application's own client on `chroma:PATH` or `chroma+http://HOST:PORT`."""
    if url.startswith("chroma:"):
        with chroma(Path(url.removeprefix("chroma:"))) as client:
            yield client
        return
    host, _, port = url.removeprefix("chroma+http://").partition(":")
    http = chromadb.HttpClient(host, int(port), settings=Settings(anonymized_telemetry=False))
    try:
        yield http
    finally:
        http.close()  # type: ignore[attr-defined]
        for server in (http._server, http._admin_client._server):  # type: ignore[attr-defined]
            server._session.close()


def plain_collection(
    client: ClientAPI, name: str = "docs", count: int = 40, **settings: Any
) -> Collection:
    """`count` records r0, r1, ... with a text, a title and vectors of the model `old`."""
    made = client.create_collection(
        name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}, **settings
    )
    texts = [sentence(number) for number in range(count)]
    if count:
        made.add(
            ids=[f"r{number}" for number in range(count)],
            documents=texts,
            metadatas=[{"title": f"title {number}", "n": number} for number in range(count)],
            embeddings=[vector_of("old", text) for text in texts],
        )
    return made


Records = dict[str, tuple[str | None, str, str | None]]


def records_of(collection: Collection) -> Records:
    """Id to document, metadata (JSON that tells 1 from 1.0) and uri, through Chroma's own API."""
    found: Records = {}
    offset = 0
    while True:
        page = collection.get(
            limit=300,
            offset=offset,
            include=["documents", "metadatas", "uris"],
        )
        metadatas, documents, uris = page["metadatas"], page["documents"], page["uris"]
        assert metadatas is not None and documents is not None and uris is not None
        for row, id in enumerate(page["ids"]):
            metadata = json.dumps(metadatas[row] or None, sort_keys=True)
            found[id] = (documents[row], metadata, uris[row])
        if len(page["ids"]) < 300:
            return found
        offset += 300


def vectors_of(collection: Collection, ids: list[str]) -> np.ndarray:
    """Vectors of these records, in this order."""
    page = collection.get(ids=ids, include=["embeddings"])
    place = {id: row for row, id in enumerate(page["ids"])}
    vectors = np.asarray(page["embeddings"], np.float32)
    return vectors[[place[id] for id in ids]]


def rows_in_file(folder: Path, collection_id: str) -> dict[str, list[Any]]:
    """Every row of chroma.sqlite3 that belongs to a collection, but for the collection's name."""
    parts = "SELECT id FROM segments WHERE collection = ?"
    records = f"SELECT id FROM embeddings WHERE segment_id IN ({parts})"
    queries = {
        "collections": "SELECT * FROM collections WHERE id = ?",
        "collection_metadata": "SELECT * FROM collection_metadata WHERE collection_id = ?",
        "segments": "SELECT * FROM segments WHERE collection = ?",
        "segment_metadata": f"SELECT * FROM segment_metadata WHERE segment_id IN ({parts})",
        "embeddings": f"SELECT * FROM embeddings WHERE segment_id IN ({parts})",
        "embedding_metadata": f"SELECT * FROM embedding_metadata WHERE id IN ({records})",
        "embedding_metadata_array":
            f"SELECT * FROM embedding_metadata_array WHERE id IN ({records})",
        "embeddings_queue": "SELECT * FROM embeddings_queue WHERE topic LIKE '%/' || ?",
        "max_seq_id": f"SELECT * FROM max_seq_id WHERE segment_id IN ({parts})",
    }  # fmt: skip
    with closing(sqlite3.connect(f"file:{folder}/chroma.sqlite3?mode=ro", uri=True)) as db:
        found = {
            table: sorted(db.execute(query, (collection_id,)).fetchall(), key=repr)
            for table, query in queries.items()
        }
        names = [row[1] for row in db.execute("PRAGMA table_info(collections)")]
    place = names.index("name")
    found["collections"] = [(*row[:place], *row[place + 1 :]) for row in found["collections"]]
    return found


def everything_in(folder: Path) -> list[str]:
    """chroma.sqlite3 as SQL, but for what Chroma leaves at every opening (`acquire_write`)."""
    with closing(sqlite3.connect(f"file:{folder}/chroma.sqlite3?mode=ro", uri=True)) as db:
        return [line for line in db.iterdump() if '"acquire_write"' not in line]


def names_in(url: str) -> dict[str, str]:
    """Name to object id of every collection."""
    with chroma_at(url) as client:
        return {found.name: str(found.id) for found in client.list_collections()}
