"""Chroma, from a path and over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reembed.stores.registry import open_store
from tests.stores.contract.stores import Entry, Opened, written_by
from tests.support.chroma_cases import new_chroma_folder
from tests.support.chroma_data import chroma_at

NO_LOG = "Chroma logs no writes that could be asked for"
NO_FILE = "over HTTP its file is out of reach, and no call tells of writes"


@contextmanager
def _path(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Opened]:
    store = open_store(f"chroma:{new_chroma_folder(folder / 'db')}")
    yield written_by(store)
    store.close()


@contextmanager
def _http(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Opened]:
    store = open_store(fixture("chroma_server").url)
    yield written_by(store)
    store.close()
    with chroma_at(fixture("chroma_server").url) as client:
        for left in client.list_collections():  # claims, too, which are long and listed with all
            client.delete_collection(left.name)


STORES = {
    "chroma-path": Entry(_path, {"capture": NO_LOG}),
    "chroma-http": Entry(_http, {"capture": NO_LOG, "changes": NO_FILE}),
}
