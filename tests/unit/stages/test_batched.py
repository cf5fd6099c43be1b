"""Embedding through a batch API: complete and paid once, killed anywhere, expired or in part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.providers.openai_batches import OpenAIBatches
from reembed.errors import PreflightError, UnreachableError
from reembed.migration import Migration
from reembed.run.directory import RunDir
from reembed.stages import batched
from tests.support.chroma_data import chroma
from tests.support.following import follows_hint
from tests.support.manifests import migration, write_manifest
from tests.support.servers.batch_server import DIMENSIONS, BatchServer, vector_of

RECORDS = 300
TEXTS = {f"r{number}": f"record {number} of a batch" for number in range(RECORDS)}


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with chroma(tmp_path / "db") as client:
        collection = client.create_collection("docs", embedding_function=None)
        vectors = np.random.default_rng(1).standard_normal((RECORDS, 8)).astype(np.float32)
        collection.add(ids=[*TEXTS], documents=[*TEXTS.values()], embeddings=vectors)
    return tmp_path


def manifest(folder: Path, server: BatchServer, **changes: Any) -> Path:
    model = {
        "provider": "openai", "name": "small", "base_url": server.url, "dimensions": DIMENSIONS,
        "max_tokens": 100, "options": {"batch_api": True, "batch_poll_seconds": 0.01},
    }  # fmt: skip
    return write_manifest(
        folder, f"chroma:{folder / 'db'}", model=model, source__model=None, **changes
    )


def complete(
    path: Path, server: BatchServer, *, batches: int | None = None,
    texts: Mapping[str, str] = TEXTS,
) -> None:  # fmt: skip
    """Every record has its text's vector, and no text was paid for twice."""
    result = migration(path).run(until="embed")
    assert result.quarantined == 0
    run = RunDir.latest(Migration(migration(path).manifest).manifest.state_dir)
    assert run is not None
    found: dict[str, Any] = {}
    for shard in run.shards("embed").values():
        table = run.read_shard(shard)
        rows = table.column("embedding").combine_chunks().flatten().to_numpy()
        found |= dict(
            zip(table.column("id").to_pylist(), rows.reshape(-1, DIMENSIONS), strict=True)
        )
    assert found.keys() == texts.keys()
    for id, vector in found.items():
        np.testing.assert_allclose(vector, vector_of(texts[id]), atol=1e-6)
    paid = server.by_batch + server.singly
    assert {text: paid[text] for text in texts.values()} == dict.fromkeys(texts.values(), 1)
    if batches is not None:
        assert len(server.batches) == batches


def test_all_in_one_batch(folder: Path, server: BatchServer) -> None:
    path = manifest(folder, server)
    complete(path, server, batches=1)
    assert sum(server.by_batch.values()) == RECORDS
    assert not [*folder.glob(".reembed/*/*/batch/*")], "its file is not kept"


def test_several_files_where_one_would_be_too_large(
    folder: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reembed.embedders.providers.openai_batches import OpenAIBatches

    monkeypatch.setattr(OpenAIBatches, "most_requests", 120)
    complete(manifest(folder, server), server, batches=3)


def test_a_batch_that_expires_is_made_again_of_what_it_left(
    folder: Path, server: BatchServer
) -> None:
    server.expires = lambda batch, text: batch == 0 and int(text.split()[1]) % 2 == 0
    complete(manifest(folder, server), server, batches=2)


def test_a_text_that_a_batch_fails_for_goes_out_singly(folder: Path, server: BatchServer) -> None:
    server.fails = lambda text: text.split()[1] in ("7", "100")
    path = manifest(folder, server)
    complete(path, server, batches=1)
    assert {text for text in TEXTS.values() if server.singly[text]} == {TEXTS["r7"], TEXTS["r100"]}


@follows_hint("Run again later, or leave model.options.batch_api out")
def test_batches_that_always_expire_end_the_command(folder: Path, server: BatchServer) -> None:
    server.expires = lambda batch, text: True
    path = manifest(folder, server)
    with pytest.raises(UnreachableError, match="expired 3 times"):
        migration(path).run(until="embed")
    server.expires = lambda batch, text: False
    complete(path, server)


@follows_hint("See what the provider says of it, then run again; or leave")
def test_a_refused_batch_says_why_and_the_way_on_works(folder: Path, server: BatchServer) -> None:
    server.refuses = True
    path = manifest(folder, server)
    with pytest.raises(UnreachableError, match="refused: failed: wrong file") as refused:
        migration(path).run(until="embed")
    assert "run again" in refused.value.hint
    server.refuses = False
    complete(path, server)


def test_a_server_that_fails_in_passing_is_asked_again(folder: Path, server: BatchServer) -> None:
    asked: dict[str, int] = {}

    def broken(method: str, path: str) -> int | None:
        key = f"{method} {path.partition('?')[0]}"
        asked[key] = asked.get(key, 0) + 1
        return 503 if asked[key] == 1 and "embeddings" not in path else None

    server.broken = broken
    complete(manifest(folder, server), server)


@follows_hint("Run again to resume: what it holds is found again.")
def test_a_server_that_fails_for_long_is_gone_on_with(folder: Path, server: BatchServer) -> None:
    server.broken = lambda method, path: 503 if method == "GET" else None
    path = manifest(folder, server)
    with pytest.raises(UnreachableError, match="batch API does not answer"):
        migration(path).run(until="embed")
    server.broken = lambda method, path: None
    complete(path, server, batches=1)


class Killed(BaseException):
    pass


STEPS = ["_files", "_submit", "_collect", "_keep", "_close", "made, not journalled"]


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(
    folder: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    path = manifest(folder, server)
    assert killed(path, monkeypatch, step, after=after)
    complete(path, server, batches=1)


def test_a_cap_stops_it_before_anything_is_sent(folder: Path, server: BatchServer) -> None:
    path = manifest(folder, server, embed__max_tokens_total=500)
    with pytest.raises(PreflightError, match="would be passed"):
        migration(path).run(until="embed")
    assert not server.batches


def test_what_a_batch_brought_counts_at_half_the_price(
    folder: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reembed.embedders.providers import openai as module

    monkeypatch.setattr(module, "OFFICIAL_URL", server.url)
    path = manifest(folder, server)
    migration(path).run(until="embed")
    (spent,) = folder.glob(".reembed/*/*/spending.jsonl")
    tokens = sum(json.loads(line)["tokens"] for line in spent.read_text().splitlines())
    assert tokens > RECORDS, "they count"
    price = migration(path).plan().estimate
    assert price.usd is None, "no price is listed for a server behind base_url"


def test_the_price_of_a_batch_is_half(monkeypatch: pytest.MonkeyPatch) -> None:
    from reembed.embedders.registry import open_embedder
    from reembed.manifest import Model

    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = Model(provider="openai", name="text-embedding-3-small", options={"batch_api": True})
    with open_embedder(model) as embedder:
        assert embedder.price is not None
        assert embedder.price.usd_per_million_tokens == 0.01


def test_few_texts_are_not_kept_waiting(folder: Path, server: BatchServer) -> None:
    """A delta goes out at once."""
    path = manifest(folder, server)
    complete(path, server, batches=1)
    with chroma(folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r5"], documents=["another text"], embeddings=[1.0] * 8)
    migration(path).run(until="load")
    assert server.singly["another text"] == 1 and len(server.batches) == 1
