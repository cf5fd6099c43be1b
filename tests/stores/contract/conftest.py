from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reembed.stores.store import Store
from tests.stores.contract.stores import STORES


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn, empty."""
    with STORES[request.param](tmp_path, request.getfixturevalue) as opened:
        yield opened
