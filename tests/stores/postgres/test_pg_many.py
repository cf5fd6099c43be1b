"""Tables of one database that move together: in one transaction, there and back, or not at all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.manifests import write_group_manifest
from tests.support.pg_docs import NEW, OLD, App, app

TABLES = ("docs", "notes", "odd.Talks")
SETUP = """
CREATE SCHEMA odd;
CREATE TABLE notes (LIKE docs INCLUDING ALL);
CREATE TABLE odd."Talks" (LIKE docs INCLUDING ALL);
INSERT INTO notes OVERRIDING SYSTEM VALUE SELECT * FROM docs WHERE id > 7;
INSERT INTO odd."Talks" OVERRIDING SYSTEM VALUE SELECT * FROM docs WHERE id < 30;
CREATE VIEW titles AS SELECT id, content FROM notes;
SELECT setval('notes_id_seq', 100), setval('odd."Talks_id_seq"', 100)
"""
"""Two leaf tables, which exchange their names, and one between that keeps its place for a view."""
MOVER = "reembed.stores.postgres.move.mover"
KILLS = {f"{MOVER}:_exchange": False, "reembed.migration.group.moving:end_move": True}
"""What a call is killed before, the second time, and whether the names have moved by then."""


class Three:
    """A database with three tables that move together."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SETUP)
        self.path = write_group_manifest(
            folder, url, ["docs", "notes", "odd.*"], swap__keep_old="0h"
        )

    def widths(self) -> dict[str, set[int]]:
        """The lengths of all vectors, in one snapshot."""
        found = dict[str, set[int]]()
        with psycopg.connect(self.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for name in TABLES:
                rows = connection.execute(
                    sql.SQL("SELECT DISTINCT vector_dims(embedding) FROM {}").format(
                        sql.Identifier(*name.split("."))
                    )
                )
                found[name] = {width for (width,) in rows}
        return found

    def are_all(self, width: int) -> bool:
        return self.widths() == {name: {width} for name in TABLES}

    @contextmanager
    def watched(self) -> Iterator[set[int]]:
        """The lengths that are seen in the block, 0 for a moment at which they are not all one."""
        seen, stop = set[int](), threading.Event()

        def watch() -> None:
            while not stop.wait(0.002):
                lengths = {width for found in self.widths().values() for width in found}
                seen.add(lengths.pop() if len(lengths) == 1 else 0)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def apps(self) -> Iterator[dict[str, App]]:
        with (
            app(self.url) as docs,
            app(self.url, "notes") as notes,
            app(self.url, "Talks", search_path="odd,public") as talks,
        ):
            yield dict(zip(TABLES, (docs, notes, talks), strict=True))


@pytest.fixture
def three(docs_url: str, tmp_path: Path) -> Three:
    return Three(docs_url, tmp_path)


def test_all_tables_move_in_one_transaction_there_and_back(three: Three, command: Command) -> None:
    planned = command("plan", three.path, "--json")
    assert planned.json["together"] == "all names move in one transaction"
    assert command("run", three.path).code == 0
    with three.apps() as apps:
        before = {name: one.rows() for name, one in apps.items()}
        late = {name: one.insert(f"late in {name}") for name, one in apps.items()}
        with three.watched() as seen:
            swapped = command("swap", three.path, "--yes", "--json")
        assert swapped.code == 0, swapped.err
        assert swapped.json["together"] == "all names move in one transaction"
        assert three.are_all(NEW)
        for name, one in apps.items():
            assert one.wrong_vectors("new") == []
            assert {id: row for id, row in one.rows().items() if id != late[name]} == before[name]
            one.rewrite(9, f"rewritten in {name}")
            one.delete(10)
        dry = command("rollback", three.path, "--json")
        assert dry.json["together"] == "all names move back in one transaction"
        with three.watched() as seen_back:
            back = command("rollback", three.path, "--yes", "--json")
        assert back.code == 0, back.err
        assert back.json["together"] == "all names move back in one transaction"
        carried = {one["collection"]: one["result"]["caught_up"] for one in back.json["members"]}
        assert carried == dict.fromkeys(TABLES, 2)
        assert three.are_all(OLD)
        for name, one in apps.items():
            assert one.wrong_vectors("old") == []
            assert one.rows()[9][0] == f"rewritten in {name}" and 10 not in one.rows()
        assert seen <= {OLD, NEW} and seen_back <= {OLD, NEW}
        assert command("swap", three.path, "--yes").code == 0
        assert command("clean", three.path, "--yes").code == 0
        assert three.are_all(NEW)
        assert apps["docs"].run(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind"
            " = 'r' AND nspname IN ('public', 'odd') ORDER BY 1"
        ) == [("Talks",), ("docs",), ("notes",)]


def write(three: Three, text: str) -> None:
    with three.apps() as apps:
        for one in apps.values():
            one.insert(text)


def test_a_killed_move_has_moved_all_or_none(three: Three) -> None:
    assert work(three.path, "run()") == 0
    for step, before, after, model in (("swap", OLD, NEW, "new"), ("rollback", NEW, OLD, "old")):
        for kill, moved in KILLS.items():
            write(three, f"before {kill} of {step}")
            assert work(three.path, f"{step}()", kill, at=2) == -9
            assert three.are_all(after if moved else before), (step, kill)
        assert work(three.path, f"{step}()") == 0, outcome(three.path)
        with three.apps() as apps:
            assert [one.wrong_vectors(model) for one in apps.values()] == [[], [], []]


def test_a_common_swap_that_cannot_be_done_is_given_up(three: Three, command: Command) -> None:
    """One table gets a view of its vectors after `swap.before` has stopped the application."""
    folder = three.path.parent
    (folder / "hook.py").write_text(
        f"import psycopg\nwith psycopg.connect({three.url!r}) as connection:\n"
        "    connection.execute(open('made.sql').read())\n"
    )
    path = write_group_manifest(
        folder, three.url, ["docs", "notes", "odd.*"], swap__keep_old="0h",
        swap__before=f"echo $REEMBED_ACTION stop >> told; {sys.executable} hook.py",
        swap__after="echo $REEMBED_ACTION start >> told",
    )  # fmt: skip
    assert command("run", path).code == 0
    (folder / "made.sql").write_text("CREATE OR REPLACE VIEW seen AS SELECT embedding FROM notes")
    refused = command("swap", path, "--yes", "--json")
    assert refused.code == 5 and "seen reads the vector column" in refused.json["error"]["message"]
    assert (
        f"`reembed rollback {path}` gives the swap up and runs swap.after"
        in refused.json["error"]["hint"]
    )
    assert three.are_all(OLD)
    given_up = command("rollback", path, "--yes", "--json")
    assert given_up.code == 0, given_up.out
    for member in given_up.json["members"]:
        found, name = member["result"], member["collection"]
        assert (found["action"], found["messages"]) == (
            "rollback",
            [f"the swap is given up: {name!r} has not moved"],
        )
        assert found["collection"] == name
    assert (folder / "told").read_text().split("\n")[0] == "swap stop"
    assert (folder / "told").read_text().split("\n")[-2] == "rollback start"
    (folder / "made.sql").write_text("DROP VIEW IF EXISTS seen")
    assert command("swap", path, "--yes").code == 0
    assert three.are_all(NEW)
    assert command("clean", path, "--yes").code == 0


@pytest.mark.long
def test_a_move_that_is_killed_anywhere_has_moved_all_or_none(three: Three) -> None:
    """Killed before each line of the journals in turn, there and back in turn."""
    assert work(three.path, "run()") == 0
    at, ended = 0, False
    while not ended:
        at, ended = at + 1, True
        for step, before, after in (("swap", OLD, NEW), ("rollback", NEW, OLD)):
            write(three, f"before the {step} that is killed at {at}")
            assert three.are_all(before)
            code = work(three.path, f"{step}()", "journal", at)
            assert three.are_all(OLD) or three.are_all(NEW), (step, at)
            ended = ended and code != -9
            if code == -9:
                code = work(three.path, f"{step}()")
            assert code == 0, outcome(three.path)
            assert three.are_all(after)
    assert at > 20
