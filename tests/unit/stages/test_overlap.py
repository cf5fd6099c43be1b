"""Stages that overlap: what is begun early ends in order, and nothing goes on after an error."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reembed.progress import Later
from reembed.run import events
from reembed.run.history import History
from reembed.stages import export as stage
from reembed.stages.engines import EarlyEngine
from reembed.stores.collection import Collection
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Calls
from tests.support.manifests import migration, run_dir, write_manifest

LONG = 60.0


def test_results_come_in_order_and_what_was_begun_is_not_done_again():
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return 10 * item

    with EarlyEngine(2) as engine:
        engine.begin(work, 3, lambda: None)
        assert engine.begun(3)
        assert not engine.begun(4)
        assert list(engine.map(work, [1, 2, 3, 4])) == [10, 20, 30, 40]
        assert not engine.busy
    assert sorted(done) == [1, 2, 3, 4]


def test_the_first_error_stops_the_others_and_is_raised_when_it_is_asked_for():
    stopped = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            raise ValueError("one")
        assert stopped.wait(LONG)
        raise KeyError("stopped")

    with EarlyEngine(2) as engine:
        for item in (0, 1, 2, 3):
            engine.begin(work, item, stopped.set)
        with pytest.raises(ValueError, match="one"):
            list(engine.map(work, [0, 1, 2, 3]))
    assert engine.stopped.is_set()


def test_one_that_is_left_ends_what_is_in_work_and_begins_nothing_more():
    stopped, began = threading.Event(), threading.Event()
    done: list[int] = []

    def work(item: int) -> None:
        began.set()
        assert stopped.wait(LONG)
        done.append(item)

    def left() -> None:
        with EarlyEngine(1) as engine:
            for item in range(5):
                engine.begin(work, item, stopped.set)
            assert began.wait(LONG)
            raise RuntimeError("export failed")

    with pytest.raises(RuntimeError):
        left()
    assert done == [0]


def test_what_was_counted_before_a_stage_is_shown_is_told_then():
    told: list[float] = []

    class Shown:
        def update(self, n: float | None = 1) -> None:
            told.append(n or 0)

    later = Later()
    later.update(3)
    later.update()
    later.show(Shown())
    later.update(2)
    assert told == [4, 2]


def test_shards_are_embedded_while_others_are_exported(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
):
    """The third shard is read only once one is embedded."""
    monkeypatch.setattr(stage, "SHARD_ROWS", 20)
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=60)
    path = write_manifest(tmp_path, f"chroma:{tmp_path / 'db'}")
    embedded, pages = threading.Event(), list[int]()
    write, fetch = History.record, Collection.fetch_page

    def noted(self: History, event: events.Event) -> None:
        write(self, event)
        if isinstance(event, events.ShardWritten) and event.stage == "embed":
            embedded.set()

    def held(self: Any, ids: Sequence[str], **named: Any) -> Any:
        pages.append(len(ids))
        if len(pages) == 3:
            assert embedded.wait(LONG), "nothing is embedded while the source is exported"
        return fetch(self, ids, **named)

    monkeypatch.setattr(History, "record", noted)
    monkeypatch.setattr(Collection, "fetch_page", held)
    migration(path).run(until="embed")
    assert pages == [20, 20, 20]
    done = run_dir(path).history.all(events.StageDone)
    assert [one.stage for one in done] == ["export", "embed"]
    assert not done[0].stats, "what the model was asked for is told once"
    assert done[1].stats["texts"], "by the stage that it was for"
