"""Two models in one collection, told by vectors and words; topics and languages are not two."""

from __future__ import annotations

import numpy as np
import pytest

from reembed.commands.audit.mixture import find_mixture
from reembed.records import Vectors, unit

N, WORDS, DIMENSIONS = 1_200, 400, 48


def texts_of(rng: np.random.Generator, languages: int) -> list[str]:
    """Texts of one theme each, in languages of which each has words of its own."""
    made = []
    for number in range(N):
        theme = rng.integers(20)
        words = [rng.integers(WORDS) if rng.random() < 0.4 else theme * 20 + rng.integers(20)
                 for _ in range(25)]  # fmt: skip
        made.append(" ".join(f"{'abc'[number % languages]}{word}" for word in words))
    return made


def model(texts: list[str], seed: int) -> Vectors:
    """Sums of the model's own vectors of words, and what it gives to every text."""
    rng = np.random.default_rng(seed)
    words = sorted({word for text in texts for word in text.split()})
    table = dict(zip(words, rng.normal(size=(len(words), DIMENSIONS)), strict=True))
    every = 8 * rng.normal(size=DIMENSIONS) / np.sqrt(DIMENSIONS)
    sums = np.array([sum(table[word] for word in text.split()) for text in texts])
    return unit((sums / 5 + every).astype(np.float32))


def test_two_models_are_two_populations() -> None:
    rng = np.random.default_rng(0)
    texts = texts_of(rng, 1)
    bad = rng.random(N) < 0.04
    vectors = np.where(bad[:, None], model(texts, 2), model(texts, 1))
    found = find_mixture(vectors, texts, rng)
    assert found is not None and found.is_model
    assert (found.group == bad).mean() > 0.99


@pytest.mark.parametrize("languages", [1, 2])
def test_themes_and_languages_are_not_two_models(languages: int) -> None:
    rng = np.random.default_rng(1)
    texts = texts_of(rng, languages)
    found = find_mixture(model(texts, 1), texts, rng)
    assert found is None or not found.is_model
    if languages == 2:  # they lie apart: nobody can tell without the model
        assert found is None or found.is_unclear
