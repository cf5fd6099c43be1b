"""Changing one's mind: `run --restart` begins anew, and pays for nothing twice that is still right.
The commands are those that the product prints."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.records import fixed_array_to_vectors
from reembed.stages.estimate import TIMED_TEXTS
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_group_manifest, write_manifest
from tests.support.servers.embedding_server import EmbeddingServer

LONG = {"many": "words of a long text " * 80, "more": "and other words of one " * 80}
RECORDS = 60
_package = importlib.util.find_spec("wordllama")
assert _package and _package.submodule_search_locations
TOKENIZER = f"{_package.submodule_search_locations[0]}/tokenizers/l2_supercat_tokenizer_config.json"
LIMIT = 200


@pytest.fixture
def collection(tmp_path: Path) -> str:
    with chroma(tmp_path / "db") as client:
        docs = plain_collection(client, count=RECORDS)
        vectors = np.ones((len(LONG), 48), np.float32)
        docs.add(ids=list(LONG), documents=list(LONG.values()), embeddings=vectors)
    return f"chroma:{tmp_path / 'db'}"


def manifest(
    folder: Path, url: str, server: EmbeddingServer, *, name: str = "move", allowed: int = 0,
    **model: Any,
) -> Path:  # fmt: skip
    return write_manifest(
        folder, url, name=name, source__model=None,
        verify={"allow_quarantined": allowed},
        model={"provider": "openai", "name": "wordllama", "base_url": server.openai_url,
               "max_tokens": LIMIT, "options": {"tokenizer": TOKENIZER}} | model,
    )  # fmt: skip


def paid(server: EmbeddingServer) -> set[str]:
    """The records' texts, whole, that the server was asked for since the last call."""
    texts = {text for text in server.served if text.startswith("record ")}
    server.served.clear()
    return texts


def new_vectors(path: Path) -> dict[str, np.ndarray]:
    """Of the newest run's embed shards."""
    run, found = run_dir(path), dict[str, np.ndarray]()
    for shard in run.shards("embed").values():
        table = run.read_shard(shard)
        vectors = fixed_array_to_vectors(table.column("embedding"))
        found |= dict(zip(table.column("id").to_pylist(), vectors, strict=True))
    return found


def printed(text: str, command: str) -> list[str]:
    """The arguments of the first such command in what was printed."""
    found = re.search(rf"`reembed ({command}[^`]*)`", " ".join(text.split()))
    assert found, text
    return shlex.split(found[1])


@follows_hint("`model.on_too_long: mean` (or `truncate`) takes in")
@follows_hint("so many be left out.")
@follows_hint("--restart` gives that run up")
def test_long_texts_are_taken_in_after_all(
    tmp_path: Path, collection: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddingServer() as server:
        path = manifest(tmp_path, collection, server)
        refused = command("run", path)
        assert refused.code == 5
        assert "2 of 62 sampled records will be quarantined" in refused.err
        assert "model.on_too_long: mean" in refused.err
        path = manifest(tmp_path, collection, server, allowed=2)
        assert command("run", path).code == 3
        assert len(paid(server)) >= RECORDS
        shadow = names_in(collection)

        path = manifest(tmp_path, collection, server, on_too_long="mean")
        other = command("run", path)
        assert other.code == 5
        assert "model.on_too_long differ" in other.err
        again = printed(other.err, "run")
        assert command(*again, "--until", "embed", "--json").code == 0
        # A short text's vector does not depend on on_too_long; a plan times a few texts.
        assert len(paid(server)) <= TIMED_TEXTS < RECORDS
        assert not shadow.items() - {("docs", shadow["docs"])} <= names_in(collection).items()
        assert command("run", path).code == 0
        assert command("swap", path, "--yes").code == 0
    with chroma(tmp_path / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        assert set(LONG) < records_of(docs).keys()


def test_vectors_that_depend_on_what_changed_are_made_again(
    tmp_path: Path, collection: str, command: Command
) -> None:
    with EmbeddingServer() as server:
        path = manifest(tmp_path, collection, server, on_too_long="truncate")
        assert command("run", path).code == 0
        paid(server)
        path = manifest(tmp_path, collection, server, on_too_long="mean", max_tokens=2 * LIMIT)
        assert command("run", path, "--restart", "--until", "embed").code == 0
        assert len(paid(server)) <= TIMED_TEXTS, "they fit before and after"
        path = manifest(tmp_path, collection, server, on_too_long="mean", document_prefix="d: ")
        assert command("run", path, "--restart", "--until", "embed").code == 0
        assert sum(text.startswith("d: record ") for text in server.served) == RECORDS
    # As a run that never knew another manifest has them.
    fresh, kept = tmp_path / "fresh", new_vectors(path)
    fresh.mkdir()
    with EmbeddingServer() as server:
        other = manifest(fresh, collection, server, on_too_long="mean", document_prefix="d: ",
                         name="fresh")  # fmt: skip
        assert command("run", other, "--until", "embed").code == 0
    for id, vector in new_vectors(other).items():
        np.testing.assert_allclose(kept[id], vector, atol=1e-6)


@follows_hint(" --yes` goes back first; or give the manifest another `name`")
def test_what_is_swapped_is_not_given_up(tmp_path: Path, database: Path, command: Command) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path, "--swap").code == 0
    there = names_in(f"chroma:{database}")
    path = write_manifest(tmp_path, f"chroma:{database}", text="{id} {document}")
    refused = command("run", path, "--restart")
    assert refused.code == 2
    assert "is swapped, so it cannot be given up" in refused.err
    assert names_in(f"chroma:{database}") == there
    assert command(*printed(refused.err, "rollback")).code == 0
    assert command("run", path, "--restart").code == 0
    assert migration(path).status().state == "verified"


def test_without_a_run_it_is_a_run(tmp_path: Path, database: Path, command: Command) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path, "--restart").code == 0
    runs = run_dir(path)
    assert command("run", path, "--restart").code == 0
    assert run_dir(path).run_id > runs.run_id


@follows_hint(" --yes` gives it up; then run this command again.")
def test_several_collections_begin_anew_together(tmp_path: Path, command: Command) -> None:
    with chroma(tmp_path / "db") as client:
        for name in ("one", "two"):
            plain_collection(client, name, count=20)
    url = f"chroma:{tmp_path / 'db'}"
    path = write_group_manifest(tmp_path, url)
    assert command("run", path).code == 0
    path = write_group_manifest(tmp_path, url, text="{id} {document}")
    other = command("run", path)
    assert other.code == 5
    assert command(*printed(other.err, "run")).code == 0
    assert command("swap", path, "--yes").code == 0
    refused = command("run", path, "--restart")
    assert refused.code == 2
    one = write_manifest(tmp_path, url, source__collection="one")
    assert command(*printed(refused.err, "rollback")).code == 0
    refused = command("run", one, "--restart")
    assert refused.code == 2
    assert "was begun for several collections" in refused.err
    assert command(*printed(refused.err, "clean")).code == 0
    assert command("run", one, "--restart").code == 0


def test_a_member_that_cannot_be_given_up_is_told(tmp_path: Path, command: Command) -> None:
    with chroma(tmp_path / "db") as client:
        for name in ("one", "two"):
            plain_collection(client, name, count=20)
    url = f"chroma:{tmp_path / 'db'}"
    path = write_group_manifest(tmp_path, url)
    assert command("run", path).code == 0
    with chroma(tmp_path / "db") as client:
        one = client.get_collection("one", embedding_function=None)
        one.delete(ids=[f"r{number}" for number in range(15)])
    path = write_group_manifest(tmp_path, url, text="{id} {document}")
    refused = command("run", path, "--restart")
    assert refused.code == 5
    assert "one" in refused.err and "--accept-loss" in refused.err
    assert "another manifest" not in refused.err
    assert command("run", path, "--restart", "--accept-loss").code == 0
