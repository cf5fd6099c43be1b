"""What is said of mem0's configuration and its history is done, and the plan of the same manifest
passes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from reembed.embedders.registry import open_embedder
from reembed.manifest import Model
from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence

COUNT, WIDTH = 12, 768


@dataclass(frozen=True)
class Now:
    """How things are when a plan is made.

    Attributes:
        config: keys of mem0's configuration that differ; `a.b` leads into sections, and None takes
            one out.
        more: keys of the manifest that differ.
        suffix: of the configuration's file.
    """

    config: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    suffix: str = ".json"


FINE = Now()
OLD = {
    "provider": "ollama",
    "name": "nomic-embed-text",
    "dimensions": WIDTH,
    "base_url": "{server}",
}
STORE = "vector_store.config."
ROWS: list[tuple[str, Now, pytest.MarkDecorator, Now]] = [
    ("another embedder", Now({"embedder.provider": "vertexai"}),
     follows_hint("With another, leave source.mem0.config out"),
     Now(more={"source__mem0": {"history": "{history}"}, "source__model": OLD})),
    ("another store", Now({"vector_store.provider": "qdrant"}),
     follows_hint("Name the configuration of the application whose memories are in Postgres."),
     FINE),
    ("no store", Now({"vector_store": None}),
     follows_hint("Name the configuration of the application whose memories are in Postgres."),
     FINE),
    ("an embedder of other dimensions", Now({"embedder.config.embedding_dims": 512}),
     follows_hint("Put the embedder back that wrote the table, then move the memories"), FINE),
    ("other dimensions", Now({f"{STORE}embedding_model_dims": 1536}),
     follows_hint("Set embedding_model_dims to "), FINE),
    ("another form", Now(suffix=".toml"),
     follows_hint("Write the dictionary that the application gives to Memory.from_config"), FINE),
    ("a history that is not there", Now(more={"source__mem0__history": "nowhere.db"}),
     follows_hint("Name the file of history_db_path in source.mem0.history, or leave it out."),
     FINE),
    ("a history that is left out", Now(more={"source__mem0__history": "nowhere.db"}),
     follows_hint("Name the file of history_db_path in source.mem0.history, or leave it out."),
     Now({"history_db_path": None}, {"source__mem0": {"config": "{folder}/mem0.json"}})),
    ("a fresh database",
     Now({f"{STORE}connection_string": "{fresh}"}, {"source__url": "{fresh}"}),
     follows_hint("Find the database that holds the memories (its host, dbname and"), FINE),
    ("another collection", Now({f"{STORE}collection_name": "mem0"}),
     follows_hint("Name the same one in both.", where="applications/mem0/plan.py"), FINE),
    ("another database", Now({f"{STORE}connection_string": "{fresh}"}),
     follows_hint("Name the same one in both: a migration of another database"), FINE),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(
    postgres: PostgresServer, embedder: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A database with memories, one with a single one, and mem0's history."""
    folder = tmp_path_factory.mktemp("mem0")
    names = [postgres.new_database(), postgres.new_database()]
    url, fresh = map(postgres.url, names)
    ids = [UUID(int=n) for n in range(COUNT)]
    texts = [sentence(n) for n in range(COUNT)]
    model = Model(**OLD | {"base_url": embedder.url})  # type: ignore[arg-type]
    with open_embedder(model) as opened:
        vectors = opened.embed_documents(texts).vectors
    for place, count in ((url, COUNT), (fresh, 1)):
        with psycopg.connect(place) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE memories (id uuid PRIMARY KEY, vector vector({WIDTH}), payload "
                "jsonb)".encode()
            )
            cursor.executemany(
                "INSERT INTO memories VALUES (%s, %s, %s)",
                [(id, str(vector.tolist()), json.dumps({"data": text, "user_id": "u"}))
                 for id, vector, text in zip(ids, vectors, texts, strict=True)][:count],
            )  # fmt: skip
    with closing(sqlite3.connect(folder / "history.db")) as history, history:
        history.execute("CREATE TABLE history (id TEXT, memory_id TEXT, event TEXT)")
        history.executemany(
            "INSERT INTO history VALUES (?, ?, 'ADD')", [(str(id), str(id)) for id in ids]
        )
    yield {"url": url, "fresh": fresh, "server": embedder.url, "folder": str(folder),
           "history": str(folder / "history.db")}  # fmt: skip
    for name in names:
        postgres.drop_database(name)


def written(now: Now, places: dict[str, str]) -> Path:
    """The manifest, beside mem0's configuration."""
    folder = Path(places["folder"])
    config: dict[str, Any] = {
        "vector_store": {"provider": "pgvector", "config": {
            "connection_string": places["url"], "collection_name": "memories",
            "embedding_model_dims": WIDTH}},
        "embedder": {"provider": "ollama", "config": {
            "model": OLD["name"], "embedding_dims": WIDTH, "ollama_base_url": places["server"]}},
        "history_db_path": places["history"],
    }  # fmt: skip
    for path, value in now.config.items():
        *sections, key = path.split(".")
        section = config
        for one in sections:
            section = section[one]
        section[key] = filled(value, places)
        if value is None:
            del section[key]
    file = folder / f"mem0{now.suffix}"
    file.write_text(json.dumps(config))
    model = {"provider": "openai", "name": "text-embedding-3-small", "dimensions": 1536,
             "base_url": f"{places['server']}/v1"}  # fmt: skip
    changes = {
        "source__collection": "memories", "source__layout": "mem0", "source__model": None,
        "source__mem0": {"config": str(file), "history": places["history"]}, "model": model,
    }  # fmt: skip
    return write_manifest(folder, places["url"], **changes | filled(now.more, places))


@wrong_and_right(ROWS)
def test_what_is_said_of_mem0_is_done_and_planned(
    wrong: Now, hint: str, right: Now, places: dict[str, str], command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    refused = command("plan", written(wrong, places), "--json")
    assert refused.code == 5, refused.out
    assert hint in refused.json["error"]["hint"], refused.out
    led = command("plan", written(right, places), "--json")
    assert led.code == 0, led.out


@follows_hint("Give the application the configuration that its collection was moved with.")
def test_a_configuration_that_was_changed_is_put_back(
    places: dict[str, str], command: Command
) -> None:
    def hints(now: Now, *more: str) -> str:
        return command("watch", written(now, places), *more, "--json").out

    hints(FINE)
    other = Now({"embedder.config.ollama_base_url": "http://127.0.0.1:9"})
    told = "Give the application the configuration that its collection was moved with."
    assert told in hints(other)
    assert told not in hints(FINE)
    assert told in hints(other)
    hints(other, "--accept", "it has moved")
    assert told not in hints(other)
