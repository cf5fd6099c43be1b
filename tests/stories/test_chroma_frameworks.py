"""LlamaIndex and mem0 on Chroma, in processes without reembed: what they add after the move of
their collection has the vector of what was moved, if its text is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reembed.discover import discover
from reembed.migration import Migration
from tests.clients.driver import application, needs_clients
from tests.clients.incident import mem0_config
from tests.support.helpers import chroma, migration, plain_collection, sentence
from tests.support.servers.embedding_server import EmbeddingServer

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


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_KEY", "of the tests")


def test_a_node_that_is_added_and_one_that_was_moved_have_the_same_vector(
    embedder: EmbeddingServer, tmp_path: Path
) -> None:
    with application("llamaindex_chroma_app", tmp_path) as index:
        old = {"url": embedder.openai_url, "model": OLD}
        index("open", folder=str(tmp_path / "db"), collection="nodes", embedder=old)
        ids = index("add", nodes=NODES)
        embedded = index("embedded", nodes=NODES)
    drafted = discover(f"chroma:{tmp_path}/db", model=f"openai:{NEW}").manifest
    assert (drafted["source"]["layout"], drafted["line_breaks"]) == ("llamaindex", "space")
    moving = manifest(tmp_path, embedder, "nodes")
    plan = moving.plan()
    assert plan.ok, plan.blockers
    assert f"file_name: a.md\npage: 3\nshare: 1.1\ndone: True\n\n{TEXTS[0]}" in embedded
    assert plan.example in embedded
    assert "are LlamaIndex's" in str(plan.warnings) and "line_breaks: space" in str(plan.warnings)
    result = moving.run(swap=True)
    assert result.verdict is not None and result.verdict.passed, result.verdict

    with application("llamaindex_chroma_app", tmp_path) as index:
        new = {"url": embedder.openai_url, "model": NEW}
        index("open", folder=str(tmp_path / "db"), collection="nodes", embedder=new)
        assert all(embedder.served[text] for text in embedded)
        again = index("add", nodes=NODES)
        assert index("query", text=TEXTS[0])[0]["text"] == TEXTS[0]
    vectors = stored(tmp_path, "nodes")
    for moved, added in zip(ids, again, strict=True):
        np.testing.assert_allclose(vectors[moved], vectors[added], atol=1e-5)
    moving.rollback()  # what was added goes back with the text that the old model was given
    back = stored(tmp_path, "nodes")
    for moved, added in zip(ids, again, strict=True):
        np.testing.assert_allclose(back[moved], back[added], atol=1e-5)


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
        assert mem0("search", query=texts[0], filters=ann)[0]["id"] == ids[0]
        again = [mem0("add", text=text, user_id="bob") for text in texts]
    vectors = stored(tmp_path, "memories")
    for moved, added in zip(ids, again, strict=True):
        np.testing.assert_allclose(vectors[moved], vectors[added], atol=1e-5)


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
        "Say line_breaks: space, beside text."
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
