"""No secret leaves the environment, files with text are private, and nothing is executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.commands import Command, Outcome
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer, Fault

KEY = "sk-proj-4fQ0canaryNEVERtoBEseen9Zx7"
"""Looks like a key, and is looked for in everything that a run leaves behind."""


def _manifest(folder: Path, database: Path, server: EmbeddingServer) -> Path:
    model = {
        "provider": "openai",
        "name": "wordllama",
        "dimensions": 256,
        "base_url": server.openai_url,
        "api_key_env": "CANARY_KEY",
        "options": {"retry_attempts": 2, "retry_wait": 0.01},
    }
    return write_manifest(folder, f"chroma:{database}", model=model)


@pytest.fixture(autouse=True)
def keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CANARY_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)


def _leaks(folder: Path, *outcomes: Outcome) -> list[str]:
    """Files and streams that hold the key."""
    places = [str(p) for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    return places + [f"output of exit {o.code}" for o in outcomes if KEY in o.out + o.err]


def test_a_whole_migration_leaves_no_key_anywhere(
    tmp_path: Path, database: Path, command: Command
) -> None:
    with EmbeddingServer(api_key=KEY) as server:
        manifest = _manifest(tmp_path, database, server)
        done = [
            command("plan", manifest, "--json"),
            command("run", manifest, "--json"),
            command("swap", manifest, "--yes", "--json"),
            command("rollback", manifest, "--yes", "--json"),
        ]
        assert [outcome.code for outcome in done] == [0, 0, 0, 0], done[-1].err
        assert sum(server.served.values()) > 0
    assert _leaks(tmp_path, *done) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 401, message=f"Incorrect API key provided: {KEY}"),
        Fault("status", 400, message=f"bad request with header Bearer {KEY}"),
        Fault("status", 500, message=f"upstream said: key {KEY} is over quota"),
    ],
    ids=lambda fault: str(fault.status),
)
def test_a_provider_that_echoes_the_key_cannot_leak_it(
    tmp_path: Path, database: Path, command: Command, fault: Fault
) -> None:
    def from_the_third_request(number: int, texts: list[str]) -> Fault | None:
        return fault if number > 2 else None

    with EmbeddingServer(faults=from_the_third_request) as server:
        manifest = _manifest(tmp_path, database, server)
        failed = command("run", manifest, "--json")
        told = command("status", manifest, "--json")
    assert failed.code in (5, 7)
    assert _leaks(tmp_path, failed, told) == []


def test_what_holds_text_is_readable_by_its_owner_alone(
    tmp_path: Path, database: Path, command: Command
) -> None:
    manifest = write_manifest(tmp_path, f"chroma:{database}")
    state, page = tmp_path / ".reembed", tmp_path / "page.html"
    umask = os.umask(0)
    try:
        assert command("run", manifest).code == 0
        assert command("swap", manifest, "--yes").code == 0
        assert command("rollback", manifest, "--yes").code == 0
        assert command("report", manifest, "-o", page).code == 0
        assert command("init", f"chroma:{database}", "-o", tmp_path / "drafted.yaml",
                       "--collection", "docs").code == 0  # fmt: skip
    finally:
        os.umask(umask)
    paths = [state, *state.rglob("*"), page, tmp_path / "drafted.yaml"]
    names = {path.name for path in paths if path.is_file()}
    assert names >= {"manifest.yaml", "journal.jsonl", "verdict.json", "report.html", "summary.md"}
    loose = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777)
        for path in paths
        if path.stat().st_mode & 0o777 != (0o700 if path.is_dir() else 0o600)
    }
    assert loose == {}


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.system ['touch {0}']", "!!python/name:os.system", "!include {0}"],
)
def test_a_manifest_executes_nothing(tmp_path: Path, command: Command, value: str) -> None:
    canary = tmp_path / "canary"
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"name: {value.format(canary)}\n")
    outcome = command("plan", manifest, "--json")
    assert outcome.code == 5
    assert outcome.json["error"]["kind"] == "manifest"
    assert not canary.exists()


def test_plan_lists_what_a_manifest_would_execute(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_manifest(
        tmp_path, f"chroma:{database}", swap__before="touch before", swap__after="touch after"
    )
    planned = command("plan", manifest, "--json")
    assert planned.code == 0, planned.err
    assert planned.json["executes"] == [
        "before: touch before",
        "after: touch after",
        "python: counting_model:new",
        "python: counting_model:old",
    ]
    assert not (tmp_path / "before").exists()


@pytest.mark.parametrize("name", ["../../outside", "a/b", "..", "x'; DROP TABLE collections;--"])
def test_names_cannot_leave_the_state_directory(
    tmp_path: Path, database: Path, command: Command, name: str
) -> None:
    manifest = write_manifest(tmp_path, f"chroma:{database}", name=name)
    assert command("run", manifest, "--json").code == 5
    assert not (tmp_path / ".reembed").exists()
