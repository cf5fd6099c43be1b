"""Vectors that are copied ahead of an exchange of columns."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reembed.cutover import move as moving
from reembed.errors import LockedError, SourceChangedError
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.locks.brake import Brake
from reembed.stores.postgres.locks.hold import Hold, result_of
from reembed.stores.postgres.move import ahead, indexing
from reembed.stores.postgres.move import pace as pace_module
from reembed.stores.postgres.move.columns import add_columns
from reembed.stores.postgres.move.copying import Copying, copy_all, copy_touched
from reembed.stores.postgres.move.indexing import build_indexes
from reembed.stores.postgres.move.pace import Pace, Round
from reembed.stores.postgres.schema.table import Table
from reembed.stores.registry import open_store
from reembed.stores.values import Exchange, StoreOptions
from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir
from tests.support.pg_docs import app, pg_manifest
from tests.support.texts import sentence

HELD = "reembed.cutover.move:writes_held"
UNIQUE = (
    "CREATE VIEW titles AS SELECT id FROM docs; CREATE UNIQUE INDEX ON docs (md5(embedding::text))"
)


def test_unique_vectors_that_change_rows_between_two_calls_are_copied(
    tmp_path: Path, docs_url: str
) -> None:
    """More of them than are written together, while the killed call's index is there."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute(UNIQUE)
    path = pg_manifest(tmp_path, docs_url)
    assert work(path, "run()") == 0, outcome(path)
    assert work(path, "swap()", HELD, 1) == -9
    with app(docs_url) as docs:
        ids = sorted(docs.rows())
        with docs.connection.transaction():
            docs.run("UPDATE docs SET embedding = NULL")
            for id, other in zip(ids, [*ids[1:], ids[0]], strict=True):
                docs.rewrite(id, sentence(other))
        assert work(path, "swap()") == 0, outcome(path)
        assert docs.model == "new" and docs.wrong_vectors("new") == []
        assert work(path, "rollback()") == 0, outcome(path)
        assert docs.wrong_vectors("old") == []


def test_a_copy_that_failed_midway_is_made_whole(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index of the vectors tells that rows are missing."""

    def others_are_in_the_way(*arguments: object) -> int:
        raise LockedError("docs: other sessions hold locks on it")

    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("DROP INDEX docs_by_vector; CREATE VIEW titles AS SELECT id FROM docs")
    path = pg_manifest(tmp_path, docs_url)
    migration(path).run()
    shadow = run_dir(path).history.shadow_name
    with closing(open_store(docs_url)) as store, app(docs_url) as docs:
        old, new = (store.catalog.describe(name).id for name in ("docs", shadow))
        with monkeypatch.context() as patched, pytest.raises(LockedError):
            patched.setattr(ahead, "copy_all", others_are_in_the_way)
            store.to_move().prepare("docs", new)
        store.to_move().prepare("docs", new)
        store.to_move().exchange("transaction", Exchange("docs", new, old, "parked"))
        assert docs.model == "new" and docs.wrong_vectors("new") == []


def test_what_is_written_before_an_exchange_that_nobody_held_keeps_its_vector(
    tmp_path: Path, docs_url: str
) -> None:
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("CREATE VIEW titles AS SELECT id FROM docs")
    path = pg_manifest(tmp_path, docs_url)
    migration(path).run()
    shadow = run_dir(path).history.shadow_name
    with closing(open_store(docs_url)) as store, app(docs_url) as docs:
        old, new = (store.catalog.describe(name).id for name in ("docs", shadow))
        store.to_move().prepare("docs", new)
        late = docs.insert("written late")
        store.to_move().exchange("transaction", Exchange("docs", new, old, "parked"))
        with app(docs_url, "parked") as parked:
            assert late in parked.rows() and parked.wrong_vectors("old") == []


def test_most_rows_stay_in_their_block_so_that_no_index_gets_entries_for_them(
    docs_url: str,
) -> None:
    """Rows that lie in the order of their ids, in blocks that are full."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        for table, one in (("large", 1), ("larger", 2)):
            connection.execute(
                f"CREATE TABLE {table} (id int PRIMARY KEY, content text, embedding vector); "
                f"INSERT INTO {table} SELECT n, repeat('text', 60), array_fill(n * {one}, "
                "ARRAY[700]) FROM generate_series(1, 3000) n"
            )
        with closing(Catalog(docs_url, StoreOptions())) as found:
            large, larger = (found.tables_of_name(name)[0] for name in ("large", "larger"))
            add_columns(found.main, [(large, larger)])
            before = blocks(connection)
            assert copy_all(found.main, Copying(large, larger)) == 6000
        now = blocks(connection)
        assert sum(now[id] == before[id] for id in before) > 1800, "of 3000"
        (right,) = connection.execute(
            "SELECT count(*) FROM large JOIN larger o USING (id) WHERE large.reembed_incoming = "
            "o.embedding AND o.reembed_incoming = large.embedding"
        ).fetchone() or (0,)
        assert right == 3000


def rounds(pace: Pace, *seconds: float) -> list[bool]:
    """Whether a table is ready after each of these rounds, of ten rows a second."""
    table = Table(1, "public", "docs", (), "id", "embedding", None, None, None, "table")
    return [pace.is_ready(table, Round(round(10 * one), one, 1.0)) for one in seconds]


def test_rounds_go_on_while_they_become_shorter() -> None:
    """More than two in a row may not, however many may in all."""
    seconds = (100, 60, 61, 62, 30, 31, 32, 10, 3, 0.2)
    assert rounds(Pace(indexed=True), *seconds) == [False] * 9 + [True]


def test_little_that_becomes_no_less_is_left_for_the_end() -> None:
    assert rounds(Pace(indexed=True), 100, 1.5, 1.6, 1.5, 1.7) == [False] * 4 + [True]


def test_writers_wait_longer_for_a_group_of_rows_where_it_does_not_get_ahead() -> None:
    pace = Pace(indexed=True)
    before, paused = pace.held_seconds, pace.pause_share
    rounds(pace, 100, 99, 50)
    assert before < pace.held_seconds < 1 and pace.pause_share < paused


@follows_hint("what was copied stays. Run again when fewer writes come in, or pause the writers")
def test_what_is_written_faster_than_it_can_be_copied_is_told_by_name(
    tmp_path: Path, docs_url: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once the writers pause, the same command moves the name."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("CREATE VIEW titles AS SELECT id FROM docs")
    path = pg_manifest(tmp_path, docs_url)
    assert command("run", path).code == 0
    steps = list[str]()
    with app(docs_url) as docs, monkeypatch.context() as patched:

        def copied(*arguments: Any) -> int:
            steps.append("copy")
            docs.rewrite(2, f"written in round {len(steps)}")
            return copy_touched(*arguments)

        def built(*arguments: Any) -> None:
            steps.append("index")
            build_indexes(*arguments)

        patched.setattr(ahead, "copy_touched", copied)
        patched.setattr(indexing, "build_indexes", built)
        for limit in ("QUICK_SECONDS", "LAST_SECONDS", "MOST_SECONDS"):
            patched.setattr(pace_module, limit, -1.0)
        refused = command("swap", path, "--yes", "--json")
        assert refused.code != 0 and docs.model == "old"
        told = refused.json["error"]
        assert "public.docs is written to faster than its new vectors" in told["message"]
        assert "pause the writers" in told["hint"]
        at = steps.index("index")
        assert steps.count("index") == 1 and 0 < at < len(steps) - 1
    with app(docs_url) as docs:
        assert command("swap", path, "--yes").code == 0
        assert docs.model == "new" and docs.wrong_vectors("new") == []
        assert docs.run("SELECT content FROM {t} WHERE id = 2") == [
            (f"written in round {len(steps)}",)
        ]


def test_rows_are_copied_while_writers_wait_as_far_as_they_fit(fitting: Table) -> None:
    pace = Pace(indexed=True)
    assert pace.fitting(fitting, 1_000, 0.1) == 1_000, "nobody knows how long a row takes"
    pace.wrote(10, 0.1)
    assert pace.fitting(fitting, 40, 0.1) == 40
    assert pace.fitting(fitting, 100, 0.1) == 40
    assert pace.fitting(fitting, 60, 3.0) == 10, "however long they have waited"
    assert pace.fitting(fitting, 30, 0.4) == 10
    pace.wrote(1, 60.0)
    assert [pace.fitting(fitting, rows, 0.4) for rows in range(29, 19, -1)] == [1] * 10


@pytest.fixture
def fitting(docs_url: str) -> Table:
    with closing(Catalog(docs_url, StoreOptions())) as found:
        return found.tables_of_name("docs")[0]


def test_writers_wait_several_times_where_the_rest_does_not_fit(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time for a part of it; and where as much is written each time, they are told."""
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute("CREATE VIEW titles AS SELECT id FROM docs")
    path, holds, late = pg_manifest(tmp_path, docs_url), list[int](), [2, 2, 2, 2, 2, 2]
    migration(path).run()
    held = moving.writes_held
    with app(docs_url) as docs:

        def writers_come_first(*arguments: Any) -> Any:
            rows = late.pop(0) if late else 0
            holds.append(rows)
            for id in sorted(docs.rows())[:rows]:
                docs.rewrite(id, f"written before hold {len(holds)}")
            return held(*arguments)

        monkeypatch.setattr(moving, "writes_held", writers_come_first)
        monkeypatch.setattr(Pace, "row_seconds", property(lambda _: 1.0, lambda *_: None))
        with pytest.raises(SourceChangedError, match="while writers wait for less than a second"):
            migration(path).swap()
        assert docs.model == "old" and 3 < len(holds) < 7
        holds.clear()
        late[:] = [5]
        for step, model in (("swap", "new"), ("rollback", "old")):
            assert getattr(migration(path), step)().done
            assert docs.model == model and docs.wrong_vectors(model) == []
    assert len(holds) >= 5 + 1, "a row each time, and the rest"


def test_a_brake_lets_those_through_that_wait_and_ends_when_it_is_released(docs_url: str) -> None:
    holds = (
        "SELECT count(*) FROM pg_locks WHERE relation = 'docs'::regclass AND granted AND mode = "
        "'ShareRowExclusiveLock'"
    )
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE "
        "'DO %pg_sleep%'"
    )
    with closing(Catalog(docs_url, StoreOptions())) as found, app(docs_url) as docs:
        (table,) = found.tables_of_name("docs")
        brake = Brake(docs_url, table)
        try:
            for number in range(3):
                until(lambda: docs.run(holds) == [(1,)])
                docs.insert(f"written while it is on {number}")
            assert docs.run(others) == [(1,)]
        finally:
            brake.release()
        until(lambda: docs.run(holds) == [(0,)] and docs.run(others) == [(0,)])


def test_nobody_waits_for_an_heir_that_was_not_needed(docs_url: str) -> None:
    with closing(Catalog(docs_url, StoreOptions())) as found, app(docs_url) as docs:
        hold = Hold(docs_url, 60.0)
        try:
            hold.writers_of(found.tables_of_name("docs"), heir=True)
            hold.commit()
            docs.run("SET lock_timeout = '5s'")
            docs.insert("written at once")
        finally:
            hold.close()


def test_a_statement_that_the_server_has_not_read_yet_is_cancelled(docs_url: str) -> None:
    with closing(psycopg.connect(docs_url, autocommit=True)) as session:
        server = session.info.backend_pid
        going_on = threading.Timer(0.3, os.kill, [server, signal.SIGCONT])
        os.kill(server, signal.SIGSTOP)
        session.pgconn.send_query(b"SELECT pg_sleep(60)")
        going_on.start()  # the first cancel reaches it before it has read what is to be cancelled
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            result_of(session, 0.0)
        assert time.monotonic() - begun < 30
        going_on.join()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def blocks(connection: psycopg.Connection) -> dict[int, int]:
    """In which block of its file each row of `large` lies."""
    rows = connection.execute("SELECT id, (ctid::text::point)[0]::int FROM large").fetchall()
    return dict(rows)
