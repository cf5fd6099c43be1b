"""How long a run will take, from a read of the store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from reembed.stages import forecast as forecasting
from reembed.stages.forecast import RATES, Size, forecast
from reembed.stores.collection import Collection

SIZE = Size(records=10_000, old=384, new=768, text_bytes=4_000_000)
STAGES = ["export", "embed", "load", "verify"]


class Slow:
    """A collection that takes `seconds` for a page, by its own clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    def clock(self) -> float:
        return self.seconds * self.asked

    def some_ids(self, most: int) -> list[str]:
        return [str(number) for number in range(most)]

    def fetch(self, ids: list[str], *, vectors: bool) -> None:
        self.asked += 1


def told(url: str, size: Size, seconds: float) -> tuple[Any, Slow]:
    collection = Slow(seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecasting, "perf_counter", collection.clock)
        return forecast(url, url, cast(Collection, collection), size, 7.0), collection


@pytest.mark.parametrize("scheme", ["chroma", "chroma+http", "postgresql"])
def test_a_slower_store_takes_longer_by_as_much(scheme: str) -> None:
    as_measured = RATES[scheme].read
    found, _ = told(f"{scheme}:x", SIZE, as_measured)
    slower, _ = told(f"{scheme}:x", SIZE, 5 * as_measured)
    assert [*found.seconds] == STAGES
    for stage in ("export", "load", "verify"):
        assert slower.seconds[stage] == pytest.approx(5 * found.seconds[stage], abs=0.3)
    assert found.seconds["embed"] == slower.seconds["embed"] == 7.0, "the model was timed itself"


def test_more_records_and_dimensions_take_more() -> None:
    less, _ = told("postgresql://x", SIZE, 0.01)
    tenfold = replace(SIZE, records=100_000, text_bytes=10 * SIZE.text_bytes)
    for more in (tenfold, replace(SIZE, new=3_000)):
        found, _ = told("postgresql://x", more, 0.01)
        assert found.seconds["load"] > less.seconds["load"]
        assert found.memory_bytes >= less.memory_bytes


def test_an_index_of_this_process_counts_as_its_memory() -> None:
    larger = replace(SIZE, records=400_000, text_bytes=160_000_000)
    grown = {
        url: told(url, larger, 0.01)[0].memory_bytes - told(url, SIZE, 0.01)[0].memory_bytes
        for url in ("chroma:x", "postgresql://x")
    }
    assert grown["chroma:x"] >= 390_000 * 4 * (384 + 768)
    assert grown["postgresql://x"] == 0, "a few shards, whatever the records"


def test_a_store_of_unknown_speed_is_left_out_and_a_small_one_is_not_timed() -> None:
    found, collection = told("corpus:x", SIZE, 0.01)
    assert (found.seconds, collection.asked) == ({"embed": 7.0}, 0)
    found, collection = told("chroma:x", replace(SIZE, records=500), 0.01)
    assert ([*found.seconds], collection.asked) == (STAGES, 0)
