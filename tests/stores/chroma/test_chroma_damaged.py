"""Indexes whose files a kill, a full disk or a bad copy has harmed: `plan` refuses them and says
what to do, which leads on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from chromadb.api.collection_configuration import CreateHNSWConfiguration

from reembed.stores.chroma.damaged_index import damage_of, folder_of
from reembed.stores.chroma.index_files import HEADER, header_of
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import run_dir, write_manifest
from tests.support.servers.chroma_server import chroma_server
from tests.support.texts import sentence, vector_of

OFTEN: CreateHNSWConfiguration = {"sync_threshold": 20, "batch_size": 10}
HARMS = ("empty", "half", "cut", "gone", "zeros")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose collection is in its index's files."""
    folder = tmp_path_factory.mktemp("damaged") / "db"
    with chroma(folder) as client:
        made = client.create_collection(
            "docs", embedding_function=None, configuration={"hnsw": OFTEN}
        )
        texts = [sentence(number) for number in range(40)]
        vectors = [vector_of("old", text) for text in texts]
        made.add(ids=[f"r{n}" for n in range(40)], documents=texts, embeddings=vectors)
        made.get(limit=1, include=["embeddings"])
    return folder


@pytest.fixture
def database(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "db"))


def index_of(database: Path) -> Path:
    (folder,) = (path for path in database.iterdir() if path.is_dir())
    return folder


def harm(path: Path, how: str) -> None:
    data = path.read_bytes()
    elements, size, _ = header_of(path.with_name(HEADER).read_bytes())
    used = {"data_level0.bin": elements * size, "length.bin": elements * 4}.get(path.name)
    data = data[:used]  # beyond, there is room for more
    match how:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(data[: len(data) // 2])
        case "cut":
            path.write_bytes(data[:-8])
        case "gone":
            path.unlink()
        case "zeros":
            path.write_bytes(bytes(len(data)))


def test_whole_files_show_no_damage(whole: Path, database: Path) -> None:
    index = index_of(database)
    assert damage_of(index) == ""
    with chroma(whole) as client:
        id = str(client.get_collection("docs", embedding_function=None).id)
    assert folder_of(whole, id) == whole / index.name
    shutil.rmtree(index)
    assert damage_of(index) == "", "it may never have been written out"


FILES = ("data_level0.bin", "header.bin", "index_metadata.pickle", "length.bin", "link_lists.bin")
UNSEEN = {("header.bin", "zeros"), ("length.bin", "zeros")}
"""A header that nobody knows, which Chroma refuses itself; lengths, which any numbers may be."""


@pytest.mark.parametrize("file", FILES)
def test_damage_of_each_file_is_seen(database: Path, file: str) -> None:
    path = index_of(database) / file
    data = path.read_bytes()
    for how in HARMS:
        harm(path, how)
        assert (file in damage_of(path.parent)) == ((file, how) not in UNSEEN), how
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        pytest.param("data_level0.bin", "empty", id="empty"),
        pytest.param("link_lists.bin", "zeros", id="no links, in which a search ends the process"),
        pytest.param("index_metadata.pickle", "half", id="which Chroma itself refuses"),
    ],
)
@follows_hint("Running again changes nothing. The index lies in ")
def test_a_damaged_index_is_refused_and_the_hint_leads_on(
    tmp_path: Path, database: Path, command: Command, file: str, how: str
) -> None:
    index = index_of(database)
    path = write_manifest(tmp_path, f"chroma:{database}")
    kept = Path(shutil.copytree(index, tmp_path / "backup"))
    harm(index / file, how)
    refused = command("plan", path, "--json")
    assert refused.code == 5, refused.out
    told = refused.json["error"] if "error" in refused.json else refused.json["blockers"][0]
    assert f"lies in {index}:" in told["hint"] and "clean" not in told["hint"]
    if file == "link_lists.bin":  # put back from a backup
        shutil.rmtree(index)
        shutil.copytree(kept, index)
    else:
        index.rename(tmp_path / "away")
    planned = command("plan", path)
    assert planned.code == 0, planned.out
    assert ("Chroma finds no vector of" in planned.out) == (file != "link_lists.bin")
    if how == "empty":
        assert command("run", path, "--swap").code == 0
        with chroma(database) as client:
            assert client.get_collection("docs", embedding_function=None).count() == 40


@follows_hint("with source.data_dir set to that directory, this message names it")
def test_a_damaged_index_behind_a_server(tmp_path: Path, database: Path, command: Command) -> None:
    index = index_of(database)
    harm(index / "data_level0.bin", "empty")
    with chroma_server(database) as server:
        more: dict[str, Any] = {"swap__accept_window": True}
        path = write_manifest(tmp_path, server.url, **more)
        refused = command("plan", path, "--json")
        assert refused.code == 5, refused.out
        assert "source.data_dir" in refused.json["error"]["hint"]
        path = write_manifest(tmp_path, server.url, source__data_dir=str(database), **more)
        refused = command("plan", path, "--json")
        assert refused.code == 5 and str(index) in refused.json["error"]["hint"], refused.out
    index.rename(tmp_path / "away")
    with chroma_server(database) as server:
        path = write_manifest(tmp_path, server.url, **more)
        assert command("plan", path).code == 0


def test_a_damaged_new_collection_is_built_anew(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__index=OFTEN)
    assert command("run", path, "--until", "load").code == 0
    (index,) = (one for one in database.iterdir() if one.is_dir() and one != index_of_old(database))
    harm(index / "data_level0.bin", "empty")
    refused = command("verify", path, "--json")
    assert refused.code == 5, refused.out
    assert "`reembed run --restart`" in refused.json["error"]["hint"]
    assert command("run", path, "--restart").code == 0
    assert run_dir(path).history.state == "verified"


def index_of_old(database: Path) -> Path:
    with chroma(database) as client:
        id = str(client.get_collection("docs", embedding_function=None).id)
    found = folder_of(database, id)
    assert found is not None
    return found
