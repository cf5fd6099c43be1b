"""What others do to tables in the middle of a command of ours: what is said of it is done, and the
same command goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reembed.cutover import move
from reembed.stores.postgres.claims import Claims
from reembed.stores.postgres.locks import hold
from reembed.stores.postgres.move.mover import Mover
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import run_dir
from tests.support.pg_docs import app, pg_manifest

STAYS = "CREATE VIEW stays AS SELECT id FROM docs"
"""Something hangs on the table, so it keeps its place and vectors are exchanged."""


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


class Meanwhile:
    """What somebody else does just before our process calls a method, once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(self, place: type, name: str, act: Callable[[], object]) -> None:
        method = getattr(place, name)

        def called(*given: Any, **more: Any) -> Any:
            self._patch.setattr(place, name, method)
            act()
            return method(*given, **more)

        self._patch.setattr(place, name, called)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(monkeypatch)


@pytest.fixture
def built(docs_url: str, tmp_path: Path, command: Command) -> Path:
    """The manifest of a migration that is ready to swap vectors."""
    execute(docs_url, STAYS)
    path = pg_manifest(tmp_path, docs_url)
    assert command("run", path).code == 0
    return path


def waiting(url: str) -> bool:
    """Whether the application waits for a lock."""
    with psycopg.connect(url) as connection:
        return bool(connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'app' AND wait_event_type = "
            "'Lock' AND datname = current_database()"
        ).fetchall())  # fmt: skip


def refused(command: Command, path: Path, hint: str, words: str = "swap --yes") -> None:
    done = command(*words.split(), path, "--json")
    assert done.code in (5, 6, 7), done.out
    assert hint in done.json["error"]["hint"], done.out


@follows_hint("Somebody has dropped or changed one. Nothing was moved. Run the same command")
def test_an_index_that_is_dropped_before_the_vectors_are_exchanged_is_made_again(
    docs_url: str, built: Path, command: Command, meanwhile: Meanwhile
) -> None:
    def drop() -> None:
        with psycopg.connect(docs_url, autocommit=True) as connection:
            for (name,) in connection.execute(
                "SELECT indexname FROM pg_indexes WHERE tablename = 'docs' AND indexdef LIKE "
                "'%reembed_incoming%'"
            ).fetchall():
                connection.execute(f'DROP INDEX "{name}"'.encode())

    meanwhile(Mover, "hold", drop)
    refused(command, built, "Somebody has dropped or changed one.")
    assert command("swap", built, "--yes").code == 0
    with app(docs_url) as docs:
        assert docs.wrong_vectors("new") == []


@follows_hint("Other commands are starting and ending here. Run again to resume.")
def test_a_lease_that_others_take_and_give_back_all_the_time(
    docs_url: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    make = Claims._make

    def made_and_dropped(self: Claims, live: str) -> None:
        make(self, live)
        execute(docs_url, "DROP TABLE reembed_lease")

    with monkeypatch.context() as patch:
        patch.setattr(Claims, "_make", made_and_dropped)
        refused(command, path, "Other commands are starting and ending here.", "run")
    assert command("run", path).code == 0


@follows_hint(
    "Nothing was moved. Rename the one that is there, give the other one its name again",
    where="stores/postgres/move/mover.py",
)
def test_a_table_that_is_made_anew_before_the_names_are_exchanged(
    docs_url: str, tmp_path: Path, command: Command, meanwhile: Meanwhile
) -> None:
    path = pg_manifest(tmp_path, docs_url)
    assert command("run", path).code == 0
    meanwhile(Mover, "hold", lambda: execute(
        docs_url, "ALTER TABLE docs RENAME TO mine; CREATE TABLE docs (LIKE mine INCLUDING ALL)"
    ))  # fmt: skip
    refused(command, path, "Nothing was moved. Rename the one that is there")
    execute(docs_url, "ALTER TABLE docs RENAME TO theirs", "ALTER TABLE mine RENAME TO docs")
    assert command("swap", path, "--yes").code == 0


@follows_hint(
    "Nothing was moved. Run the same command again.", where="stores/postgres/move/mover.py"
)
def test_a_writer_that_comes_in_while_the_last_vectors_are_committed(
    docs_url: str, built: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for the table between our two sessions, which do so one right after the other."""
    threads: list[threading.Thread] = []
    sleep, until = time.sleep, time.monotonic() + 120

    def write(id: int) -> None:
        with app(docs_url) as docs:
            docs.rewrite(id, f"written by another session, for the record {id}")

    def slept(seconds: float) -> None:
        if seconds == hold.ADJACENT:
            threads.append(threading.Thread(target=write, args=(len(threads) + 3,)))
            threads[-1].start()
            while not waiting(docs_url) and time.monotonic() < until:
                sleep(0.01)
        sleep(seconds)

    held = Mover.hold

    def held_late(self: Mover, *given: Any) -> None:
        write(1)
        held(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(move, "MOVE_TRIES", 1)
        patch.setattr(time, "sleep", slept)
        patch.setattr(Mover, "hold", held_late)
        refused(command, built, "Nothing was moved. Run the same command again.")
    for thread in threads:
        thread.join()
    assert command("swap", built, "--yes").code == 0
    with app(docs_url) as docs:
        assert docs.wrong_vectors("new") == []
    assert run_dir(built).history.state == "swapped"
