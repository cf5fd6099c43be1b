"""Servers that many tests share, one process each for the whole run."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from hypothesis import settings

from reembed.redaction import known
from reembed.stores.chroma import hold
from reembed.verify import search_gates
from tests.clients.incident import Incident, write_incident
from tests.support import following
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Calls, Command
from tests.support.pg_docs import make_docs
from tests.support.servers.chroma_server import ChromaServer
from tests.support.servers.chroma_server import chroma_server as run_chroma_server
from tests.support.servers.embedding_server import OPENAI, REAL_WIDTHS, EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer, postgres_server
from tests.support.trusted import trusted

settings.register_profile("reembed", deadline=None)  # a loaded machine proves nothing
settings.load_profile("reembed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Thousands of tests are made now and stay: no time goes into looking them through."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_secrets_of_others() -> Iterator[None]:
    """What one test gave as a secret is not starred in the next one's output."""
    yield
    known.forget()


@pytest.fixture(autouse=True, scope="session")
def nothing_waited_for() -> Iterator[None]:
    """What a command does for others' sake takes little time in this process: the median time of a
    search is shown and not judged, so five make one, and no writer that looked for a hold just
    before it came is waited for (those of the campaigns of writes, which are processes, are).
    And the command line is put together once, and certificates are read once."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("httpx._transports.default", "httpx"):
            patch.setattr(f"{place}.create_ssl_context", trusted)
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        patch.setattr(search_gates, "TIMED_QUERIES", 5)
        patch.setattr(hold, "GRACE_SECONDS", 0.001)
        yield


@pytest.fixture(autouse=True)
def hints_are_made(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A test that is marked with the words of a hint brings it up."""
    marks = list(request.node.iter_markers("follows_hint"))
    yield from following.hold(marks, monkeypatch) if marks else iter([None])


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    """A real Chroma server; a test that uses it names its collections so that none collide."""
    with run_chroma_server(tmp_path_factory.mktemp("chroma") / "served") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real Postgres with pgvector; a test takes a database of its own, `postgres_url`."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database with the extension `vector`."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def _docs_template(postgres: PostgresServer) -> str:
    name = postgres.new_database()
    make_docs(postgres.url(name))
    return name


@pytest.fixture
def docs_url(postgres: PostgresServer, _docs_template: str) -> Iterator[str]:
    """The URL of a database with the table `docs` of 40 records (`tests/support/pg_docs.py`)."""
    name = postgres.new_database(template=_docs_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def embedder() -> Iterator[EmbeddingServer]:
    """Serves text-embedding-3-small (1536 dimensions) by OpenAI's API and nomic-embed-text (768) by
    Ollama's."""
    with EmbeddingServer(OPENAI, widths=REAL_WIDTHS) as server:
        yield server


@pytest.fixture(scope="session")
def _incident(
    postgres: PostgresServer, embedder: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> Incident:
    return write_incident(postgres, embedder.url, tmp_path_factory.mktemp("incident"))


@pytest.fixture
def incident(_incident: Incident, postgres: PostgresServer, tmp_path: Path) -> Iterator[Incident]:
    """1,968 memories of mem0, in a database of the test's own; the first use takes ten seconds.
    A test that takes it is marked `needs_clients`."""
    copy = _incident.copy(postgres, tmp_path)
    yield copy
    postgres.drop_database(copy.database)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts what the models of `cases/counting_model.py` are asked for, from here on."""
    path = tmp_path / "calls.jsonl"
    monkeypatch.setenv("REEMBED_TEST_CALLS", str(path))
    return Calls(path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line, in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A Chroma folder with the collection `docs` of 40 plain records, and nothing open."""
    folder = tmp_path / "db"
    with chroma(folder) as client:
        plain_collection(client)
    return folder
