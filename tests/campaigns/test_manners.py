"""Whole runs of 300 records against servers of every manner: done, or refused by name within a
minute; every good record moved and no good one set aside; few requests more than were needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import whole_runs
from tests.support.commands import Command
from tests.support.servers.manners import MANNERS, Manner, serve
from tests.support.servers.odd_manners import ODD_MANNERS
from tests.support.whole_runs import KEY, STEPS, Baseline

ALL = {**MANNERS, **ODD_MANNERS}
MOST = 1.3
"""Requests for one that was needed."""
LONGEST = 60.0
"""Seconds until a run that cannot go on says so."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    whole_runs.fill(folder, whole_runs.texts_of(Manner(lambda *_: None)))
    return folder


_BASELINES: list[Baseline] = []


@pytest.fixture
def baseline(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, command: Command
) -> Iterator[Baseline]:
    if not _BASELINES:
        _BASELINES.append(Baseline(filled, tmp_path_factory.mktemp("ideal"), command))
    one = _BASELINES[0]
    one.command = command
    yield one


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_a_whole_run(
    name: str, tmp_path: Path, filled: Path, baseline: Baseline, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("WHOLE_KEY", KEY)
    manner = ALL[name]
    texts = whole_runs.texts_of(manner)
    if manner.long:
        whole_runs.fill(tmp_path, texts)
    else:
        shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with serve(manner) as server:
        path = whole_runs.manifest(tmp_path, server.openai_url, manner)
        ended = whole_runs.run_whole(path, server, command)
    assert "Traceback" not in ended.said and KEY not in ended.said
    if manner.refused:
        assert ended.codes[-1] == 5 and manner.refused in ended.said, ended
        assert ended.seconds < LONGEST
        return
    done = 3 if manner.quarantined else 0
    assert ended.codes == (0, done, done), ended
    assert len(ended.codes) == len(STEPS)
    whole_runs.check_moved(tmp_path, manner, texts)
    ideal = baseline.ideal(manner)
    print(f"{name}: {ended.requests} requests, {ideal:g} ideal")
    assert ended.requests <= MOST * ideal, (ended.requests, ideal, server.statuses)
