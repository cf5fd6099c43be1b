from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chromadb.api.types import Documents, EmbeddingFunction
from chromadb.utils.embedding_functions import (
    known_embedding_functions,
    register_embedding_function,
)

from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ManifestError, ProviderRefusedError, UnreachableError
from reembed.manifest import Model
from tests.support.servers.embedding_server import OLLAMA, OPENAI, EmbeddingServer

QUICK = RetryPolicy(attempts=2, wait=0.001)


class Lengths(EmbeddingFunction[Documents]):
    """An embedding function of the user's own, other for queries than for documents."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, input: Documents) -> Any:
        if any("poison" in text for text in input):
            raise ValueError("no poison, please")
        return [np.array([len(text), self.scale, 1], np.float32) for text in input]

    def embed_query(self, input: Documents) -> Any:
        return [np.array([-len(text), self.scale, 1], np.float32) for text in input]

    @staticmethod
    def name() -> str:
        return "lengths"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Lengths:
        return Lengths(config["scale"])

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}


@pytest.fixture(autouse=True)
def registered():
    register_embedding_function(Lengths)
    yield
    known_embedding_functions.pop("lengths")


def test_documents_and_queries_go_their_own_ways():
    model = Model(provider="chroma", name="lengths", options={"scale": 2.0})
    with open_embedder(model, retry=QUICK) as opened:
        assert opened.embed_documents(["ab", "cde"]).vectors.tolist() == [[2, 2, 1], [3, 2, 1]]
        assert opened.embed_queries(["ab"]).tolist() == [[-2, 2, 1]]
        assert "set model.max_tokens" in opened.warnings()[0]
        assert list(opened.embed_documents(["fine", "poison"]).rejected) == [1]


def test_chromas_own_functions_work_over_http(monkeypatch):
    with EmbeddingServer(OLLAMA) as server:
        config = {"url": server.url, "model_name": "wordllama", "timeout": 5}
        with open_embedder(Model(provider="chroma", name="ollama", options=config)) as model:
            assert model.dimensions == 256
            assert model.embed_documents(["a", "b"]).vectors.shape == (2, 256)
        config["model_name"] = "nope"
        with (
            open_embedder(Model(provider="chroma", name="ollama", options=config)) as model,
            pytest.raises(ProviderRefusedError, match="not found"),
        ):
            model.check_reachable()
    monkeypatch.setenv("MY_KEY", "wrong")
    with EmbeddingServer(OPENAI, api_key="right") as server:
        config = {"api_base": server.openai_url, "model_name": "wordllama",
                  "api_key_env_var": "MY_KEY", "deployment_id": None, "api_type": None,
                  "api_version": None, "organization_id": None, "default_headers": None,
                  "dimensions": None}  # fmt: skip
        with (
            open_embedder(Model(provider="chroma", name="openai", options=config)) as model,
            pytest.raises(ProviderRefusedError, match="key is refused"),
        ):
            model.check_reachable()


def test_what_is_wrong_is_named():
    with pytest.raises(ManifestError, match="knows no embedding function 'lenghts'"):
        open_embedder(Model(provider="chroma", name="lenghts"))
    with pytest.raises(ManifestError, match="not the whole config"):
        open_embedder(Model(provider="chroma", name="ollama", options={"url": "http://h"}))
    with pytest.raises(ProviderRefusedError, match="cannot be built"):
        open_embedder(Model(provider="chroma", name="lengths"))
    config = {"url": "http://127.0.0.1:9", "model_name": "x", "timeout": 2}
    with (
        open_embedder(Model(provider="chroma", name="ollama", options=config), retry=QUICK) as gone,
        pytest.raises(UnreachableError),
    ):
        gone.check_reachable()
