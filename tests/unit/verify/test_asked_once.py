"""Each different text is paid for once by a command, counted at the server: those that the plan of
a run times, those that the run embeds, and those that its gates look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.registry import open_embedder
from reembed.embedders.sending import recall
from reembed.embedders.shared import Shared
from reembed.errors import ModelChangedError
from reembed.manifest import Model
from tests.support.chroma_data import chroma
from tests.support.manifests import migration, write_manifest
from tests.support.servers.embedding_server import NATIVE, EmbeddingServer, Fault
from tests.support.texts import sentence

COUNT = 60
TWIN = "one text of two records"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


def manifest(folder: Path, server: EmbeddingServer, **changes: Any) -> Path:
    """Of records with a few equal texts, and of some that only case tells apart: their vectors are
    held against the model."""
    texts = [sentence(number) for number in range(COUNT)] + [TWIN, TWIN]
    with chroma(folder / "db") as client:
        docs = client.create_collection("docs", embedding_function=None)
        docs.add(ids=[f"r{number}" for number in range(len(texts))], documents=texts,
                 embeddings=np.eye(len(texts), dtype=np.float32))  # fmt: skip
    model = {"provider": "openai", "name": "wordllama", "base_url": server.openai_url}
    return write_manifest(
        folder, f"chroma:{folder / 'db'}", model=model, source__model=None, **changes
    )


def records(server: EmbeddingServer) -> dict[str, int]:
    whole = {*map(sentence, range(COUNT)), TWIN}
    return {text: times for text, times in server.served.items() if text in whole}


def test_a_run_pays_for_a_text_once_and_its_gates_once(
    tmp_path: Path, server: EmbeddingServer
) -> None:
    path = manifest(tmp_path, server)
    migration(path).run(until="embed")
    assert set(records(server).values()) == {1} and len(records(server)) == COUNT + 1
    migration(path).run(until="load")
    server.served.clear()
    result = migration(path).verify()
    assert result.verdict is not None
    (sampled,) = [g.figures["sample"] for g in result.verdict.gates if g.name == "fidelity"]
    assert sampled >= COUNT
    assert set(records(server).values()) == {1}, "the gates ask the model anew, once"
    asked = {text for text, times in server.served.items() if times > 1}
    assert len(asked) <= 3, f"but for a probe, the control sentence and the probe of tails: {asked}"
    server.served.clear()
    migration(path).run()
    assert set(records(server).values()) == {1}


def test_a_whole_run_pays_twice_for_what_it_checks_and_for_nothing_else(
    tmp_path: Path, server: EmbeddingServer
) -> None:
    path = manifest(tmp_path, server)
    migration(path).run()
    assert max(records(server).values()) == 2
    old = server.served.copy()
    migration(path).plan()
    assert sum(records(server).values()) - sum(old[text] for text in records(server)) <= 32


def test_a_text_that_is_refused_is_looked_for_once(tmp_path: Path, server: EmbeddingServer) -> None:
    poison = sentence(7)
    server.faults = lambda number, texts: (
        Fault("status", 400, message="no") if poison in texts else None
    )
    path = manifest(tmp_path, server, model__options={"retry_wait": 0.01})
    result = migration(path).run(until="embed")
    assert result.quarantined == 1
    asked = [body for body in server.requests if body["input"] == [poison]]
    assert len(asked) <= 4, "as often as it takes to be sure, in the plan alone"


def test_what_is_remembered_is_taken_once_and_never_of_another_model(
    server: EmbeddingServer,
) -> None:
    model = Model(provider="openai", name="wordllama", base_url=server.openai_url)
    texts = [sentence(number) for number in range(20)]
    kept: list[int] = []
    with open_embedder(model, shared=Shared(recalls=True)) as embedder:
        embedder.fingerprint()
        first = embedder.embed_documents(texts[:10])
        assert (embedder.embed_documents(texts[5:10]).vectors == first.vectors[5:]).all()
        embedded = embedder.embed_documents(texts, lambda indices, *_: kept.extend(indices))
        assert sorted(kept) == list(range(20)) and (embedded.vectors[:10] == first.vectors).all()
        assert {server.served[text] for text in texts} == {1}
        embedder.embed_documents(texts[:3])
        assert server.served[texts[0]] == 2, "whoever stored it asks anew"
        embedder.embed_queries(texts[:3])
        assert server.served[texts[0]] == 2, "without an input type a query is a text like others"
        server.shift = 0.5
        with pytest.raises(ModelChangedError):
            embedder.embed_documents(texts[3:])
        embedder.fingerprint()
        again = embedder.embed_documents(texts[:3], lambda *_: None)
        assert abs(again.vectors[0, 0] - first.vectors[0, 0]) > 0.1, "nothing of the old model"


def test_a_query_with_an_input_type_is_another_text(server: EmbeddingServer) -> None:
    model = Model(provider="openai", name="wordllama", base_url=server.openai_url,
                  options={"query_extra_body": {"input_type": "query"}})  # fmt: skip
    with open_embedder(model, shared=Shared(recalls=True)) as embedder:
        for _ in range(2):
            embedder.embed_documents(["a text"])
            embedder.embed_queries(["a text"])
    assert server.served["a text"] == 2


def test_what_was_taken_makes_room_for_others(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "MOST_BYTES", 10 * 4 * NATIVE)
    model = Model(provider="openai", name="wordllama", base_url=server.openai_url)
    texts = [sentence(number) for number in range(21)]
    with open_embedder(model, shared=Shared(recalls=True)) as embedder:
        embedder.embed_documents(texts[:10])
        embedder.embed_documents(texts[:10], lambda *_: None)
        for _ in range(2):
            embedder.embed_documents(texts[10:])
    assert {server.served[text] for text in texts[:20]} == {1}
    assert server.served[texts[20]] == 2, "there is no room for an eleventh"
