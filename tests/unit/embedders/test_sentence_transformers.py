"""Against a stand-in with the library's documented interface: the library brings PyTorch, so that
it is not installed with the tests."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.errors import ProviderRefusedError
from reembed.manifest import Model


class SentenceTransformer:
    max_seq_length = 20
    default_prompt_name = None

    def __init__(self, name: str, device: str | None = None, truncate_dim: int | None = None):
        if name == "nowhere":
            raise OSError(f"{name} is not a local folder and is not a valid model identifier")
        self.prompts = {"query": "ask: ", "document": ""}
        self.device, self.dimensions = device, truncate_dim or 8
        self.encoded: list[str] = []

    def tokenizer(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        assert options["truncation"] is False and options["padding"] is False
        return {"input_ids": [[101, *map(len, text.split()), 102] for text in texts]}

    def encode(self, texts: list[str], *, prompt: str, batch_size: int, **options: Any) -> Any:
        assert options == {"show_progress_bar": False, "convert_to_numpy": True}
        texts = [prompt + text for text in texts]
        self.encoded += texts
        rows = [[len(text), *map(ord, (text + "x" * 8)[:7])] for text in texts]
        return np.array(rows, np.float32)[:, : self.dimensions]


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch):
    module: Any = ModuleType("sentence_transformers")
    module.SentenceTransformer, module.__version__ = SentenceTransformer, "5.1.0"
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    ours = "reembed.embedders.providers.sentence_transformers"
    monkeypatch.delitem(sys.modules, ours, raising=False)
    yield
    sys.modules.pop(ours, None)
    parent = importlib.import_module("reembed.embedders")
    if hasattr(parent, "sentence_transformers"):
        delattr(parent, "sentence_transformers")


def opened(**model: Any) -> Embedder:
    return open_embedder(Model(provider="sentence-transformers", **({"name": "m"} | model)))


def encoded(embedder: Embedder) -> list[str]:
    provider: Any = embedder._provider
    found: list[str] = provider._model.encoded
    return found


def test_the_models_own_prompts_are_used_where_the_manifest_sets_none():
    with opened() as model:
        model.embed_documents(["a text"])
        model.embed_queries(["a question"])
        assert encoded(model)[-2:] == ["a text", "ask: a question"]
        assert model.limits.max_tokens == 20 - 3  # the prompt takes its share
        assert model.fingerprint().details == {"sentence-transformers": "5.1.0"}
    with opened(query_prefix="q: ") as model:
        model.embed_queries(["a question"])
        assert encoded(model)[-1] == "q: a question"


def test_too_long_is_found_before_the_library_cuts_it():
    with opened() as model:
        embedded = model.embed_documents(["short", "word " * 30])
    assert embedded.rejected[1].detail == "32 tokens, the model takes 17"


def test_dimensions_device_and_a_model_that_is_not_there():
    with opened(dimensions=4, options={"device": "cpu"}) as model:
        assert model.embed_documents(["a text"]).vectors.shape == (1, 4)
    with pytest.raises(ProviderRefusedError, match="not a local folder"):
        opened(name="nowhere")
