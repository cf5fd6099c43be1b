"""Backups as stories, looked at through the stores' own clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.support.helpers import (
    Command,
    chroma_at,
    plain_collection,
    sentence,
    vector_of,
)
from tests.support.pg_docs import App
from tests.support.servers.chroma_server import ChromaServer

NAME = "backed"


class Chroma:
    """An application's collection in Chroma."""

    def __init__(self, url: str) -> None:
        self.url = url
        with chroma_at(url) as client:
            if NAME in [one.name for one in client.list_collections()]:
                client.delete_collection(NAME)
            plain_collection(client, NAME, 60, metadata={"owner": "tests"})

    def read(self, name: str = NAME) -> dict[str, Any]:
        with chroma_at(self.url) as client:
            got: Any = client.get_collection(name, embedding_function=None).get(
                include=["documents", "metadatas", "embeddings"]
            )
        embeddings = [tuple(map(float, one)) for one in got["embeddings"]]
        rows = zip(got["ids"], got["documents"], got["metadatas"], embeddings, strict=True)
        return {row[0]: row[1:] for row in rows}

    def describe(self) -> Any:
        with chroma_at(self.url) as client:
            found = client.get_collection(NAME, embedding_function=None)
            settings: Any = found.get_model()["configuration_json"]
            return found.metadata, settings["hnsw"]["space"]

    def write(self, number: int) -> None:
        text = sentence(number)
        with chroma_at(self.url) as client:
            client.get_collection(NAME, embedding_function=None).upsert(
                ids=[f"r{number}"], documents=[text], embeddings=[vector_of("old", text)]
            )

    def empty(self) -> None:
        with chroma_at(self.url) as client:
            found = client.get_collection(NAME, embedding_function=None)
            found.delete(ids=found.get(include=[])["ids"])

    def drop(self) -> None:
        with chroma_at(self.url) as client:
            client.delete_collection(NAME)

    def forget(self) -> None:
        with chroma_at(self.url) as client:
            for one in client.list_collections():
                if one.name.startswith(NAME):
                    client.delete_collection(one.name)


class Postgres:
    """An application's table in Postgres."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._run(f"ALTER TABLE docs RENAME TO {NAME}")

    def _run(self, statement: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def read(self, name: str = NAME) -> dict[str, Any]:
        rows = self._run(f'SELECT id, t::text FROM "{name}" t')
        return {str(id): row for id, row in rows}

    def describe(self) -> Any:
        columns = self._run(
            "SELECT column_name, data_type, column_default, is_nullable, is_identity FROM "
            f"information_schema.columns WHERE table_name = '{NAME}' ORDER BY ordinal_position"
        )
        checks = self._run(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = "
            f"'{NAME}'::regclass ORDER BY 1"
        )
        indexes = self._run(
            f"SELECT indexdef FROM pg_indexes WHERE tablename = '{NAME}' ORDER BY 1"
        )
        sequence = self._run(f"SELECT pg_get_serial_sequence('{NAME}', 'id')")
        return columns, checks, indexes, sequence

    def write(self, number: int) -> None:
        with closing(App(self.url, NAME)) as app:
            app.insert(sentence(number), number)

    def empty(self) -> None:
        self._run(f"DELETE FROM {NAME}")

    def drop(self) -> None:
        self._run(f"DROP TABLE {NAME}")

    def forget(self) -> None: ...


App_ = Chroma | Postgres


@pytest.fixture(params=["chroma", "chroma-http", "postgres"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App_]:
    """An application with a collection `backed`, in each kind of store."""
    if request.param == "chroma":
        yield Chroma(f"chroma:{tmp_path / 'db'}")
    elif request.param == "chroma-http":
        server: ChromaServer = request.getfixturevalue("chroma_server")
        app = Chroma(server.url)
        yield app
        app.forget()
    else:
        yield Postgres(request.getfixturevalue("docs_url"))


def same(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether every record is what it was. Chroma hands a vector back within a unit in the last
    place of itself, by whether it is in the index already."""
    assert now.keys() == before.keys()
    for id, row in before.items():
        if isinstance(row, str):
            assert now[id] == row
        else:
            assert now[id][:-1] == row[:-1]
            np.testing.assert_allclose(now[id][-1], row[-1], rtol=1e-6)
    return True


def test_a_collection_that_was_emptied_is_there_again(
    app: App_, tmp_path: Path, command: Command
) -> None:
    kept = tmp_path / "backups"
    before, shape = app.read(), app.describe()
    told = command("backup", app.url, "--collection", NAME, "-o", kept, "--json")
    assert told.code == 0, told.err
    assert told.json["collections"][0]["snapshot"]["records"] == len(before)
    assert command("check", kept).code == 0
    app.empty()
    refused = command("backup", app.url, "--collection", NAME, "-o", kept, "--json")
    assert refused.code == 4 and refused.json["error"]["kind"] == "gate"
    beside = command("restore", kept, app.url, "--json")
    assert beside.code == 0 and not beside.json["swapped"], beside.out
    assert not app.read(), "without --yes the live name is not touched"
    assert app.read(beside.json["collection"]).keys() == before.keys()
    app.write(1000)  # the application goes on meanwhile
    window = ["--accept-window"] if app.url.startswith("chroma+http") else []
    if window:
        gap = command("restore", kept, app.url, "--yes", "--json")
        assert gap.code == 5 and "--accept-window" in gap.json["error"]["hint"]
    done = command("restore", kept, app.url, "--yes", *window, "--json")
    assert done.code == 0 and done.json["swapped"], done.out
    now = app.read()
    assert same({id: now[id] for id in before}, before)
    assert len(now) == len(before) + 1, "what the application wrote is there too"
    assert app.describe() == shape
    app.write(1001)
    refused = command("restore", kept, app.url, "--back", "--yes", "--json")
    assert refused.code == 5 and refused.json["error"]["kind"] == "loss"
    back = command("restore", kept, app.url, "--back", "--yes", "--accept-loss", "--json")
    assert back.code == 0, back.out
    assert len(app.read()) == 2, "late writes go back, too"


def test_a_collection_that_was_deleted_is_there_again(
    app: App_, tmp_path: Path, command: Command
) -> None:
    kept = tmp_path / "backups"
    before, shape = app.read(), app.describe()
    assert command("backup", app.url, "--collection", NAME, "-o", kept).code == 0
    app.drop()
    refused = command("backup", app.url, "--collection", NAME, "-o", kept, "--json")
    assert refused.code == 4
    done = command("restore", kept, app.url, "--yes", "--json")
    assert done.code == 0 and done.json["swapped"], done.out
    assert same(app.read(), before)
    assert app.describe() == shape
    assert command("backup", app.url, "--collection", NAME, "-o", kept).code == 0
