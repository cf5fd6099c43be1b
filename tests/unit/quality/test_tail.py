from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from reembed.quality.tail import probe_tail, tail_texts


@dataclass
class Found:
    vectors: np.ndarray
    rejected: dict[int, str] = field(default_factory=dict)


def count(texts: Sequence[str]) -> np.ndarray:
    return np.array([len(text.split()) + 2 for text in texts], np.int32)


def model(sees: int = 10_000, noise: float = 0.0):
    """The mean of a vector a word, of the first `sees` words, as a server with noise gives it."""
    chance = np.random.default_rng(1)

    def embed(texts: Sequence[str]) -> Found:
        rows = []
        for text in texts:
            words = text.split()[:sees]
            total = sum(np.random.default_rng(sum(map(ord, w))).normal(size=32) for w in words)
            rows.append(total / len(words) + noise * chance.normal(size=32))
        return Found(np.array(rows, np.float32))

    return embed


@pytest.mark.parametrize("limit", [4, 10, 64, 256, 2_000])
def test_the_texts_fill_the_limit_and_differ_at_the_end(limit: int):
    first, second, tokens = tail_texts(count, limit)
    assert max(count([first, second])) == tokens == limit
    words, others = first.split(), second.split()
    differ = [a != b for a, b in zip(words, others, strict=True)]
    assert any(differ)
    assert not any(differ[: len(words) - max(1, round(len(words) * 0.05))])


def test_a_model_that_reads_to_the_end_passes():
    probe = probe_tail(model(), count, 512, 400)
    assert (probe.seen, probe.tokens) == (True, 400)
    assert probe.noise == 0


@pytest.mark.parametrize("noise", [0, 2e-5])
def test_a_server_that_cuts_is_found_out(noise: float):
    assert probe_tail(model(sees=128, noise=noise), count, 256, 1_000).seen is False


def test_a_cut_that_no_text_reaches_is_no_fault():
    assert probe_tail(model(sees=512), count, 2_048, 300).seen is True


def test_a_giant_text_makes_no_giant_probe():
    def embed(texts: Sequence[str]) -> Found:
        return Found(np.array([[1.0, sum(map(ord, text)) % 97] for text in texts], np.float32))

    assert probe_tail(embed, count, None, 10_000_000).tokens == 32_768


def test_noise_is_not_taken_for_the_tail():
    probe = probe_tail(model(noise=1e-5), count, 256, 256)
    assert probe.seen is True
    assert 0 < probe.noise < probe.distance


def test_a_refused_probe_is_no_verdict():
    probe = probe_tail(lambda texts: Found(np.zeros((3, 4)), {0: "no"}), count, None, 100)
    assert probe.seen is None
    assert probe.to_dict()["tokens"] == 100
