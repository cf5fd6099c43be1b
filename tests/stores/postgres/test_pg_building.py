"""Several workers build an index of vectors, also of a short table, and one does where they have
no memory to share, as in a container with the usual 64 MB of it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.manifests import migration, run_dir
from tests.support.pg_docs import make_docs, pg_manifest
from tests.support.servers.postgres_server import PostgresServer, postgres_server

SHARED = "using 2 parallel workers"
NOT_SHARED = "could not resize shared memory segment"
LEAST_SHARED = 40 << 20
"""Less than a build shares, and more than any file of the server's is long."""


def built(server: PostgresServer, url: str) -> str:
    """What the server's log says since the last call, and all indexes are valid."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
    assert found == (0,)
    said = server.log()
    (server.folder / "log").write_text("")
    return said


@contextlib.contextmanager
def limited(bytes: int | None) -> Iterator[None]:
    """What is started in the block writes no longer files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes or before[0], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("shares", [False, pytest.param(True, marks=pytest.mark.long)])
def test_workers_build_an_index_where_they_can_share_memory(tmp_path: Path, shares: bool) -> None:
    """A view on the table lets it stay, so that the swap builds an index beside writers, too."""
    with contextlib.ExitStack() as stack:
        with limited(None if shares else LEAST_SHARED):
            server = stack.enter_context(postgres_server(log_min_messages="debug1"))
        url = server.url(server.new_database())
        make_docs(url, 400, "CREATE VIEW titles AS SELECT id FROM docs")
        path = pg_manifest(tmp_path, url)
        built(server, url)
        for step in ("load", "swap"):
            migration(path).run(until=step)
            said = built(server, url)
            assert (SHARED in said, NOT_SHARED in said) == (shares, not shares), step
        assert run_dir(path).history.state == "swapped"
