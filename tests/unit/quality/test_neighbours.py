from __future__ import annotations

import numpy as np
import pytest

from reembed.quality.neighbours import skewness, vector_figures


def test_skewness():
    assert skewness(np.array([1.0, 2, 3])) == pytest.approx(0)
    assert skewness(np.array([0.0, 0, 0, 10])) == pytest.approx(1.1547, abs=1e-4)
    assert skewness(np.ones(5)) == 0


def test_a_hub_shows():
    chance = np.random.default_rng(1)
    plain = chance.normal(size=(300, 16)).astype(np.float32)
    hubby = plain.copy()
    hubby[:5] = 0.01 * hubby[:5] + hubby[5:].mean(axis=0)
    hubby[5:] += 2 * hubby[5:].mean(axis=0) / np.linalg.norm(hubby[5:].mean(axis=0))
    even, odd = vector_figures(plain), vector_figures(hubby)
    assert odd["hubness"] > even["hubness"] + 0.5
    assert odd["most_often_found"] > even["most_often_found"]
    assert even["lengths"]["mean"] == pytest.approx(4, rel=0.05)
    assert abs(even["mean_cosine"]) < 0.05


def test_too_few_vectors_are_only_counted():
    assert vector_figures(np.ones((1, 3), np.float32)) == {"vectors": 1}
    assert vector_figures(np.eye(3, dtype=np.float32))["k"] == 2
