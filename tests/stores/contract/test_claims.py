"""What every store promises of claims on a live name (`Claims`), processes racing included."""

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
from reembed.stores.values import CollectionSpec
from tests.stores.contract.records import MODEL, simple, vectors
from tests.stores.contract.stores import entries
from tests.support.array_store import Arrays
from tests.support.stores import mark_of

RACERS = 4
ROUNDS = int(os.environ.get("REEMBED_TEST_RACES", "8"))
"""The races are run long with 300."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["reembed.migration", "reembed.stores.chroma.store"])


PARTS = ("writer", "claims")
KEEPERS = [name for name, entry in entries().items() if not {*PARTS} & {*entry.lacks}]


@pytest.fixture(params=[*KEEPERS, "array"])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn, and the tests' own."""
    if request.param == "array":
        yield Arrays().store()
        return
    with entries()[request.param].open(tmp_path, request.getfixturevalue) as opened:
        yield opened.store


def test_one_claim_stands_at_a_time(claims: Store) -> None:
    assert claims.to_claim().claim("docs", "first") is None
    assert claims.to_claim().claim("docs", "first") is None, "an answer may get lost"
    assert claims.to_claim().claim("docs", "second") == "first"
    assert claims.to_claim().claim("other", "second") is None, "another name"
    claims.to_claim().unclaim("docs", "second")
    assert claims.to_claim().claim("docs", "second") == "first", "only its owner frees a name"
    claims.to_claim().unclaim("docs", "first")
    claims.to_claim().unclaim("docs", "first")
    assert claims.to_claim().claim("docs", "second") is None
    assert claims.to_claim().claim("docs", "first") == "second"
    for name in ("docs", "other"):
        claims.to_claim().unclaim(name, "second")


def test_a_claim_is_taken_over_only_from_the_one_that_was_seen(claims: Store) -> None:
    assert claims.to_claim().claim("docs", "first") is None
    assert claims.to_claim().claim("docs", "second", "zeroth") == "first"
    assert claims.to_claim().claim("docs", "second", "first") is None
    assert claims.to_claim().claim("docs", "third", "first") == "second"
    claims.to_claim().unclaim("docs", "second")
    assert claims.to_claim().claim("docs", "third", "first") is None, "nobody has it"
    claims.to_claim().unclaim("docs", "third")


def test_a_renewed_claim_is_another_text_of_the_same_owner(claims: Store) -> None:
    assert claims.to_claim().renew("docs", "first", "first again") == ""
    assert claims.to_claim().claim("docs", "first") is None
    assert claims.to_claim().renew("docs", "first", "first again") is None
    assert claims.to_claim().renew("docs", "first", "first again") is None, "an answer may get lost"
    assert claims.to_claim().claim("docs", "second", "first") == "first again", (
        "it was seen to live"
    )
    assert claims.to_claim().claim("docs", "second", "first again") is None
    assert claims.to_claim().renew("docs", "first again", "first for ever") == "second"
    claims.to_claim().unclaim("docs", "first again")
    assert claims.to_claim().claim("docs", "first") == "second"
    claims.to_claim().unclaim("docs", "second")
    assert claims.to_claim().renew("docs", "second", "second again") == ""
    assert claims.to_claim().claim("docs", "first") is None
    claims.to_claim().unclaim("docs", "first")


def test_a_claim_is_no_collection_and_touches_none(claims: Store) -> None:
    info = claims.to_write().create(
        CollectionSpec(
            "docs", dimensions=4, metric="cosine", index={}, metadata={"k": 1}, model=MODEL
        )
    )
    claims.to_write().write(info.id, simple(3), vectors(3), "add")
    before = claims.catalog.describe("docs"), mark_of(claims, info.id)
    assert claims.to_claim().claim("docs", "first") is None
    assert claims.to_claim().renew("docs", "first", "again") is None
    assert claims.catalog.collections() == ["docs"]
    assert claims.to_claim().claim("docs", "second", "again") is None
    assert claims.catalog.collections() == ["docs"]
    claims.to_claim().unclaim("docs", "second")
    assert claims.catalog.collections() == ["docs"]
    assert (claims.catalog.describe("docs"), mark_of(claims, info.id)) == before


def test_long_names_and_texts_are_kept_whole(claims: Store) -> None:
    names = ["n" * 480 + "a", "n" * 480 + "b"]
    text = "ünïcödé ☃ 'quotes\" {}" + "x" * 3_000
    for name in names:
        assert claims.to_claim().claim(name, f"{text} {name}") is None
    for name in names:
        assert claims.to_claim().claim(name, "other") == f"{text} {name}"
        claims.to_claim().unclaim(name, f"{text} {name}")
        assert claims.to_claim().claim(name, "other") is None
        claims.to_claim().unclaim(name, "other")


def test_of_threads_that_take_over_at_once_one_wins(claims: Store) -> None:
    for round in range(ROUNDS):
        dead = f"dead {round}"
        assert claims.to_claim().claim("docs", dead) is None

        def take(racer: str, dead: str = dead) -> str | None:
            return claims.to_claim().claim("docs", racer, dead)

        with ThreadPoolExecutor(RACERS) as pool:
            answers = dict(zip("abcd", pool.map(take, "abcd"), strict=True))
        _check_one_winner(answers)
        for racer in answers:
            claims.to_claim().unclaim("docs", racer)


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
        assert store.to_claim().claim("docs", f"dead {round}") is None
        barrier.wait(60)
        owner = store.to_claim().renew("docs", f"dead {round}", "alive")
        told = dict(answers.get(timeout=60) for _ in racers)
        winners = [racer for racer, standing in told.items() if standing is None]
        assert len(winners) + (owner is None) <= 1, (told, owner)
        final = store.to_claim().claim("docs", "last")
        if winners:
            assert final == winners[0]
        elif owner is None:
            assert final == "alive"
        for one in (*told, "alive", "last"):
            store.to_claim().unclaim("docs", one)
        assert store.catalog.collections() == []
        barrier.wait(60)
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert store.to_claim().claim("docs", "after") is None, "nothing is left behind"
    store.to_claim().unclaim("docs", "after")


def _race(url: str, name: str, barrier: Barrier, answers: Any) -> None:
    store = open_store(url)
    take: Callable[..., str | None] = store.to_claim().claim
    for round in range(ROUNDS):
        barrier.wait(60)
        answers.put((name, take("docs", name, f"dead {round}")))
        barrier.wait(60)
    store.close()


def _check_one_winner(answers: dict[str, str | None]) -> None:
    winners = [racer for racer, standing in answers.items() if standing is None]
    assert len(winners) == 1, answers
    assert {standing for standing in answers.values() if standing} == set(winners), answers
