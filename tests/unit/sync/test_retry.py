"""`run --retry-quarantined`: before the swap and after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chroma_data import chroma, plain_collection, records_of
from tests.support.commands import Command
from tests.support.manifests import migration, quarantined, run_dir, write_manifest
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.manners import poisoned, status

RECORDS = 150


@pytest.mark.parametrize("swapped", [False, True])
def test_what_failed_once_is_moved_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    swapped: bool,
) -> None:  # fmt: skip
    command = Command(capsys, monkeypatch)
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=RECORDS)
    answer = poisoned(status(500, "unsupported value: NaN"))
    with EmbeddingServer() as server:
        server.faults = lambda number, texts: answer(server, number, texts)
        path = write_manifest(
            tmp_path, f"chroma:{tmp_path / 'db'}", verify__allow_quarantined=1,
            model={"provider": "openai", "name": "wordllama", "base_url": server.openai_url,
                   "options": {"retry_wait": 0.01}},
        )  # fmt: skip
        result = migration(path).run(swap=swapped)
        assert (result.exit_code, result.quarantined) == (3, 1)
        assert quarantined(run_dir(path)) == {"r137": "refused"}
        again = command("run", path, "--retry-quarantined", "--json")
        assert (again.code, again.json["quarantined"]) == (3, 1), "it fails as before"
        server.faults = ()
        server.served.clear()
        mended = command("run", path, "--retry-quarantined", "--json")
        assert (mended.code, mended.json["quarantined"]) == (0, 0)
        if not swapped:
            assert migration(path).swap().done
    assert quarantined(run_dir(path)) == {}
    with chroma(tmp_path / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert records_of(docs).keys() == {f"r{number}" for number in range(RECORDS)}
