"""What every store promises of claims on a live name (`Store.claim`), processes racing included."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from reembed.stores.registry import open_store
from reembed.stores.store import Store
from tests.stores.contract.records import MODEL, simple, vectors
from tests.stores.contract.stores import STORES
from tests.support.array_store import ArrayStore

RACERS = 4
ROUNDS = int(os.environ.get("REEMBED_TEST_RACES", "8"))
"""The races are run long with 300."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["reembed.migration", "reembed.stores.chroma.store"])


@pytest.fixture(params=[*sorted(STORES), "array"])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn, and the tests' own."""
    if request.param == "array":
        yield ArrayStore()
        return
    with STORES[request.param](tmp_path, request.getfixturevalue) as opened:
        yield opened


def test_one_claim_stands_at_a_time(claims: Store) -> None:
    assert claims.claim("docs", "first") is None
    assert claims.claim("docs", "first") is None, "an answer may get lost"
    assert claims.claim("docs", "second") == "first"
    assert claims.claim("other", "second") is None, "another name"
    claims.unclaim("docs", "second")
    assert claims.claim("docs", "second") == "first", "only its owner frees a name"
    claims.unclaim("docs", "first")
    claims.unclaim("docs", "first")
    assert claims.claim("docs", "second") is None
    assert claims.claim("docs", "first") == "second"
    for name in ("docs", "other"):
        claims.unclaim(name, "second")


def test_a_claim_is_taken_over_only_from_the_one_that_was_seen(claims: Store) -> None:
    assert claims.claim("docs", "first") is None
    assert claims.claim("docs", "second", "zeroth") == "first"
    assert claims.claim("docs", "second", "first") is None
    assert claims.claim("docs", "third", "first") == "second"
    claims.unclaim("docs", "second")
    assert claims.claim("docs", "third", "first") is None, "nobody has it"
    claims.unclaim("docs", "third")


def test_a_renewed_claim_is_another_text_of_the_same_owner(claims: Store) -> None:
    assert claims.renew("docs", "first", "first again") == ""
    assert claims.claim("docs", "first") is None
    assert claims.renew("docs", "first", "first again") is None
    assert claims.renew("docs", "first", "first again") is None, "an answer may get lost"
    assert claims.claim("docs", "second", "first") == "first again", "it was seen to live"
    assert claims.claim("docs", "second", "first again") is None
    assert claims.renew("docs", "first again", "first for ever") == "second"
    claims.unclaim("docs", "first again")
    assert claims.claim("docs", "first") == "second"
    claims.unclaim("docs", "second")
    assert claims.renew("docs", "second", "second again") == ""
    assert claims.claim("docs", "first") is None
    claims.unclaim("docs", "first")


def test_a_claim_is_no_collection_and_touches_none(claims: Store) -> None:
    info = claims.create(
        "docs", dimensions=4, metric="cosine", index={}, metadata={"k": 1}, model=MODEL
    )
    claims.add(info.id, simple(3), vectors(3))
    before = claims.describe("docs"), claims.watermark(info.id)
    assert claims.claim("docs", "first") is None
    assert claims.renew("docs", "first", "again") is None
    assert claims.collections() == ["docs"]
    assert claims.claim("docs", "second", "again") is None
    assert claims.collections() == ["docs"]
    claims.unclaim("docs", "second")
    assert claims.collections() == ["docs"]
    assert (claims.describe("docs"), claims.watermark(info.id)) == before


def test_long_names_and_texts_are_kept_whole(claims: Store) -> None:
    names = ["n" * 480 + "a", "n" * 480 + "b"]
    text = "ünïcödé ☃ 'quotes\" {}" + "x" * 3_000
    for name in names:
        assert claims.claim(name, f"{text} {name}") is None
    for name in names:
        assert claims.claim(name, "other") == f"{text} {name}"
        claims.unclaim(name, f"{text} {name}")
        assert claims.claim(name, "other") is None
        claims.unclaim(name, "other")


def test_of_threads_that_take_over_at_once_one_wins(claims: Store) -> None:
    for round in range(ROUNDS):
        dead = f"dead {round}"
        assert claims.claim("docs", dead) is None

        def take(racer: str, dead: str = dead) -> str | None:
            return claims.claim("docs", racer, dead)

        with ThreadPoolExecutor(RACERS) as pool:
            answers = dict(zip("abcd", pool.map(take, "abcd"), strict=True))
        _check_one_winner(answers)
        for racer in answers:
            claims.unclaim("docs", racer)


def test_of_processes_that_take_over_at_once_one_wins(store: Store) -> None:
    """Each round has a dead claim, which every process has seen, and its owner, who is not dead
    after all, and renews at the same moment."""
    barrier, answers = _context.Barrier(RACERS + 1), _context.Queue()
    racers = [
        _context.Process(target=_race, args=(store.url, f"racer {number}", barrier, answers))
        for number in range(RACERS)
    ]
    for racer in racers:
        racer.start()
    for round in range(ROUNDS):
        assert store.claim("docs", f"dead {round}") is None
        barrier.wait(60)
        owner = store.renew("docs", f"dead {round}", "alive")
        told = dict(answers.get(timeout=60) for _ in racers)
        winners = [racer for racer, standing in told.items() if standing is None]
        assert len(winners) + (owner is None) <= 1, (told, owner)
        final = store.claim("docs", "last")
        if winners:
            assert final == winners[0]
        elif owner is None:
            assert final == "alive"
        for one in (*told, "alive", "last"):
            store.unclaim("docs", one)
        assert store.collections() == []
        barrier.wait(60)
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert store.claim("docs", "after") is None, "nothing is left behind"
    store.unclaim("docs", "after")


def _race(url: str, name: str, barrier: Barrier, answers: Any) -> None:
    store = open_store(url)
    take: Callable[..., str | None] = store.claim
    for round in range(ROUNDS):
        barrier.wait(60)
        answers.put((name, take("docs", name, f"dead {round}")))
        barrier.wait(60)
    store.close()


def _check_one_winner(answers: dict[str, str | None]) -> None:
    winners = [racer for racer, standing in answers.items() if standing is None]
    assert len(winners) == 1, answers
    assert {standing for standing in answers.values() if standing} == set(winners), answers
