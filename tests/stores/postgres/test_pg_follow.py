"""`mode: follow` from one table of Postgres to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.pg_docs import literal
from tests.support.texts import sentence, vector_of

RAW = """
CREATE TABLE raw (
  id bigint PRIMARY KEY, content text, meta jsonb, embedding vector(48)
)
"""
COUNT = 150


@pytest.fixture
def db(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(RAW)
        for n in range(COUNT):
            put(connection, n, sentence(n))
        yield connection


def put(db: psycopg.Connection, n: int, text: str) -> None:
    db.execute(
        "INSERT INTO raw VALUES (%s, %s, %s::jsonb, %s::vector) ON CONFLICT (id) "
        "DO UPDATE SET content = excluded.content",
        (n, text, f'{{"n": {n}}}', literal("old", text)),
    )


def check(db: psycopg.Connection) -> None:
    """The live table has what the corpus has, with the new model's vectors."""
    corpus: dict[int, str] = dict(db.execute("SELECT id, content FROM raw").fetchall())
    rows = db.execute("SELECT id, content, meta->>'n', embedding::text FROM live").fetchall()
    assert {id: text for id, text, *_ in rows} == corpus
    for id, text, n, vector in rows:
        assert int(n) == id
        got = [float(one) for one in vector.strip("[]").split(",")]
        assert got == pytest.approx(vector_of("new", text).tolist(), abs=1e-4)


def test_a_table_follows_a_table(
    tmp_path: Path, db: psycopg.Connection, postgres_url: str, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = write_manifest(
        tmp_path, postgres_url, source__collection="raw", mode="follow", verify__sample=100,
        target__collection="live",
    )  # fmt: skip

    def run(*options: str) -> dict[str, object]:
        done = command("run", path, "--swap", "--json", *options)
        assert done.code == 0, done.out + done.err
        return done.json  # type: ignore[no-any-return]

    before = db.execute("SELECT id, content, embedding::text FROM raw ORDER BY id").fetchall()
    run()
    check(db)
    put(db, 3, sentence(903))
    put(db, 900, sentence(904))
    db.execute("DELETE FROM raw WHERE id = 7")
    assert run()["differs"] == {"added": 1, "changed": 1, "deleted": 1}
    check(db)
    assert run()["unchanged"]
    assert command("rollback", path, "--yes").code == 0
    assert db.execute("SELECT content FROM live WHERE id = 3").fetchone() == (sentence(3),)
    run()
    check(db)
    assert "rebuild" in str(run("--rebuild")["messages"])
    check(db)
    assert command("rollback", path, "--yes").code == 0
    check(db)
    assert command("clean", path, "--yes").code == 0
    tables = db.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert sorted(name for (name,) in tables) == ["live", "raw"]
    triggers = db.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
    assert not triggers
    now = db.execute("SELECT id, content, embedding::text FROM raw ORDER BY id").fetchall()
    assert {row for row in now if row[0] not in (3, 900)} == {
        row for row in before if row[0] not in (3, 7)
    }, "the corpus is only read"
    db.execute("DELETE FROM raw")
    assert command("run", path, "--swap").code == 4
    assert db.execute("SELECT count(*) FROM live").fetchone() == (COUNT,)
