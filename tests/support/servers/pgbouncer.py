"""A real PgBouncer in front of the tests' Postgres, on a unix socket; skips the test by name where
it is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.servers.postgres_server import PostgresServer

CONFIG = """
[databases]
* = host={host} user=postgres
[pgbouncer]
pool_mode = {mode}
auth_type = any
listen_addr =
unix_socket_dir = {folder}
logfile = {folder}/log
default_pool_size = {size}
"""


@contextmanager
def pgbouncer(server: PostgresServer, database: str, mode: str, size: int = 20) -> Iterator[str]:
    """The URL of a database by way of a pooler that keeps sessions for a client, a transaction or
    a statement (`mode`), at most `size` of them."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="reembed-pgb-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG.format(host=server.folder, mode=mode, folder=folder, size=size))
    config.chmod(0o644)
    process = subprocess.Popen(
        [program, str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    url = f"postgresql://postgres@/{database}?host={folder}&port=6432"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)
