"""A known record that a search does not find is told of, and not one that a longer search finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reembed.commands.watch.looking import DEEP, ask_canaries
from reembed.stores.collection import Collection
from reembed.stores.registry import open_store
from tests.support.chroma_data import chroma, plain_collection


@pytest.mark.parametrize(("found_from", "lost"), [(0, 0), (DEEP, 0), (DEEP + 1, 5)])
def test_a_record_is_lost_if_no_search_finds_it(
    found_from: int, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=40)
    store = open_store(f"chroma:{tmp_path}/db")
    real = Collection.query

    def weak(self: Collection, vectors: Any, k: int, **more: Any) -> list[list[str]]:
        return real(self, vectors, k, **more) if k >= found_from else [[] for _ in vectors]

    try:
        collection = Collection(store, store.catalog.describe("docs").id)
        known = ask_canaries(collection, [], 5).ids
        assert len(known) == 5
        monkeypatch.setattr(Collection, "query", weak)
        assert len(ask_canaries(collection, known, 5).lost) == lost
    finally:
        store.close()
