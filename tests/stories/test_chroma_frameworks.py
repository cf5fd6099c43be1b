"""LangChain, LlamaIndex, Haystack, mem0 and open-webui on Chroma, in processes without reembed.

Every method that worked before their collection was moved works after it, and after the way back;
and what they add then has the vector of what was moved, if its text is the same."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reembed.commands.discover import discover
from reembed.migration import Migration
from tests.clients.driver import application, needs_clients
from tests.clients.incident import mem0_config
from tests.support.chroma_data import chroma, names_in, plain_collection
from tests.support.commands import Command
from tests.support.manifests import migration, write_group_manifest
from tests.support.servers.chroma_server import chroma_server
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import sentence

pytestmark = needs_clients

OLD, NEW = "text-embedding-3-small", "nomic-embed-text:latest"
WIDTHS = {OLD: 1536, NEW: 768}
TEXTS = [sentence(number) for number in range(12)]
NODES: list[dict[str, Any]] = [
    {"text": TEXTS[0], "metadata": {"file_name": "a.md", "page": 3, "share": 1.10, "done": True}},
    {"text": TEXTS[1], "metadata": {"file_name": "b.md", "secret": "no word of it"},
     "excluded_embed_metadata_keys": ["secret"], "excluded_llm_metadata_keys": ["file_name"]},
    {"text": TEXTS[2], "metadata": {"file_name": "c.md", "none": None},
     "metadata_template": "<{key}>{value}</{key}>", "metadata_separator": " | ",
     "text_template": "{{about}} {metadata_str}\n--\n{content}\n"},
    {"text": TEXTS[3], "metadata": {}},
    {"text": f"  {TEXTS[4]}\n", "metadata": {"title": "  Größe 日本 "}},
    {"text": TEXTS[5], "metadata": {"only": "this"}, "excluded_embed_metadata_keys": ["only"]},
    {"text": TEXTS[6], "metadata": {"file_name": "d.md"}, "kind": "Document"},
    {"text": TEXTS[7], "metadata": {"file_name": "e.md"}, "kind": "IndexNode", "index_id": "x"},
    {"text": TEXTS[8], "metadata": {"page": "f "}, "kind": "ImageDocument",
     "text_template": "[{metadata_str}] {content}"},
]  # fmt: skip


def model(embedder: EmbeddingServer, name: str) -> dict[str, Any]:
    return {
        "provider": "openai", "name": name, "base_url": embedder.openai_url,
        "dimensions": WIDTHS[name], "api_key_env": "TESTS_KEY",
    }  # fmt: skip


def manifest(folder: Path, embedder: EmbeddingServer, collection: str, **changes: Any) -> Migration:
    source = {"url": f"chroma:{folder}/db", "collection": collection,
              "model": model(embedder, OLD)} | changes.pop("source", {})  # fmt: skip
    path = folder / "m.yaml"
    data = {"name": "frameworks", "source": source, "model": model(embedder, NEW)} | changes
    path.write_text(yaml.safe_dump(data))
    return migration(path)


def stored(folder: Path, collection: str) -> dict[str, np.ndarray]:
    """Id to vector, as plain Chroma gives them."""
    with chroma(folder / "db") as client:
        found = client.get_collection(collection).get(include=["embeddings"])
    vectors = found["embeddings"]
    assert vectors is not None
    return dict(zip(found["ids"], np.asarray(vectors), strict=True))


def same_vectors(folder: Path, collection: str, moved: list[str], added: list[str]) -> None:
    vectors = stored(folder, collection)
    for one, other in zip(moved, added, strict=True):
        np.testing.assert_allclose(vectors[one], vectors[other], atol=1e-5)


def assert_goes_on(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every step of a tour worked, and gives the same answer now."""
    assert not [a for a in before.values() if isinstance(a, dict) and set(a) == {"error"}], before
    for step, answer in before.items():
        assert after[step] == answer, step


def server_of(embedder: EmbeddingServer, name: str) -> dict[str, str]:
    return {"url": embedder.openai_url, "model": name}


OPENINGS: dict[str, dict[str, Any]] = {
    "metadata": {"collection_metadata": {"hnsw:space": "cosine", "of": "theirs"}},
    "configuration": {"collection_configuration": {"hnsw": {"space": "cosine"}}},
    "nothing": {},
}


@pytest.mark.parametrize(
    "made",
    [
        "metadata",
        pytest.param("configuration", marks=pytest.mark.long),
        pytest.param("nothing", marks=pytest.mark.long),
        pytest.param("server", marks=pytest.mark.long),
    ],
)
def test_langchain_goes_on(
    made: str, embedder: EmbeddingServer, tmp_path: Path, command: Command
) -> None:
    with contextlib.ExitStack() as stack:
        url, where = f"chroma:{tmp_path}/db", {"persist_directory": f"{tmp_path}/db"}
        if made == "server":
            server = stack.enter_context(chroma_server(tmp_path / "db"))
            url, where = server.url, {"host": "127.0.0.1", "port": server.port}  # type: ignore[dict-item]
        opening = {"collection_name": "papers"} | where | OPENINGS.get(made, {})
        ids = [f"x{n}" for n in range(len(TEXTS))]
        asked = {"text": TEXTS[3], "id": "x3"}
        with application("langchain_chroma_app", tmp_path) as langchain:
            langchain("open", embedder=server_of(embedder, OLD), **opening)
            langchain("add", texts=TEXTS, ids=ids)
            before = langchain("tour", **asked)
        path = tmp_path / "unseen.yaml"
        named = f"openai:{NEW}"
        drafted = command("init", url, "--collection", "papers", "--model", named, "-o", path)
        assert drafted.code == 0, drafted.err
        data = yaml.safe_load(path.read_text())
        data["model"] = model(embedder, NEW)  # this application gives its model no prefixes
        data["swap"] = {"accept_window": True}
        path.write_text(yaml.safe_dump(data))
        moved = command("run", path, "--swap", "--json")
        assert moved.code == 0, moved.out + moved.err
        with application("langchain_chroma_app", tmp_path) as langchain:
            langchain("open", embedder=server_of(embedder, NEW), **opening)
            assert_goes_on(before, langchain("tour", **asked))
            added = langchain("add", texts=TEXTS, ids=[f"y{n}" for n in range(12)], start=100)
            if made != "server":
                same_vectors(tmp_path, "papers", ids, added)
            langchain("delete", ids=added)
            langchain("add", texts=["a text of the time after"], ids=["z"], start=900)
        refused = command("rollback", path, "--yes", "--json")
        assert "Give the old model as source.model" in refused.json["error"]["hint"]
        data["source"]["model"] = model(embedder, OLD)
        path.write_text(yaml.safe_dump(data))
        assert command("rollback", path, "--yes").code == 0
        with application("langchain_chroma_app", tmp_path) as langchain:
            langchain("open", embedder=server_of(embedder, OLD), **opening)
            before["get all"] = sorted([*ids, "z"])  # what it wrote has stayed
            assert_goes_on(before, langchain("tour", **asked))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_KEY", "of the tests")


def test_a_node_that_is_added_and_one_that_was_moved_have_the_same_vector(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    with application("llamaindex_chroma_app", tmp_path) as index:
        old = {"url": embedder.openai_url, "model": OLD}
        index("open", folder=str(tmp_path / "db"), collection="nodes", embedder=old)
        ids = index("add", nodes=NODES) + index("remember", name="Ada", said=TEXTS[9])
        assert len(ids) == len(NODES) + 2
        embedded = index("embedded", nodes=NODES)
        asked = {"text": embedded[0], "id": ids[0]}
        before = index("tour", **asked)
    drafted = discover(f"chroma:{tmp_path}/db", model=f"openai:{NEW}").manifest
    assert (drafted["source"]["layout"], drafted["line_breaks"]) == ("llamaindex", "space")
    moving = manifest(tmp_path, embedder, "nodes")
    plan = moving.plan()
    assert plan.ok, plan.blockers
    assert f"file_name: a.md\npage: 3\nshare: 1.1\ndone: True\n\n{TEXTS[0]}" in embedded
    # Ids are drawn at random, so it is any record's: a node's, or what was remembered.
    remembered = plan.example.startswith("Ada (") or TEXTS[9] in plan.example
    assert plan.example in embedded or remembered
    assert "are LlamaIndex's" in str(plan.warnings) and "line_breaks: space" in str(plan.warnings)
    result = moving.run(swap=True)
    assert result.verdict is not None and result.verdict.passed, result.verdict

    with application("llamaindex_chroma_app", tmp_path) as index:
        new = {"url": embedder.openai_url, "model": NEW}
        index("open", folder=str(tmp_path / "db"), collection="nodes", embedder=new)
        assert all(embedder.served[text] for text in embedded)
        assert_goes_on(before, index("tour", **asked))
        index("open", folder=str(tmp_path / "db"), collection="nodes", embedder=new, by="params")
        assert_goes_on(before, index("tour", **asked))
        again = index("add", nodes=NODES) + index("remember", name="Ada", said=TEXTS[9])
        assert index("query", text=TEXTS[0])[0]["text"] == TEXTS[0]
    same_vectors(tmp_path, "nodes", ids, again)
    moving.rollback()  # what was added goes back with the text that the old model was given
    same_vectors(tmp_path, "nodes", ids, again)


def test_a_memory_on_chroma_that_is_added_and_one_that_was_moved_have_the_same_vector(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    ann = {"user_id": "ann"}
    texts = [*TEXTS, "two lines\nof one memory"]

    def config(name: str) -> dict[str, Any]:
        made = mem0_config("", embedder.url, tmp_path / "history.db")
        where = {"path": str(tmp_path / "db"), "collection_name": "memories"}
        made["vector_store"] = {"provider": "chroma", "config": where}
        made["embedder"]["config"] |= {"model": name, "embedding_dims": WIDTHS[name]}
        return made

    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=config(OLD))
        ids = [mem0("add", text=text, metadata={"n": n}, **ann) for n, text in enumerate(texts)]
        before = mem0("tour", text=texts[0], id=ids[0], config=config(OLD), **ann)
    drafted = discover(f"chroma:{tmp_path}/db", "memories", model=f"openai:{NEW}").manifest
    assert (drafted["source"]["layout"], drafted["line_breaks"]) == ("mem0", "space")
    layout = {"layout": drafted["source"]["layout"]}
    moving = manifest(tmp_path, embedder, "memories", source=layout, line_breaks="space")
    plan = moving.plan()
    assert plan.ok, plan.blockers
    result = moving.run(swap=True)
    assert (result.quarantined, result.loaded) == (0, len(texts))
    assert result.verdict is not None and result.verdict.passed, result.verdict

    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=config(NEW))
        after = mem0("tour", text=texts[0], id=ids[0], config=config(NEW), **ann)
        assert_goes_on(before, after)
        again = [mem0("add", text=text, user_id="bob") for text in texts]
    same_vectors(tmp_path, "memories", ids, again)


def test_haystack_goes_on_with_the_fields_that_it_embeds(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    """Its store records Chroma's `default`, which has made none of its vectors."""
    extras: list[dict[str, Any]] = [{"title": "a title"}, {"done": True, "share": 1 / 3}, {}]
    documents: list[dict[str, Any]] = [
        {"id": f"d{n}", "content": text, "meta": {"n": n, **extras[n % 3]}}
        for n, text in enumerate(TEXTS)
    ]
    opening = {
        "collection_name": "papers", "persist_path": str(tmp_path / "db"),
        "distance_function": "cosine", "fields": ["title", "done", "share", "n"],
    }  # fmt: skip
    with application("haystack_app", tmp_path) as haystack:
        haystack("open", embedder=server_of(embedder, OLD), **opening)
        haystack("add", documents=documents)
        before = haystack("tour", id="d3")
    text = "".join(f"{{metadata.{field}|\n}}" for field in opening["fields"]) + "{document}"
    moving = manifest(tmp_path, embedder, "papers", text=text)
    assert moving.plan().ok
    result = moving.run(swap=True)
    assert result.verdict is not None and result.verdict.passed, result.verdict
    with application("haystack_app", tmp_path) as haystack:
        haystack("open", embedder=server_of(embedder, NEW), **opening)
        assert_goes_on(before, haystack("tour", id="d3"))
        again = [one | {"id": f"again-{one['id']}"} for one in documents]
        haystack("add", documents=again)
    ids, added = [one["id"] for one in documents], [one["id"] for one in again]
    same_vectors(tmp_path, "papers", ids, added)
    moving.rollback()
    same_vectors(tmp_path, "papers", ids, added)


def test_open_webui_goes_on_with_all_its_collections(
    embedder: EmbeddingServer, tmp_path: Path, command: Command
) -> None:
    url, folder = f"chroma:{tmp_path}/db", str(tmp_path / "db")
    files = {f"file-{n}": [f"{one}\nsecond line" for one in TEXTS[n : n + 4]] for n in range(3)}
    files["user-memory-7"] = TEXTS[9:]
    with application("openwebui_app", tmp_path) as webui:
        webui("open", folder=folder, embedder=server_of(embedder, OLD))
        for name, texts in files.items():
            webui("insert", collection=name, texts=texts, ids=[f"{name}-{t}" for t in texts])
        asked = [{"collection": name, "id": f"{name}-{texts[0]}"} for name, texts in files.items()]
        before = [webui("tour", **one) for one in asked]
    path = write_group_manifest(
        tmp_path, url, line_breaks="space", model=model(embedder, NEW),
        source__model=model(embedder, OLD),
    )  # fmt: skip
    moved = command("run", path, "--swap", "--json")
    assert moved.code == 0, moved.out + moved.err
    with application("openwebui_app", tmp_path) as webui:
        webui("open", folder=folder, embedder=server_of(embedder, NEW))
        for one, tour in zip(asked, before, strict=True):
            assert_goes_on(tour, webui("tour", **one))
        for name, texts in files.items():
            added = [f"again-{text}" for text in texts]
            webui("insert", collection=name, texts=texts, ids=added)
            same_vectors(tmp_path, name, [f"{name}-{text}" for text in texts], added)
            webui("delete", collection=name, ids=added)
        webui("insert", collection="file-late", texts=["of the new model"], ids=["late"])
    assert command("rollback", path, "--yes").code == 0
    with application("openwebui_app", tmp_path) as webui:
        webui("open", folder=folder, embedder=server_of(embedder, OLD))
        for one, tour in zip(asked, before, strict=True):
            assert_goes_on(tour, webui("tour", **one))
    assert "file-late" in names_in(url)


def test_records_of_open_webui_are_told_and_sent_with_blanks(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    config = json.dumps({"engine": "openai", "model": OLD})
    text = "first line\nsecond line"
    with chroma(tmp_path / "db") as client:
        client.create_collection("file-1", embedding_function=None).add(
            ids=["a"], documents=[text], embeddings=np.ones((1, WIDTHS[OLD]), np.float32),
            metadatas=[{"name": "a.txt", "embedding_config": config}],
        )  # fmt: skip
    drafted = discover(f"chroma:{tmp_path}/db").manifest
    assert drafted["line_breaks"] == "space" and "layout" not in drafted["source"]
    told = manifest(tmp_path, embedder, "file-1").plan().warnings
    assert [one.hint for one in told if "open-webui" in one.message] == [
        "Set line_breaks: space, next to text."
    ]
    unasked = {"model": None}  # the old model, which is asked for the document as it is, too
    moving = manifest(tmp_path, embedder, "file-1", line_breaks="space", source=unasked)
    assert not [one for one in moving.plan().warnings if "open-webui" in one.message]
    before = embedder.served[text]
    moving.run(until="embed")
    assert embedder.served["first line second line"] and embedder.served[text] == before


def test_plain_embeds_the_document_alone_and_a_layout_that_nothing_has_is_refused(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    with chroma(tmp_path / "db") as client:
        plain_collection(client)
    for layout in ("llamaindex", "mem0"):
        plan = manifest(tmp_path, embedder, "docs", source={"layout": layout}).plan()
        assert [p.hint for p in plan.blockers] == (
            ["Leave it out: each record is then read as what it is."]
            if layout == "llamaindex"
            else []
        )
    assert manifest(tmp_path, embedder, "docs", source={"layout": "plain"}).plan().ok
