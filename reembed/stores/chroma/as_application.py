"""Opens collections as an application does: with Chroma, and with nothing of reembed.

Run as a program of its own. Each line of stdin is a request, answered by one line of stdout:
`{"names": [...], "path" or "host": ..., "environment": {...}, ...}` to
`{"opened": {name: {way: what went wrong, or ""}}}`. A request may hold keys, so none is an
argument of the program, which others could see.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import chromadb
from chromadb.api.types import EmbeddingFunction
from chromadb.config import Settings


class Own(EmbeddingFunction[Any]):
    """An application's own function: Chroma has never heard of it."""

    def __init__(self, vector: Any = None) -> None:
        self._vector = vector

    def __call__(self, input: Any) -> Any:
        return [self._vector for _ in input]

    @staticmethod
    def name() -> str:
        return "an-application-of-its-own"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Own:
        return Own()


def main() -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        for name in [key for key in os.environ if key.startswith("CHROMA_")]:
            del os.environ[name]
        os.environ.update(asked["environment"])
        try:
            answer = {"opened": opened(asked), "reembed": "reembed" in sys.modules}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def opened(asked: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What came of opening each collection in every way."""
    client = client_of(asked)
    try:
        return {name: tried(client, name) for name in asked["names"]}
    finally:
        client.close()
        for one in (client, getattr(client, "_admin_client", None)):
            session = getattr(getattr(one, "_server", None), "_session", None)
            if session is not None:  # Chroma's close leaves it open
                session.close()


def client_of(asked: dict[str, Any]) -> Any:
    """A client as an application makes one."""
    place = {"tenant": asked["tenant"], "database": asked["database"]}
    settings = Settings(anonymized_telemetry=False)
    settings.chroma_server_ssl_verify = asked.get("verify")
    if "path" in asked:
        return chromadb.PersistentClient(asked["path"], settings, **place)
    if asked.get("key"):
        return chromadb.CloudClient(
            **place, api_key=asked["key"], settings=settings, cloud_host=asked["cloud_host"],
            cloud_port=asked["port"], enable_ssl=asked["tls"],
        )  # fmt: skip
    return chromadb.HttpClient(
        asked["host"], asked["port"], asked["tls"], asked["headers"], settings, **place
    )


def tried(client: Any, name: str) -> dict[str, str]:
    """Way to what went wrong, empty where nothing did."""
    vector: Any = None

    def plain() -> None:
        nonlocal vector
        found = client.get_collection(name)
        page = found.get(limit=1, include=["embeddings"])
        if len(page["ids"]):
            vector = [float(one) for one in page["embeddings"][0]]
            assert len(found.query(query_embeddings=[vector], n_results=1)["ids"][0]) == 1

    def or_create() -> None:
        assert client.get_or_create_collection(name).count() >= 0

    def configuration() -> None:
        _ = client.get_collection(name, embedding_function=None).configuration

    def own() -> None:
        found = client.get_collection(name, embedding_function=Own(vector))
        if vector is not None:
            assert len(found.query(query_texts=["a text"], n_results=1)["ids"][0]) == 1

    ways = (plain, or_create, configuration, own)
    return {way.__name__.replace("_", " "): went(way) for way in ways}


def went(way: Callable[[], None]) -> str:
    """What went wrong, on one line."""
    try:
        way()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


if __name__ == "__main__":
    main()
