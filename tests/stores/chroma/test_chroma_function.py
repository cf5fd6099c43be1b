"""The embedding function that a shadow carries, and what a persisted one tells."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.utils.embedding_functions import known_embedding_functions

from reembed.embedders import kept
from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.stores.chroma import function as chroma_function
from reembed.stores.chroma.recorded import model_of
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec
from tests.stores.contract.records import simple, vectors
from tests.support.chroma_cases import PYTHON, new_chroma_folder, points
from tests.support.chroma_data import chroma
from tests.support.stores import database_of

OPENAI = {"provider": "openai", "name": "text-embedding-3-small"}
NOMIC = {
    "provider": "ollama", "name": "nomic-embed-text", "dimensions": 768,
    "document_prefix": "search_document: ", "query_prefix": "search_query: ",
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    yield opened
    opened.close()


def persisted(store, model: Model) -> dict[str, Any]:
    made = store.to_write().create(
        CollectionSpec(
            "shadow", dimensions=4, metric="cosine", index={}, metadata=None, model=model
        )
    )
    with chroma(database_of(store).path) as client:
        found = client.get_collection("shadow", embedding_function=None)
        recorded: dict[str, Any] = found.configuration_json["embedding_function"]
    assert store.catalog.describe_id(made.id).model == model_of(recorded)
    return recorded


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (OPENAI, "openai"),
        (OPENAI | {"dimensions": 256}, "openai"),
        (OPENAI | {"options": {"batch_api": True}}, "openai"),
        ({"provider": "openai", "name": "text-embedding-ada-002", "dimensions": 1536}, "openai"),
        ({"provider": "openai", "name": "other-model"}, "openai"),
        ({"provider": "openai", "name": "other-model", "base_url": "http://h/v1"}, "openai"),
        # Chroma's function would leave these out, or use another key:
        ({"provider": "openai", "name": "other-model", "dimensions": 256}, "reembed"),
        (OPENAI | {"base_url": "http://h/v1", "api_key_env": "OTHER_KEY"}, "reembed"),
        (OPENAI | {"query_prefix": "q: "}, "reembed"),
        (OPENAI | {"normalize": True}, "reembed"),
        (OPENAI | {"on_too_long": "mean"}, "reembed"),
        ({"provider": "ollama", "name": "all-minilm"}, "ollama"),
        ({"provider": "ollama", "name": "all-minilm", "dimensions": 384}, "reembed"),
        (NOMIC, "reembed"),
        ({"provider": "static", "name": "wordllama"}, "reembed"),
        ({"provider": "chroma", "name": "default"}, "default"),
        ({"provider": "chroma", "name": "cohere",
          "options": {"model_name": "m", "api_key_env_var": "COHERE_KEY"}}, "cohere"),
        ({"provider": "chroma", "name": "default", "document_prefix": "d: "}, "reembed"),
    ],
)  # fmt: skip
def test_the_function_recorded_is_chromas_own_only_where_it_gives_the_same_vectors(
    store, monkeypatch, keys, name
):
    for variable in ("OPENAI_API_KEY", "CHROMA_OPENAI_API_KEY", "COHERE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    assert persisted(store, Model.model_validate(keys))["name"] == name


@pytest.mark.parametrize(
    "keys",
    [
        OPENAI | {"dimensions": 256, "base_url": "http://h/v1", "api_key_env": "OPENAI_API_KEY"},
        {"provider": "ollama", "name": "all-minilm", "base_url": "http://h:11434"},
        NOMIC | {"normalize": False, "max_tokens": 2048, "on_too_long": "truncate"},
        {"provider": "openai", "name": "m", "dimensions": 3, "api_key_env": "MY_KEY"},
        {"provider": "static", "name": "wordllama", "options": {"a": [1, {"b": None}]}},
        {"provider": "chroma", "name": "default"},
        {"provider": "chroma", "name": "cohere", "options": {"model_name": "m", "x": 1}},
        {"provider": "python", "name": "my.module:embed"},
    ],
)
def test_what_is_recorded_tells_the_model_again_and_no_secret(store, monkeypatch, keys):
    for variable in ("OPENAI_API_KEY", "MY_KEY", "OTHER_KEY"):
        monkeypatch.setenv(variable, "not-a-real-key")
    recorded = persisted(store, Model.model_validate(keys))
    told = model_of(recorded)
    assert told == keys
    assert "not-a-real-key" not in json.dumps(recorded)


def test_recording_needs_no_key_and_leaves_chromas_registry_alone(store, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = dict(known_embedding_functions)
    recorded = persisted(store, Model.model_validate(OPENAI | {"dimensions": 256}))
    assert known_embedding_functions == before
    assert recorded["config"]["api_key_env_var"] == "OPENAI_API_KEY"
    assert recorded["config"]["dimensions"] == 256
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key")
    built = known_embedding_functions["openai"].build_from_config(recorded["config"])
    assert built.get_config() == recorded["config"]


def test_ollamas_address_is_where_the_run_found_it(store, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "http://gpu-box:11434")
    recorded = persisted(store, Model(provider="ollama", name="all-minilm"))
    assert recorded["config"]["url"] == "http://gpu-box:11434"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (None, None),
        ({"type": "legacy"}, None),
        ({"type": "unknown"}, None),
        ({"type": "known", "name": "reembed", "config": {"provider": "gone"}}, None),
        ({"type": "known", "name": "openai", "config": {"api_type": "azure"}}, None),
        ({"type": "known", "name": "openai", "config": {}}, None),
        (
            {"type": "known", "name": "ollama",
             "config": {"url": "http://h:1/api/embeddings", "model_name": "m", "timeout": 60}},
            {"provider": "ollama", "name": "m", "base_url": "http://h:1"},
        ),
        (
            {"type": "known", "name": "a-custom-one", "config": {"x": 1}},
            {"provider": "chroma", "name": "a-custom-one", "options": {"x": 1}},
        ),
        (
            {"type": "known", "name": "onnx_mini_lm_l6_v2", "config": {"providers": None}},
            {"provider": "chroma", "name": "onnx_mini_lm_l6_v2", "options": {"providers": None}},
        ),
    ],
)  # fmt: skip
def test_a_function_on_record_is_read_without_building_it(function, told):
    if told is None and function and function.get("config", {}).get("api_type") == "azure":
        told = {"provider": "chroma", "name": "openai", "options": {"api_type": "azure"}}
    assert model_of(function) == told


def test_a_function_nobody_registered_is_described_not_raised(store):
    with chroma(database_of(store).path) as client:
        made = client.create_collection("theirs", embedding_function=None)
        made.add(ids=["a"], embeddings=points([1, 2]))
    connection = sqlite3.connect(database_of(store).path / "chroma.sqlite3")
    connection.execute(
        "UPDATE collections SET schema_str = replace(schema_str, ?, ?)",
        ('"source_key"', '"embedding_function":{"type":"known","name":"of-an-application",'
                         '"config":{}},"source_key"'),
    )  # fmt: skip
    connection.commit()
    connection.close()
    info = store.catalog.describe("theirs")
    assert info.model == {"provider": "chroma", "name": "of-an-application"}
    assert store.reader.fetch(info.id, ["a"], vectors=True).num_rows == 1
    with pytest.raises(PreflightError, match="of-an-application"):
        chroma_function.open_recorded(info.model, [], "theirs")


MODULE = """
import numpy as np
def embed(texts):
    return np.array([[1, 0, 0, 0] if text.startswith("q: ") else [0, 1, 0, 0] for text in texts])
"""

APPLICATION = '''
import sys, chromadb
{imports}
client = chromadb.PersistentClient(sys.argv[1])
found = client.get_collection("docs").query(query_texts=["which?"], n_results=1)
print(found["ids"][0][0])
'''  # fmt: skip


def run_application(store, folder, imports):
    (folder / "my_model.py").write_text(MODULE)
    return subprocess.run(
        [
            PYTHON, "-W", "ignore", "-c", APPLICATION.format(imports=imports),
            str(database_of(store).path),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())])},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def migrated(store):
    model = Model(provider="python", name="my_model:embed", query_prefix="q: ")
    id = (
        store.to_write()
        .create(
            CollectionSpec(
                "docs", dimensions=4, metric="cosine", index={}, metadata=None, model=model
            )
        )
        .id
    )
    given = np.eye(4, dtype=np.float32)
    store.to_write().write(id, simple(4), given, "add")
    return store


def test_an_application_in_a_fresh_process_asks_with_the_model_of_the_shadow(migrated, tmp_path):
    """Its query goes through the query prefix, so it lies on the first axis."""
    word = '{"provider": "python", "name": "my_model:embed"}'
    ran = run_application(migrated, tmp_path, f"import reembed.live as live; live.trust({word})")
    assert ran.stdout == "r00000\n", ran.stderr


def test_without_the_applications_word_the_code_that_a_store_names_is_not_called(
    migrated, tmp_path
):
    ran = run_application(migrated, tmp_path, "import reembed.live")
    assert ran.returncode != 0
    assert "python my_model:embed: it is code" in ran.stderr
    assert "reembed.live.trust(" in ran.stderr


def test_without_the_import_chroma_names_the_function_it_lacks(migrated, tmp_path):
    ran = run_application(migrated, tmp_path, "")
    assert ran.returncode != 0
    assert "reembed not found" in ran.stderr


def test_importing_reembed_imports_no_chroma():
    code = "import sys, reembed; sys.exit('chromadb' in sys.modules)"
    assert subprocess.run([PYTHON, "-c", code], timeout=60, check=False).returncode == 0


def test_a_document_that_the_model_rejects_is_an_error_and_no_zero_vector(monkeypatch):
    class Rejecting:
        def embed_documents(self, texts):
            return type("Embedded", (), {"vectors": np.zeros((1, 4)), "rejected": {0: "too long"}})

    function = chroma_function.ReembedEmbeddingFunction(Model(provider="static", name="x"))
    monkeypatch.setattr(kept, "_opened", lambda _: Rejecting())
    with pytest.raises(PreflightError, match="too long"):
        function(["text"])


def test_query_vectors_of_the_function_are_the_embedders(monkeypatch):
    class Embedding:
        def embed_queries(self, texts):
            return vectors(len(texts))

    function = chroma_function.ReembedEmbeddingFunction(Model(provider="static", name="x"))
    monkeypatch.setattr(kept, "_opened", lambda _: Embedding())
    np.testing.assert_array_equal(np.array(function.embed_query(["a", "b"])), vectors(2))
