"""The stores the contract suite runs on. A new adapter adds an opener and a line to `STORES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings

from reembed.stores.registry import open_store
from reembed.stores.store import Store


def new_chroma_folder(folder: Path) -> Path:
    """An empty database, as an application's first run leaves it."""
    client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
    client.close()  # type: ignore[attr-defined]
    return folder


@contextmanager
def _chroma_path(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Store]:
    store = open_store(f"chroma:{new_chroma_folder(folder / 'db')}")
    yield store
    store.close()


@contextmanager
def _chroma_http(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Store]:
    store = open_store(fixture("chroma_server").url)
    yield store
    for name in store.catalog.collections():
        store.to_write().drop(store.catalog.describe(name).id)
    store.close()


@contextmanager
def _pgvector(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Store]:
    store = open_store(fixture("postgres_url"))
    yield store
    store.close()


STORES = {"chroma-path": _chroma_path, "chroma-http": _chroma_http, "pgvector": _pgvector}
"""Name to a context manager `(empty folder, getter of a fixture's value) -> empty Store`."""
