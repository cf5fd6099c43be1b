"""Who the server does not let in does what is said, and is let in. The server is the tests' own,
since its pg_hba.conf is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.commands import Command
from tests.support.following import follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.pg_docs import make_docs
from tests.support.servers.postgres_server import PostgresServer, postgres_server

DATABASE = "guarded"


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server of the tests' own, whose role `keeper` needs a password (`right`), and that does not
    let `stranger` in."""
    with postgres_server() as server:
        make_docs(server.url(server.new_database(DATABASE)))
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'right'")
            connection.execute("CREATE ROLE stranger SUPERUSER LOGIN")
        let_in(server, "", "stranger")
        yield server


def let_in(server: PostgresServer, lines: str, waits_for: str) -> None:
    """Write these lines into the server's pg_hba.conf, and wait until a role feels it."""
    rules = f"{lines}local all keeper scram-sha-256\nlocal all postgres trust\n"
    (path,) = server.folder.rglob("pg_hba.conf")
    path.write_text(rules)
    until = time.monotonic() + 60
    with psycopg.connect(server.url(), autocommit=True) as connection:
        while time.monotonic() < until:
            connection.execute("SELECT pg_reload_conf()")
            try:
                psycopg.connect(server.url(role=waits_for)).close()
            except psycopg.OperationalError:
                if not lines:
                    return
            else:
                if lines:
                    return
            time.sleep(0.05)
    raise AssertionError(f"{path} was not read")


def with_password(word: str) -> Callable[[PostgresServer, pytest.MonkeyPatch], None]:
    return lambda server, patch: patch.setenv("PGPASSWORD", word)


def as_it_is(server: PostgresServer, patch: pytest.MonkeyPatch) -> None: ...


def named_in_its_file(server: PostgresServer, patch: pytest.MonkeyPatch) -> None:
    let_in(server, "local all stranger trust\n", "stranger")


@wrong_and_right([
    ("keeper", as_it_is, follows_hint("Set PGPASSWORD, or write the password into ~/.pgpass"),
     with_password("right")),
    ("keeper-wrong", with_password("wrong"),
     follows_hint("The password is taken from PGPASSWORD, else from ~/.pgpass"),
     with_password("right")),
    ("stranger", as_it_is, follows_hint("Ask who runs the server to let this role in, from this"),
     named_in_its_file),
])  # fmt: skip
def test_a_door_that_is_shut_is_opened_as_is_said(
    wrong: Any, hint: str, right: Any, guarded: PostgresServer, tmp_path: Path, command: Command,
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    role = request.node.callspec.id.partition("-")[0]
    path = write_manifest(tmp_path, guarded.url(DATABASE, role))
    wrong(guarded, monkeypatch)
    refused = command("plan", path, "--json")
    assert refused.code == 5 and hint in refused.json["error"]["hint"], refused.out
    right(guarded, monkeypatch)
    led = command("plan", path)
    assert led.code == 0, led.out
