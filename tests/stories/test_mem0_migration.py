"""The incident's memories, moved from OpenAI's model to a local one under real mem0, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.migration import Migration
from tests.clients.driver import Application, ApplicationError, application, needs_clients
from tests.clients.incident import COLLECTION, NAMESPACES, USER, Incident, mem0_config
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import ROOT

pytestmark = needs_clients

DEPLOYED = "deployed/mem0.json"
SCOPE = {"user_id": USER, "agent_id": "research"}


@pytest.fixture
def manifest(
    incident: Incident, postgres: PostgresServer, embedder: EmbeddingServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:  # fmt: skip
    """Writes a manifest, with mem0's configuration beside it and the hook of the shipped one."""
    shipped = Manifest.load(ROOT / "manifests" / "mem0-openai-to-nomic.yaml").swap.after or ""
    hook, _, start = shipped.partition(" && ")
    assert start == "docker compose start my-agent" and DEPLOYED in hook
    hook = hook.replace(DEPLOYED, str(tmp_path / "deployed.json"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    url = incident.url(postgres)
    config = tmp_path / "mem0.json"
    config.write_text(json.dumps(mem0_config(url, embedder.url, incident.history)))

    def write(url: str = url, files: dict[str, str] | None = None, **model: Any) -> Path:
        data = {
            "name": "mem0-to-nomic",
            "source": {
                "url": url,
                "collection": COLLECTION,
                "layout": "mem0",
                "mem0": files or {"config": "mem0.json"},
            },
            "model": {
                "provider": "ollama", "name": "nomic-embed-text", "dimensions": 768,
                "base_url": embedder.url,
            } | model,
            "verify": {"sample": 200},
            "swap": {"after": hook},
        }  # fmt: skip
        path = tmp_path / "m.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


def payloads(url: str, table: str) -> dict[str, str]:
    """Id to the payload's exact text."""
    with psycopg.connect(url) as connection:
        found = connection.execute(f"SELECT id::text, payload::text FROM {table}")
        return dict(found.fetchall())


def counts(mem0: Application) -> dict[str, int]:
    return {
        name: len(mem0("get_all", filters={"user_id": USER, "agent_id": name}, top_k=2000))
        for name in NAMESPACES
    }


@pytest.mark.long
def test_there_and_back_with_the_paired_configuration(
    manifest: Callable[..., Path], incident: Incident, postgres: PostgresServer, tmp_path: Path
) -> None:
    url = incident.url(postgres)
    path = manifest()
    old = json.loads((tmp_path / "mem0.json").read_text())
    deployed = tmp_path / "deployed.json"
    tables = COLLECTION, f"{COLLECTION}_entities"
    before = [payloads(url, table) for table in tables]
    migration = Migration(Manifest.load(path))
    result = migration.run()
    assert result.verdict is not None and result.verdict.passed
    migration.swap()
    new = json.loads(deployed.read_text())
    assert new["embedder"]["provider"] == "ollama"
    assert [payloads(url, table) for table in tables] == before

    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=new, entities=True)
        assert counts(mem0) == NAMESPACES
        id = incident.ids["research"][5]
        wanted = mem0("get", id=id)["memory"]
        found = mem0("search", query=wanted, filters=SCOPE, top_k=3)
        assert wanted in {match["memory"] for match in found}
        late = mem0("add", text="I think Zelda moved to Oslo", **SCOPE)
        mem0("link", ids=[late], filters=SCOPE)
        mem0("delete", id=id)
        mem0("close")
        mem0("open", config=old)
        with pytest.raises(ApplicationError, match="768"):
            mem0("search", query=wanted, filters=SCOPE)
        mem0("close")

    migration.rollback()
    assert json.loads(deployed.read_text()) == old
    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=old, entities=True)
        assert counts(mem0) == NAMESPACES, "one was added and one deleted"
        (best,) = mem0("search", query="where did Zelda move?", filters=SCOPE, top_k=1)
        assert best["id"] == late and mem0("get", id=id) is None
        assert [late] in [row["linked_memory_ids"] for row in mem0("entities", filters=SCOPE)]


def test_a_fresh_database_is_refused_by_what_the_history_knows(
    manifest: Callable[..., Path], incident: Incident, postgres: PostgresServer,
    embedder: EmbeddingServer, tmp_path: Path,
) -> None:  # fmt: skip
    with postgres.database() as fresh:
        with application("mem0_app", tmp_path) as mem0:
            mem0("open", config=mem0_config(fresh, embedder.url, incident.history))
            assert mem0("get_all", filters=SCOPE) == []
        for files in ({"config": "mem0.json"}, {"history": str(incident.history)}):
            with pytest.raises(PreflightError, match="1,968 living memories, and 1,968 of them"):
                Migration(Manifest.load(manifest(fresh, files))).plan()


def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_done(
    manifest: Callable[..., Path], incident: Incident, postgres: PostgresServer,
    embedder: EmbeddingServer, tmp_path: Path,
) -> None:  # fmt: skip
    url = incident.url(postgres)
    fitting = mem0_config(url, embedder.url, incident.history)
    narrow = mem0_config(url, embedder.url, incident.history, "ollama")
    other = mem0_config(url, embedder.url, incident.history)
    other["vector_store"]["config"]["collection_name"] = "others"

    def blockers(config: dict[str, Any], **model: Any) -> str:
        (tmp_path / "mem0.json").write_text(json.dumps(config))
        plan = Migration(Manifest.load(manifest(**model))).plan()
        return " ".join(problem.message for problem in plan.blockers)

    assert blockers(fitting) == ""
    assert blockers(narrow) == "", "it is the new model's, which the swap makes fit"
    narrow["embedder"]["config"]["model"] = "another"
    assert "gives vectors of 768 dimensions" in blockers(narrow)
    assert "reads the collection 'others'" in blockers(other)
    prefixed = blockers(fitting, query_prefix="search_query: ")
    assert "sends its texts and queries as they are" in prefixed
    assert not (tmp_path / ".reembed").exists()
