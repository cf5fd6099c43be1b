"""What is said of a name that others have moved back, of records that are not as they were written,
and of what a restore finds in its way is done, and leads on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.models.Collection import Collection

from reembed.manifest import Model
from reembed.migration.following import carrying, moving
from reembed.stores.chroma import keeping, opening, schema
from reembed.stores.postgres.move.mover import Mover
from tests.stories.test_hints_follow import RUN, corpus, settings
from tests.stories.test_hints_moves import Meanwhile, execute, meanwhile
from tests.support.chroma_data import chroma, names_in, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_group_manifest, write_manifest
from tests.support.pg_docs import app, literal, pg_manifest
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence, vector_of

__all__ = ["meanwhile"]
LONG = pytest.mark.long


def refused(command: Command, hint: str, *words: object) -> Any:
    done = command(*words, "--json")
    assert done.code in (4, 5), done.out[:900]
    assert hint in done.json["error"]["hint"], done.out[:900]
    return done.json["error"]


def rename(folder: Path, name: str, other: str) -> None:
    with chroma(folder) as client:
        client.get_collection(name, embedding_function=None).modify(name=other)


@follows_hint(
    "Somebody gave the name to the old one by hand. To keep it so, rename the new one to "
)
@pytest.mark.parametrize("stays", [True, pytest.param(False, marks=LONG)])
def test_a_name_that_was_given_away_by_hand_is_not_cleaned(
    tmp_path: Path, database: Path, command: Command, stays: bool
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__keep_old="0d")
    assert command("run", path, "--swap").code == 0
    parked = next(name for name in names_in(f"chroma:{database}") if "parked" in name)
    rename(database, "docs", "docs-new")
    rename(database, parked, "docs")
    hint = refused(command, "rename the new one to ", "clean", path, "--yes")["hint"]
    if stays:
        rename(database, "docs-new", hint.split("'")[1])
        assert command(*hint.split("`")[1].split()[1:]).code == 0
    else:
        rename(database, "docs", "docs-old")
        rename(database, "docs-new", "docs")
    assert command("clean", path, "--yes").code == 0
    with chroma(database) as client:
        (left,) = client.list_collections()
        assert left.name == "docs"
        width = len(vector_of("old" if stays else "new", "any"))
        assert left.get_model().dimension == width and left.count() == 40


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that follows a corpus of 40 records into an empty database."""
    monkeypatch.chdir(tmp_path)
    with chroma(tmp_path / "db"):
        pass
    for step in (corpus(40), settings()):
        assert callable(step)
        step()
    return tmp_path / "db"


def act(step: Any) -> None:
    step()


@follows_hint("Run the job again: it writes these records again and looks again.")
def test_records_that_are_not_as_a_job_wrote_them_are_written_again(
    job: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*RUN.split()).code == 0
    act(corpus(41))

    def spoil() -> None:
        with chroma(job) as client:
            docs = client.get_collection("docs", embedding_function=None)
            docs.update(ids=["r40"], embeddings=[vector_of("new", "something else")])

    with monkeypatch.context() as patch:
        Meanwhile(patch)(carrying, "_check", spoil)  # type: ignore[arg-type]
        refused(command, "it writes these records again", *RUN.split())
    assert command(*RUN.split()).code == 0
    with chroma(job) as client:
        docs = client.get_collection("docs", embedding_function=None)
        found = docs.query(query_embeddings=[vector_of("new", sentence(40))], n_results=1)
    assert found["ids"] == [["r40"]] and (found["distances"] or [[1]])[0][0] < 1e-5


@follows_hint("Another process has given it away. Rename what has it now, give the new one")
def test_a_name_that_is_given_away_after_a_jobs_move_is_given_back(
    job: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*RUN.split()).code == 0
    act(corpus(90))

    def away() -> None:
        rename(job, "docs", "taken-away")
        with chroma(job) as client:
            plain_collection(client, "docs", 3)

    with monkeypatch.context() as patch:
        Meanwhile(patch)(moving, "finish", away)  # type: ignore[arg-type]
        told = refused(command, "give the new one", *f"{RUN} --rebuild".split())
    assert "'taken-away'" in told["hint"]
    rename(job, "docs", "theirs")
    rename(job, "taken-away", "docs")
    assert command(*RUN.split()).code == 0
    with chroma(job) as client:
        assert client.get_collection("docs", embedding_function=None).count() == 90


def to_restore(postgres: PostgresServer, url: str, command: Command, folder: Path) -> str:
    """A backup of `docs` in `folder`/b, and the URL of an empty database."""
    assert command("backup", url, "--collection", "docs", "-o", folder / "b").code == 0
    return postgres.url(postgres.new_database())


@follows_hint("A restore that was killed may have left it: drop that table.")
def test_a_table_in_the_way_of_a_restore_is_dropped(
    docs_url: str, postgres: PostgresServer, tmp_path: Path, command: Command
) -> None:
    url = to_restore(postgres, docs_url, command, tmp_path)
    execute(url, 'CREATE TABLE "docs__shape-000001" (x int)')
    told = refused(command, "drop that table", "restore", tmp_path / "b", url, "--yes")
    name = told["message"].split("'")[1]
    execute(url, f'DROP TABLE "{name}"')
    assert command("restore", tmp_path / "b", url, "--yes").code == 0
    with app(url) as docs:
        assert docs.run("SELECT count(*) FROM {t}") == [(40,)]


@follows_hint("Choose one that has them, with --snapshot.")
def test_a_snapshot_without_any_vector_is_not_restored(
    docs_url: str, postgres: PostgresServer, tmp_path: Path, command: Command
) -> None:
    with app(docs_url) as docs:
        docs.run("DROP INDEX docs_by_vector")
        docs.run("ALTER TABLE {t} ALTER embedding TYPE vector")
    url = to_restore(postgres, docs_url, command, tmp_path)
    with app(docs_url) as docs:
        docs.run("UPDATE {t} SET embedding = NULL")
    assert command("backup", docs_url, "--collection", "docs", "-o", tmp_path / "b").code == 0
    words = ("restore", tmp_path / "b", url, "--yes")
    refused(command, "with --snapshot", *words)
    (first, *_) = sorted(path.name for path in (tmp_path / "b").rglob("snapshots/*"))
    done = command(*words, "--snapshot", first)
    assert done.code == 0, done.err


@follows_hint("Give them such a vector, or accept losing them with --accept-loss.")
@pytest.mark.parametrize("loss", [False, pytest.param(True, marks=LONG)])
def test_a_row_without_a_vector_goes_back_with_one(
    docs_url: str, tmp_path: Path, command: Command, loss: bool
) -> None:
    path = pg_manifest(
        tmp_path, docs_url, model="keep", source__model=None, target__metric="l2"
    )  # fmt: skip
    assert command("run", path, "--swap").code == 0
    with app(docs_url) as docs:
        docs.run("INSERT INTO {t} (id, content) VALUES (99, 'late')")
        refused(command, "Give them such a vector", "rollback", path, "--yes")
        if not loss:
            docs.run(f"UPDATE {{t}} SET embedding = '{literal('old', 'late')}' WHERE id = 99")
        words = ("--accept-loss",) if loss else ()
        assert command("rollback", path, "--yes", *words).code == 0
        assert docs.run("SELECT count(*) FROM {t}") == [(40 if loss else 41,)]


MEMORY = "CREATE TABLE TABLE_ (id uuid PRIMARY KEY, vector vector(48), payload jsonb)"


@follows_hint(
    "Run the same command again: it is copied then.", where="stores/postgres/move/mover.py"
)
def test_a_second_table_that_the_application_makes_before_the_move(
    postgres: PostgresServer, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url(postgres.new_database())
    rows = [
        f"INSERT INTO TABLE_ VALUES (gen_random_uuid(), '{literal('old', sentence(n))}', "
        f"'{json.dumps({'data': sentence(n)})}')"
        for n in range(20)
    ]
    execute(url, *(one.replace("TABLE_", "docs") for one in (MEMORY, *rows)))
    path = pg_manifest(tmp_path, url)
    assert command("run", path).code == 0

    def second() -> None:
        execute(url, *(one.replace("TABLE_", "docs_entities") for one in (MEMORY, rows[3])))

    with monkeypatch.context() as patch:
        Meanwhile(patch)(Mover, "_move_of", second)
        refused(command, "it is copied then", "swap", path, "--yes")
    assert command("swap", path, "--yes").code == 0
    with app(url) as docs:
        assert docs.run("SELECT count(*) FROM docs_entities") == [(1,)]


@follows_hint("Say with --model which model made the vectors, this one or another.")
def test_a_watch_is_told_which_model_made_the_vectors(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one on record gives others, of as many dimensions."""
    write_manifest(tmp_path, "chroma:db")
    monkeypatch.chdir(tmp_path)
    recorded = Model(provider="python", name="counting_model:other")
    with chroma(tmp_path / "db") as client:
        plain_collection(client, metadata={keeping.MODEL_KEY: keeping.noted(recorded)})
    watch = ("watch", "chroma:db", "--collection", "docs")

    def found(*more: str) -> list[str]:
        told = command(*watch, *more, "--json").json["findings"]
        return [one["hint"] for one in told if one["status"] != "fine"]

    assert any("Say with --model" in hint for hint in found())
    assert not any("--model" in hint for hint in found("--model", "python:counting_model:old"))


@follows_hint("Copy its records by Chroma's own client into a collection without that index, and")
def test_a_sparse_index_stays_behind_and_a_copy_moves(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma's cloud alone has such an index, so a collection here is read as if it had one."""
    real = schema.key_indexes

    def read(collection: Collection) -> dict[str, bool]:
        sparse = {"keys.bag.sparse_vector.sparse_vector_index": True}
        return real(collection) | (sparse if collection.name == "docs" else {})

    monkeypatch.setattr(schema, "key_indexes", read)
    told = refused(
        command, "and move that one", "plan", write_manifest(tmp_path, f"chroma:{database}")
    )
    assert "sparse index on the key bag" in told["message"]
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        copy = client.create_collection("copy", embedding_function=None)
        rows: Any = docs.get(include=["documents", "metadatas", "embeddings"])
        copy.add(**{key: rows[key] for key in ("ids", "documents", "metadatas", "embeddings")})
    path = write_manifest(tmp_path, f"chroma:{database}", source__collection="copy")
    assert command("run", path, "--swap").code == 0


@follows_hint(
    "Run the same command again to resume. If it stays so, open the collection in a script"
)
def test_a_client_of_another_process_that_ends_is_asked_again(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    ends = tmp_path / "ends.py"
    ends.write_text("raise SystemExit(1)")
    opening._other_process().end()
    with monkeypatch.context() as patch:
        patch.setattr(opening, "SCRIPT", ends)
        done = command("run", path, "--json")
    assert done.code == 7, done.out[:900]
    assert "it ended without an answer" in done.json["error"]["message"]
    assert command("run", path, "--swap").code == 0


@follows_hint("With --accept-loss the live name goes back to the old collection as it is, with ")
def test_one_of_several_that_was_deleted_after_the_swap_comes_back(
    tmp_path: Path, command: Command
) -> None:
    names = ("alpha", "beta", "gamma")
    with chroma(tmp_path / "db") as client:
        for name in names:
            plain_collection(client, name, 8)
    path = write_group_manifest(tmp_path, f"chroma:{tmp_path / 'db'}")
    assert command("run", path, "--swap").code == 0
    with chroma(tmp_path / "db") as client:
        client.delete_collection("beta")
    told = refused(command, "With --accept-loss the live name", "rollback", path, "--yes")
    assert "1 of 3 collections: beta" in told["message"]
    assert command("rollback", path, "--yes", "--accept-loss").code == 0
    with chroma(tmp_path / "db") as client:
        for name in names:
            found = client.get_collection(name, embedding_function=None)
            assert found.count() == 8 and found.get_model().dimension == 48
