"""What gets in the way of a swap in Postgres: long readers and writers, old snapshots, kills, and a
process that freezes. The application never waits long, and nothing is moved by half."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reembed.report.timeline import human_seconds
from reembed.stores.postgres.locks import hold as pg_hold
from reembed.stores.postgres.move import ahead
from reembed.stores.postgres.move.ahead import Ahead
from reembed.stores.postgres.schema.table import Table, nameless
from reembed.stores.values import Prepared
from tests.support.commands import Command
from tests.support.crossing import crossed
from tests.support.forked import Forked
from tests.support.manifests import migration
from tests.support.pg_docs import App, app, pg_manifest, traces

WAYS = {"rename": "SELECT 1", "columns": "CREATE VIEW titles AS SELECT id, content FROM docs"}
way = pytest.mark.parametrize("way", WAYS)


def loaded(tmp_path: Path, url: str, way: str) -> Path:
    """A manifest whose run is loaded and verified, on a table that takes this way."""
    with app(url) as docs:
        docs.run("CREATE TABLE other (id int)")
        docs.run("ALTER TABLE docs ALTER embedding SET NOT NULL")
        docs.run(WAYS[way])
    path = pg_manifest(tmp_path, url)
    assert migration(path).run().verdict
    return path


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon."""
    monkeypatch.setattr(pg_hold, "LOCK_TRIES", 4)
    monkeypatch.setattr(pg_hold, "FENCE_SECONDS", 0.5)
    monkeypatch.setattr("reembed.cutover.move.MOVE_TRIES", 2)
    monkeypatch.setattr("reembed.cutover.move.MOVE_PAUSE", 0.1)


@contextlib.contextmanager
def timed(url: str, statement: str) -> Iterator[list[float]]:
    """How long each run of a statement takes that another session gives all through the block."""
    took, stop = list[float](), threading.Event()

    def work() -> None:
        with app(url) as docs:
            while not stop.is_set():
                start = time.monotonic()
                docs.run(statement)
                took.append(time.monotonic() - start)
                stop.wait(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield took
    finally:
        stop.set()
        worker.join()


# Locks of others


@pytest.mark.parametrize(
    ("held", "way"),
    crossed(["SELECT count(*) FROM {t}", "UPDATE {t} SET price = 2 WHERE id = 1"], WAYS),
)
def test_who_holds_a_lock_for_long_is_named_and_nothing_moves(
    tmp_path: Path, docs_url: str, way: str, held: str, command: Command, quickly: None
) -> None:
    path = loaded(tmp_path, docs_url, way)
    with app(docs_url) as docs, app(docs_url) as holder:
        before = docs.rows()
        holder.connection.autocommit = False
        holder.run(held)
        pid = holder.connection.info.backend_pid
        with timed(docs_url, "SELECT content FROM docs WHERE id = 1") as took:
            ended = command("swap", path, "--yes")
        assert ended.code == 6
        assert f"pid {pid} (postgres, app, idle in transaction) since 20" in ended.err
        assert "run the same command again" in ended.err
        assert max(took) < 2, "readers pass in between"
        assert (docs.model, docs.rows(), docs.wrong_vectors("old")) == ("old", before, [])
        docs.annotate(2, "writers are not held")
        holder.connection.rollback()
        before = docs.rows()
        assert command("swap", path, "--yes").code == 0
        assert (docs.rows(), docs.wrong_vectors("new")) == (before, [])
        holder.run(held)
        docs.annotate(3, "since")
        assert command("rollback", path, "--yes").code == 6
        holder.connection.rollback()
        docs.rewrite(4, "between the two tries")
        before = docs.rows()
        assert command("rollback", path, "--yes").code == 0
        assert (docs.rows(), docs.wrong_vectors("old")) == (before, [])


@way
def test_a_reader_that_then_writes_is_let_go_before(
    tmp_path: Path, docs_url: str, way: str
) -> None:
    """It holds the lock of a reader, waits for us with its write, and we would wait for it."""
    path = loaded(tmp_path, docs_url, way)
    errors: list[Exception] = []
    done = threading.Event()
    with app(docs_url) as reader:

        def read_then_write() -> None:
            reader.connection.autocommit = False
            try:
                reader.run("SELECT count(*) FROM docs")
                holding.wait(2)
                reader.annotate(5, "read, then written")
                reader.connection.commit()
            except psycopg.Error as error:
                errors.append(error)
            done.set()

        holding = threading.Event()
        worker = threading.Thread(target=read_then_write)
        worker.start()
        hold = pg_hold.Hold.writers_of

        def held(self: pg_hold.Hold, *arguments: object, **options: object) -> None:
            hold(self, *arguments, **options)  # type: ignore[arg-type]
            holding.set()
            time.sleep(0.3)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pg_hold.Hold, "writers_of", held)
            assert migration(path).swap().done
        worker.join()
        assert errors == [] and done.is_set()
    with app(docs_url) as docs:
        assert docs.run("SELECT meta->>'note' FROM docs WHERE id = 5") == [("read, then written",)]
        assert docs.wrong_vectors("new") == []


@pytest.mark.long
def test_an_autovacuum_in_the_way_is_ended_by_postgres(tmp_path: Path, docs_url: str) -> None:
    """It yields to whoever waits for deadlock_timeout, which is longer than we queue otherwise."""
    path = loaded(tmp_path, docs_url, "rename")
    with app(docs_url) as docs:
        docs.run("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        docs.run("ALTER SYSTEM SET autovacuum_vacuum_cost_delay = '100ms'")
        docs.run("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 1")
        docs.run("SELECT pg_reload_conf()")
        docs.run("ALTER TABLE docs SET (autovacuum_vacuum_threshold = 1, "
                 "autovacuum_vacuum_scale_factor = 0)")  # fmt: skip
        try:
            for n in range(200):
                docs.annotate(n % 40 + 1, f"dead rows {n}")
            migration(path).run()
            deadline = time.monotonic() + 60
            while not (busy := docs.run("SELECT 1 FROM pg_stat_activity WHERE query LIKE "
                                        "'autovacuum: VACUUM public.docs%'")) \
                    and time.monotonic() < deadline:  # fmt: skip
                docs.annotate(1, "more")
                time.sleep(0.1)
            assert busy, "an autovacuum is at work, slowly"
            assert migration(path).swap().done
            assert docs.wrong_vectors("new") == []
        finally:
            docs.run("ALTER SYSTEM RESET ALL")
            docs.run("SELECT pg_reload_conf()")


# Old snapshots


@contextlib.contextmanager
def repeatable(url: str) -> Iterator[App]:
    """An application's transaction that has looked, and keeps to that look."""
    with app(url) as reader:
        reader.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.connection.autocommit = False
        reader.run("SELECT 1 FROM other")
        yield reader


@way
def test_a_reader_of_an_older_snapshot_is_waited_for(
    tmp_path: Path, docs_url: str, way: str
) -> None:
    with app(docs_url) as docs:
        docs.run("CREATE TABLE IF NOT EXISTS other (id int)")
        docs.run(WAYS[way])
    path = pg_manifest(tmp_path, docs_url)
    with repeatable(docs_url) as reader:
        migration(path).run()
        swapped = threading.Event()

        def swap() -> None:
            migration(path).swap()
            swapped.set()

        worker = threading.Thread(target=swap)
        worker.start()
        assert not swapped.wait(3), "it waits"
        assert len(reader.rows()) == 40
        assert (reader.model, reader.wrong_vectors("old")) == ("old", [])
        reader.connection.commit()
        worker.join(60)
        assert swapped.is_set()
        assert (reader.model, reader.wrong_vectors("new")) == ("new", [])


STOPPED_BY_A_SNAPSHOT = {
    "rename": "would see it empty",
    "columns": "the index of the new vectors cannot be made",
}


@way
def test_a_snapshot_that_never_ends_is_named_and_nothing_moves(
    tmp_path: Path, docs_url: str, way: str, command: Command, quickly: None
) -> None:
    with app(docs_url) as docs:
        docs.run("CREATE TABLE other (id int)")
        docs.run(WAYS[way])
    path = pg_manifest(tmp_path, docs_url)
    with repeatable(docs_url) as reader, app(docs_url) as docs:
        migration(path).run()
        ended = command("swap", path, "--yes")
        assert ended.code == 6
        pid = reader.connection.info.backend_pid
        assert f"{STOPPED_BY_A_SNAPSHOT[way]}: pid {pid} (po" in ended.err
        assert docs.model == "old"
        docs.rewrite(1, "writers are not held")
        reader.connection.commit()
        assert command("swap", path, "--yes").code == 0
        assert docs.wrong_vectors("new") == []


@way
def test_an_older_snapshot_that_waits_for_us_is_let_go_before(
    tmp_path: Path, docs_url: str, way: str
) -> None:
    """It looked long ago and writes now: it waits for our lock, and we could not wait for it.
    Where its row has been rewritten already, for a new column, it fails at once."""
    with app(docs_url) as docs:
        docs.run("CREATE TABLE other (id int)")
        docs.run(WAYS[way])
    path = pg_manifest(tmp_path, docs_url)
    with repeatable(docs_url) as reader:
        migration(path).run()
        seen: list[object] = []

        def write_then_read() -> None:
            try:
                reader.run("UPDATE docs SET price = 9 WHERE id = 40")
            except psycopg.errors.SerializationFailure:  # every row has been rewritten
                seen.append("to be tried again")
            else:
                seen.append((len(reader.rows()), reader.wrong_vectors("old")))
            reader.connection.rollback()

        worker = threading.Thread(target=write_then_read)
        owner: object = pg_hold.Hold if way == "rename" else ahead
        name = "writers_of" if way == "rename" else "copy_all"
        step = getattr(owner, name)

        def then(*arguments: object, **options: object) -> object:
            done = step(*arguments, **options)
            if worker.ident is None:
                worker.start()
                time.sleep(0.3)
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, then)
            assert migration(path).swap().done
        worker.join()
    assert seen == [(40, [])] if way == "rename" else ["to be tried again"]


@way
def test_a_snapshot_from_just_before_the_end_sees_every_vector(
    tmp_path: Path, docs_url: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too young to be waited for, older than the commit: what it sees was committed before."""
    path = loaded(tmp_path, docs_url, way)
    copy, everybody_of = Ahead.copy, pg_hold.Hold.everybody_of
    with contextlib.ExitStack() as readers, app(docs_url) as docs:
        looks: list[App] = []

        def copied(self: Ahead, *arguments: Table) -> Prepared:
            rows = copy(self, *arguments)
            if not docs.run("SELECT 1 FROM docs WHERE id = 90"):
                docs.rewrite(2, "written after the copying")
                docs.insert("added after the copying", 90)
                docs.delete(3)
            return rows

        def look(self: pg_hold.Hold, tables: object) -> None:
            everybody_of(self, tables)  # type: ignore[arg-type]
            looks.append(readers.enter_context(repeatable(docs_url)))

        monkeypatch.setattr(Ahead, "copy", copied)
        monkeypatch.setattr(pg_hold.Hold, "everybody_of", look)
        if way == "rename":
            docs.rewrite(2, "written after the copying")
        assert migration(path).swap().done
        (reader,) = looks
        assert reader.wrong_vectors("new") == []
        assert reader.rows() == docs.rows()


def test_a_writer_that_comes_between_is_carried_in_another_try(
    tmp_path: Path, docs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock passes from one session to the next, and somebody has queued between them."""
    path = loaded(tmp_path, docs_url, "columns")
    copy, hand_over = Ahead.copy, pg_hold.Hold.hand_over
    tries = 0
    with app(docs_url) as docs:

        def copied(self: Ahead, *arguments: Table) -> Prepared:
            rows = copy(self, *arguments)
            docs.rewrite(2, f"written after copying {time.monotonic()}")
            return rows

        def slipped(self: pg_hold.Hold, tables: object) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                self._dismiss_heir()
                self.connection.commit()
                docs.rewrite(5, "slipped in")
                self._heir = self._session(10)
                self._heir.execute("SAVEPOINT lock")
                self._heir.pgconn.send_query(b"LOCK TABLE docs IN SHARE ROW EXCLUSIVE MODE")
            hand_over(self, tables)  # type: ignore[arg-type]

        monkeypatch.setattr(Ahead, "copy", copied)
        monkeypatch.setattr(pg_hold.Hold, "hand_over", slipped)
        done = migration(path).swap()
        assert done.done
        assert done.held_seconds is not None
        report = Path(migration(path).status().path, "report.html").read_text()
        assert f"writers waited {human_seconds(done.held_seconds)}" in report
        assert tries == 2
        assert docs.run("SELECT content FROM docs WHERE id = 5") == [("slipped in",)]
        assert docs.wrong_vectors("new") == []


# Killed and frozen

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from reembed.cutover import move as moving
from reembed.stores.postgres.move import ahead as pg_ahead
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move import copying as pg_copying
from reembed.stores.postgres.move import indexing as pg_indexing
from reembed.stores.postgres.move import rename as pg_exchange
from reembed.stores.postgres.locks import hold as pg_hold
from reembed.stores.postgres.move import mover as pg_move

def after(owner, name, act):
    original = getattr(owner, name)
    def wrapped(*arguments, **options):
        result = original(*arguments, **options)
        act()
        return result
    setattr(owner, name, wrapped)

def instead(owner, name, act):
    setattr(owner, name, lambda *arguments, **options: act())

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def freeze():
    if not Path({marker!r}).exists():
        Path({marker!r}).write_text("frozen")
        os.kill(os.getpid(), signal.SIGSTOP)

{hook}
from reembed.cli.entry import main
sys.argv = ["reembed", *{arguments!r}]
main()
"""
KILLS = {
    "writers held": 'after(pg_hold.Hold, "writers_of", die)',
    "columns added": 'after(pg_columns, "add_columns", die)',
    "columns copied in part": 'after(pg_copying.Group, "_write", die)',
    "columns copied, not committed": 'after(pg_copying, "switch_on", die)',
    "columns copied, not indexed": 'after(pg_ahead, "copy_all", die)',
    "columns indexed in part": 'after(pg_indexing, "_create", die)',
    "columns copied ahead": 'after(pg_ahead.Ahead, "copy", die)',
    "columns copied to the end": 'after(pg_move, "copy_held", die)',
    "handed over": 'after(pg_hold.Hold, "hand_over", die)',
    "everybody held": 'after(pg_hold.Hold, "everybody_of", die)',
    "names exchanged, not committed": 'after(pg_move, "exchange_names", die)',
    "columns exchanged, not committed": 'after(pg_columns, "rename_columns", die)',
    "columns exchanged, not settled": 'instead(pg_move.Mover, "_settle", die)',
    "columns settled in part": 'instead(pg_columns, "_settle_not_null", die)',
    "committed, not journalled": 'after(pg_move.Mover, "exchange", die)',
    "journalled": 'after(moving, "finish_move", die)',
}
LONG = {
    "columns added", "columns copied, not committed", "columns copied, not indexed",
    "columns copied to the end", "columns exchanged, not settled", "columns settled in part",
}  # fmt: skip
OF_WAY = {"rename": {"names"}, "columns": {"columns", "handed"}}


def start(path: Path, hook: str, *arguments: str) -> Forked:
    """A command in a process of its own, with something done to it on its way."""
    program = PROGRAM.format(
        hook=hook, marker=str(path.with_name("frozen")), arguments=list(arguments)
    )
    return Forked(program, path.parent)


@pytest.mark.parametrize(
    ("way", "place"),
    [
        pytest.param(way, place, marks=[pytest.mark.long] if place in LONG else [])
        for way in WAYS
        for place in KILLS
        if place.partition(" ")[0] not in {"names", "columns", "handed"} - OF_WAY[way]
    ],
)
def test_a_move_killed_anywhere_is_finished_by_the_same_command(
    tmp_path: Path, docs_url: str, way: str, place: str
) -> None:
    path = loaded(tmp_path, docs_url, way)
    hook = KILLS[place]
    if place == "handed over":  # there must be something to be handed over
        hook += (
            "; from tests.support.pg_docs import App; after(pg_ahead.Ahead, 'copy', lambda: "
            f"App({docs_url!r}).rewrite(9, f'after the copying {{time.time()}}'))"
        )
    with app(docs_url) as docs:
        docs.rewrite(1, "before the swap")
        for command, model in (("swap", "new"), ("rollback", "old")):
            killed = start(path, hook, command, str(path), "--yes")
            out, err = killed.communicate(timeout=120)
            assert killed.returncode == -signal.SIGKILL, out + err
            began = time.monotonic()
            docs.rewrite(2, f"after the {command} was killed")
            assert time.monotonic() - began < 5, "writers go on at once"
            expected = docs.rows()
            if command == "swap":
                assert migration(path).swap().done
            else:
                assert migration(path).rollback().done
            assert (docs.model, docs.rows(), docs.wrong_vectors(model)) == (model, expected, [])
        migration(path).run(swap=True)
        migration(path).clean()
        assert (docs.rows(), docs.wrong_vectors("new")) == (expected, [])
    assert traces(docs_url) == []


@pytest.mark.parametrize(("tries", "way"), crossed([1, 5], WAYS))
def test_a_frozen_holder_loses_its_hold_and_ends_well_or_clearly(
    tmp_path: Path, docs_url: str, way: str, tries: int
) -> None:
    path = loaded(tmp_path, docs_url, way)
    hook = (
        "moving.HOLD_SECONDS = 2; pg_hold.HEIR_SECONDS = 1; "
        f"moving.MOVE_TRIES = {tries}; after(pg_hold.Hold, 'fence', freeze)"
    )
    process = start(path, hook, "swap", str(path), "--yes")
    deadline = time.monotonic() + 60
    while not path.with_name("frozen").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with app(docs_url) as docs:
        began = time.monotonic()
        docs.rewrite(2, "while it is frozen")
        assert 0.5 < time.monotonic() - began < 20, "held, then let go by Postgres"
        assert docs.model == "old"
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
        if tries == 1:
            assert process.returncode == 6, out + err
            assert "nothing came from us for longer than writers may be held" in err
            assert docs.model == "old"
            assert migration(path).swap().done
        else:
            assert process.returncode == 0, out + err
        assert docs.run("SELECT content FROM docs WHERE id = 2") == [("while it is frozen",)]
        assert (docs.model, docs.wrong_vectors("new")) == ("new", [])


def test_no_lock_is_asked_of_a_table_that_is_gone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An autovacuum that was to begin holds the id of a table that was dropped for a moment."""
    gone = nameless(16_384, "", "")
    monkeypatch.setattr(pg_hold, "vacuumed", lambda _, tables: 0.1 if tables else 0.0)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert pg_hold.patiently(connection, [gone], lambda: "done") == "done"
