"""`reembed init`: a store looked into, and a manifest that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reembed.commands.discover import discover
from reembed.manifest import Manifest
from tests.support.awkward import awkward_collection
from tests.support.chroma_data import chroma, everything_in, plain_collection
from tests.support.commands import Command


def test_the_manifest_written_loads_and_plans(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything_in(database)
    outcome = command("init", "chroma:./db", "-o", "m.yaml")
    assert outcome.code == 0
    assert "reembed plan m.yaml" in outcome.out
    manifest = Manifest.load("m.yaml")
    assert manifest.source.collection == "docs"
    assert manifest.source.url == f"chroma:{database}"
    text = Path("m.yaml").read_text()
    assert "# Found: 40 records, 48 dimensions, cosine; model not recorded" in text
    assert "url: chroma:./db\n" in text
    assert everything_in(database) == before


@pytest.mark.parametrize("folder", ["sub", "sub/deep", ".."])
def test_a_manifest_in_another_folder_finds_the_same_store(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "here" / "sub" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    output = Path(folder) / "m.yaml"
    assert command("init", "chroma:../db", "-o", output).code == 0
    assert Manifest.load(output).source.url == f"chroma:{database}"


def test_an_absolute_path_and_a_server_stay_as_they_are(tmp_path: Path, database: Path) -> None:
    (tmp_path / "sub").mkdir()
    found = discover(f"chroma:{database}", folder=tmp_path / "sub")
    assert found.manifest["source"]["url"] == f"chroma:{database}"


def test_stdout_is_the_manifest_or_the_document(command: Command, database: Path) -> None:
    url = f"chroma:{database}"
    printed = command("init", url)
    manifest = yaml.safe_load(printed.out)
    assert manifest["source"] == {"url": url, "collection": "docs", "model": None}
    document = command("init", url, "--json").json
    assert document == discover(url).to_dict()
    # A section whose options are all at their default holds comments alone.
    assert document["manifest"] == {key: value for key, value in manifest.items() if value}
    assert document["collections"][0]["count"] == 40


def test_several_collections_are_named(command: Command, tmp_path: Path, database: Path) -> None:
    with chroma(database) as client:
        plain_collection(client, "more", 3)
        awkward_collection(client, "odd", 30)
    url = f"chroma:{database}"
    error = command("init", url, "--json").json["error"]
    assert error["exit_code"] == 2
    docs, more = "`--collection docs` (40 records, 48 dimensions, cosine)", "`--collection more` (3"
    assert f"{docs}, {more} records, " in error["hint"]
    document = command("init", url, "--collection", "odd", "--json").json
    assert document["manifest"]["source"]["collection"] == "odd"
    assert document["manifest"]["name"] == "migrate-odd"
    error = command("init", url, "--collection", "mor", "--json").json["error"]
    assert error["kind"] == "collection-not-found"
    assert "Did you mean 'more'?" in error["hint"]


def test_a_store_without_collections(command: Command, tmp_path: Path) -> None:
    with chroma(tmp_path / "bare"):
        pass
    error = command("init", f"chroma:{tmp_path / 'bare'}", "--json").json["error"]
    assert (error["exit_code"], error["kind"]) == (5, "preflight")
    assert "holds no collection" in error["message"]


def test_a_file_is_never_overwritten(command: Command, tmp_path: Path, database: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("mine")
    assert command("init", f"chroma:{database}", "-o", path).code == 2
    assert path.read_text() == "mine"
