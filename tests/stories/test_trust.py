"""A store's word is data: whatever it says of a model, nothing is called, read, looked up or asked.

The same models are on record as Chroma's function `reembed`, in a pointer, and in the comment of a
column of Postgres; Chroma's own functions are on record as Chroma keeps them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from reembed import live
from reembed.embedders import recorded
from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.migration import Migration
from reembed.progress import Progress
from reembed.stages.session import Session
from reembed.stores.chroma import recording
from reembed.stores.chroma.pointer import name_of
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.pg_docs import identity
from tests.support.texts import CASES, ROOT, vector_of
from tests.support.watch import SECRET, Watch, watching

OPENAI = {"provider": "openai", "name": "text-embedding-3-small"}
OLLAMA = {"provider": "ollama", "name": "nomic-embed-text"}


def models(url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Models as a store may have them on record, each of which would reach for something."""
    key = {"api_key_env": "CANARY_SECRET"}
    by_chroma = {"api_key_env_var": "CANARY_SECRET"}
    return {
        "a key to a foreign host": {**OPENAI, "base_url": url, **key},
        "texts to a foreign host": {**OPENAI, "base_url": url},
        "another key to the provider": {**OPENAI, **key},
        "a host with a password": {**OPENAI, "base_url": url.replace("//", "//canary:word@")},
        "a foreign ollama": {**OLLAMA, "base_url": url},
        "a key to ollama": {**OLLAMA, **key},
        "ollama under another name": {**OLLAMA, "base_url": url.removeprefix("http://")},
        "a module": {"provider": "python", "name": "canary_module:embed"},
        "a program": {"provider": "python", "name": "subprocess:getoutput"},
        "a package": {"provider": "onnx", "name": "package:canary_module"},
        "a folder for onnx": {"provider": "onnx", "name": str(folder)},
        "a folder for static": {"provider": "static", "name": str(folder)},
        "a folder by a way round": {"provider": "static", "name": f"../{folder.name}"},
        "a folder for PyTorch": {"provider": "sentence-transformers", "name": str(folder)},
        "a tokenizer": {**OLLAMA, "options": {"tokenizer": str(folder / "tokenizer.json")}},
        "a tokenizer in a package": {**OPENAI, "options": {"tokenizer": "package:canary_module/x"}},
        "a server of Chroma's": {
            "provider": "chroma", "name": "huggingface_server",
            "options": {"url": url, **by_chroma},
        },
        "a key of Chroma's": {
            "provider": "chroma", "name": "cohere", "options": {"model_name": "large", **by_chroma},
        },
        "a folder of Chroma's": {
            "provider": "chroma", "name": "sentence_transformer",
            "options": {"model_name": str(folder), "device": "cpu", "normalize_embeddings": False,
                        "kwargs": {"trust_remote_code": True}},
        },
        "reembed in reembed": {
            "provider": "chroma", "name": "reembed",
            "options": {"provider": "python", "name": "canary_module:embed"},
        },
        "what no manifest says": {"provider": "python", "name": "canary_module:embed", "more": 1},
        "a very long one": {**OLLAMA, "query_prefix": "x" * 100_000},
    }  # fmt: skip


def functions(url: str, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Chroma's own functions, as Chroma has them on record."""
    key = {"api_key_env_var": "CANARY_SECRET"}
    return {
        "openai elsewhere": ("openai", {"model_name": "m", "api_base": url, **key}),
        "openai of Azure": (
            "openai", {"model_name": "m", "api_base": url, "api_type": "azure", **key},
        ),
        "ollama elsewhere": ("ollama", {"url": url, "model_name": "m", "timeout": 1}),
        "roboflow elsewhere": ("roboflow", {"api_url": url, **key}),
        "morph elsewhere": (
            "morph", {"model_name": "m", "api_base": url, "encoding_format": "float", **key},
        ),
        "cloudflare's other account": (
            "cloudflare_workers_ai", {"model_name": "m", "account_id": "canary", **key},
        ),
        "a checkpoint": (
            "open_clip", {"model_name": "m", "checkpoint": str(folder / "w.pt"), "device": "cpu"},
        ),
        "text2vec from a folder": ("text2vec", {"model_name": str(folder)}),
    }  # fmt: skip


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(recorded, "_TRUSTED", {})
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / "canary_folder"
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json", "model.safetensors", "config.json", "w.pt"):
        (folder / name).write_text("{}")
    place = tmp_path / "manifests"
    place.mkdir()
    (place / "canary_module.py").write_text("raise SystemExit('it was called')")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.syspath_prepend(str(CASES))
    monkeypatch.chdir(place)
    with watching(folder) as on:
        yield on


def slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def record(client: Any, name: str, function: tuple[str, dict[str, Any]] | None) -> Any:
    """A collection of three records that has this function on record."""
    with recording.recording():
        made = client.create_collection(
            name,
            embedding_function=recording._Record.of(*function) if function else None,
            configuration={"hnsw": {"space": "cosine"}},
        )
    bare = client.get_collection(name, embedding_function=None)
    bare.get_model()["serialized_schema"] = None  # or Chroma would build the function itself
    bare.add(
        ids=["a", "b", "c"], documents=["one", "two", "three"],
        embeddings=[vector_of("old", text) for text in ("one", "two", "three")],
    )  # fmt: skip
    return made


@pytest.fixture
def store(tmp_path: Path, watch: Watch) -> tuple[Path, list[str]]:
    """A Chroma folder with every model in its three places, and the live names."""
    folder, names = tmp_path / "store", []
    with chroma(folder) as client:
        for title, keys in models(watch.url, watch.folder).items():
            names.append(f"own-{slug(title)}")
            record(client, names[-1], ("reembed", keys))
            names.append(f"pointed-{slug(title)}")
            target = record(client, f"{names[-1]}-target", None)
            client.create_collection(
                name_of(names[-1]), embedding_function=None,
                metadata={"reembed:pointer": 1, "live": names[-1], "target_id": str(target.id),
                          "target": target.name, "generation": "odd", "model": json.dumps(keys)},
            )  # fmt: skip
        for title, function in functions(watch.url, watch.folder).items():
            names.append(f"chromas-{slug(title)}")
            record(client, names[-1], function)
    watch.reached.clear()
    return folder, names


def test_an_application_that_opens_the_live_name_reaches_nothing(
    store: tuple[Path, list[str]], watch: Watch
) -> None:
    folder, names = store
    assert len(names) >= 40
    for name in names:
        with live.open(f"chroma:{folder}", name) as docs:
            with pytest.raises(PreflightError, match=r"call reembed\.live\.trust") as refused:
                docs.query(query_texts=["what?"], n_results=1)
            assert SECRET not in str(refused.value)
            assert docs.get(ids=["a"])["documents"] == ["one"]
            docs.add(["new"], documents=["x"], embeddings=[vector_of("old", "x").tolist()])
            found = docs.query(query_embeddings=[vector_of("old", "x").tolist()], n_results=1)
            assert found["ids"] == [["new"]], "what needs no model goes on"
    assert watch.reached == []


PLAIN = """
import sys, json, logging, chromadb
from pathlib import Path
import reembed.live
from tests.support.watch import watching
told = {}
client = chromadb.PersistentClient(sys.argv[1])
with watching(Path(sys.argv[2])) as watch:
    for name in sys.argv[3:]:
        collection = client.get_collection(name)
        try:
            collection.query(query_texts=["what?"], n_results=1)
            told[name] = "answered"
        except Exception as error:
            told[name] = str(error)
        try:
            collection.add(ids=["more"], documents=["more"])
            told[name] = "added"
        except Exception as error:
            pass
print(json.dumps([told, watch.reached]))
"""


def test_a_plain_chroma_client_that_imports_reembed_live_reaches_nothing(
    store: tuple[Path, list[str]], watch: Watch
) -> None:
    folder, names = store
    own = [name for name in names if name.startswith("own-")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, str(folder), str(watch.folder), *own],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, reached = json.loads(done.stdout.splitlines()[-1])
    assert reached == []
    assert not [one for one in watch.reached if one.startswith("host")], "in this process"
    assert {name for name, what in told.items() if "reembed.live.trust" in what} == set(own)
    assert SECRET not in done.stdout + done.stderr


def old_model(manifest: Manifest) -> tuple[Any, str]:
    """What a run asks for the old model, and why there is none."""
    with Session(manifest, None, Progress(), writes=False) as session:
        return session.old_embedder, session.old_model_note


def manifest_of(url: str, collection: str) -> Manifest:
    """Its own model is one that nothing on record has to do with."""
    return Manifest.parse(
        {"name": "m", "source": {"url": url, "collection": collection},
         "model": {"provider": "python", "name": "counting_model:new"}},
        base_dir=Path.cwd(),
    )  # fmt: skip


def test_a_run_calls_no_old_model_that_chroma_alone_names(
    store: tuple[Path, list[str]], watch: Watch
) -> None:
    folder, names = store
    for name in names:
        if name.startswith("pointed-"):
            continue
        found, note = old_model(manifest_of(f"chroma:{folder}", name))
        assert found is None
        assert "its word is not enough" in note or "recorded none" in note
        assert SECRET not in note
    assert watch.reached == []


def test_a_run_calls_no_old_model_that_a_comment_in_postgres_names(
    postgres_url: str, watch: Watch
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, body text, v vector(48))")
        connection.execute("INSERT INTO docs VALUES ('a', 'one', array_fill(1, '{48}')::vector)")
        for keys in models(watch.url, watch.folder).values():
            whose = identity(connection, "docs")
            note = sql.Literal("reembed:" + json.dumps({"model": keys, "of": whose}))
            connection.execute(sql.SQL("COMMENT ON COLUMN docs.v IS {}").format(note))
            found, told = old_model(manifest_of(postgres_url, "docs"))
            assert found is None
            assert "its word is not enough" in told
    assert watch.reached == []


def test_parts_of_a_comment_do_not_become_statements(postgres_url: str, tmp_path: Path) -> None:
    """`indexes` and `index` decide how an index is made."""
    evil = "hnsw (v vector_l2_ops); CREATE TABLE canary (); --"
    notes: list[Any] = [
        {"index": {"type": evil}}, {"index": {"type": "hnsw", "m": evil}}, {"metric": evil},
        {"indexes": [{"name": "i", "tail": evil}]}, {"indexes": [{"name": 1}]}, {"indexes": {}},
        {"settling": {"checks": [1], "not_null": ""}}, {"like": "1"}, {"stands_for": [1]},
        {"model": evil}, {"metadata": 3}, {"comment": {}}, {"not_null": evil}, [1], 7,
    ]  # fmt: skip
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, body text, v vector(48))")
        for row in range(20):
            vector = str(vector_of("old", str(row)).tolist())
            connection.execute("INSERT INTO docs VALUES (%s, %s, %s)", [row, f"text {row}", vector])
        for number, note in enumerate(notes):
            if isinstance(note, dict):  # as if it were this table's own
                note |= {"of": identity(connection, "docs")}
            text = sql.Literal("reembed:" + json.dumps(note))
            connection.execute(sql.SQL("COMMENT ON COLUMN docs.v IS {}").format(text))
            path = write_manifest(
                tmp_path, postgres_url, name=f"n{number}", verify__sample=100,
                target={"collection": f"shadow{number}"},
            )  # fmt: skip
            assert Migration(Manifest.load(path)).plan().ok
        Migration(Manifest.load(path)).run()
        assert connection.execute("SELECT to_regclass('canary')").fetchone() == (None,)


def test_an_index_of_a_comment_is_one_statement(postgres_url: str, tmp_path: Path) -> None:
    """Whoever owns the table can write what its vectors' index is to be: an index, and no more."""
    evil = {
        "name": "i", "unique": False, "space": None, "comment": None, "clustered": False,
        "constraint": None, "about": None, "statistics": [],
        "tail": " USING hnsw (reembed_incoming vector_l2_ops); CREATE TABLE canary ()",
    }  # fmt: skip
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, body text, v vector(48))")
        connection.execute("CREATE VIEW seen AS SELECT id FROM docs")
        for row in range(20):
            vector = str(vector_of("old", str(row)).tolist())
            connection.execute("INSERT INTO docs VALUES (%s, %s, %s)", [row, f"text {row}", vector])
        path = write_manifest(tmp_path, postgres_url, target={"collection": "shadow"})
        one = Migration(Manifest.load(path))
        one.run()
        found = connection.execute("SELECT col_description('shadow'::regclass, 3)").fetchone()
        assert found is not None
        note = json.loads(found[0].removeprefix("reembed:")) | {"indexes": [evil]}
        connection.execute(
            sql.SQL("COMMENT ON COLUMN shadow.v IS {}").format(
                sql.Literal("reembed:" + json.dumps(note))
            )
        )
        with pytest.raises(PreflightError, match="cannot insert multiple commands"):
            one.swap()
        assert connection.execute("SELECT to_regclass('canary')").fetchone() == (None,)


def test_plan_shows_what_is_not_believed_and_what_to_write_makes_it_so(
    tmp_path: Path, watch: Watch, command: Command
) -> None:
    keys = {"provider": "ollama", "name": "old", "base_url": watch.url, "query_prefix": "q: "}
    folder = tmp_path / "db"
    with chroma(folder) as client:
        record(client, "docs", ("reembed", keys))
    model = {"provider": "python", "name": "counting_model:new"}
    path = write_manifest(tmp_path, f"chroma:{folder}", model=model, source__model=None)
    shown = command("plan", path, "--json")
    assert shown.code == 0, shown.err
    assert shown.json["old_model"] == {
        "said": keys, "believed": False,
        "not_believed": [f"base_url {watch.url}: texts and keys would go there"],
    }  # fmt: skip
    [warning] = [
        one for one in shown.json["warnings"] if "its word is not enough" in one["message"]
    ]
    assert "not believed, see below" in command("plan", path).out
    assert watch.reached == []
    written = json.loads(warning["hint"].partition("model: ")[2])
    write_manifest(tmp_path, f"chroma:{folder}", model=model, source__model=written)
    again = command("plan", path, "--json")
    assert not [one for one in again.json["warnings"] if "not enough" in one["message"]]
    assert again.json["old_model"]["given"] == "ollama old"
    assert "ollama old, as the manifest says" in command("plan", path).out
    assert [one for one in watch.reached if one.startswith("host")], "now it is asked"
    found, note = old_model(Manifest.load(path))
    assert found is None
    assert "cannot be called" in note, "the server answers 401"


def test_a_drafted_manifest_holds_a_stores_words_in_one_comment(
    tmp_path: Path, watch: Watch, command: Command
) -> None:
    keys = {"provider": "python", "name": "x:y\nswap: {before: touch canary}\n#"}
    with chroma(tmp_path / "db") as client:
        record(client, "docs", ("reembed", keys))
    drafted = command("init", f"chroma:{tmp_path / 'db'}", "-o", tmp_path / "m.yaml")
    assert drafted.code == 0, drafted.err
    assert "swap" not in Manifest.load(tmp_path / "m.yaml").to_dict()["swap"].values()
    assert Manifest.load(tmp_path / "m.yaml").swap.before is None


@pytest.mark.parametrize(
    ("said", "word", "used"),
    [
        ({**OPENAI, "api_key_env": "OPENAI_API_KEY"}, None, OPENAI),
        ({**OPENAI, "base_url": "https://api.openai.com/v1/"}, None, OPENAI),
        ({**OLLAMA, "base_url": "http://localhost:11434"}, None, OLLAMA),
        ({**OLLAMA, "base_url": "http://gpu:1"}, {**OLLAMA, "base_url": "http://GPU:1/"},
         {**OLLAMA, "base_url": "http://GPU:1/"}),
        ({**OLLAMA, "base_url": "http://gpu:1"}, {**OLLAMA, "base_url": "http://gpu:2"}, None),
        ({**OPENAI, "base_url": "http://h/v1", "api_key_env": "K"},
         {**OPENAI, "name": "new", "base_url": "http://h/v1", "api_key_env": "K"},
         {**OPENAI, "base_url": "http://h/v1", "api_key_env": "K"}),
        ({**OPENAI, "base_url": "http://h/v1", "api_key_env": "OTHER"},
         {**OPENAI, "base_url": "http://h/v1", "api_key_env": "K"}, None),
        ({**OPENAI, "api_key_env": "OTHER"}, OPENAI, None),
        ({"provider": "static", "name": "wordllama", "query_prefix": "q"}, None,
         {"provider": "static", "name": "wordllama", "query_prefix": "q"}),
        ({"provider": "python", "name": "a:b", "dimensions": 3},
         {"provider": "python", "name": "a:b"},
         {"provider": "python", "name": "a:b", "dimensions": 3}),
        ({"provider": "python", "name": "a:c"}, {"provider": "python", "name": "a:b"}, None),
        ({"provider": "onnx", "name": "d", "options": {"tokenizer": "/t"}},
         {"provider": "onnx", "name": "d"}, None),
        ({**OLLAMA, "options": {"timeout": 1e9, "retry_attempts": 10**9}}, None, OLLAMA),
        ({"provider": "chroma", "name": "default"}, None,
         {"provider": "chroma", "name": "default"}),
        ({"provider": "chroma", "name": "text2vec"}, None, None),
    ],
)  # fmt: skip
def test_what_is_believed_and_on_whose_word(
    monkeypatch: pytest.MonkeyPatch, said: Any, word: Any, used: Any
) -> None:
    from reembed.manifest import Model

    for name in ("OPENAI_BASE_URL", "OLLAMA_HOST", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(recorded, "_TRUSTED", {})
    found = recorded.believe(said, [Model.model_validate(word)] if word else [])
    assert found is not None
    assert (found.model.to_dict() if found.model else None) == used
    assert bool(found.doubts) is (used is None)


def test_an_application_trusts_by_model_mapping_and_manifest(tmp_path: Path, watch: Watch) -> None:
    folder = tmp_path / "db"
    keys = {"provider": "python", "name": "counting_model:old"}
    with chroma(folder) as client:
        record(client, "docs", ("reembed", keys))
    manifest = write_manifest(tmp_path, f"chroma:{folder}")
    for word in (keys, manifest, Manifest.load(manifest)):
        recorded._TRUSTED.clear()
        with live.open(f"chroma:{folder}", "docs") as docs:
            with pytest.raises(PreflightError, match="python counting_model:old: it is code"):
                docs.query(query_texts=["two"], n_results=1)
            live.trust(word)
            assert docs.query(query_texts=["two"], n_results=1)["ids"] == [["b"]]
    assert np.isfinite(vector_of("old", "two")).all()
