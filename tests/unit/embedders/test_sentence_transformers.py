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
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Manifest, Model
from tests.support.following import follows_hint

PROMPTS = {"query": "ask: ", "document": "", "clustering": "group: "}


class Parameter:
    dtype = "torch.float32"


class SentenceTransformer:
    """With the keyword arguments of versions 3 to 6, and no others."""

    max_seq_length = 20
    default_prompt_name = None

    def __init__(
        self, model_name_or_path: str | None = None, *, modules: Any = None,
        device: str | None = None, prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None, cache_folder: str | None = None,
        trust_remote_code: bool = False, revision: str | None = None,
        local_files_only: bool = False, token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None, config_kwargs: dict[str, Any] | None = None,
        similarity_fn_name: str | None = None, truncate_dim: int | None = None,
        backend: str = "torch",
    ) -> None:  # fmt: skip
        name = model_name_or_path
        if name == "nowhere":
            raise OSError(f"{name} is not a local folder and is not a valid model identifier")
        if name == "own-code" and not trust_remote_code:
            raise ValueError(
                "The repository own-code contains custom code which must be executed. Please pass "
                "the argument `trust_remote_code=True` to allow custom code to be run."
            )
        if device == "cuda":
            raise AssertionError("Torch not compiled with CUDA enabled")
        self.prompts = PROMPTS | (prompts or {})
        self.device, self.dimensions = device or "cpu", truncate_dim or 8
        self.revision, self.model_kwargs = revision, model_kwargs
        self.encoded: list[str] = []

    def parameters(self) -> Any:
        one = Parameter()
        one.dtype = f"torch.{(self.model_kwargs or {}).get('torch_dtype', 'float32')}"
        return iter([one])

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
        assert model.fingerprint().details == {
            "sentence-transformers": "5.1.0", "runs on": "cpu, float32",
        }  # fmt: skip
    with opened(query_prefix="q: ") as model:
        model.embed_queries(["a question"])
        assert encoded(model)[-1] == "q: a question"


def test_too_long_is_found_before_the_library_cuts_it():
    with opened() as model:
        embedded = model.embed_documents(["short", "word " * 30])
    assert embedded.rejected[1].detail == "32 tokens, the model takes 17"


@follows_hint("Give a folder that holds the model, or a hub id that this machine")
def test_dimensions_device_and_a_model_that_is_not_there():
    with opened(dimensions=4, options={"device": "cpu"}) as model:
        assert model.embed_documents(["a text"]).vectors.shape == (1, 4)
    with pytest.raises(ProviderRefusedError, match="not a local folder"):
        opened(name="nowhere")
    with opened(name="./a-folder-that-holds-it") as model:
        model.check_reachable()


def library_of(embedder: Embedder) -> SentenceTransformer:
    provider: Any = embedder._provider
    found: SentenceTransformer = provider._model
    return found


@follows_hint("Write its text into model.options.prompts: ")
@follows_hint("Leave one of them out.")
def test_prompts_are_chosen_by_name_or_written_down():
    options = {"prompt_name": "clustering", "query_prompt_name": "mine", "prompts": {"mine": "q? "}}
    with opened(options=options) as model:
        model.embed_documents(["a text"])
        model.embed_queries(["a question"])
        assert encoded(model)[-2:] == ["group: a text", "q? a question"]
    with pytest.raises(ManifestError, match="no prompt 'other', it has clustering, document") as no:
        opened(options={"prompt_name": "other"})
    assert "model.options.prompts: {other: ...}" in no.value.hint
    with opened(options={"prompt_name": "other", "prompts": {"other": "o: "}}) as model:
        model.embed_documents(["a text"])
        assert encoded(model)[-1] == "o: a text"
    with pytest.raises(ManifestError, match=r"query_prompt_name: model\.query_prefix says"):
        opened(query_prefix="q: ", options={"query_prompt_name": "query"})
    for model in (
        opened(query_prefix="q: "), opened(options={"query_prompt_name": "query"}),
    ):  # fmt: skip
        with model:
            model.embed_queries(["a question"])
            assert encoded(model)[-1] in ("q: a question", "ask: a question")
    with pytest.raises(ManifestError, match="a mapping of names to texts"):
        opened(options={"prompts": {"query": 1}})


def test_revision_and_number_format_reach_the_library_and_the_plan_says_where_it_runs():
    with opened(options={"revision": "a1b2c3", "dtype": "float16", "device": "mps"}) as model:
        assert library_of(model).revision == "a1b2c3"
        assert library_of(model).model_kwargs == {"torch_dtype": "float16"}
        assert model.runs_on == "mps, float16"
    with opened() as model:
        assert library_of(model).model_kwargs is None and model.runs_on == "cpu, float32"
    with pytest.raises(ManifestError, match="dtype: is auto, float32, float16, bfloat16"):
        opened(options={"dtype": "int8"})


@follows_hint("It brings code of its own, which would run on this machine")
def test_code_of_the_models_own_runs_only_if_the_manifest_says_so():
    with pytest.raises(ProviderRefusedError, match="cannot be loaded") as refused:
        opened(name="own-code")
    assert "model.options.trust_remote_code: true" in refused.value.hint
    with opened(name="own-code", options={"trust_remote_code": True}) as model:
        model.check_reachable()
    manifest = Manifest.model_validate({
        "name": "x", "source": {"url": "chroma:./db", "collection": "docs"},
        "model": {"provider": "sentence-transformers", "name": "own-code",
                  "options": {"trust_remote_code": True}},
    })  # fmt: skip
    assert manifest.executes() == ["the code that comes with own-code"]


@follows_hint("Check model.options.device (cpu always works)")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ProviderRefusedError, match="not compiled with CUDA") as refused:
        opened(options={"device": "cuda"})
    assert "model.options.device (cpu always works)" in refused.value.hint
    with opened(options={"device": "cpu"}) as model:
        model.check_reachable()
