"""What is said of another database, of values that must be unique, of a full disk under the
output and of an embedding function is done, and leads on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
from chromadb.utils import embedding_functions

from reembed import live
from reembed.errors import PreflightError
from reembed.sync import difference, follow
from tests.support.chroma_data import chroma, names_in
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import run_dir, write_manifest
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence, vector_of

FULL = Path("/dev/full")


def refused(command: Command, path: Path, hint: str, words: str) -> None:
    done = command(*words.split(), path, "--json")
    assert done.code in (4, 5, 6, 7), done.out[:600]
    assert hint in done.json["error"]["hint"], done.out[:900]


@follows_hint("Somebody changed the URL, the credentials or the server, or created the database")
@follows_hint("To start over, move the run directory ", where="stages/refusals.py")
def test_a_run_that_finds_another_database_at_its_address(
    postgres: PostgresServer, tmp_path: Path, command: Command
) -> None:
    name = postgres.new_database()
    url = postgres.url(name)
    make_docs(url, 12)
    path = pg_manifest(tmp_path, url)
    assert command("run", path).code == 0
    postgres.rename_database(name, f"{name}_right")
    postgres.new_database(name)
    make_docs(url, 12)
    refused(command, path, "The one with the records is elsewhere, or lost", "run")
    right = pg_manifest(tmp_path, url.replace(name, f"{name}_right"))
    assert right == path
    postgres.drop_database(name)
    postgres.rename_database(f"{name}_right", name)
    path = pg_manifest(tmp_path, url)
    assert command("run", path).code == 0
    postgres.drop_database(name)
    postgres.new_database(name)
    make_docs(url, 12)
    there = run_dir(path).path
    refused(command, path, f"To start over, move the run directory {there} away", "run")
    there.rename(tmp_path / "away")
    assert command("run", path, "--swap").code == 0
    postgres.drop_database(name)


@follows_hint(
    "Change it in one of the two; then `reembed run --restart` begins anew", elsewhere=True
)
def test_two_rows_that_the_new_table_cannot_hold_together(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    """The application has given up a constraint that the new table still has."""
    path = pg_manifest(tmp_path, docs_url)
    assert command("run", path).code == 0
    with app(docs_url) as docs:
        docs.run("ALTER TABLE {t} DROP CONSTRAINT docs_slug_key")
        docs.run("UPDATE {t} SET slug = 'twice' WHERE id IN (1, 39)")
        refused(command, path, "Change it in one of the two; then `reembed run --restart`", "run")
        docs.run("UPDATE {t} SET slug = 'once' WHERE id = 39")
    refused(command, path, "With --accept-loss they are deleted for good.", "run --restart")
    assert command("run", path, "--restart", "--accept-loss", "--swap").code == 0


@follows_hint("Give one of the two another value, or accept losing these rows with --accept-loss.")
@pytest.mark.parametrize("words", ["rollback --yes", "rollback --yes --accept-loss"])
def test_a_value_that_the_old_table_alone_holds(
    docs_url: str, tmp_path: Path, command: Command, words: str
) -> None:
    path = pg_manifest(tmp_path, docs_url, verify__allow_quarantined=1)
    with app(docs_url) as docs:
        docs.run("INSERT INTO {t} (id, content, slug) VALUES (99, NULL, 'mute')")
        assert command("run", path, "--swap").code == 3
        docs.run("UPDATE {t} SET slug = 'mute' WHERE id = 3")
        refused(command, path, "Give one of the two another value, or accept", "rollback --yes")
        if "loss" not in words:
            docs.run("UPDATE {t} SET slug = 'own' WHERE id = 3")
        assert command(*words.split(), path).code == 0
        (slug,) = docs.run("SELECT slug FROM {t} WHERE id = 3")[0]
    assert slug == ("s3" if "loss" in words else "own")


@follows_hint("The command has ended; `reembed status` says where it stands.", elsewhere=True)
@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_an_output_that_cannot_be_written(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    with monkeypatch.context() as patch, FULL.open("w") as full:
        patch.setattr(sys, "stdout", full)
        done = command("run", path)
    assert done.code == 5
    assert "`reembed status" in done.err, done.err
    assert command("status", path, "--json").json["state"] == "verified"


@follows_hint("if that was not meant, restore them; a command that would go on", elsewhere=True)
def test_records_that_are_gone_are_restored(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path).code == 0
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        whole: Any = docs.get(include=["documents", "metadatas", "embeddings"])
        docs.delete(ids=whole["ids"][5:])
    assert "restore them" in " ".join(command("plan", path).out.split())
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).add(
            **{key: whole[key][5:] for key in ("ids", "documents", "metadatas", "embeddings")}
        )
    assert "restore them" not in " ".join(command("plan", path).out.split())
    assert command("swap", path, "--yes").code == 0


@follows_hint("Run again when fewer writes come in, or pause the writers for the swap.")
def test_a_collection_that_is_written_to_all_the_time(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path).code == 0
    find, written = difference.find_difference, list[str]()

    def found(*given: Any, **more: Any) -> Any:
        text = f"written late, {len(written)}"
        written.append(text)
        with chroma(database) as client:
            client.get_collection("docs", embedding_function=None).add(
                ids=[text], documents=[text], embeddings=[vector_of("old", text)]
            )
        return find(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(follow, "FEW_LEFT", 0)
        patch.setattr(follow, "find_difference", found)
        refused(command, path, "Run again when fewer writes come in", "swap --yes")
    assert len(written) > 2
    assert command("swap", path, "--yes").code == 0


class Own(EmbeddingFunction[Documents]):
    """An application's own function."""

    def __init__(self) -> None: ...

    def __call__(self, input: Documents) -> Embeddings:
        return [vector_of("old", text) for text in input]

    @staticmethod
    def name() -> str:
        return "hints-own"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Own:
        return Own()


@follows_hint("Import the module that registers it before the first query.")
@follows_hint("Set the environment variable or install the package that it names.")
def test_a_function_that_cannot_be_opened_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = embedding_functions.known_embedding_functions
    monkeypatch.setenv("HINTS_KEY", "k-0123456789")
    embedding_functions.register_embedding_function(Own)
    jina = embedding_functions.JinaEmbeddingFunction(api_key_env_var="HINTS_KEY")
    live.trust({"provider": "chroma", "name": "jina", "options": jina.get_config()})
    with chroma(tmp_path / "db") as client:
        for name, function in (("own", Own()), ("jina", jina)):
            made = client.create_collection(name, embedding_function=function)  # type: ignore[arg-type]
            made.add(ids=["a"], embeddings=[vector_of("old", sentence(1))], documents=["x"])
    url = f"chroma:{tmp_path / 'db'}"
    known.pop("hints-own")
    with pytest.raises(PreflightError, match="is not registered in this process"):
        live.open(url, "own").query(query_texts=["x"], n_results=1)
    embedding_functions.register_embedding_function(Own)
    assert live.open(url, "own").query(query_texts=["x"], n_results=1)["ids"] == [["a"]]
    known.pop("hints-own")
    monkeypatch.delenv("HINTS_KEY")
    with pytest.raises(PreflightError, match="cannot be built here"):
        live.open(url, "jina").query(query_texts=["x"], n_results=1)
    monkeypatch.setenv("HINTS_KEY", "k-0123456789")
    live.open(url, "jina").query(query_embeddings=[vector_of("old", "x")], n_results=1)


@follows_hint("`reembed report` shows which gates failed, and on which records.", elsewhere=True)
def test_a_verdict_that_does_not_pass_is_told_by_watch_and_shown_by_the_report(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path).code == 0
    (shadow,) = set(names_in(f"chroma:{database}")) - {"docs"}
    with chroma(database) as client:
        new = client.get_collection(shadow, embedding_function=None)
        (lost,) = new.get(limit=1)["ids"]
        new.delete(ids=[lost])
    assert command("verify", path).code == 4
    told = command("watch", path, "--json")
    assert told.code == 4
    hints = [one["hint"] for one in told.json["findings"] if one["check"] == "run"]
    assert hints == [f"`reembed report {path}` shows which gates failed, and on which records."]
    page = Path(command("report", path).out.strip()).read_text()
    assert lost in page
    assert command("run", path).code == 0
    assert command("swap", path, "--yes").code == 0
