"""Backups as stories, looked at through the stores' own clients."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.support.awkward import lose_vector
from tests.support.chroma_data import chroma, chroma_at, names_in, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_group_manifest, write_manifest
from tests.support.pg_docs import App
from tests.support.servers.chroma_server import ChromaServer
from tests.support.texts import sentence, vector_of

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


def in_stores(*always: str) -> pytest.MarkDecorator:
    """In these stores in every run, and in the others in long ones."""
    every = ("chroma", "chroma-http", "postgres")
    cases = [pytest.param(one, marks=() if one in always else pytest.mark.long) for one in every]
    return pytest.mark.parametrize("app", cases, indirect=True)


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


@follows_hint("--accept-window lets it be gone for a few milliseconds.", sometimes=True)
@follows_hint(
    "Nothing was moved. If that is meant, run it again with --accept-loss.",
    where="backup/restored.py",
)
@follows_hint("If not, see whether the application writes elsewhere")
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


@in_stores("postgres")
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


@follows_hint("` brings ")
@in_stores("chroma")
def test_an_upgrade_deletes_the_collection_at_night_and_the_drilled_backup_brings_it_back(
    app: App_, tmp_path: Path, command: Command
) -> None:
    """The first incident: what a backup was for."""
    kept = tmp_path / "backups"
    nightly = ("backup", app.url, "--collection", NAME, "-o", kept, "--json")
    assert command(*nightly).code == 0
    drilled = command("drill", kept, "--json")
    assert drilled.code == 0 and drilled.json["passed"]
    (tested,) = command("snapshots", kept, "--json").json["snapshots"]
    assert tested["drill"]["passed"] and tested["drill"]["records"] == len(app.read())
    app.write(1000)
    assert command(*nightly).json["collections"][0]["changed"] == 1
    before = app.read()
    app.drop()  # the upgrade
    refused = command(*nightly)
    assert refused.code == 4 and f"reembed restore {kept}" in refused.json["error"]["hint"]
    assert command("check", kept).code == 0
    done = command("restore", kept, app.url, "--yes", "--json")
    assert done.code == 0, done.out
    assert same(app.read(), before)


@in_stores("chroma")
def test_seventeen_nights_of_an_empty_database_leave_the_good_backups_alone(
    app: App_, tmp_path: Path, command: Command
) -> None:
    """The second incident: backups that went on over an empty database until none was left."""
    kept = tmp_path / "backups"
    nightly = ("backup", app.url, "--all", "-o", kept, "--json")
    for night in range(7):
        app.write(1000 + night)
        assert command(*nightly).code == 0
        assert command("prune", kept, "--keep", 7, "--yes").code == 0
    before = app.read()
    good = [one["id"] for one in command("snapshots", kept, "--json").json["snapshots"]]
    assert len(good) == 7
    app.empty()
    for night in range(17):
        if night == 9:
            app.drop()
        assert command(*nightly).code == 4, "on the first night as on the last"
        assert command("prune", kept, "--keep", 7, "--yes").code == 0
    left = command("snapshots", kept, "--json").json["snapshots"]
    assert [one["id"] for one in left if one["good"]] == good
    assert command("check", kept).code == 0
    assert command("restore", kept, app.url, "--yes").code == 0
    assert same(app.read(), before)


def test_a_migration_begins_with_a_backup_and_clean_keeps_what_it_deletes(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", backup="before", swap__keep_old="0d")
    assert command("run", path).code == 0
    assert command("swap", path, "--yes").code == 0
    found = command("snapshots", path, "--json").json["snapshots"]
    assert [one["records"] for one in found] == [40, 40]
    assert {one["collection"] for one in found} == {"docs"}
    assert command("clean", path, "--yes", "--backup").code == 0
    names = {
        one["collection"]: one["dimensions"]
        for one in command("snapshots", path, "--json").json["snapshots"]
    }
    parked = next(name for name in names if "__parked-" in name)
    assert names == {"docs": 48, parked: 48}
    assert command("backup", path).code == 0
    newest = command("snapshots", path, "--collection", "docs", "--json").json["snapshots"][-1]
    assert newest["dimensions"] == 64 and newest["model"]["name"] == "counting_model:new"
    state = path.parent / ".reembed" / "backups" / "docs" / "snapshots" / newest["id"]
    assert json.loads((state / "manifest.json").read_text())["fingerprint"]["dimensions"] == 64


@follows_hint("back up again with --accept-drop and the reason.")
def test_a_migration_of_a_collapsed_collection_does_not_begin(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", backup="before")
    assert command("backup", path).code == 0
    with chroma(database) as client:
        client.get_collection("docs").delete(ids=[f"r{n}" for n in range(30)])
    refused = command("run", path, "--json")
    assert refused.code == 4 and "refused" in refused.json["error"]["message"]
    assert command("status", path, "--json").json["state"] == "created"
    assert command("backup", path, "--accept-drop", "they were old").code == 0
    assert command("run", path).code == 0


def test_a_record_that_lost_its_vector_is_listed_and_the_others_are_restored(
    tmp_path: Path, database: Path, command: Command
) -> None:
    url, kept = f"chroma:{database}", tmp_path / "backups"
    lose_vector(database, names_in(url)["docs"])
    assert command("backup", url, "-o", kept, "--json").json["collections"][0]["snapshot"][
        "no_vector"
    ] == 1  # fmt: skip
    done = command("restore", kept, "--yes", "--exact", "--json")
    assert done.code == 3 and done.json["not_restored_ids"] == ["lost vector"]
    again = command("restore", kept, "--yes", "--json")
    assert again.code == 3 and again.json["not_restored_ids"] == ["lost vector"]
    with chroma(database) as client:
        assert client.get_collection("docs").count() == 40


def test_a_collection_goes_to_another_kind_of_store_with_its_vectors(
    tmp_path: Path, database: Path, command: Command, postgres_url: str
) -> None:
    kept = tmp_path / "backups"
    with chroma(database) as client:
        got: Any = client.get_collection("docs").get(include=["documents", "embeddings"])
    assert command("backup", f"chroma:{database}", "-o", kept).code == 0
    moved = command("restore", kept, postgres_url, "--yes", "--json")
    assert moved.code == 0 and moved.json["swapped"], moved.out
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT id, document, embedding::text FROM docs").fetchall()
    texts = dict(zip(got["ids"], got["documents"], strict=True))
    assert {id: text for id, text, _ in rows} == texts
    vectors = {id: json.loads(vector) for id, _, vector in rows}
    for id, vector in zip(got["ids"], got["embeddings"], strict=True):
        np.testing.assert_allclose(vectors[id], vector, rtol=1e-6)
    command("backup", f"chroma:{database}", "-o", kept)
    beside = command("restore", kept, postgres_url, "--live", "other", "--json")
    (step,) = beside.json["steps"]
    assert command(*shlex.split(step)[1:], "--json").json["swapped"], step
    again = command("restore", kept, f"chroma:{tmp_path / 'new'}", "--create", "--yes", "--json")
    assert again.code == 0 and names_in(f"chroma:{tmp_path / 'new'}").keys() == {"docs"}


def test_collections_that_move_together_are_backed_up_together(
    tmp_path: Path, database: Path, command: Command
) -> None:
    with chroma(database) as client:
        plain_collection(client, "more", 30)
    path = write_group_manifest(tmp_path, f"chroma:{database}", backup="before")
    assert command("run", path, "--swap").code == 0
    found = command("snapshots", path, "--json").json["snapshots"]
    assert {one["collection"]: one["dimensions"] for one in found} == {"docs": 48, "more": 48}
    every = command("backup", path, "--json").json["collections"]
    assert [one["snapshot"]["dimensions"] for one in every] == [64, 64]


def test_a_pointer_that_led_elsewhere_since_has_no_way_back(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__kind="pointer", swap__live="current"
    )
    assert command("run", path, "--swap").code == 0
    assert command("backup", path).code == 0
    with chroma(database) as client:
        (pointer,) = [one for one in client.list_collections() if "pointer" in one.name]
        metadata: Any = pointer.metadata
        pointer.modify(metadata=metadata | {"target_id": str(uuid.uuid4())})  # gone since
    done = command("restore", path, "--yes", "--json")
    assert done.code == 0, done.out
    assert not done.json["moved"]["parked"] and not done.json["steps"], "it never had the name"
    with chroma(database) as client:
        assert client.get_collection("docs__counting_model-new-64").count() == 40
    assert command("restore", path, "--back", "--yes").code == 2
    assert command("backup", path).code == 0


@pytest.mark.long
def test_what_a_pointer_led_to_is_there_again(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", swap__kind="pointer", swap__live="current"
    )
    assert command("run", path, "--swap").code == 0
    assert command("backup", path).code == 0
    with chroma(database) as client:
        client.delete_collection("docs__counting_model-new-64")
    assert command("backup", path).code == 4
    assert command("restore", path, "--yes").code == 0
    with chroma(database) as client:
        (pointer,) = [one for one in client.list_collections() if "pointer" in one.name]
        metadata: Any = pointer.metadata
        led_to = client.get_collection(metadata["target"], embedding_function=None)
        assert str(led_to.id) == metadata["target_id"] and led_to.count() == 40
        assert json.loads(metadata["model"])["name"] == "counting_model:new"
    assert command("backup", path).code == 0
