"""Servers of other versions, and applications of other versions, before and after a swap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chroma_versions import ALL, VERSIONS, ChromaVersion
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.servers.chroma_server import chroma_server

KINDS = ("rename", "transaction")
CASES = [
    pytest.param(ChromaVersion(name), bool(kind), id=f"{name}-{KINDS[kind]}")
    for number, name in enumerate(VERSIONS)
    for kind in (0, 1)
    if ALL or number % 2 == kind
]
"""Each version by both kinds of swap; in CI one kind a version."""


@pytest.mark.parametrize(("version", "at_hand"), CASES)
def test_a_collection_moves_on_a_server_and_its_own_client_reads_on(
    version, at_hand, tmp_path: Path, command
):
    with chroma_server(tmp_path / "db", program=version.server) as server:
        assert version.ask("write", server.url) == {"count": 60}
        before = version.ask("look", server.url)
        assert before["found"] and not before["reembed"]
        reach = (
            {"source__data_dir": str(server.folder)} if at_hand else {"swap__accept_window": True}
        )
        path = write_manifest(tmp_path, server.url, **reach)
        planned = command("plan", path, "--json")
        assert planned.code == 0, planned.out
        assert planned.json["swap"]["kind"] == ("transaction" if at_hand else "rename")
        moved = command("run", path, "--swap", "--json")
        assert moved.code == 0, moved.out + moved.err
        after = version.ask("look", server.url, "new")
        assert after["found"]
        for key in ("records", "count", "space", "version"):
            assert after[key] == before[key]
        assert version.ask("change", server.url, "new") == {"count": 60}
        assert command("rollback", path, "--yes").code == 0
        back = version.ask("look", server.url)
        assert back["found"]
        assert [id for id, *_ in back["records"]] == sorted(
            [id for id, *_ in before["records"] if id != "r1"] + ["r900"]
        )
        assert back["metadata"] == before["metadata"]
        assert command("swap", path, "--yes").code == 0
        assert version.ask("look", server.url, "new")["found"]


@follows_hint("Either serve the folder with the Chroma that the application has")
@pytest.mark.parametrize("version", [ChromaVersion(name) for name in VERSIONS[:1]], ids=str)
def test_a_folder_of_an_older_chroma_is_served_by_it_as_the_refusal_says(
    version, tmp_path, command
):
    """Opened by this Chroma, the application's own could not read it any more."""
    folder = tmp_path / "db"
    version.ask("write", f"chroma:{folder}")
    before = (folder / "chroma.sqlite3").read_bytes()
    path = write_manifest(tmp_path, f"chroma:{folder}")
    refused = command("plan", path)
    assert refused.code == 5
    told = " ".join(refused.err.split())
    assert "the application's own Chroma could not read it any more" in told
    assert f"chroma run --path {folder}" in told
    assert "install chromadb 1.5 for the application too" in told
    assert (folder / "chroma.sqlite3").read_bytes() == before
    with chroma_server(folder, program=version.server) as server:
        data_dir = {"source__data_dir": str(folder)}
        path = write_manifest(tmp_path, server.url, "served.yaml", name="served", **data_dir)
        assert command("run", path, "--swap").code == 0
    assert version.ask("look", f"chroma:{folder}", "new")["found"], "it still reads its folder"
