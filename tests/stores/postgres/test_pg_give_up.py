"""A swap that cannot be done can be given up: `rollback` and `clean` work from every state, and
leave nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from reembed.cutover import move as moving
from reembed.stores.postgres.locks import hold
from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.following import follows_hint
from tests.support.pg_docs import app, pg_manifest, traces

WAYS = {"rename": "", "columns": "CREATE VIEW stays AS SELECT id FROM docs"}
COPYING = "reembed.stores.postgres.move.copying:write"
BEGUN = "reembed.stores.postgres.move.mover:_exchange"


@dataclass(frozen=True)
class State:
    """What a swap that cannot be done has come to.

    Attributes:
        kills: before which function it was killed, by way; "" where it was not.
        meanwhile: what the application has done then.
        mend: what a refusal of `rollback` asks for; "" where there is none.
        restore: what a refusal of `clean` asks for; "" where there is none.
    """

    kills: tuple[str, str] = ("", "")
    meanwhile: str = ""
    mend: str = ""
    restore: str = ""


RESTORE = (
    "DROP TABLE IF EXISTS docs CASCADE; CREATE TABLE docs (LIKE kept INCLUDING ALL); INSERT INTO "
    "docs OVERRIDING SYSTEM VALUE SELECT * FROM kept"
)
STATES = {
    "killed": State((BEGUN, BEGUN)),
    "killed while vectors are copied": State((BEGUN, COPYING)),
    "a view of the vectors": State(meanwhile="CREATE VIEW seen AS SELECT embedding FROM docs"),
    "killed, and a view of all columns": State(
        (BEGUN, BEGUN), "CREATE VIEW seen AS SELECT * FROM docs", mend="DROP VIEW seen"
    ),
    "killed, and its column is dropped": State(
        (BEGUN, BEGUN), "ALTER TABLE docs DROP COLUMN embedding CASCADE", restore=RESTORE
    ),
    "killed, and its table is dropped": State(
        (BEGUN, BEGUN), "DROP TABLE docs CASCADE", restore=RESTORE
    ),
    "killed, and its table has another name": State(
        (BEGUN, BEGUN), "ALTER TABLE docs RENAME TO mine", restore="ALTER TABLE mine RENAME TO docs"
    ),
    "killed, and another one has its name": State(
        (BEGUN, BEGUN), "ALTER TABLE docs RENAME TO mine; CREATE TABLE docs (LIKE kept INCLUDING "
        "ALL); INSERT INTO docs OVERRIDING SYSTEM VALUE SELECT * FROM kept"
    ),
    "it is inherited": State(meanwhile="CREATE TABLE child () INHERITS (docs)"),
}  # fmt: skip


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements)


def incoming(url: str) -> list[tuple[str]]:
    """Tables with a column that a move has prepared."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT relname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relkind = "
            "'r' AND attname = 'reembed_incoming' AND NOT attisdropped"
        ).fetchall()


def told(folder: Path) -> list[str]:
    """What the hooks were run for."""
    return (folder / "told").read_text().splitlines()


def stuck(url: str, folder: Path, way: str, state: State, command: Command) -> Path:
    """A manifest whose swap has come to this state."""
    if WAYS[way]:
        execute(url, WAYS[way])
    execute(url, "CREATE TABLE kept (LIKE docs INCLUDING ALL); INSERT INTO kept OVERRIDING SYSTEM "
            "VALUE SELECT * FROM docs")  # fmt: skip
    path = pg_manifest(
        folder, url, swap__keep_old="0d", swap__before="echo $REEMBED_ACTION stop >> told",
        swap__after="echo $REEMBED_ACTION start >> told",
    )  # fmt: skip
    assert work(path, "run()") == 0, outcome(path)
    kill = state.kills[way == "columns"]
    if kill:
        assert work(path, "swap()", kill, 1) == -9
        assert bool(incoming(url)) == (way == "columns")
    if state.meanwhile:
        execute(url, state.meanwhile)
        refused = command("swap", path, "--yes", "--json")
        assert refused.code == 5, refused.out
        assert "--yes` gives the swap up" in refused.json["error"]["hint"]
    return path


def follows(command: Command, step: str, path: Path, url: str, mend: str) -> None:
    """A command succeeds, or is refused with a hint that is followed."""
    done = command(step, path, "--yes", "--json")
    if mend:
        assert done.code == 5, done.out
        execute(url, mend)
        done = command(step, path, "--yes", "--json")
    assert done.code == 0, done.out


def is_given_up(url: str, folder: Path, way: str, kind: str, command: Command) -> None:
    state = STATES[kind]
    path = stuck(url, folder, way, state, command)
    follows(command, "rollback", path, url, state.mend if way == "columns" else "")
    assert incoming(url) == []
    told_now = command("status", path, "--json").json["state"]
    assert told_now in ("verified", "name lost") if state.meanwhile else told_now == "verified"
    assert told(folder) == ["swap stop", "rollback start"]
    follows(command, "clean", path, url, state.restore)
    assert traces(url) == []
    with app(url) as docs:
        assert docs.wrong_vectors("old") == []


@pytest.mark.parametrize("kind", ["killed", "killed, and its table is dropped"])
def test_a_swap_is_given_up(docs_url: str, tmp_path: Path, command: Command, kind: str) -> None:
    is_given_up(docs_url, tmp_path, "columns", kind, command)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", STATES)
def test_a_swap_in_any_state_is_given_up_by_rollback_and_then_the_run_by_clean(
    docs_url: str, tmp_path: Path, command: Command, kind: str, way: str
) -> None:
    is_given_up(docs_url, tmp_path, way, kind, command)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", STATES)
def test_a_run_whose_swap_is_in_any_state_is_given_up_by_clean_alone(
    docs_url: str, tmp_path: Path, command: Command, kind: str, way: str
) -> None:
    state = STATES[kind]
    path = stuck(docs_url, tmp_path, way, state, command)
    if state.mend and way == "columns":
        follows(command, "clean", path, docs_url, state.mend)
    else:
        follows(command, "clean", path, docs_url, state.restore)
    assert traces(docs_url) == [] and incoming(docs_url) == []
    assert told(tmp_path) == ["swap stop", "rollback start"]


@follows_hint("Nothing was moved. ", where="stores/postgres/locks/hold.py")
@follows_hint("Let those transactions end, then run the same command again.")
def test_what_is_in_the_way_of_giving_up_is_named_and_passes(
    docs_url: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that does not end, in the way of the swap and of taking its column out again."""
    path = stuck(docs_url, tmp_path, "columns", STATES["killed"], command)
    monkeypatch.setattr(hold, "LOCK_TRIES", 2)
    monkeypatch.setattr(moving, "MOVE_PAUSE", 0.01)
    with app(docs_url) as docs:
        with docs.connection.transaction():
            docs.annotate(1, "written for long")
            for step in ("swap", "rollback"):
                refused = command(step, path, "--yes", "--json")
                assert refused.code == 6 and "other sessions hold locks" in refused.out
                hint = refused.json["error"]["hint"]
                assert "Let those transactions end, then run the same command again." in hint
                assert ("gives the swap up" in hint) == (step == "swap")
        assert command("rollback", path, "--yes").code == 0
        assert incoming(docs_url) == []
        assert command("swap", path, "--yes").code == 0
        assert docs.wrong_vectors("new") == []
        assert command("rollback", path, "--yes").code == 0
        assert command("clean", path, "--yes").code == 0
        assert (
            docs.wrong_vectors("old") == [] and docs.rows()[1][1] == '{"note": "written for long"}'
        )
    assert traces(docs_url) == []


@follows_hint("` finishes it, ", "--yes` gives it up", where="cutover/clean.py")
@pytest.mark.parametrize("way", WAYS)
def test_a_way_back_that_cannot_be_done_is_given_up_by_swap(
    docs_url: str, tmp_path: Path, command: Command, way: str
) -> None:
    path = stuck(docs_url, tmp_path, way, State(), command)
    assert command("swap", path, "--yes").code == 0
    assert work(path, "rollback()", BEGUN, 1) == -9
    execute(docs_url, "CREATE VIEW seen AS SELECT embedding FROM docs")
    refused = command("rollback", path, "--yes", "--json")
    assert refused.code == 5 and "reads the vector column" in refused.json["error"]["message"]
    unfinished = command("clean", path, "--yes", "--json")
    assert unfinished.code == 2
    assert f"`reembed swap {path} --yes` gives it up" in unfinished.json["error"]["hint"]
    given_up = command("swap", path, "--yes", "--json")
    assert given_up.code == 0 and "the way back is given up" in given_up.json["messages"][0]
    assert incoming(docs_url) == []
    assert told(tmp_path) == ["swap stop", "swap start", "rollback stop", "swap start"]
    with app(docs_url) as docs:
        assert docs.wrong_vectors("new") == []
    assert command("clean", path, "--yes").code == 0
    assert traces(docs_url) == []


def test_a_way_back_whose_giving_up_is_killed_starts_the_application_all_the_same(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    path = stuck(docs_url, tmp_path, "columns", State(), command)
    assert command("swap", path, "--yes").code == 0
    assert work(path, "rollback()", BEGUN, 1) == -9
    assert work(path, "swap()", "reembed.cutover.withdraw:run_after", 1) == -9
    assert command("swap", path, "--yes").code == 0
    assert told(tmp_path) == ["swap stop", "swap start", "rollback stop", "swap start"]
    assert command("swap", path, "--yes", "--json").json["messages"] == ["already swapped"]
    assert incoming(docs_url) == []


def test_a_hook_that_fails_when_a_swap_is_given_up_says_which_collection_is_live(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    path = pg_manifest(tmp_path, docs_url, swap__before="true", swap__after="false")
    assert work(path, "run()") == 0, outcome(path)
    assert work(path, "swap()", BEGUN, 1) == -9
    (_, failed) = command("rollback", path, "--yes", "--json").json["messages"]
    assert "the hook swap.after failed: exit code 1" in failed
    assert "The live name serves the old collection: run the command by hand." in failed
