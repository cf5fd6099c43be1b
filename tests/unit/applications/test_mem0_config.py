"""mem0's configuration and history as reembed reads them: real ones, odd ones, their secrets."""

from __future__ import annotations

import ast
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from reembed.applications.mem0 import (
    Mem0Config,
    changed_config,
    check,
    living_memories,
    read_config,
    refuse_fresh_database,
)
from reembed.applications.mem0.connection import without_password
from reembed.errors import PreflightError
from reembed.manifest import Model
from tests.clients.driver import application, needs_clients
from tests.clients.incident import COLLECTION, NAMESPACES, Incident, mem0_config
from tests.support.following import follows_hint, wrong_and_right
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer

KEY = "sk-abcdefghijklmnopqrstuvwxyz"
PASSWORD = "hunter2"
NOMIC = Model(provider="ollama", name="nomic-embed-text", dimensions=768)

FULL: dict[str, Any] = {
    "vector_store": {
        "provider": "pgvector",
        "config": {
            "host": "db.internal",
            "port": 5433,
            "user": "mem0",
            "password": PASSWORD,
            "dbname": "agent",
            "collection_name": "memories",
            "embedding_model_dims": 1536,
            "hnsw": True,
        },
    },
    "llm": {"provider": "openai", "config": {"model": "gpt-4o-mini", "api_key": KEY}},
    "embedder": {
        "provider": "openai",
        "config": {"model": "text-embedding-3-small", "api_key": KEY, "embedding_dims": 1536},
    },
    "graph_store": {"provider": "neo4j", "config": {"url": "bolt://g", "password": 12345678}},
    "history_db_path": "state/history.db",
    "version": "v1.1",
}
WRITERS: dict[str, Callable[[Any], str]] = {
    ".json": json.dumps,
    ".yaml": yaml.safe_dump,
    ".py": repr,
}
READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".py": ast.literal_eval,
}


def write(folder: Path, data: Any, suffix: str = ".json") -> Path:
    path = folder / f"mem0{suffix}"
    path.write_text(data if isinstance(data, str) else WRITERS[suffix](data), "utf-8")
    return path


def read(folder: Path, data: Any, suffix: str = ".json") -> Mem0Config:
    return read_config(write(folder, data, suffix))


def refusal(call: Callable[[], Any]) -> str:
    """What a refusal says, in which no secret may be."""
    with pytest.raises(PreflightError) as caught:
        call()
    said = f"{caught.value.message} {caught.value.hint}"
    assert PASSWORD not in said and KEY not in said
    assert caught.value.hint
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    )
    return said


def changed(**changes: Any) -> dict[str, Any]:
    """FULL with `vector_store__config__port=1` in it; None removes a key."""
    data: dict[str, Any] = json.loads(json.dumps(FULL))
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = data
        for section in sections:
            place = place[section]
        if value is None:
            del place[key]
        else:
            place[key] = value
    return data


class TestReading:
    @pytest.mark.parametrize("suffix", [".json", ".yaml", ".py"])
    def test_every_form_says_the_same(self, tmp_path: Path, suffix: str) -> None:
        config = read(tmp_path, FULL, suffix)
        assert config.connection == {
            "user": "mem0", "host": "db.internal", "port": "5433", "dbname": "agent",
        }  # fmt: skip
        assert config.tables == ("memories", "memories_entities")
        assert config.embedding_model_dims == 1536
        assert config.embedder == Model(
            provider="openai", name="text-embedding-3-small", dimensions=1536
        )
        assert config.history_db == tmp_path / "state" / "history.db"
        assert config.data == FULL

    def test_defaults_are_mem0s(self, tmp_path: Path) -> None:
        config = read(tmp_path, {"vector_store": {"provider": "pgvector", "config": {"host": "h"}}})
        assert config.connection == {"dbname": "postgres", "host": "h"}
        assert (config.collection, config.embedding_model_dims) == ("mem0", 1536)
        assert config.embedder.name == "text-embedding-3-small"
        assert config.embedder.dimensions == 1536
        assert config.history_db is None

    def test_a_local_embedder(self, tmp_path: Path) -> None:
        section = {"provider": "ollama", "config": {"ollama_base_url": "http://gpu:11434"}}
        config = read(tmp_path, changed(embedder=section))
        assert config.embedder == Model(
            provider="ollama", name="nomic-embed-text", base_url="http://gpu:11434"
        )

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            (
                f"postgresql://mem0:{PASSWORD}@db:5433/agent?sslmode=require&sslpassword={PASSWORD}",
                {"user": "mem0", "host": "db", "port": "5433", "dbname": "agent",
                 "sslmode": "require"},
            ),
            ("postgresql://a%40b@/agent?host=/run/pg",
             {"user": "a@b", "host": "/run/pg", "dbname": "agent"}),
            (f"postgres://u:p%2F{PASSWORD}@[::1]:5432/d",
             {"user": "u", "host": "[::1]", "port": "5432", "dbname": "d"}),
            (f"postgresql://u:{PASSWORD}@h1:1,h2:2/d",
             {"user": "u", "host": "h1:1,h2:2", "dbname": "d"}),
            (f"host=db user=mem0 password='{PASSWORD} host=x' dbname = agent",
             {"user": "mem0", "host": "db", "dbname": "agent"}),
        ],
    )  # fmt: skip
    def test_connection_strings_are_shown_without_passwords(
        self, tmp_path: Path, text: str, parts: dict[str, str]
    ) -> None:
        config = read(tmp_path, changed(vector_store__config__connection_string=text))
        assert config.connection == parts
        assert PASSWORD not in repr(config)
        assert PASSWORD not in without_password(text, "${PGPASSWORD}")

    def test_nothing_of_it_shows_a_secret(self, tmp_path: Path) -> None:
        config = read(tmp_path, FULL)
        assert KEY not in repr(config) and PASSWORD not in repr(config)


class TestRefusals:
    @pytest.mark.parametrize(
        ("suffix", "text", "message"),
        [
            (".yaml", f"vector_store: [{PASSWORD}", "is not valid YAML: line"),
            (".yaml", f"password: {PASSWORD}\npassword: {PASSWORD}", "given twice"),
            (".yaml", "a: &a [*a]", "an alias contains itself"),
            (".yaml", "", "is not a dictionary"),
            (".json", f'{{"password": "{PASSWORD}"', "is not JSON"),
            (".json", f'["{PASSWORD}"]', "is not a dictionary"),
            (".json", "[" * 100_000, "is not JSON"),
            (".py", f"config = {{'password': '{PASSWORD}'}}", "is not a Python literal"),
            (".py", f"{{'password': open('{PASSWORD}')}}", "is not a Python literal"),
            (".py", f"{{'password': b'{PASSWORD}'}}", "is not a Python literal"),
            (".toml", f"password = '{PASSWORD}'", ".toml tells no form"),
            (".json", " " * (2 << 20), "larger than"),
        ],
    )
    def test_of_files_that_are_none(
        self, tmp_path: Path, suffix: str, text: str, message: str
    ) -> None:
        assert message in refusal(lambda: read(tmp_path, text, suffix))

    def test_of_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "mem0.json"
        path.write_bytes(b"\xff\xfe\x00")
        assert "is not JSON" in refusal(lambda: read_config(path))

    @follows_hint("Check source.mem0.config.")
    def test_of_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        for name in ("none.json", "none.yaml"):
            assert "No such file" in refusal(partial(read_config, tmp_path / name))
        assert read(tmp_path, FULL).data == FULL

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"vector_store": None}, "has no vector_store"),
            ({"vector_store": [PASSWORD]}, "vector_store is not a dictionary"),
            ({"vector_store__provider": "qdrant"}, "vector_store.provider is 'qdrant'"),
            ({"vector_store__provider": None}, "vector_store.provider is 'qdrant'"),
            ({"vector_store__provider": KEY}, "vector_store.provider is no known name"),
            ({"vector_store__config": None}, "vector_store.config is not a dictionary"),
            ({"vector_store__config__collection_name": KEY}, "collection_name is not a name"),
            ({"vector_store__config__collection_name": ["x"]}, "collection_name is not a name"),
            (
                {"vector_store__config__embedding_model_dims": "1536"},
                "is not a number of dimensions",
            ),
            (
                {"vector_store__config__embedding_model_dims": 70_000},
                "is not a number of dimensions",
            ),
            ({"vector_store__config__connection_string": 5}, "connection_string is not a text"),
            ({"embedder": "openai"}, "embedder is not a dictionary"),
            ({"embedder__provider": "vertexai"}, "embedder.provider is 'vertexai'"),
            ({"embedder__provider": {"a": PASSWORD}}, "embedder.provider is no known name"),
            ({"embedder__config__embedding_dims": True}, "is not a number of dimensions"),
            ({"embedder__config__model": KEY}, "embedder.config.model is not a name"),
            ({"embedder__config__openai_base_url": f"http://u:{PASSWORD}@h"}, "holds a password"),
            ({"history_db_path": 7}, "history_db_path is not a path"),
        ],
    )
    def test_of_settings(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        assert message in refusal(lambda: read(tmp_path, changed(**changes)))

    @pytest.mark.parametrize(
        "text",
        [
            f"postgresql://u:1/{PASSWORD}@h/d",
            f"postgresql://u:1?{PASSWORD}@h/d",
            f"postgresql://u:1#{PASSWORD}@h/d",
            f"postgresql://u:{PASSWORD}/@h/d",
            f"postgresql://[u:{PASSWORD}@h/d",
            f"postgresql://u:x@h:{PASSWORD}/d",
        ],
    )
    def test_of_urls_whose_password_would_be_taken_for_something_else(
        self, tmp_path: Path, text: str
    ) -> None:
        data = changed(vector_store__config__connection_string=text)
        assert "connection_string is not a URL" in refusal(lambda: read(tmp_path, data))


class TestCheck:
    def test_what_fits_passes(self, tmp_path: Path) -> None:
        config = read(tmp_path, FULL)
        check(config, 1536)
        check(config, 1536, table="memories_entities", model_dimensions=1536)

    def test_an_embedder_of_another_width(self, tmp_path: Path) -> None:
        section = {"provider": "ollama", "config": {"embedding_dims": 768}}
        config = read(tmp_path, changed(embedder=section))
        said = refusal(lambda: check(config, 1536))
        assert "nomic-embed-text gives vectors of 768 dimensions" in said
        assert "table memories holds vector(1536)" in said
        assert "search, add and update fail" in said and "get, get_all, history" in said

    def test_what_the_embedder_really_gives_counts(self, tmp_path: Path) -> None:
        """Ollama is never asked for the number in the configuration."""
        section = {"provider": "ollama", "config": {"embedding_dims": 1536}}
        config = read(tmp_path, changed(embedder=section))
        check(config, 1536)
        assert "768" in refusal(lambda: check(config, 1536, model_dimensions=768))

    def test_a_table_that_mem0_would_make_otherwise(self, tmp_path: Path) -> None:
        config = read(tmp_path, changed(vector_store__config__embedding_model_dims=768))
        said = refusal(lambda: check(config, 1536, table="memories_entities"))
        assert "embedding_model_dims is 768" in said and "memories_entities" in said
        assert "Set embedding_model_dims to 1536." in said


class TestChanged:
    @pytest.mark.parametrize("suffix", [".json", ".yaml", ".py"])
    def test_embedder_and_width_change_and_secrets_become_names(
        self, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OLLAMA_HOST", raising=False)
        text = changed_config(read(tmp_path, FULL, suffix), NOMIC)
        assert KEY not in text and PASSWORD not in text and "12345678" not in text
        new = READERS[suffix](text)
        expected = changed(
            embedder={
                "provider": "ollama",
                "config": {
                    "model": "nomic-embed-text",
                    "embedding_dims": 768,
                    "ollama_base_url": "http://127.0.0.1:11434",
                },
            },
            vector_store__config__embedding_model_dims=768,
            vector_store__config__password="${PGPASSWORD}",
            llm__config__api_key="${OPENAI_API_KEY}",
            graph_store__config__password="${NEO4J_PASSWORD}",
        )
        assert new == expected
        assert list(new) == list(READERS[suffix](WRITERS[suffix](FULL))), "keys keep their order"
        written = NOMIC.model_copy(update={"base_url": "http://127.0.0.1:11434"})
        assert read(tmp_path, text, suffix).embedder == written

    def test_the_same_provider_keeps_its_other_settings(self, tmp_path: Path) -> None:
        config = read(tmp_path, changed(embedder__config__http_client_proxies="http://proxy"))
        large = Model(
            provider="openai", name="text-embedding-3-large", dimensions=1024,
            base_url="http://gateway/v1", api_key_env="GATEWAY_KEY",
        )  # fmt: skip
        assert json.loads(changed_config(config, large))["embedder"]["config"] == {
            "model": "text-embedding-3-large", "api_key": "${GATEWAY_KEY}", "embedding_dims": 1024,
            "http_client_proxies": "http://proxy", "openai_base_url": "http://gateway/v1",
        }  # fmt: skip

    def test_a_model_of_a_fixed_width_is_not_asked_for_it(self, tmp_path: Path) -> None:
        ada = Model(provider="openai", name="text-embedding-ada-002", dimensions=1536)
        new = json.loads(changed_config(read(tmp_path, FULL), ada))
        assert "embedding_dims" not in new["embedder"]["config"]
        assert read(tmp_path, json.dumps(new)).embedder.dimensions == 1536

    def test_references_stay_and_connection_strings_lose_their_password(
        self, tmp_path: Path
    ) -> None:
        data = changed(
            vector_store__config__password=None,
            vector_store__config__connection_string=f"postgresql://u:{PASSWORD}@h/d?sslmode=require",
            llm__config__api_key="${LLM_KEY}",
        )
        new = json.loads(changed_config(read(tmp_path, data), NOMIC))
        assert new["llm"]["config"]["api_key"] == "${LLM_KEY}"
        assert (
            new["vector_store"]["config"]["connection_string"]
            == "postgresql://u:${PGPASSWORD}@h/d?sslmode=require"
        )

    def test_the_one_read_is_left_as_it_was(self, tmp_path: Path) -> None:
        config = read(tmp_path, FULL)
        changed_config(config, NOMIC)
        assert config.data == FULL

    @wrong_and_right([
        ("another provider", Model(provider="static", name="wordllama", dimensions=256),
         follows_hint("Use one of: ", where="applications/mem0/change.py"), NOMIC),
        ("a query prefix", NOMIC.model_copy(update={"query_prefix": "search_query: "}),
         follows_hint("Leave both prefixes out of `model`."), NOMIC),
        ("a document prefix", NOMIC.model_copy(update={"document_prefix": "search_document: "}),
         follows_hint("Leave both prefixes out of `model`."), NOMIC),
        ("no dimensions", NOMIC.model_copy(update={"dimensions": None}),
         follows_hint("Set model.dimensions, which mem0's configuration needs."), NOMIC),
    ])  # fmt: skip
    def test_models_that_mem0_cannot_use(
        self, tmp_path: Path, wrong: Model, hint: str, right: Model
    ) -> None:
        assert hint in refusal(lambda: changed_config(read(tmp_path, FULL), wrong))
        assert right.name in changed_config(read(tmp_path, FULL), right)


def history(path: Path, events: list[tuple[str, str]]) -> Path:
    """A history with these memories' events in this order, in mem0's own table."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE history (id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, "
            "new_memory TEXT, event TEXT, created_at DATETIME, updated_at DATETIME, "
            "is_deleted INTEGER, actor_id TEXT, role TEXT)"
        )
        db.executemany(
            "INSERT INTO history (id, memory_id, event) VALUES (?, ?, ?)",
            [(f"{1000 - number}", *event) for number, event in enumerate(events)],
        )
    return path


class TestHistory:
    def test_the_last_event_decides(self, tmp_path: Path) -> None:
        path = history(
            tmp_path / "a #?%20 b.db",
            [("a", "ADD"), ("b", "ADD"), ("c", "ADD"), ("b", "DELETE"), ("a", "UPDATE"),
             ("d", "ADD"), ("d", "DELETE"), ("d", "ADD")],
        )  # fmt: skip
        before = path.read_bytes()
        assert living_memories(path) == ["a", "c", "d"]
        assert path.read_bytes() == before

    def test_a_few_missing_are_drift_and_most_are_another_database(self, tmp_path: Path) -> None:
        ids = [f"m{number}" for number in range(10)]
        path = history(tmp_path / "history.db", [(id, "ADD") for id in ids])
        refuse_fresh_database(path, ids, [], "memories", 10)
        refuse_fresh_database(path, ids, ids[5:], "memories", 5)
        said = refusal(lambda: refuse_fresh_database(path, ids, ids[4:], "memories", 4))
        assert "10 living memories" in said and "6 of them" in said and "holds 4" in said
        assert "fresh database" in said
        refuse_fresh_database(path, ids, ids, "memories", 10)  # restored, the history begun anew

    def test_an_empty_history_says_nothing(self, tmp_path: Path) -> None:
        path = history(tmp_path / "h.db", [])
        assert living_memories(path) == []
        refuse_fresh_database(path, [], [], "memories", 0)

    def test_what_is_no_history(self, tmp_path: Path) -> None:
        (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 20)
        with closing(sqlite3.connect(tmp_path / "other.db")) as db:
            db.execute("CREATE TABLE t (a)")
        for name, why in (
            ("none.db", "there is no such file"),
            ("text.db", "not a database"),
            ("other.db", "no such table: history"),
        ):
            assert why in refusal(partial(living_memories, tmp_path / name))
        assert not (tmp_path / "none.db").exists()


@needs_clients
class TestWithMem0:
    def test_the_changed_configuration_is_mem0s_again(
        self, tmp_path: Path, postgres_url: str, embedder: EmbeddingServer
    ) -> None:
        old = mem0_config(postgres_url, embedder.url, tmp_path / "history.db")
        config = read(tmp_path, old)
        assert config.connection["host"] in postgres_url
        model = NOMIC.model_copy(update={"base_url": embedder.url})
        new = json.loads(changed_config(config, model))
        assert new == mem0_config(postgres_url, embedder.url, tmp_path / "history.db", "ollama")
        with application("mem0_app", tmp_path) as mem0:
            mem0("open", config=new)
            mem0("add", text="it works", user_id="ann")
            assert mem0("search", query="it works", filters={"user_id": "ann"})
        with psycopg.connect(postgres_url) as connection:
            (typmod,) = connection.execute(
                "SELECT atttypmod FROM pg_attribute "
                f"WHERE attrelid = '{COLLECTION}'::regclass AND attname = 'vector'"
            ).fetchone() or (None,)
        check(read(tmp_path, new), int(typmod or 0))
        assert "1536" in refusal(lambda: check(config, int(typmod or 0)))

    def test_the_incident_would_have_been_told(
        self, incident: Incident, postgres: PostgresServer
    ) -> None:
        with psycopg.connect(incident.url(postgres)) as connection:
            ids = [str(id) for (id,) in connection.execute(f"SELECT id FROM {COLLECTION}")]
        living = living_memories(incident.history)
        assert sorted(living) == sorted(ids)
        assert len(living) == sum(NAMESPACES.values())
        refuse_fresh_database(incident.history, living, [], COLLECTION, len(ids))
        assert not set(incident.deleted) & set(living_memories(incident.history))
        said = refusal(
            lambda: refuse_fresh_database(incident.history, living, living, COLLECTION, 0)
        )
        assert "1,968 living memories, and 1,968 of them" in said
