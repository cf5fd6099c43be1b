"""A real logical subscriber keeps going through everything that `plan` lets pass."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reembed.migration import Migration
from tests.support.following import follows_hint
from tests.support.manifests import migration, write_manifest
from tests.support.pg_docs import TABLE, app, make_docs
from tests.support.servers.postgres_server import PostgresServer, postgres_server

HOW_LONG = 60.0


@pytest.fixture(scope="module")
def publisher() -> Iterator[PostgresServer]:
    with postgres_server(wal_level="logical") as server:
        yield server


class Subscriber:
    """A database that follows the publication `p` of another one on the same server."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.url = server.url(server.new_database())
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute(TABLE)
        with psycopg.connect(server.url(database), autocommit=True) as connection:
            connection.execute(
                f"SELECT pg_create_logical_replication_slot('{database}', 'pgoutput')"
            )
        self.connection.execute(
            f"CREATE SUBSCRIPTION s CONNECTION 'host={server.folder} user=postgres "
            f"dbname={database}' PUBLICATION p WITH (create_slot = false, slot_name = '{database}')"
        )

    def follows(self, id: int, content: str) -> bool:
        """Whether a row that was written comes, within a time."""
        deadline = time.monotonic() + HOW_LONG
        while time.monotonic() < deadline:
            row = self.connection.execute("SELECT content FROM docs WHERE id = %s", [id]).fetchone()
            if row == (content,):
                return True
            time.sleep(0.1)
        return False

    def close(self) -> None:
        self.connection.execute("ALTER SUBSCRIPTION s DISABLE")
        self.connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        self.connection.execute("DROP SUBSCRIPTION s")
        self.connection.close()


@contextmanager
def published(server: PostgresServer, publication: str) -> Iterator[tuple[str, Subscriber]]:
    """The URL of a database with `docs` and the publication `p`, and who follows it."""
    database = server.new_database()
    url = server.url(database)
    make_docs(url, 30, f"CREATE PUBLICATION p {publication}")
    subscriber = Subscriber(server, database)
    try:
        yield url, subscriber
    finally:
        subscriber.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE "
                "database = current_database()"
            )


def blockers(one: Migration) -> list[str]:
    return [problem.message for problem in one.plan().blockers]


def test_a_table_that_is_published_by_name_moves_once_its_vectors_are_taken_out(
    publisher: PostgresServer, tmp_path: Path
) -> None:
    with published(publisher, "FOR TABLE docs WHERE (id > 0)") as (url, subscriber):
        one = migration(write_manifest(tmp_path, url, swap__keep_old="0d"))
        (told,) = blockers(one)
        assert "the publication p sends its vectors to subscribers" in told
        statements = re.search("BEGIN; .* COMMIT;", told)
        assert statements
        with app(url) as docs:
            for statement in statements[0].rstrip(";").split("; "):
                docs.connection.execute(statement)
            steps: list[Callable[[], Any]] = [
                one.run, one.swap, one.rollback, one.swap, one.clean,
            ]  # fmt: skip
            assert blockers(one) == []
            for step in steps:
                step()
                text = f"written after {step.__name__}"
                id = docs.insert(text)
                assert subscriber.follows(id, text)
                docs.annotate(1, text)
            assert docs.wrong_vectors("new") == []


@follows_hint("Give a schema that no publication names as target.schema.")
def test_nothing_that_a_run_makes_comes_into_a_published_schema(
    publisher: PostgresServer, tmp_path: Path
) -> None:
    with published(publisher, "FOR TABLES IN SCHEMA public") as (url, subscriber):
        config: dict[str, Any] = {"swap": {"kind": "config"}}
        (told,) = blockers(migration(write_manifest(tmp_path, url, **config)))
        assert "p (FOR TABLES IN SCHEMA public) sends every new table" in told
        with app(url) as docs:
            docs.run("CREATE SCHEMA staging")
            path = write_manifest(tmp_path, url, target__schema="staging")
            (told,) = blockers(migration(path))
            assert "publish a list of tables instead" in told
            one = migration(write_manifest(tmp_path, url, target__schema="staging", **config))
            assert blockers(one) == []
            assert one.run().verdict is not None
            id = docs.insert("written after the run")
            assert subscriber.follows(id, "written after the run")
            one.run(swap=True)
            id = docs.insert("written after the swap")
            assert subscriber.follows(id, "written after the swap")
            made = docs.run(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND "
                "relkind = 'r'"
            )
            assert made == [("docs",)]


@follows_hint("Publish a list of tables instead: CREATE PUBLICATION")
def test_every_new_table_is_published_by_a_publication_of_all(
    publisher: PostgresServer, tmp_path: Path
) -> None:
    with published(publisher, "FOR ALL TABLES") as (url, subscriber):
        path = write_manifest(tmp_path, url, target={"schema": "staging"}, swap={"kind": "config"})
        with app(url) as docs:
            docs.run("CREATE SCHEMA staging")
            one = migration(path)
            (problem,) = one.plan().blockers
            assert "p (FOR ALL TABLES) sends every new table" in problem.message
            assert "FOR TABLE" in problem.hint
            with pytest.raises(Exception, match="sends every new table"):
                one.run()
            id = docs.insert("written after the plan")
            assert subscriber.follows(id, "written after the plan")
            docs.run("CREATE PUBLICATION q FOR TABLE docs")
            subscriber.connection.execute("ALTER SUBSCRIPTION s SET PUBLICATION q")
            drop = problem.hint.partition("and then here ")[2].rstrip(".")
            assert drop == 'DROP PUBLICATION "p"'
            docs.run(drop)
            assert one.run().verdict is not None
            id = docs.insert("written after the run")
            assert subscriber.follows(id, "written after the run")


def test_a_table_moves_by_way_of_another_schema_there_and_back(
    postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30)
    one = migration(write_manifest(
        tmp_path, postgres_url, target__schema="staging", swap__keep_old="0d"
    ))  # fmt: skip
    assert {problem.hint for problem in one.plan().blockers} == {'CREATE SCHEMA "staging";'}
    with app(postgres_url) as docs:
        docs.run("CREATE SCHEMA staging")
        before = docs.rows()
        one.run()
        late = docs.insert("written late")
        assert one.swap().done
        assert docs.wrong_vectors("new") == []
        assert one.rollback().done
        assert docs.wrong_vectors("old") == []
        assert one.swap().done
        made = docs.run("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                        "AND relkind = 'r'")  # fmt: skip
        assert made == [("docs",)]
        assert one.clean().done
        assert {id: row for id, row in docs.rows().items() if id != late} == before
        assert docs.run("SELECT count(*) FROM pg_class WHERE relnamespace = "
                        "'staging'::regnamespace") == [(0,)]  # fmt: skip
