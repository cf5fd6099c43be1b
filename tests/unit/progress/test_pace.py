"""The rate and the time left of a stage, on a clock that the test turns."""

from __future__ import annotations

from reembed.progress import Tracked
from reembed.progress.tracked import Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_slow_first_batch_does_not_set_the_pace():
    clock = Clock()
    pace = Pace(clock)
    clock.now = 30.0  # a model is loaded
    pace.count(100)
    assert pace.per_second is None
    for _ in range(4):
        clock.now += 1.0
        pace.count(100)
    assert pace.per_second == 100


def test_a_burst_is_shared_out_over_the_time_that_it_took():
    clock = Clock()
    pace = Pace(clock)
    for _ in range(6):  # eight requests at once, every ten seconds
        clock.now += 10.0
        for _ in range(8):
            clock.now += 0.01
            pace.count(32)
    assert pace.per_second is not None
    assert abs(pace.per_second - 25.6) < 1.5


def test_one_long_wait_does_not_change_the_time_left_much():
    clock = Clock()
    pace = Pace(clock)
    for batch in range(40):
        clock.now += 60.0 if batch == 20 else 1.0
        pace.count(50)
    assert pace.per_second is not None
    assert 30 < pace.per_second <= 50


def test_the_time_left_is_of_what_this_call_has_to_do():
    clock = Clock()
    tracked = Tracked(clock)
    with tracked.stage("embed", 10_000, done=4_000) as counter:
        for _ in range(10):
            clock.now += 1.0
            counter.update(100)
        stand = tracked.stands()[0]
    assert (stand.done, stand.total) == (5_000, 10_000)
    assert stand.per_second == 100
    assert stand.seconds_left == 50
    assert str(stand) == "embed: 5,000 of 10,000 records (50 %), 100/s, 50 s left"


def test_tokens_and_cost_come_from_the_meter_and_a_wait_ends_by_itself():
    clock, spent = Clock(), [1_000, 0.5]
    tracked = Tracked(clock)
    tracked.metered(lambda: (int(spent[0]), spent[1]))
    with tracked.stage("embed", 100):
        clock.now, spent[0], spent[1] = 10.0, 3_000, 1.5
        tracked.waiting(12.0, "429 from api.openai.com, 3rd of 8")
        told = str(tracked.stands()[0])
        assert "waiting 12 s: 429 from api.openai.com, 3rd of 8" in told
        assert "200 tokens/s" in told
        assert "$1.5000 so far" in told
        clock.now = 23.0
        assert not tracked.stands()[0].waiting
    assert tracked.stands() == []
