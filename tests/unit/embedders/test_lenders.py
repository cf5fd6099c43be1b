"""What another run of the same model paid for is lent where it is the vector of the whole text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.chroma_data import chroma, plain_collection
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.embedding_server import INFINITY, OPENAI, Behaviour, EmbeddingServer

_package = importlib.util.find_spec("wordllama")
assert _package and _package.submodule_search_locations
TOKENIZER = {
    "tokenizer": f"{_package.submodule_search_locations[0]}/tokenizers/"
    "l2_supercat_tokenizer_config.json"
}
RECORDS = 30
LONG = "words of a long text " * 60
"""About 300 tokens by the model's tokenizer, and more by estimate."""


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[str]:
    with chroma(tmp_path / "db") as client:
        docs = plain_collection(client, count=RECORDS)
        docs.add(ids=["long"], documents=[LONG], embeddings=np.ones((1, 48), np.float32))
    yield f"chroma:{tmp_path / 'db'}"


def embedded(
    name: str, folder: Path, url: str, server: EmbeddingServer, **model: Any
) -> tuple[set[str], int]:
    """The records that a run of this name embeds, and how often short texts were paid for."""
    path = write_manifest(
        folder, url, file=f"{name}.yaml", name=name, target__collection=name,
        verify={"allow_quarantined": 1}, source__model=None,
        model={"provider": "openai", "name": "wordllama", "base_url": server.openai_url} | model,
    )  # fmt: skip
    server.served.clear()
    migration(path).run(until="embed")
    run, found = run_dir(path), set[str]()
    for shard in run.shards("embed").values():
        found |= set(run.read_shard(shard).column("id").to_pylist())
    paid = sum(count for text, count in server.served.items() if text.startswith("record "))
    return found, paid


@pytest.mark.parametrize("before", ["truncate", "mean"])
def test_what_a_server_took_only_in_part_is_not_lent(
    tmp_path: Path, collection: str, before: str
) -> None:
    with EmbeddingServer(replace(OPENAI, max_tokens=200)) as server:
        settings: dict[str, Any] = {"max_tokens": 400, "options": TOKENIZER}
        found, paid = embedded("one", tmp_path, collection, server, on_too_long=before, **settings)
        assert "long" in found and paid == RECORDS
        found, paid = embedded("two", tmp_path, collection, server, **settings)
        assert "long" not in found, "the server refuses it, and on_too_long is fail"
        assert len(found) == RECORDS
        if before == "truncate":
            assert paid == 0, "a text of as many tokens as were sent was sent whole"


def test_what_an_estimate_cut_is_not_lent_to_who_counts_exactly(
    tmp_path: Path, collection: str
) -> None:
    behaviour: Behaviour = replace(INFINITY, max_tokens=8192)
    with EmbeddingServer(behaviour) as server:
        embedded("one", tmp_path, collection, server, on_too_long="truncate", max_tokens=330)
        assert LONG not in server.served, "it was cut by estimate"
        embedded("two", tmp_path, collection, server, max_tokens=330, options=TOKENIZER)
        assert server.served[LONG] == 1
