"""Sessions as people really have them: poolers, time limits, roles that may do little."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reembed.errors import PreflightError, SourceChangedError, UnreachableError
from reembed.stores.postgres import client
from reembed.stores.registry import open_store
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, write_manifest
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.servers.pgbouncer import pgbouncer
from tests.support.servers.postgres_server import PostgresServer, postgres_server


def name_of(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[-1]


@follows_hint("Give the database's own address as the URL, or a pooler's port that keeps")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_gives_sessions_away_is_refused_and_left_as_it_was(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, command: Command, mode: str
) -> None:
    make_docs(postgres_url, 5)
    with pgbouncer(postgres, name_of(postgres_url), mode) as url:
        path = write_manifest(tmp_path, url)
        error = command("plan", path, "--json").json["error"]
        assert error["exit_code"] == 5
        assert "another session" in error["message"]
        assert "pool_mode = session" in error["hint"]
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SHOW row_security").fetchone() == ("on",)
            assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
            assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
    assert command("plan", write_manifest(tmp_path, postgres_url)).code == 0


@follows_hint("Give the database's own address as the URL, or let the pooler have more sessions")
def test_a_pooler_that_keeps_sessions_carries_a_whole_migration(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30)
    with pgbouncer(postgres, name_of(postgres_url), "session") as url:
        one = migration(write_manifest(tmp_path, url, swap__keep_old="0d"))
        one.run()
        assert one.swap().done
        assert one.clean().done
    with app(postgres_url) as docs:
        assert docs.wrong_vectors("new") == []
    with (
        pgbouncer(postgres, name_of(postgres_url), "session", size=1) as url,
        pytest.raises(PreflightError, match="gives no second session"),
    ):
        open_store(url)
    open_store(postgres_url).close()


def test_no_time_limit_of_the_database_cuts_a_session_of_ours(postgres_url: str) -> None:
    limits = (
        "statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    )  # fmt: skip
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in limits:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = '600ms'").format(
                    sql.Identifier(name_of(postgres_url)), sql.Identifier(name)
                )
            )
    with client.connect(postgres_url) as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in limits]
        assert shown == [("30s",) if name == "lock_timeout" else ("0",) for name in limits]
        time.sleep(0.8)
        connection.execute("BEGIN")
        time.sleep(0.8)
        connection.execute("SELECT pg_sleep(0.8)")


def test_a_main_connection_that_was_cut_while_idle_is_opened_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_docs(postgres_url, 5)
    store = open_store(postgres_url)
    assert store.catalog.describe("docs").count == 5
    assert store.to_claim().claim("docs", "mine") is None
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
            "'reembed' AND datname = current_database()"
        )
    monkeypatch.setattr(client, "QUIET_SECONDS", 0.0)
    assert store.catalog.describe("docs").count == 5
    assert store.to_claim().renew("docs", "mine", "still mine") is None
    store.to_claim().unclaim("docs", "still mine")
    store.close()


def test_plan_refuses_what_a_role_may_not_do(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30)
    database = name_of(postgres_url)
    role = f"few_{database}"
    url = postgres.url(database, role)
    path = write_manifest(tmp_path, url)

    def told() -> str:
        return "; ".join(f"{one.message} {one.hint}" for one in migration(path).plan().blockers)

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"ALTER TABLE docs OWNER TO {role}")
        try:
            assert f"'{role}' may not make tables in the schema 'public'" in told()
            assert f'GRANT CREATE ON SCHEMA "public" TO "{role}"' in told()
            connection.execute(f'GRANT CREATE ON SCHEMA "public" TO "{role}"')
            assert told() == ""
            connection.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
            assert f'GRANT TEMPORARY ON DATABASE "{database}" TO "{role}"' in told()
            connection.execute(f'GRANT TEMPORARY ON DATABASE "{database}" TO "{role}"')
            connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
            assert "default_transaction_read_only is on" in told()
            connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = off")
            assert told() == ""
            migration(path).run()
        finally:
            connection.execute(f"DROP OWNED BY {role} CASCADE")
            connection.execute(f"DROP ROLE {role}")


def test_definitions_are_read_alike_whatever_the_database_says_of_quotes(
    docs_url: str, tmp_path: Path, command: Command
) -> None:
    with psycopg.connect(docs_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET quote_all_identifiers = on").format(
                sql.Identifier(name_of(docs_url))
            )
        )
    assert command("run", pg_manifest(tmp_path, docs_url), "--swap").code == 0
    with app(docs_url) as docs:
        assert docs.model == "new" and docs.wrong_vectors("new") == []


@follows_hint("Give the primary's address as the URL.")
def test_a_standby_is_refused_and_its_primary_is_not(
    postgres_url: str, tmp_path: Path, command: Command
) -> None:
    make_docs(postgres_url, 5)
    with postgres_server() as standby:
        url = standby.url(standby.new_database())
        make_docs(url, 5)
        standby.become_standby()
        error = command("plan", write_manifest(tmp_path, url), "--json").json["error"]
        assert error["exit_code"] == 5 and "takes no writes" in error["message"], error
    assert command("plan", write_manifest(tmp_path, postgres_url)).code == 0


@follows_hint("the address lead to the old one, and run the same command again.")
def test_a_database_that_was_made_anew_meanwhile_is_not_taken_for_the_old_one(
    postgres: PostgresServer,
) -> None:
    name = postgres.new_database()
    make_docs(postgres.url(name), 5)
    store = open_store(postgres.url(name))
    assert list(store.catalog.collections()) == ["docs"]
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            [name],
        )
    old = f"{name}_old"
    postgres.rename_database(name, old)
    postgres.new_database(name)
    with pytest.raises(UnreachableError):
        store.catalog.collections()
    with pytest.raises(SourceChangedError, match="another database answers"):
        store.catalog.collections()
    postgres.drop_database(name)
    postgres.rename_database(old, name)
    assert list(store.catalog.collections()) == ["docs"]
    store.close()
    postgres.drop_database(name)
