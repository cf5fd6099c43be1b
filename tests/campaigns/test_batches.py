"""The Batch API with 5,000 texts: killed and resumed at each step in turn, with a batch that
expires and texts that a batch fails for. Complete, and each text paid for once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reembed.embedders.providers.openai_batches import OpenAIBatches
from tests.support.chroma_data import chroma
from tests.support.servers.batch_server import BatchServer
from tests.unit.stages.test_batched import STEPS, complete, killed, manifest

TEXTS = {f"r{number}": f"record {number} of a large batch" for number in range(5_000)}
PER_BATCH = 1_500


def number_of(text: str) -> int:
    return int(text.split()[1])


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_five_thousand_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(OpenAIBatches, "most_requests", PER_BATCH)
    with chroma(tmp_path / "db") as client:
        docs = client.create_collection("docs", embedding_function=None)
        vectors = np.random.default_rng(1).standard_normal((len(TEXTS), 8)).astype(np.float32)
        for start in range(0, len(TEXTS), PER_BATCH):
            part = slice(start, start + PER_BATCH)
            docs.add(ids=[*TEXTS][part], documents=[*TEXTS.values()][part],
                     embeddings=vectors[part])  # fmt: skip
    with BatchServer() as server:
        server.expires = lambda batch, text: batch == 1 and number_of(text) % 3 == 0
        server.fails = lambda text: number_of(text) % 500 == 7
        path = manifest(tmp_path, server)
        kills = 0
        for step in STEPS:
            for after in (False, True):
                kills += killed(path, monkeypatch, step, after=after)
        assert kills >= len(STEPS), "most steps are reached"
        complete(path, server, texts=TEXTS)
        singly = {text for text in TEXTS.values() if server.singly[text]}
        assert {text for text in TEXTS.values() if server.fails(text)} <= singly
