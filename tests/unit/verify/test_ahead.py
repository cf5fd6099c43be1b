"""What a verdict needs of the shards is found beside the load: the same, never of other shards, and
whatever becomes of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from reembed.errors import UnreachableError
from reembed.quality.search import exact_searches
from reembed.quality.verdict import Verdict
from reembed.stages.load import load_shadow
from reembed.sync import build
from reembed.verify import ahead, truth
from tests.support.chroma_data import chroma, plain_collection
from tests.support.crash import work
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.texts import vector_of

COUNT = 120


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=COUNT)
    return write_manifest(tmp_path, "chroma:./db", verify__sample=100)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which exact searches were made."""
    threads: list[str] = []

    def counted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return exact_searches(*arguments)

    monkeypatch.setattr(truth, "exact_searches", counted)
    return threads


def told(verdict: Verdict | None) -> dict[str, Any]:
    """What can be computed again."""
    assert verdict is not None and verdict.passed
    return {gate.name: gate for gate in verdict.gates if gate.name not in ("latency", "index")}


def waits_for_ahead(monkeypatch: pytest.MonkeyPatch, then: Any) -> None:
    """Do something between what is found ahead and the load."""

    def late(s: Any, *early: Any) -> None:
        for thread in threading.enumerate():
            if thread.name == "ahead":
                thread.join()
        then()
        load_shadow(s, *early)

    monkeypatch.setattr(build, "load_shadow", late)


def test_what_is_found_beside_the_load_is_what_a_verdict_finds(
    path: Path, searches: list[str]
) -> None:
    first = told(migration(path).run().verdict)
    assert set(searches) == {"ahead"} and len(searches) == 2, "the new vectors, and the old ones"
    searches.clear()
    assert told(migration(path).verify().verdict) == first
    assert set(searches) == {"MainThread"}


def test_what_was_found_of_other_shards_is_not_taken(
    path: Path, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def written_meanwhile() -> None:
        with chroma(path.parent / "db") as client:
            docs = client.get_collection("docs", embedding_function=None)
            docs.add(ids=["late"], documents=["words"], metadatas=[{"late": 1}],
                     embeddings=[vector_of("old", "words")])  # fmt: skip

    waits_for_ahead(monkeypatch, written_meanwhile)
    first = told(migration(path).run().verdict)
    assert first["integrity"].figures["records"] == COUNT + 1
    assert searches == ["ahead", "ahead", "MainThread", "MainThread"]
    assert told(migration(path).verify().verdict) == first


def test_a_verdict_needs_nothing_of_it(
    path: Path, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = truth.Truth.find

    def broken(self: truth.Truth) -> None:
        find(self)
        raise RuntimeError("by a fault of ours")

    monkeypatch.setattr(truth.Truth, "find", broken)
    told(migration(path).run().verdict)
    assert searches.count("MainThread") == 2


def test_a_load_that_fails_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped = threading.Event(), list[bool]()

    def waiting(self: Any) -> None:
        begun.set()
        stopped.append(self._stop.wait(60))
        raise ahead.Stopped

    def fails(*_: Any) -> None:
        assert begun.wait(60)
        raise UnreachableError("the store is gone", "Run again.")

    monkeypatch.setattr(ahead.Ahead, "_wait", waiting)
    with monkeypatch.context() as patch:
        patch.setattr(build, "load_shadow", fails)
        with pytest.raises(UnreachableError):
            migration(path).run()
    assert stopped == [True]
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_is_killed_in_it_goes_on(path: Path, at: int) -> None:
    """In the search of the new vectors, and in that of the old ones."""
    assert work(path, "run()", "reembed.verify.truth:exact_searches", at) == -9
    assert run_dir(path).history.state in ("embedded", "loaded")
    assert work(path, "run()") == 0
    assert run_dir(path).history.state == "verified"
    kept = json.loads((run_dir(path).path / "verdict.json").read_text())
    assert kept["passed"]


def test_it_is_not_begun_where_a_call_ends_before_the_verdict(
    path: Path, searches: list[str]
) -> None:
    migration(path).run(until="load")
    assert not searches
    migration(path).run()
    assert searches == ["MainThread", "MainThread"], "there is no load to go beside any more"
