from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reembed.stores.store import Store
from tests.stores.contract.records import AWKWARD, Record
from tests.stores.contract.stores import Entry, Fill, Opened, entries


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs on the stores that have the parts its module needs."""
    if "entry" in metafunc.fixturenames:
        needed = metafunc.module.PARTS
        chosen = {
            name: entry for name, entry in entries().items() if not set(needed) & set(entry.lacks)
        }
        assert chosen, f"{metafunc.module.__name__}: no store has {needed}"
        metafunc.parametrize("entry", chosen.values(), ids=chosen)


@pytest.fixture
def opened(entry: Entry, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Each store in turn, empty."""
    with entry.open(tmp_path, request.getfixturevalue) as opened:
        yield opened


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened.store


@pytest.fixture
def fill(opened: Opened) -> Fill:
    return opened.fill


@pytest.fixture
def awkward(entry: Entry) -> list[Record]:
    """Records that break naive copies, but for what the store cannot hold at all."""
    return [record for record in AWKWARD if entry.holds(record)]
