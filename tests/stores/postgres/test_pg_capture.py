"""Captured writes: each kind is told, once, and nothing of the capture stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reembed.errors import LockedError
from reembed.stores.registry import open_store
from tests.support.manifests import migration
from tests.support.pg_docs import App, app, literal, pg_manifest, traces
from tests.support.servers.postgres_server import PostgresServer
from tests.support.stores import logging, mark_of, snapshot_of
from tests.support.texts import ROOT, sentence


@pytest.fixture
def url(docs_url: str) -> str:
    """A database with the table `docs` of 40 records."""
    return docs_url


class Queue:
    """What the store tells of a captured table since the last look."""

    def __init__(self, url: str) -> None:
        self.store = open_store(url)
        self.changes, self.capture = logging(self.store)
        self.id = self.store.catalog.describe("docs").id
        try:
            self.capture.start(self.id)
        except BaseException:
            self.store.close()
            raise
        mark = mark_of(self.store, self.id)
        assert mark is not None
        self.mark = mark

    def told(self) -> set[str] | None:
        """The ids touched; None where all must be compared. They are forgotten."""
        found = self.changes.since(self.id, self.mark)
        self.capture.acknowledge(found.token)
        return None if found.ids is None else set(found.ids)


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    """The capture of `docs`."""
    opened = Queue(url)
    yield opened
    opened.store.close()


def copy_in(docs: App) -> None:
    with docs.connection.cursor() as cursor, cursor.copy(
        "COPY docs (id, content, embedding) FROM STDIN"
    ) as copy:  # fmt: skip
        copy.write_row((900, "copied", literal("old", "copied")))


def upsert(docs: App) -> None:
    docs.run(
        "INSERT INTO {t} (id, content) VALUES (3, 'x'), (901, 'y') ON CONFLICT (id) DO UPDATE SET "
        "content = excluded.content"
    )


def upsert_nothing(docs: App) -> None:
    docs.run("INSERT INTO {t} (id, content) VALUES (3, 'x') ON CONFLICT DO NOTHING")


def merge(docs: App) -> None:
    docs.run(
        "MERGE INTO {t} USING (VALUES (1), (2), (902)) AS v(n) ON id = n WHEN MATCHED AND n = 1 "
        "THEN DELETE WHEN MATCHED THEN UPDATE SET content = 'm' WHEN NOT MATCHED THEN INSERT "
        "(id, content) VALUES (n, 'm')"
    )


def roll_back(docs: App) -> None:
    with contextlib.suppress(ZeroDivisionError), docs.connection.transaction():
        docs.delete(1, 2, 3)
        docs.insert("never", 903)
        raise ZeroDivisionError


def roll_back_to_a_savepoint(docs: App) -> None:
    with docs.connection.transaction():
        docs.delete(4)
        with contextlib.suppress(ZeroDivisionError), docs.connection.transaction():
            docs.delete(5)
            raise ZeroDivisionError


WRITES: dict[str, tuple[Callable[[App], object], set[str] | None]] = {
    "insert": (lambda docs: docs.insert("new", 904), {"904"}),
    "update of the text": (lambda docs: docs.rewrite(7, "other"), {"7"}),
    "update of metadata": (lambda docs: docs.annotate(8, "x"), {"8"}),
    "delete": (lambda docs: docs.delete(9, 10), {"9", "10"}),
    "key change": (lambda docs: docs.rekey(11, 905), {"11", "905"}),
    "keys exchanged": (lambda docs: docs.run("UPDATE {t} SET id = id + 1000 WHERE id < 3"),
                       {"1", "2", "1001", "1002"}),
    "truncate": (lambda docs: docs.run("TRUNCATE {t}"), None),
    "copy": (copy_in, {"900"}),
    "insert or update": (upsert, {"3", "901"}),
    "insert or nothing": (upsert_nothing, set()),
    "merge": (merge, {"1", "2", "902"}),
    "rolled back": (roll_back, set()),
    "rolled back to a savepoint": (roll_back_to_a_savepoint, {"4"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_each_kind_of_write_is_told_once(url: str, queue: Queue, kind: str, role: str) -> None:
    write, expected = WRITES[kind]
    with app(url, session_replication_role=role) as docs:
        write(docs)
        assert queue.told() == expected
        assert queue.told() == set()
        docs.insert("after that", 999)
    assert queue.told() == {"999"}, "the queue goes on"


def test_a_late_commit_is_told_after_entries_that_were_numbered_later(
    url: str, queue: Queue
) -> None:
    with app(url) as late, app(url) as quick:
        late.connection.autocommit = False
        late.rewrite(1, "late")
        quick.rewrite(2, "quick")
        assert queue.told() == {"2"}
        late.connection.commit()
        assert queue.told() == {"1"}


def test_what_is_written_between_reading_and_acknowledging_is_kept(url: str, queue: Queue) -> None:
    with app(url) as docs:
        docs.rewrite(1, "one")
        found = queue.changes.since(queue.id, queue.mark)
        assert found.ids == ["1"]
        docs.rewrite(1, "one again")
        docs.run("TRUNCATE {t}")
        queue.capture.acknowledge(found.token)
        assert queue.told() is None
        docs.insert("x", 5)
        assert queue.told() == {"5"}


def test_unacknowledged_entries_are_told_again_by_another_process(url: str, queue: Queue) -> None:
    with app(url) as docs:
        docs.rewrite(1, "one")
    assert queue.changes.since(queue.id, queue.mark).ids == ["1"]
    again = Queue(url)
    assert again.mark == queue.mark, "it is the same capture"
    assert again.told() == {"1"}
    again.store.close()


@pytest.mark.parametrize(
    ("type", "id", "settings"),
    [
        ("timestamptz", "2024-05-06 07:08:09.12+00", {"timezone": "Asia/Tokyo"}),
        ("date", "2024-05-06", {"datestyle": "german"}),
        ("interval", "1 mon 2 days", {"intervalstyle": "iso_8601"}),
        ("float8", "0.1", {"extra_float_digits": "-5"}),
        ("bytea", r"\xdeadbeef", {"bytea_output": "escape"}),
        ("uuid", "0b0b0b0b-0000-0000-0000-000000000001", {}),
        ("citext", "MiXed", {}),
    ],
)
def test_ids_are_told_as_we_write_them(
    postgres_url: str, type: str, id: str, settings: dict[str, str]
) -> None:
    with app(postgres_url, **settings) as docs:
        docs.run("CREATE SCHEMA apart")
        docs.run(
            "DO $$ BEGIN CREATE EXTENSION citext SCHEMA apart; EXCEPTION WHEN OTHERS THEN CREATE "
            "DOMAIN apart.citext AS text; END $$"
        )
        docs.run("SET search_path = public, apart")
        docs.run(f"CREATE TABLE docs (id {type} PRIMARY KEY, content text, embedding vector(48))")
        queue = Queue(postgres_url)
        docs.run("INSERT INTO {t} (id, content) VALUES (%s, 'x')", id)
        docs.run("UPDATE {t} SET content = 'y'")
    assert queue.told() == {id}
    assert queue.store.reader.fetch(queue.id, [id], vectors=False).column(
        "document"
    ).to_pylist() == ["y"]
    queue.store.close()


def test_the_capture_waits_for_whoever_has_written_before_it(url: str) -> None:
    """So that what they wrote is in the snapshot that is taken after it."""
    with app(url) as late, app(url) as unborn:
        late.connection.autocommit = unborn.connection.autocommit = False
        late.rewrite(1, "written before, committed after")
        unborn.run("SELECT 1")  # it has begun, and writes later
        threading.Timer(1.0, late.connection.commit).start()
        start = time.monotonic()
        queue = Queue(url)
        assert time.monotonic() - start > 0.8
        with snapshot_of(queue.store):
            rows = queue.store.reader.fetch(queue.id, ["1"], vectors=False)
        assert rows.column("document").to_pylist() == ["written before, committed after"]
        unborn.rewrite(2, "begun before, written after")
        unborn.connection.commit()
    assert queue.told() == {"2"}
    queue.store.close()


def test_the_capture_lets_others_pass_while_it_waits(url: str) -> None:
    with app(url) as late, app(url) as other:
        late.connection.autocommit = False
        late.rewrite(1, "takes long")
        slowest = 0.0
        installer = threading.Thread(target=lambda: Queue(url).store.close())
        installer.start()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            start = time.monotonic()
            other.annotate(2, "in between")
            slowest = max(slowest, time.monotonic() - start)
        late.connection.commit()
        installer.join()
    assert 0.05 < slowest < 15, "it waits for our lock at times, and not for as long as we try"


def test_a_transaction_that_never_ends_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reembed.stores.postgres.locks.hold.LOCK_TRIES", 3)
    with app(url) as late:
        late.connection.autocommit = False
        late.rewrite(1, "takes long")
        pid = late.connection.info.backend_pid
        with pytest.raises(LockedError, match=rf"docs.*pid {pid} \(postgres, app, idle in tran"):
            Queue(url)
    assert traces(url) == []


# Nothing stays


@pytest.mark.parametrize(
    "half",
    [
        "DROP TRIGGER zz_reembed_rows ON docs",
        "DROP TRIGGER zz_reembed_truncate ON docs",
        "ALTER TABLE docs DISABLE TRIGGER zz_reembed_rows",
        "ALTER TABLE docs DISABLE TRIGGER USER; ALTER TABLE docs ENABLE TRIGGER USER",
        "DROP TRIGGER zz_reembed_rows ON docs; DROP TRIGGER zz_reembed_truncate ON docs",
        "DROP TABLE {log}",
        "DROP FUNCTION {function} CASCADE",
        "DROP FUNCTION {function} CASCADE; DROP TABLE {log}",
    ],
)
def test_a_half_made_capture_tells_nothing_and_is_made_anew(
    url: str, queue: Queue, half: str
) -> None:
    oid = queue.id.rpartition("/")[2]
    with app(url) as docs:
        docs.connection.execute(
            sql.SQL(half).format(
                log=sql.Identifier(f"reembed_{oid}_log"),
                function=sql.Identifier(f"reembed_{oid}_capture"),
            )
        )
        assert mark_of(queue.store, queue.id) is None
        assert queue.changes.since(queue.id, queue.mark).ids is None
        queue.capture.start(queue.id)
        assert mark_of(queue.store, queue.id) not in (None, queue.mark)
        assert queue.changes.since(queue.id, queue.mark).ids is None, "there was a gap"
        queue.mark = mark_of(queue.store, queue.id) or ""
        docs.rewrite(1, "x")
        assert queue.told() == {"1"}
    queue.capture.stop(queue.id)
    assert traces(url) == []
    queue.capture.stop(queue.id)


@pytest.mark.parametrize("until", ["export", "embed", "load", "verify"])
def test_clean_leaves_no_trace_of_a_run_that_stopped_anywhere(
    tmp_path: Path, url: str, until: str
) -> None:
    with app(url) as docs:
        before = docs.rows()
        path = pg_manifest(tmp_path, url)
        migration(path).run(until=until)  # type: ignore[arg-type]
        assert any("zz_reembed_rows" in trace for trace in traces(url))
        migration(path).clean()
        assert traces(url) == []
        assert docs.rows() == before


@pytest.mark.parametrize("event", ["census", "loaded", "caught-up", "shadow-created"])
def test_clean_leaves_no_trace_of_a_run_that_was_killed(
    tmp_path: Path, url: str, event: str
) -> None:
    path = pg_manifest(tmp_path, url)
    assert killed_at(path, event, "run()") == -signal.SIGKILL
    assert any("zz_reembed_rows" in trace for trace in traces(url))
    migration(path).clean()
    assert traces(url) == []


def killed_at(path: Path, event: str, call: str) -> int:
    """The exit code of a process that is killed right before it journals an event."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from reembed.run.journal import Journal\n"
        "append = Journal.append\n"
        "def killed(self, event, **fields):\n"
        f"    if event == {event!r}: os.kill(os.getpid(), 9)\n"
        "    append(self, event, **fields)\n"
        "Journal.append = killed\n"
        "from tests.support.manifests import migration\n"
        f"migration(Path({str(path)!r})).{call}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode


# Without the right to make triggers


@pytest.fixture
def modest_url(postgres: PostgresServer, url: str) -> Iterator[str]:
    """The database as a role that owns `docs` and may not make triggers on it."""
    role = f"modest_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "CREATE ROLE {} LOGIN", "GRANT ALL ON SCHEMA public TO {}",
            "ALTER TABLE docs OWNER TO {}", "REVOKE TRIGGER ON docs FROM {}",
        ):  # fmt: skip
            connection.execute(sql.SQL(statement).format(sql.Identifier(role)))
        yield postgres.url(connection.info.dbname, role=role)
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_without_triggers_plan_says_what_that_costs_and_comparison_finds_every_write(
    tmp_path: Path, modest_url: str
) -> None:
    path = pg_manifest(tmp_path, modest_url)
    warnings = " ".join(problem.message for problem in migration(path).plan().warnings)
    assert "may not make triggers on public.docs" in warnings
    assert "compares all of its rows" in warnings
    with app(modest_url) as docs:
        migration(path).run()
        store = open_store(modest_url)
        assert mark_of(store, store.catalog.describe("docs").id) is None
        store.close()
        write_some(docs, 100)
        migration(path).swap()
        assert (docs.model, docs.wrong_vectors("new")) == ("new", [])
        changed = docs.rows()
        assert changed[102][0] == "inserted" and 3 not in changed
        write_some(docs, 200)
        expected = docs.rows()
        migration(path).rollback()
        assert (docs.model, docs.wrong_vectors("old")) == ("old", [])
        assert docs.rows() == expected
        migration(path).run(swap=True)
        migration(path).clean()
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])
    assert traces(modest_url) == []


def write_some(docs: App, base: int) -> None:
    """A write of each kind; the ids from `base` on are free."""
    first = min(docs.rows())
    docs.rewrite(first, f"rewritten {base}")
    docs.annotate(first + 1, f"annotated {base}")
    docs.delete(first + 2)
    docs.insert("inserted", base + 2)
    docs.rekey(first + 3, base + 3)
    docs.run("UPDATE {t} SET price = price + 0.005 WHERE id = %s", first + 4)
    docs.delete(first + 5)
    docs.insert(sentence(base), first + 5)
