from __future__ import annotations

import hashlib

import numpy as np

from reembed.quality.twins import TwinFinder


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def test_equal_vectors_of_different_texts_are_found_across_pages():
    chance = np.random.default_rng(1)
    vectors = chance.normal(size=(100, 8)).astype(np.float32)
    vectors[70] = vectors[3]
    vectors[80:85] = vectors[10]
    with TwinFinder() as finder:
        for start in range(0, 100, 20):
            rows = range(start, start + 20)
            finder.add(
                [f"r{i}" for i in rows], [key(f"t{i}") for i in rows], vectors[start : start + 20]
            )
        found = list(finder.twins())
    assert [group.records for group in found] == [6, 2]
    assert len(found[0].ids) == 3
    assert set(found[1].ids) == {"r3", "r70"}


def test_equal_texts_may_have_equal_vectors():
    same = np.ones((3, 4), np.float32)
    with TwinFinder() as finder:
        finder.add(["a", "b", "c"], [key("same")] * 3, same)
        assert list(finder.twins()) == []
        finder.add(["d"], [key("other")], same[:1])
        (found,) = finder.twins()
    assert found.records == 4


def test_the_last_bit_tells_vectors_apart():
    vectors = np.ones((2, 4), np.float32)
    vectors[1, 3] = np.nextafter(np.float32(1), np.float32(2))
    with TwinFinder() as finder:
        finder.add(["a", "b"], [key("a"), key("b")], vectors)
        assert list(finder.twins()) == []
