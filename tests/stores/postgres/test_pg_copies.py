"""What is left in a database is copied with it, and a copy of a mark counts for nobody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reembed import clean_database
from reembed.errors import PreflightError
from reembed.migration import Migration
from reembed.stores.registry import open_store
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, write_manifest
from tests.support.pg_docs import app, catalog, identity, make_docs, traces
from tests.support.pg_scene import Scene
from tests.support.servers.postgres_server import PostgresServer

OLD = {"provider": "python", "name": "counting_model:old"}
NEW = {"provider": "python", "name": "counting_model:new"}
HELD = "CREATE VIEW titles AS SELECT id, content FROM docs"
"""Makes the table keep its place."""


def comment(url: str, table: str = "docs") -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = "
            "%s::regclass AND attname = 'embedding'",
            [f'"{table}"'],
        ).fetchone()
    return row[0] if row else None


def moved(url: str, folder: Path) -> Migration:
    """A migration of `docs` that is swapped and not cleaned."""
    one = migration(write_manifest(folder, url, source__collection="docs", swap__keep_old="0d"))
    one.run()
    assert one.swap().done
    return one


@pytest.mark.parametrize("held", [False, True], ids=["rename", "columns"])
def test_a_backup_made_by_like_is_neither_read_nor_dropped(
    postgres_url: str, tmp_path: Path, held: bool
) -> None:
    make_docs(postgres_url, 30, *([HELD] if held else []))
    first = moved(postgres_url, tmp_path)
    with app(postgres_url) as docs:
        docs.run("CREATE TABLE backup (LIKE docs INCLUDING ALL)")
        docs.run("INSERT INTO backup SELECT * FROM docs WHERE id <= 12")
        kept = docs.run("SELECT id, content FROM backup ORDER BY id")
        late = docs.insert("written late")
        assert first.clean().done
        assert comment(postgres_url) is None
        store = open_store(postgres_url)
        assert store.catalog.describe("docs").count == 31
        assert store.catalog.describe("backup").count == 12
        store.close()
        folder = tmp_path / "second"
        folder.mkdir()
        second = migration(write_manifest(
            folder, postgres_url, name="second", model=OLD, source__model=NEW, swap__keep_old="0d",
        ))  # fmt: skip
        assert second.plan().records == 31
        second.run()
        assert second.swap().done
        assert docs.run("SELECT count(*) FROM {t}") == [(31,)]
        assert late in docs.rows()
        assert docs.wrong_vectors("old") == []
        assert second.clean().done
        assert docs.run("SELECT id, content FROM backup ORDER BY id") == kept


@pytest.mark.parametrize("held", [False, True], ids=["rename", "columns"])
def test_a_copied_database_is_migrated_as_if_nobody_had_been_there(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, held: bool
) -> None:
    make_docs(postgres_url, 30, *([HELD] if held else []))
    first = moved(postgres_url, tmp_path)
    name = postgres.new_database(template=postgres_url.split("?")[0].rsplit("/", 1)[-1])
    url = postgres.url(name)
    try:
        before = catalog(postgres_url)
        folder = tmp_path / "copy"
        folder.mkdir()
        scene = Scene(
            url, folder, model=OLD, source__model=NEW, target__collection="anew",
        )  # fmt: skip
        scene.migration.run()
        assert scene.swap().done
        assert scene.migration.clean().done
        assert comment(url) is None
        assert not scene.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'docs'::regclass "
                                 "AND NOT tgisinternal")  # fmt: skip
        with app(url) as docs:
            assert docs.wrong_vectors("old") == []
        assert catalog(postgres_url) == before
        assert first.rollback().done
    finally:
        postgres.drop_database(name)


def dumped(postgres: PostgresServer, url: str) -> str:
    """A database that was restored from a dump of another one; its URL."""
    name = postgres.new_database()
    into = postgres.url(name)
    dump = subprocess.run(
        [postgres.program("pg_dump"), "--dbname", url], check=True, capture_output=True
    )
    restored = subprocess.run(
        [postgres.program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "--dbname", into],
        input=dump.stdout,
        capture_output=True,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr.decode()
    return into


@pytest.mark.parametrize("held", [False, True], ids=["rename", "columns"])
def test_clean_takes_out_of_a_restored_database_what_runs_left_in_the_other(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, command: Command, held: bool
) -> None:
    make_docs(postgres_url, 30, *([HELD] if held else []))
    unknown = catalog(postgres_url)
    with app(postgres_url) as docs:
        docs.run("COMMENT ON COLUMN {t}.embedding IS 'of the first model'")
        first = moved(postgres_url, tmp_path)
        docs.run("CREATE TABLE backup (LIKE docs INCLUDING ALL)")
        docs.run("INSERT INTO backup SELECT * FROM docs WHERE id <= 12")
    store = open_store(postgres_url)
    assert store.to_claim().claim("docs", "a claim") is None
    url = dumped(postgres, postgres_url)
    store.to_claim().unclaim("docs", "a claim")
    store.close()
    with psycopg.connect(url) as connection:  # a lease that a dump has brought binds nobody
        assert connection.execute("SELECT count(*) FROM reembed_lease").fetchone() == (1,)
    own = command("clean", postgres_url, "--json").json["leftovers"]  # all else is the run's own
    assert [(one["kind"], one["name"]) for one in own] == [("note", "public.backup.embedding")]
    shown = command("clean", url, "--json").json
    assert not shown["done"]
    kinds = {(one["kind"], one["name"].split("__")[0]) for one in shown["leftovers"]}
    assert ("lease", "public.reembed_lease") in kinds
    assert ("table", "public.docs") in kinds
    assert ("triggers", "public.docs") in kinds
    assert ("note", "public.backup.embedding") in kinds
    assert "Add --yes" in command("clean", url).out
    assert command("clean", url, "--json").json == shown
    before = catalog(postgres_url)
    assert clean_database(url, dry_run=False).done
    assert catalog(postgres_url) == before
    assert clean_database(url).leftovers == []
    assert [one for one in traces(url) if "backup" not in one] == []
    assert comment(url) == comment(url, "backup") == "of the first model"
    after = catalog(url)
    for kind in ("triggers", "functions"):
        assert after[kind] == unknown[kind]
    with app(url) as docs:
        assert docs.run("SELECT count(*) FROM {t}") == [(30,)]
        assert docs.run("SELECT count(*) FROM backup") == [(12,)]
        assert docs.wrong_vectors("new") == []
    assert first.rollback().done
    assert comment(postgres_url) == "of the first model"


def test_a_restored_database_is_migrated_though_a_run_was_under_way(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30)
    migration(write_manifest(tmp_path, postgres_url)).run()
    url = dumped(postgres, postgres_url)
    folder = tmp_path / "copy"
    folder.mkdir()
    scene = Scene(url, folder, target__collection="anew")
    scene.run()
    with app(url) as docs:
        late = docs.insert("written late")
        assert scene.swap().done
        assert late in docs.rows()
    assert scene.migration.clean().done
    assert [one.kind for one in clean_database(url).leftovers] == ["note"]  # of the other's shadow
    clean_database(url, dry_run=False)
    assert [one for one in traces(url) if "docs__" not in one] == []


def test_a_column_that_bears_the_name_of_ours_is_refused_by_plan(
    postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30, "ALTER TABLE docs ADD reembed_incoming vector(3)")
    plan = migration(write_manifest(tmp_path, postgres_url)).plan()
    assert [one.message for one in plan.blockers] == [
        "public.docs: has a column reembed_incoming, which no move of reembed made"
    ]


@follows_hint("Somebody has edited one: remove the comment of the vector column")
def test_two_tables_that_hold_one_collection_are_a_refusal(
    postgres_url: str, tmp_path: Path
) -> None:
    make_docs(postgres_url, 30, HELD)
    one = moved(postgres_url, tmp_path)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE other (LIKE docs INCLUDING ALL)")
        for table in ("docs", "other"):
            note = json.loads((comment(postgres_url) or "").removeprefix("reembed:"))
            note["of"] = identity(connection, table)
            connection.execute(
                sql.SQL("COMMENT ON COLUMN {}.embedding IS {}").format(
                    sql.Identifier(table), sql.Literal("reembed:" + json.dumps(note))
                )
            )
    for action in (one.rollback, one.clean):
        with pytest.raises(PreflightError, match=r"public\.docs and public\.other both say"):
            action()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("COMMENT ON COLUMN other.embedding IS NULL")
    assert one.rollback().done
