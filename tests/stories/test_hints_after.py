"""What is said after a swap, or a way back, of collections that others changed or deleted is done,
and leads on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.support.chroma_data import chroma, names_in, records_of
from tests.support.commands import Command, Outcome
from tests.support.following import follows_hint
from tests.support.manifests import run_dir, write_manifest
from tests.support.texts import sentence, vector_of

SHADOW = "docs__counting_model-new-64"


class Scene:
    """A migration of `docs`, its commands, and the application's collections.

    Args:
        changes: of the manifest.
    """

    def __init__(self, folder: Path, database: Path, command: Command, **changes: Any) -> None:
        self.folder, self.database, self.command = folder, database, command
        self.url = f"chroma:{database}"
        self.path = write_manifest(folder, self.url, **{"swap__keep_old": "0d"} | changes)

    def do(self, words: str, *codes: int) -> Outcome:
        verb, *options = words.split()
        done = self.command(verb, self.path, *options, "--json")
        assert done.code in (codes or (0,)), (words, done.out[:600], done.err[-600:])
        return done

    def refused(self, words: str, *said: str) -> str:
        hint = str(self.do(words, 4, 5, 6, 7).json["error"]["hint"])
        for one in said:
            assert one in hint, hint
        return hint

    def delete(self, name: str) -> None:
        with chroma(self.database) as client:
            client.delete_collection(name)

    def rename(self, *pairs: tuple[str, str]) -> None:
        with chroma(self.database) as client:
            for old, new in pairs:
                client.get_collection(old, embedding_function=None).modify(name=new)

    def write(self, name: str, model: str, *ids: str) -> None:
        with chroma(self.database) as client:
            client.get_collection(name, embedding_function=None).upsert(
                ids=list(ids), documents=[f"text of {id}" for id in ids],
                embeddings=[vector_of(model, f"text of {id}") for id in ids],
            )  # fmt: skip

    def parked(self) -> str:
        return next(name for name in names_in(self.url) if "parked" in name)

    def count(self, name: str = "docs") -> int:
        with chroma(self.database) as client:
            return len(records_of(client.get_collection(name, embedding_function=None)))

    def from_shards(self, name: str) -> None:
        """Make a collection of what the run's export shards hold, with pyarrow and chromadb."""
        run = run_dir(self.path).path
        rows = [
            row for shard in sorted(run.glob("export/*.parquet"))
            for row in pq.read_table(shard).to_pylist()
        ]  # fmt: skip
        with chroma(self.database) as client:
            made = client.create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
            made.add(
                ids=[row["id"] for row in rows], documents=[row["document"] for row in rows],
                metadatas=[json.loads(row["metadata"]) for row in rows],
                embeddings=[row["embedding"] for row in rows],
            )  # fmt: skip
            nearest = made.query([vector_of("old", sentence(7))], n_results=1)["ids"]
        assert nearest == [["r7"]]


@follows_hint("still hold every record with its old vector.")
@follows_hint("hold every record with its old vector.", where="sync/live_name.py")
def test_an_old_collection_that_is_gone_is_made_again_from_the_shards(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run --swap")
    scene.delete(scene.parked())
    scene.refused("rollback --yes", "The export shards of", "still hold every record")
    scene.from_shards("docs-of-before")
    assert scene.count("docs-of-before") == 40
    scene.delete("docs")
    told = scene.do("status").out
    assert f"The export shards of {run_dir(scene.path).path} hold every record" in told
    scene.from_shards("docs")
    scene.path = write_manifest(tmp_path, scene.url, name="onward")
    scene.do("plan")


@follows_hint("Restore it (the export shards of", where="sync/live_name.py")
def test_a_live_collection_that_is_gone_after_the_way_back(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run --swap")
    scene.do("rollback --yes")
    scene.delete("docs")
    scene.refused("sweep", "Restore it (the export shards of", "begins again")
    scene.from_shards("docs")
    scene.refused("sweep", "To start over with the one that is there: `reembed clean")
    scene.do("clean --yes")
    scene.do("run --swap")
    assert scene.count() == 40


@follows_hint("Once its configuration has changed, delete the old collection yourself.")
def test_an_old_collection_that_no_name_left_is_deleted_by_its_owner(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command, swap__kind="config")
    scene.do("run --swap")
    scene.refused("clean --yes", "Once its configuration has changed, delete the old collection")
    scene.delete("docs")
    assert scene.count(SHADOW) == 40
    scene.do("status")


@follows_hint("Nothing was deleted. Rename it to ")
def test_a_shadow_to_which_somebody_gave_the_live_name(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run")
    scene.rename(("docs", "mine"), (SHADOW, "docs"))
    scene.refused("clean --yes", f"Nothing was deleted. Rename it to {SHADOW!r}")
    scene.rename(("docs", SHADOW), ("mine", "docs"))
    scene.do("clean --yes")


@follows_hint("Copy them with `reembed sweep`, or delete them there.", elsewhere=True)
def test_what_was_written_to_the_new_collection_after_the_way_back(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run --swap")
    scene.do("rollback --yes")
    scene.write(SHADOW, "new", "late-1", "late-2")
    scene.refused("swap --yes", "Copy them with `reembed sweep", "or delete them there.")
    with chroma(database) as client:
        client.get_collection(SHADOW, embedding_function=None).delete(ids=["late-1"])
    scene.do("sweep")
    scene.do("swap --yes")
    assert scene.count() == 41


@follows_hint("If that was meant, say so with --accept-loss; if not, put the records back first")
def test_a_live_collection_that_was_emptied_before_the_old_one_goes(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run --swap")
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        whole: Any = docs.get(include=["documents", "metadatas", "embeddings"])
        docs.delete(ids=whole["ids"][5:])
        old = client.get_collection(scene.parked(), embedding_function=None)
        old.delete(ids=whole["ids"][5:])
    scene.refused("clean --yes", "say so with --accept-loss; if not, put the records back first")
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).add(
            **{key: whole[key][5:] for key in ("ids", "documents", "metadatas", "embeddings")}
        )
    scene.refused("clean --yes", "if not, `reembed clean --accept-loss` ignores them")
    scene.do("clean --yes --accept-loss")
    assert scene.count() == 40


@follows_hint("With --accept-loss the old collection comes back as it was, with them.")
def test_deletions_since_the_swap_take_a_word_on_the_way_back(
    tmp_path: Path, database: Path, command: Command
) -> None:
    scene = Scene(tmp_path, database, command)
    scene.do("run --swap")
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=docs.get()["ids"][5:])
    scene.refused("rollback --yes", "With --accept-loss the old collection comes back as it was")
    scene.do("rollback --yes --accept-loss")
    assert scene.count() == 40
