"""Servers that many tests share, one process each for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.chroma_server import ChromaServer
from tests.servers.chroma_server import chroma_server as run_chroma_server


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    """A real Chroma server; a test that uses it names its collections so that none collide."""
    with run_chroma_server(tmp_path_factory.mktemp("chroma") / "served") as server:
        yield server
