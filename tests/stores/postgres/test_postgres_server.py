"""The Postgres of the tests: it serves, and it never outlives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.support.servers.postgres_server import PostgresServer, postgres_server
from tests.support.texts import ROOT

HOLDER = """
import json, time
from tests.support.servers.postgres_server import postgres_server
with postgres_server() as server:
    print(json.dumps([str(server.folder), server.pid]), flush=True)
    time.sleep(300)
"""


def gone(pid: int, folder: Path, seconds: float = 30) -> bool:
    """Whether process and folder are away within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            if not folder.exists():
                return True
        time.sleep(0.05)
    return False


def test_a_database_has_vector_types_and_is_its_own(postgres: PostgresServer) -> None:
    with postgres.database() as one, postgres.database() as two:
        with psycopg.connect(one) as connection:
            connection.execute("CREATE TABLE t (v vector(3), h halfvec(3))")
            connection.execute("INSERT INTO t VALUES ('[1,2,3]', '[1,2,3]')")
            row = connection.execute("SELECT v <=> '[3,2,1]', h <-> '[1,2,3]' FROM t").fetchone()
            version = connection.execute("SHOW server_version_num").fetchone()
        with psycopg.connect(two) as connection:
            found = connection.execute("SELECT to_regclass('t')").fetchone()
    assert row and row[0] == pytest.approx(1 - 10 / 14) and row[1] == 0
    assert version and int(version[0]) >= 180000
    assert found == (None,)


def test_a_dropped_database_is_dropped_under_its_users(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        held = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    held.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_other_roles_are_let_in(postgres_url: str, postgres: PostgresServer) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute('CREATE ROLE "some one" LOGIN')
        try:
            with psycopg.connect(postgres.url(name, role="some one")) as theirs:
                assert theirs.execute("SELECT current_user").fetchone() == ("some one",)
        finally:
            connection.execute('DROP ROLE "some one"')


def test_settings_are_taken() -> None:
    with (
        postgres_server(wal_level="logical") as server,
        psycopg.connect(server.url()) as connection,
    ):
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
    assert gone(server.pid, server.folder, 1)


def test_a_setting_that_does_not_exist_fails_with_postgres_own_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError, match="did not start"), postgres_server(no_such="1"):
        pass
    assert 'unrecognized configuration parameter "no_such"' in capfd.readouterr().err


def test_a_test_run_that_is_killed_leaves_no_server() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout
    folder, pid = json.loads(holder.stdout.readline())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert gone(pid, Path(folder))
