"""An application in a process of its own that reads a live name over and over.

`python -m tests.support.chroma_reader URL NAME plain|live` reads until its stdin ends, then prints
what it saw as JSON: how often the old and the new collection, and every answer that was wrong.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from reembed import live

RECORDS = 60


def embed_old(texts: list[str]) -> list[list[float]]:
    return [[1.0, 0.5, 0.25, 0.125] for _ in texts]


def embed_new(texts: list[str]) -> list[list[float]]:
    return [[0.5] * 6 for _ in texts]


def main(url: str, name: str, kind: str) -> None:
    read = _live_reader(url, name) if kind == "live" else _plain_reader(url, name)
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    seen: dict[str, int] = {}
    problems: list[str] = []
    read()
    print("reading", flush=True)
    while not stop.is_set():
        try:
            for versions in read():
                if len(versions) == 0 or len(set(versions)) > 1:
                    problems.append(f"mixture or empty: {versions[:5]} of {len(versions)}")
                seen[str(versions[0])] = seen.get(str(versions[0]), 0) + 1
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
    print(json.dumps({"seen": seen, "problems": problems[:10]}))


def _versions(metadatas: Any) -> list[Any]:
    return [metadata["version"] for metadata in metadatas]


def _plain_reader(url: str, name: str) -> Callable[[], list[list[Any]]]:
    settings = Settings(anonymized_telemetry=False)
    client = (
        chromadb.PersistentClient(url.removeprefix("chroma:"), settings)
        if url.startswith("chroma:")
        else chromadb.HttpClient("127.0.0.1", int(url.rpartition(":")[2]), settings=settings)
    )

    def read() -> list[list[Any]]:
        collection = client.get_collection(name, embedding_function=None)
        got = collection.get(include=["metadatas"])
        found = collection.query(query_embeddings=np.eye(1, 4, dtype=np.float32), n_results=5)
        assert len(got["ids"]) == RECORDS, f"{len(got['ids'])} records"
        assert len(found["ids"][0]) == 5, f"{len(found['ids'][0])} hits"
        return [_versions(got["metadatas"]) + _versions((found["metadatas"] or [[]])[0])]

    return read


def _live_reader(url: str, name: str) -> Callable[[], list[list[Any]]]:
    for side in ("old", "new"):
        live.trust({"provider": "python", "name": f"tests.support.chroma_reader:embed_{side}"})
    collection = live.open(url, name)

    def read() -> list[list[Any]]:
        got = collection.get(include=["metadatas"])
        found = collection.query(query_texts=["a question"], n_results=5)
        assert len(got["ids"]) == RECORDS, f"{len(got['ids'])} records"
        assert len(found["ids"][0]) == 5, f"{len(found['ids'][0])} hits"
        return [_versions(got["metadatas"]), _versions((found["metadatas"] or [[]])[0])]

    return read


if __name__ == "__main__":
    main(*sys.argv[1:])
