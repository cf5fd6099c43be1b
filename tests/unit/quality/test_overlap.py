from __future__ import annotations

import pytest

from reembed.quality.sidebyside import jaccard, rank_biased_overlap


def test_jaccard_is_shared_over_all():
    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("abc", "xyz") == 0
    assert jaccard([], []) == 1
    assert jaccard("aab", "ab") == 1


def test_rbo_of_equal_and_of_disjoint_rankings():
    assert rank_biased_overlap("abcdefghij", "abcdefghij") == pytest.approx(1)
    assert rank_biased_overlap("abcdefghij", "klmnopqrst") == 0
    assert rank_biased_overlap([], []) == 1
    assert rank_biased_overlap("a", []) == 0


def test_rbo_by_hand():
    """A b c against b a d: overlaps 0, 2, 2 at depths 1, 2, 3."""
    p = 0.9
    expected = 2 / 3 * p**3 + (1 - p) / p * (0 + 2 / 2 * p**2 + 2 / 3 * p**3)
    assert rank_biased_overlap("abc", "bad") == pytest.approx(expected)


def test_rbo_is_symmetric_and_weighs_the_top():
    assert rank_biased_overlap("abcde", "ebcda") == rank_biased_overlap("ebcda", "abcde")
    assert rank_biased_overlap("abcde", "abcyz") > rank_biased_overlap("abcde", "xycde")
