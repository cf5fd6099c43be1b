"""Servers of other versions, and applications of other versions, before and after a swap."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed.stores.chroma.schema import key_indexes, with_indexes
from tests.support.chroma_data import chroma, chroma_at, plain_collection
from tests.support.chroma_versions import ALL, VERSIONS, ChromaVersion
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.servers.chroma_server import chroma_server as run_server
from tests.support.texts import sentence, vector_of

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
    with run_server(tmp_path / "db", program=version.server) as server:
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
    with run_server(folder, program=version.server) as server:
        data_dir = {"source__data_dir": str(folder)}
        path = write_manifest(tmp_path, server.url, "served.yaml", name="served", **data_dir)
        assert command("run", path, "--swap").code == 0
    assert version.ask("look", f"chroma:{folder}", "new")["found"], "it still reads its folder"


LACKS = {"1.0": ("indexes of keys", "lists"), "1.1": ("indexes of keys", "lists"),
         "1.3": ("lists",), "1.4": ("lists",)}  # fmt: skip
"""What servers before 1.5 do not keep."""
UNSEARCHED = {"keys.secret.string.string_inverted_index": False}


@follows_hint("Choose a newer server (target.url), of Chroma 1.3 or later.", sometimes=True)
@follows_hint("Choose a newer server (target.url), of Chroma 1.5 or later, or take the lists")
@pytest.mark.parametrize(
    "version", [ChromaVersion(name) for name in VERSIONS if name in LACKS], ids=str
)
def test_what_an_older_server_does_not_keep_is_refused_by_plan_and_a_newer_one_keeps_it(
    version, chroma_server, tmp_path, command
):
    """One record of many has a list, so that no sample finds it."""
    folder = tmp_path / "db"
    with chroma(folder) as client:
        made = client.create_collection(
            "docs",
            schema=with_indexes({"hnsw": {"space": "ip", "ef_search": 33}}, UNSEARCHED, None),
            embedding_function=None,
        )
        texts = [sentence(number) for number in range(300)]
        made.add(
            ids=[f"r{n}" for n in range(300)], documents=texts,
            metadatas=[{"tags": ["a", "b"]} if n == 117 else {"n": n} for n in range(300)],
            embeddings=[vector_of("old", text) for text in texts],
        )  # fmt: skip
    with run_server(tmp_path / "served", program=version.server) as older:
        to = {"target__collection": f"from-{version.name}", "swap__kind": "config"}
        path = write_manifest(tmp_path, f"chroma:{folder}", target__url=older.url, **to)
        planned = command("plan", path, "--json")
        assert planned.code == 5, planned.out
        found = [one["message"] for one in planned.json["blockers"]]
        assert len(found) == len(LACKS[version.name])
        for message, lacking in zip(found, LACKS[version.name], strict=True):
            assert older.url in message and lacking in message
        assert "record 'r117' has under 'tags'" in found[-1]
        assert any("which keeps no lists" in one["message"] for one in planned.json["warnings"])
        assert command("run", path).code == 5
        with chroma_at(older.url) as client:
            assert client.list_collections() == []
    path = write_manifest(tmp_path, f"chroma:{folder}", target__url=chroma_server.url, **to)
    assert command("run", path).code == 0
    with chroma_at(chroma_server.url) as client:
        moved = client.get_collection(to["target__collection"], embedding_function=None)
        assert key_indexes(moved) == UNSEARCHED
        assert moved.configuration_json["hnsw"]["ef_search"] == 33
        assert moved.get(ids=["r117"])["metadatas"] == [{"tags": ["a", "b"]}]


def test_a_list_that_comes_after_the_plan_is_refused_by_its_record(tmp_path, command):
    """By a backup that is restored, too, and before a collection is made."""
    folder = tmp_path / "db"
    with chroma(folder) as client:
        docs = plain_collection(client, count=12)
    with run_server(tmp_path / "served", program=ChromaVersion(VERSIONS[0]).server) as older:
        to = {"target__url": older.url, "swap__kind": "config"}
        path = write_manifest(tmp_path, f"chroma:{folder}", **to)
        assert command("run", path, "--until", "export").code == 0
        with chroma(folder) as client:
            docs = client.get_collection("docs", embedding_function=None)
            docs.update(ids=["r5"], metadatas=[{"tags": ["late"]}])
        for words in (
            ("run", path),
            ("restore", tmp_path / "b", older.url, "--collection", "docs"),
        ):
            if words[0] == "restore":
                assert command("backup", f"chroma:{folder}", "-o", tmp_path / "b").code == 0
            refused = command(*words, "--json")
            assert refused.code == 5, refused.out
            assert "record 'r5' has under 'tags'" in refused.json["error"]["message"]
        with chroma_at(older.url) as client:
            names = [one.name for one in client.list_collections()]
        assert not [name for name in names if "restored" in name], names
