from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reembed.embedders.provider import Limits
from reembed.embedders.sending.batching import (
    Piece,
    beginning,
    count_batches,
    cut,
    pack,
)


def pieces(*tokens: int) -> list[Piece]:
    return [Piece(index, "", "x" * count, count) for index, count in enumerate(tokens)]


def words(text: str) -> int:
    return len(text.split()) + 2  # as if each text had two special tokens


def test_batches_hold_at_most_items_and_tokens_and_every_piece_once():
    batches = pack(pieces(*([10] * 25)), Limits(batch_items=8, batch_tokens=50))
    assert [len(batch) for batch in batches] == [5] * 5
    assert [piece.index for batch in batches for piece in batch] == list(range(25))


def test_a_piece_above_the_token_limit_goes_alone():
    batches = pack(pieces(5, 500, 5), Limits(batch_items=8, batch_tokens=50))
    assert [[piece.index for piece in batch] for batch in batches] == [[0], [1], [2]]


def test_a_padded_model_gets_like_lengths_and_pays_for_the_longest():
    batches = pack(pieces(1, 100, 2, 99, 3), Limits(8, batch_tokens=200, padded=True))
    assert [[piece.tokens for piece in batch] for batch in batches] == [[100, 99], [3, 2, 1]]


def test_workers_share_a_shard_but_not_down_to_crumbs():
    limits = Limits(batch_items=2048)
    assert [len(batch) for batch in pack(pieces(*[1] * 4000), limits, workers=8)] == [500] * 8
    assert [len(batch) for batch in pack(pieces(*[1] * 200), limits, workers=8)] == [128, 72]


def test_what_only_the_provider_can_judge_goes_alone():
    alone = Piece(0, "", "x", 9000, alone=True)
    assert pack([alone, *pieces(1, 1)], Limits(8))[0] == [alone]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n\u00e9", max_size=300), st.integers(3, 20))
def test_cutting_leaves_nothing_out_and_every_piece_fits(text, most):
    parts = cut(text, most, words)
    assert "".join(parts) == text
    assert all(words(part) <= most for part in parts)
    assert beginning(text, most, words) == text[: len(beginning(text, most, words))]


@pytest.mark.parametrize("most", [5, 50])
def test_cutting_prefers_white_space(most):
    text = " ".join(f"word{number}" for number in range(200))
    assert all(part.endswith(" ") for part in cut(text, most, words)[:-1])


def test_a_single_character_is_never_cut():
    assert cut("ab", 1, lambda text: 5 * len(text)) == ["a", "b"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 90), max_size=400), st.booleans(), st.integers(1, 4),
    st.sampled_from([None, 60, 300]), st.sampled_from([3, 200]),
)  # fmt: skip
def test_batches_are_counted_as_they_are_made(tokens, padded, workers, most, items):
    limits = Limits(batch_items=items, batch_tokens=most, padded=padded)
    made = pack(pieces(*tokens), limits, workers)
    assert count_batches(tokens, limits, workers) == len(made)
