from __future__ import annotations

import numpy as np
import pytest

from reembed.quality.sample import Sample, choose, token_counts

Shards = list[tuple[str, list[str], np.ndarray]]


def shards(*rows: int, seed: int = 1) -> Shards:
    """Shards of so many records each, with a few long texts."""
    chance = np.random.default_rng(seed)
    found, first = [], 0
    for number, count in enumerate(rows):
        ids = [f"r{i:06d}" for i in range(first, first + count)]
        tokens = chance.lognormal(4, 0.7, count).astype(np.int32) + 1
        found.append((f"shard-{number:05d}", ids, tokens))
        first += count
    return found


def chosen(run: Shards, size: int, seed: int = 0, **options: int) -> Sample:
    return choose(run, token_counts(run), size, seed, **options)


def test_tokens_are_counted():
    assert token_counts([("s", ["a", "b", "c"], np.array([2, 0, 2], np.int32))]).tolist() == [
        1,
        0,
        2,
    ]
    assert token_counts([]).sum() == 0


def test_about_as_many_as_asked_for_none_twice_in_order():
    run = shards(5_000, 5_000, 3_000)
    sample = chosen(run, 1_000)
    assert 900 <= len(sample.ids) <= 1_010
    assert sample.ids == sorted(set(sample.ids))
    assert (sample.total, sample.longest_tokens) == (13_000, max(t.max() for _, _, t in run))


def test_a_small_run_is_taken_whole():
    run = shards(200, 40)
    sample = chosen(run, 1_000)
    assert len(sample.ids) == 240
    assert sample.to_dict()["seen_from_share"] == 0


def test_every_shard_is_in_it_down_to_a_single_record():
    run = shards(5_000, 1, 5_000, 2, 1)
    for seed in range(20):
        ids = set(chosen(run, 300, seed).ids)
        assert all(ids & set(shard) for _, shard, _ in run)


def test_no_run_of_neighbours_as_long_as_the_distance_escapes():
    run = shards(4_000, 4_000)
    everything = [id for _, ids, _ in run for id in ids]
    for seed in range(5):
        sample = chosen(run, 400, seed)
        taken = np.isin(everything, sample.ids)
        gaps = np.diff(np.flatnonzero(np.concatenate([[True], taken, [True]])))
        assert gaps.max() - 1 <= sample.distance


def test_the_longest_texts_are_in_it():
    run = shards(20_000)
    (_, ids, tokens) = run[0]
    sample = set(chosen(run, 400).ids)
    longest = [ids[row] for row in np.argsort(-tokens, kind="stable")[:40]]
    assert set(longest) <= sample
    long_tenth = {ids[row] for row in np.flatnonzero(tokens >= np.quantile(tokens, 0.9))}
    assert len(sample & long_tenth) >= 100


def test_without_long_ones_it_is_even():
    run = shards(20_000)
    sample = chosen(run, 400, long_share=0)
    assert sample.long == 0
    assert 399 <= len(sample.ids) <= 401


def test_the_seed_decides():
    run = shards(3_000)
    assert chosen(run, 300, 1) == chosen(run, 300, 1)
    assert chosen(run, 300, 1).ids != chosen(run, 300, 2).ids


def test_nothing_to_choose_from():
    assert chosen([], 300).ids == []
    assert chosen([("s", [], np.zeros(0, np.int32))], 300).ids == []


@pytest.mark.parametrize("share", [0.005, 0.01, 0.05])
def test_a_fault_is_seen_as_often_as_it_says(share: float):
    """A share of faulty records at random places is in the sample with 1 - (1 - p)^n."""
    run = shards(10_000)
    ids = np.array(run[0][1])
    missed = 0
    for seed in range(200):
        faulty = np.random.default_rng(seed).random(len(ids)) < share
        missed += not set(ids[faulty]) & set(chosen(run, 1_000, seed).ids)
    assert missed <= 200 * max(0.01, (1 - share) ** 750 * 1.5 + 0.01)
