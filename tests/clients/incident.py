"""The scene of a real loss: 1,968 memories of mem0 in four namespaces, 1536-d vectors of OpenAI's.

mem0 adds one memory at a time, and all of them take 40 s to 100 s on two cores. So up to
BY_MEM0 in every namespace are written by mem0's own `add`, some of them updated or deleted again,
so that the history holds all three events; the others are copied into the table and the history in
exactly the form of mem0's rows, with vectors from the same server, which a test compares. Every
fortieth memory of all is linked to its entities by mem0. `python -m tests.clients.incident` tells
how long that takes; the tests make it once and give each test a copy of the database.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.clients.driver import application
from tests.support.servers.embedding_server import OPENAI, REAL_WIDTHS, EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer, postgres_server

NAMESPACES = {"research": 678, "operations": 1243, "family": 33, "travel": 14}
BY_MEM0 = 20
LINKED = 40
USER = "owner"
COLLECTION = "memories"

NAMES = """
    Ada Bruno Carla Dmitri Elena Farid Greta Hassan Ines Jonas Kavya Leon Mirela Noor Oskar Petra
    Quentin Rosa Stefan Tamar
""".split()  # noqa: SIM905
PLACES = "Lisbon Oslo Prague Quito Riga Seoul Tunis Utrecht Vienna Warsaw".split()  # noqa: SIM905
SENTENCES = (
    "the invoice number {number} from {name} is paid through the office in {place}",
    "it was {name} who prefers green tea over coffee, told in meeting {number} in {place}",
    "backup {number} of the server in {place} is checked by {name} every second Friday",
    "the recipe {number} that {name} brought from {place} needs cardamom and two lemons",
    "flight {number} to {place} was cancelled, so {name} took the night train instead",
    "paper {number} by {name} about sleep and memory was presented in {place}",
    "the door code for room {number} in {place} changes when {name} leaves",
    "allergy note {number}: {name} cannot eat peanuts, learned over dinner in {place}",
)


def mem0_config(
    database: str, embedder: str, history: Path, provider: str = "openai"
) -> dict[str, Any]:
    """A configuration as an application gives it to `Memory.from_config`.

    Args:
        database: a libpq URL.
        embedder: the URL of an `EmbeddingServer` with REAL_WIDTHS.
        provider: openai (1536-d vectors) or ollama (768-d).
    """
    if provider == "openai":
        model = "text-embedding-3-small"
        settings = {"model": model, "openai_base_url": f"{embedder}/v1"}
    else:
        model = "nomic-embed-text"
        settings = {"model": model, "ollama_base_url": embedder}
    dimensions = REAL_WIDTHS[model]
    return {
        "vector_store": {
            "provider": "pgvector",
            "config": {
                "connection_string": database,
                "collection_name": COLLECTION,
                "embedding_model_dims": dimensions,
            },
        },
        "embedder": {
            "provider": provider,
            "config": settings | {"embedding_dims": dimensions},
        },
        "history_db_path": str(history),
    }


@dataclass(frozen=True)
class Incident:
    """What was written. `ids`: the living memories by namespace; `deleted`: those that are gone."""

    database: str
    history: Path
    ids: dict[str, list[str]]
    deleted: list[str]

    def url(self, server: PostgresServer) -> str:
        return server.url(self.database)

    def copy(self, server: PostgresServer, folder: Path) -> Incident:
        """The same in a database of its own, with its own history in `folder`."""
        history = folder / "history.db"
        shutil.copy(self.history, history)
        name = server.new_database(template=self.database)
        return replace(self, database=name, history=history)


def memories(namespace: str, count: int) -> list[dict[str, Any]]:
    """Arguments of `add`, always the same; metadata of every type, and texts in odd scripts."""
    chance = random.Random(namespace)
    made: list[dict[str, Any]] = []
    for number in range(count):
        text = chance.choice(SENTENCES).format(
            number=number, name=chance.choice(NAMES), place=chance.choice(PLACES)
        )
        if number % 50 == 7:
            text += "\nzweite Zeile: Größe 42, 日本語, \"quoted\" and 'single'"
        metadata: dict[str, Any] = {
            "priority": number % 5,
            "source": chance.choice(["chat", "mail"]),
        }
        if number % 3 == 0:
            metadata["tags"] = chance.sample(["home", "work", "health", "money"], 2)
        if number % 4 == 0:
            metadata["weight"] = chance.random()
        if number % 11 == 0:
            metadata |= {"done": number % 2 == 0, "nested": {"of": None, "list": [1, 1.5, "x"]}}
        made.append({"text": text, "user_id": USER, "agent_id": namespace, "metadata": metadata})
    return made


def write_incident(server: PostgresServer, embedder: str, folder: Path) -> Incident:
    """Make a database with everything, and `history.db` in `folder`."""
    database = server.new_database()
    history = folder / "history.db"
    living: dict[str, list[str]] = {}
    deleted: list[str] = []
    with application("mem0_app", folder) as mem0:
        config = mem0_config(server.url(database), embedder, history)
        mem0("open", config=config, entities=True)
        for namespace, count in NAMESPACES.items():
            by_mem0 = min(count, BY_MEM0)
            rows = memories(namespace, count + 3)
            ids = mem0("add_many", memories=[*rows[:by_mem0], *rows[count:]])
            for id in ids[by_mem0:]:
                mem0("delete", id=id)
            deleted += ids[by_mem0:]
            for id in ids[3:by_mem0:20]:
                mem0("update", id=id, text=f"{mem0('get', id=id)['memory']}, as corrected later")
            made = copy_rows(rows[by_mem0:count], server.url(database), embedder, history)
            living[namespace] = ids[:by_mem0] + made
            filters = {"user_id": USER, "agent_id": namespace}
            mem0("link", ids=living[namespace][::LINKED], filters=filters)
        mem0("close")
    return Incident(database, history, living, deleted)


def copy_rows(added: list[dict[str, Any]], url: str, embedder: str, history: Path) -> list[str]:
    """Write what `add` with these arguments would, at once; the ids."""
    ids = [str(uuid.uuid4()) for _ in added]
    payloads = []
    for arguments in added:
        now = datetime.now(UTC).isoformat()
        text = arguments["text"]
        payloads.append(
            arguments["metadata"]
            | {"user_id": arguments["user_id"], "agent_id": arguments["agent_id"], "role": "user"}
            | {"data": text, "hash": hashlib.md5(text.encode()).hexdigest()}
            | {"created_at": now, "updated_at": now, "text_lemmatized": text}
        )
    vectors = embed([payload["data"] for payload in payloads], embedder)
    statement = f"COPY {COLLECTION} (id, vector, payload) FROM STDIN"
    with psycopg.connect(url) as connection, connection.cursor().copy(statement) as copy:
        for row in zip(ids, map(str, vectors), map(json.dumps, payloads), strict=True):
            copy.write_row(row)
    events = [
        (str(uuid.uuid4()), id, None, payload["data"], "ADD", payload["created_at"],
         payload["updated_at"], 0, None, "user")
        for id, payload in zip(ids, payloads, strict=True)
    ]  # fmt: skip
    with closing(sqlite3.connect(history)) as db, db:
        db.executemany("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", events)
    return ids


def embed(texts: list[str], embedder: str) -> list[list[float]]:
    """Vectors as mem0's OpenAI embedder gets them: it sends no line breaks."""
    vectors = []
    for start in range(0, len(texts), 500):
        body = {
            "model": "text-embedding-3-small",
            "input": [text.replace("\n", " ") for text in texts[start : start + 500]],
        }
        answer = httpx.post(f"{embedder}/v1/embeddings", json=body, timeout=60)
        vectors += [item["embedding"] for item in answer.raise_for_status().json()["data"]]
    return vectors


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server() as server,
        EmbeddingServer(OPENAI, widths=REAL_WIDTHS) as embedder,
    ):
        begun = time.monotonic()
        incident = write_incident(server, embedder.url, Path(folder))
        count = sum(map(len, incident.ids.values()))
        print(f"{count:,} memories in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
