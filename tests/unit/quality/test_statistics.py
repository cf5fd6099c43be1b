from __future__ import annotations

import numpy as np
import pytest

from reembed.quality.statistics import (
    Interval,
    detectable_share,
    histogram,
    mean_interval,
    paired_difference,
    quantiles,
    queries_to_settle,
    t_quantile,
)

TRIALS = 1_500


def population(name: str) -> np.ndarray:
    """Differences of a metric per query as they come in practice, 100,000 of them."""
    chance = np.random.default_rng(11)
    n = 100_000
    if name == "graded recall, a third unchanged":
        relevant = chance.integers(1, 12, n)
        ease = chance.beta(1.2, 1.5, n)
        old = chance.binomial(relevant, ease) / relevant
        new = chance.binomial(relevant, ease * 0.93) / relevant
        return np.where(chance.random(n) < 0.35, 0, new - old)
    if name == "mostly unchanged, losses skewed":
        return np.where(chance.random(n) < 0.9, 0, -chance.beta(1, 3, n))
    if name == "half unchanged, losses very skewed":
        return np.where(chance.random(n) < 0.5, 0, -chance.gamma(0.5, 0.1, n).clip(0, 1))
    if name == "gains rare and large":
        return np.where(chance.random(n) < 0.93, -0.02, chance.beta(2, 2, n))
    if name == "bell-shaped":
        return chance.normal(-0.02, 0.25, n).clip(-1, 1)
    if name == "hits, 12 % lost and 10 % won":
        return chance.choice([-1.0, 0, 1], n, p=[0.12, 0.78, 0.10])
    if name == "hits, 5 % lost and 3 % won":
        return chance.choice([-1.0, 0, 1], n, p=[0.05, 0.92, 0.03])
    if name == "hits, 2 % lost":
        return chance.choice([-1.0, 0], n, p=[0.02, 0.98])
    if name == "hits, 2 % lost and 0.5 % won":
        return chance.choice([-1.0, 0, 1], n, p=[0.02, 0.975, 0.005])
    assert name == "little won often, 4 % lost"
    won = np.where(chance.random(n) < 0.5, 0.01, 0)
    return np.where(chance.random(n) < 0.04, -1.0, won)


GRADED = ["graded recall, a third unchanged", "mostly unchanged, losses skewed",
          "half unchanged, losses very skewed", "gains rare and large", "bell-shaped",
          "hits, 12 % lost and 10 % won"]  # fmt: skip
RARE = ["hits, 5 % lost and 3 % won", "hits, 2 % lost", "hits, 2 % lost and 0.5 % won",
        "little won often, 4 % lost"]  # fmt: skip


def simulate(name: str, n: int) -> tuple[float, float]:
    """Share of intervals that hold the true mean, and that lie above it whole: with a margin equal
    to the true loss, those would pass a model that is worse by the margin."""
    everything = population(name)
    truth = float(everything.mean())
    chance = np.random.default_rng([n, len(name)])
    held = above = 0
    zero = np.zeros(n)
    for _ in range(TRIALS):
        interval = paired_difference(chance.choice(everything, n), zero, 0.95)
        held += interval.low <= truth <= interval.high
        above += interval.low > truth
    return held / TRIALS, above / TRIALS


@pytest.mark.parametrize("n", [100, 225])
@pytest.mark.parametrize("name", GRADED)
def test_intervals_keep_their_level_from_100_queries(name: str, n: int):
    held, above = simulate(name, n)
    # Three standard errors of 1,500 trials are 1.7 points.
    assert 0.93 - 0.006 <= held <= 0.97 + 0.017
    assert above <= 0.05


@pytest.mark.parametrize("n", [100, 150, 225])
@pytest.mark.parametrize("name", RARE)
def test_rare_losses_are_not_passed_over(name: str, n: int):
    """So few differences are not zero that levels come in steps: no interval is exact here."""
    held, above = simulate(name, n)
    assert held >= 0.93 - 0.006
    assert above <= 0.05 + 0.011


def test_a_loss_that_the_sample_does_not_hold_is_allowed_for():
    same = np.ones(100)
    interval = paired_difference(same, same, 0.95)
    assert interval.mean == 0
    assert interval.low < -0.02
    assert interval.high > 0.02


def test_with_ones_it_is_bonett_and_price():
    new = np.array([1.0] * 40 + [0] * 7 + [1] * 12 + [0] * 41)
    old = np.array([1.0] * 40 + [1] * 7 + [0] * 12 + [0] * 41)
    interval = paired_difference(new, old, 0.95)
    p12, p21, n = (12 + 1) / 102, (7 + 1) / 102, 102
    centre = p12 - p21
    reach = 1.984 * np.sqrt((p12 + p21 - centre**2) / (n - 1))
    # Johnson's shift adds to one end: the rest is theirs.
    assert interval.low == pytest.approx(centre - reach, abs=5e-4)
    assert interval.high == pytest.approx(centre + reach, abs=3e-3)


def test_it_is_as_narrow_as_the_t_interval_where_differences_are_many():
    chance = np.random.default_rng(3)
    differences = chance.normal(0, 0.2, 400)
    ours = paired_difference(differences, np.zeros(400), 0.95)
    theirs = 2 * t_quantile(0.95, 399) * differences.std(ddof=1) / 20
    assert ours.high - ours.low == pytest.approx(theirs, rel=0.02)


def test_the_interval_stays_within_what_a_difference_can_be():
    interval = paired_difference(np.ones(3), np.zeros(3), 0.99)
    assert (interval.mean, interval.high) == (1.0, 1.0)
    assert -1 <= interval.low < 1


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    [(0.95, 99, 1.984217), (0.95, 30, 2.042272), (0.99, 50, 2.677793), (0.9, 224, 1.651685)],
)
def test_t_quantiles(confidence: float, freedom: int, expected: float):
    assert t_quantile(confidence, freedom) == pytest.approx(expected, abs=2e-5)


def test_as_many_queries_as_are_named_settle_the_question():
    """Simulated: of samples of that size, about 80 % exclude the margin."""
    chance = np.random.default_rng(5)
    pilot = Interval(-0.005, -0.03, 0.02, 0.95, 200, 0.2)
    needed = queries_to_settle(pilot, 0.02)
    assert needed is not None
    settled = 0
    for _ in range(400):
        sample = chance.normal(-0.005, 0.2, needed)
        settled += paired_difference(sample, np.zeros(needed), 0.95).low >= -0.02
    assert 0.72 <= settled / 400 <= 0.88


def test_a_difference_equal_to_the_margin_is_never_settled():
    assert queries_to_settle(Interval(-0.02, -0.1, 0.1, 0.95, 100, 0.3), 0.02) is None
    assert queries_to_settle(Interval(-0.019999, -0.1, 0.1, 0.95, 100, 0.3), 0.02) is None


def test_what_a_sample_can_see():
    assert detectable_share(1_000) == pytest.approx(0.004594, abs=1e-6)
    assert 1 - (1 - detectable_share(300)) ** 300 == pytest.approx(0.99)
    assert detectable_share(0) == 1.0


def test_a_mean_has_an_interval_within_0_and_1():
    interval = mean_interval(np.array([1.0] * 99 + [0.0]), 0.95)
    assert interval.mean == pytest.approx(0.99)
    assert interval.high == 1.0
    assert interval.to_dict()["n"] == 100


def test_summaries_are_bounded_and_json():
    values = np.linspace(0, 1, 1_001)
    assert quantiles(values)["median"] == 0.5
    assert quantiles([]) == {}
    drawn = histogram(values, 10)
    assert (len(drawn["edges"]), sum(drawn["counts"])) == (11, 1_001)
    assert sum(histogram([0.5, 0.5])["counts"]) == 2
    assert sum(histogram([1.0, 1.0 + 1e-16])["counts"]) == 2
    assert histogram([]) == {"edges": [], "counts": []}
