"""An application in another process over swaps, through live, LangChain and LlamaIndex: no error,
no empty answer, and always the right model; also where an exchange is of columns."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from reembed import live
from reembed.manifest import Model
from tests.clients.driver import ROOT, Application, application, in_clients, needs_clients
from tests.support.chroma_data import chroma_at
from tests.support.manifests import migration
from tests.support.servers.chroma_server import ChromaServer
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import sentence

pytestmark = needs_clients

OLD, NEW = "text-embedding-3-small", "nomic-embed-text:latest"
WIDTHS = {OLD: 1536, NEW: 768}
RECORDS = {f"r{number}": sentence(number) for number in range(40)}


@dataclass
class Stage:
    """A live name that is to move."""

    url: str
    kind: str
    writes: bool
    models: list[dict[str, Any]]


def models_at(embedder: EmbeddingServer) -> list[dict[str, Any]]:
    return [
        {"provider": "openai", "name": name, "base_url": embedder.openai_url, "dimensions": width,
         "api_key_env": "OPENAI_API_KEY"}
        for name, width in WIDTHS.items()
    ]  # fmt: skip


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, embedder: EmbeddingServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    models = models_at(embedder)
    live.trust(*models)
    where, _, kind = request.param.partition(" ")
    if where == "postgres":
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE docs (id text PRIMARY KEY, content text, meta jsonb, "
                f"embedding vector({WIDTHS[OLD]}))"
            )
            if kind == "columns":
                connection.execute("CREATE VIEW titles AS SELECT id, content FROM docs")
        kind = "transaction"
    else:
        url = f"chroma:{tmp_path / 'db'}"
        if where == "server":
            server: ChromaServer = request.getfixturevalue("chroma_server")
            url = server.url
        with chroma_at(url) as client:
            for one in client.list_collections():  # of the tests before; a pointer, too
                if one.name.startswith("docs"):
                    client.delete_collection(one.name)
            client.create_collection(
                "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
    with live.open(url, "docs", model=Model.model_validate(models[0])) as docs:
        docs.upsert(list(RECORDS), documents=list(RECORDS.values()))
    # Two processes that write into one folder lose vectors: Chroma's own limit.
    yield Stage(url, kind, writes=where != "path", models=models)


def manifest_of(stage: Stage, folder: Path) -> Path:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump({
        "name": "over-and-over", "source": {"url": stage.url, "collection": "docs",
                                            "model": stage.models[0]},
        "model": stage.models[1], "target": {"embedding_function": "record"},
        "swap": {"kind": stage.kind, "keep_old": "0d", "accept_window": stage.kind == "rename"},
    }))  # fmt: skip
    return path


def moves(stage: Stage, folder: Path, app: Application, swaps: int) -> None:
    moving = migration(manifest_of(stage, folder))
    moving.run()
    for number in range(swaps):
        waited(app)
        moving.rollback() if number % 2 else moving.swap()
    waited(app)


def waited(app: Application) -> None:
    """Until every loop has done two rounds more."""
    before, deadline = app("told")["done"], time.monotonic() + 120
    while True:
        told = app("told")
        assert told["errors"] == 0, told["wrong"]
        further = all(told["done"].get(way, 0) >= before.get(way, 0) + 2 for way in told["done"])
        if further and len(told["done"]) >= 7:
            return
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def _campaign(stage: Stage, tmp_path: Path, swaps: int) -> None:
    with application("live_app", tmp_path) as app:
        app(
            "start", url=stage.url, name="docs", models=stage.models, texts=RECORDS,
            writes=stage.writes,
        )  # fmt: skip
        moves(stage, tmp_path, app, swaps)
        told = app("end")
    assert told["errors"] == 0, told["wrong"]
    # A plain name of Chroma's records no model until it is made by reembed: `model=` says it.
    assert set(told["models"]) in ({OLD, NEW}, {"None", NEW}, {"None", OLD, NEW})
    with live.open(stage.url, "docs", model=Model.model_validate(stage.models[0])) as docs:
        ids = set(docs.get()["ids"])
        assert set(RECORDS) | set(told["written"]) == ids
        assert len(told["written"]) == 36 * stage.writes
        for id, text in told["written"].items():
            assert docs.query(query_texts=[text], n_results=1)["ids"] == [[id]]


STAGES = ["path pointer", "path transaction", "server pointer", "server rename",
          "postgres names", "postgres columns"]  # fmt: skip


@pytest.mark.parametrize("stage", ["postgres columns"], indirect=True)
def test_an_application_notices_nothing_of_two_swaps(stage: Stage, tmp_path: Path) -> None:
    _campaign(stage, tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", STAGES, indirect=True)
def test_an_application_notices_nothing_of_twenty_swaps(stage: Stage, tmp_path: Path) -> None:
    _campaign(stage, tmp_path, 20)


@pytest.mark.long
def test_langchains_own_standard_suite_passes(postgres_url: str, tmp_path: Path) -> None:
    done = in_clients(
        "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider",
        "--noconftest", "-o", "asyncio_mode=auto",
        str(ROOT / "tests/clients/langchain_standard.py"),
        folder=tmp_path, environment={"LIVE_POSTGRES": postgres_url},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert not re.search(r"[1-9]\d* (skipped|xfailed|failed|error)", done.stdout), done.stdout


@pytest.mark.parametrize("stage", ["postgres names"], indirect=True)
def test_the_fastapi_example_serves_over_a_swap(stage: Stage, tmp_path: Path) -> None:
    path = manifest_of(stage, tmp_path)
    moving = migration(path)
    moving.run(swap=True)  # from now on the model is on record
    environment = {"DOCS_URL": stage.url, "DOCS_MANIFEST": str(path)}
    with application("fastapi_app", tmp_path) as app:
        app("open", environment=environment)

        def ask(method: str, path: str, **arguments: Any) -> Any:
            return app("ask", method=method, path=path, **arguments)

        for name in (NEW, OLD, NEW):
            assert ask("GET", "/healthz") == [200, {"count": 40, "model": name}]
            status, found = ask("GET", "/search", params={"q": RECORDS["r7"], "k": 2})
            assert (status, found[0]["id"], len(found)) == (200, "r7", 2)
            document = {"id": "mine", "text": "a text of mine", "metadata": {"by": "me"}}
            assert ask("POST", "/documents", json=document) == [201, {"id": "mine"}]
            _, found = ask("GET", "/search", params={"q": "a text of mine", "k": 1})
            assert (found[0]["id"], found[0]["distance"] < 1e-4) == ("mine", True)
            assert ask("DELETE", "/documents/mine") == [204, None]
            assert ask("DELETE", "/documents/mine")[0] == 404
            assert ask("GET", "/search", params={"q": "x", "k": 0})[0] == 422
            moving.rollback() if name == NEW else moving.swap()
