"""The Batch API with 5,000 texts: killed and resumed at each step in turn, with a batch that
expires and texts that a batch fails for. Complete, and each text paid for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.providers.openai_batches import OpenAIBatches
from reembed.stages import batched
from tests.support.helpers import chroma, migration, run_dir
from tests.support.servers.batch_server import DIMENSIONS, BatchServer, vector_of
from tests.unit.stages.test_batched import STEPS, Killed, manifest

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
        assert migration(path).run(until="embed").quarantined == 0
        found: dict[str, Any] = {}
        run = run_dir(path)
        for shard in run.shards("embed").values():
            table = run.read_shard(shard)
            rows = table.column("embedding").combine_chunks().flatten().to_numpy()
            rows = rows.reshape(-1, DIMENSIONS)
            found |= dict(zip(table.column("id").to_pylist(), rows, strict=True))
        assert found.keys() == TEXTS.keys()
        for id, vector in found.items():
            np.testing.assert_allclose(vector, vector_of(TEXTS[id]), atol=1e-6)
        paid = server.by_batch + server.singly
        assert {text: paid[text] for text in TEXTS.values()} == dict.fromkeys(TEXTS.values(), 1)
        singly = {text for text in TEXTS.values() if server.singly[text]}
        assert {text for text in TEXTS.values() if server.fails(text)} <= singly


def killed(path: Path, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> bool:
    """Run until this step, and die there. False if it was not reached any more."""
    owner: Any = batched.Batched
    if step == "made, not journalled":
        owner, step, after = OpenAIBatches, "submit", True
    original = getattr(owner, step)

    def dies(*arguments: Any) -> Any:
        if after:
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dies)
        try:
            migration(path).run(until="embed")
        except Killed:
            return True
    return False
