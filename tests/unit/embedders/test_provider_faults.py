"""Faults of a provider in the middle of a whole migration. Those of one call: `test_openai.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reembed.errors import ModelChangedError, ProviderRefusedError, UnreachableError
from tests.support.chroma_data import chroma, plain_collection, records_of
from tests.support.following import follows_hint
from tests.support.manifests import migration, quarantined, run_dir, write_manifest
from tests.support.servers.embedding_server import OPENAI, EmbeddingServer, Fault
from tests.support.texts import sentence

RECORDS = 512


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setenv("SOME_KEY", "k" * 24)
    with EmbeddingServer(OPENAI) as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=RECORDS)
    return tmp_path / "db"


def manifest(server: EmbeddingServer, database: Path, batch: int, **changes: Any) -> Path:
    model = {
        "provider": "openai", "name": "wordllama", "base_url": server.openai_url,
        "api_key_env": "SOME_KEY", "dimensions": 128,
        "options": {"batch_items": batch, "retry_wait": 0.01},
    }  # fmt: skip
    settings = {"model": model, "embed__concurrency": 1, **changes}
    return write_manifest(database.parent, f"chroma:{database}", **settings)


def embedding_requests(server: EmbeddingServer) -> list[list[str]]:
    """The texts of each request so far."""
    return [request["input"] for request in server.requests]


def test_one_poisonous_record_of_512_is_quarantined_and_the_others_are_moved(
    server: EmbeddingServer, database: Path
) -> None:
    poison = sentence(99)
    server.faults = lambda number, texts: (
        Fault("status", 400, message="flagged") if poison in texts else None
    )
    path = manifest(server, database, RECORDS, verify__allow_quarantined=1)
    assert migration(path).run(until="export").state == "exported"
    server.served.clear()
    result = migration(path).run(until="load")
    assert (result.exported, result.loaded, result.quarantined) == (RECORDS, RECORDS - 1, 1)
    assert quarantined(run_dir(path)) == {"r99": "refused"}
    assert {server.served[sentence(number)] for number in range(RECORDS) if number != 99} == {1}
    assert migration(path).run(swap=True).exit_code == 3
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs).keys() == {f"r{n}" for n in range(RECORDS)} - {"r99"}


AGAIN = follows_hint(
    "Run the same command again: what is finished is kept.", where="embedders/sending/retry.py"
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", 401, message="revoked"), id="its key is revoked"),
        pytest.param(Fault("status", 500, message="revoked"), id="it fails", marks=AGAIN),
        pytest.param(Fault("status", 400, message="revoked"), id="it refuses all", marks=AGAIN),
    ],
)
def test_a_provider_that_ends_half_way_is_paid_for_nothing_twice(
    fault: Fault, server: EmbeddingServer, database: Path
) -> None:
    path = manifest(server, database, 64)
    assert migration(path).run(until="export").state == "exported"
    server.served.clear()
    begun = len(server.requests)
    server.faults = lambda number, texts: fault if number >= begun + 6 else None
    with pytest.raises((ProviderRefusedError, UnreachableError), match="revoked"):
        migration(path).run(until="load")
    paid = {text for text in server.served if text.startswith("record ")}
    assert 0 < len(paid) < RECORDS
    server.faults = ()
    result = migration(path).run(until="load")
    assert (result.loaded, result.quarantined) == (RECORDS, 0)
    assert {server.served[sentence(number)] for number in range(RECORDS)} == {1}


@follows_hint("Vectors of two models must not mix: bring the old model back")
def test_another_model_that_answers_in_the_middle_is_caught_by_its_first_answer(
    server: EmbeddingServer, database: Path
) -> None:
    path = manifest(server, database, 64)
    assert migration(path).run(until="export").state == "exported"
    server.served.clear()
    asked = 0

    def change(number: int, texts: list[str]) -> None:
        nonlocal asked
        asked += len(texts) == 64
        if asked > 4:  # the second half of the records gets another model of the same name
            server.shift = 0.5

    server.faults = change
    with pytest.raises(ModelChangedError, match="another model answers now"):
        migration(path).run()
    # The next command holds the model against its fingerprint, before it pays for anything.
    with pytest.raises(ModelChangedError, match="other vectors"):
        migration(path).run()
    server.faults, server.shift = (), 0.0
    result = migration(path).run()
    assert result.verdict is not None and result.verdict.passed
    embedded = {sentence(number): server.served[sentence(number)] for number in range(RECORDS)}
    again = [text for text, times in embedded.items() if times > 3]
    assert not again, "embedded, by the other model, and by the verification: never twice by one"
