"""What Postgres would refuse while a run is under way is refused by `plan`, which tries it and
undoes it; with that out of the way, as the refusal says, the plan passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from reembed.errors import PreflightError
from reembed.migration import Migration
from reembed.stores.postgres.client import connect, mapped
from tests.support.following import follows_hint
from tests.support.manifests import migration
from tests.support.pg_catalog import differences, snapshot
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.servers.postgres_server import PostgresServer


class Trial(NamedTuple):
    """What is in the way of a run, whom it meets, what is said of it, and what ends it."""

    statements: str
    told: str
    undone: str


LITERAL = "('[' || repeat('1,', 47) || '1]')::vector"
FORBID = (
    "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no % here',"
    " lower(tg_tag); END $$; CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('{}') "
    "EXECUTE FUNCTION forbid()"
)
ALLOW = "DROP EVENT TRIGGER forbid; DROP FUNCTION forbid()"
ONE = "CREATE FUNCTION one({}) RETURNS {} IMMUTABLE LANGUAGE sql AS 'SELECT {}'; "
CLOSED = "; REVOKE EXECUTE ON FUNCTION one({}) FROM PUBLIC"
TRIALS = {
    "index of distances to a vector": Trial(
        f"CREATE INDEX near ON docs ((embedding <-> {LITERAL}))",
        "public.docs's index near, made for the new vectors: different vector dimensions 64 and 48",
        "DROP INDEX near",
    ),
    "tables are not dropped": Trial(FORBID.format("DROP TABLE"), "no drop table here", ALLOW),
    "its own rights": Trial(
        "REVOKE UPDATE ON docs FROM {role}",
        "reembed has to UPDATE its rows: permission denied for table docs",
        "GRANT UPDATE ON docs TO {role}",
    ),
}  # fmt: skip
RARE = {
    "a type of somebody's": Trial(
        "CREATE TYPE mood AS ENUM ('glad'); REVOKE USAGE ON TYPE mood FROM PUBLIC; ALTER TABLE docs"
        " ADD mood mood",
        "permission denied for type mood",
        "GRANT USAGE ON TYPE mood TO PUBLIC",
    ),
    "index of some distances": Trial(
        f"CREATE INDEX near ON docs (id) WHERE (embedding <-> {LITERAL}) < 1000",
        "public.docs's index near, made for the new vectors: different vector dimensions",
        "DROP INDEX near",
    ),
    "index of few rows": Trial(
        f"CREATE INDEX near ON docs ((embedding <-> {LITERAL})) WHERE id = 39",
        "public.docs's index near, made for the new vectors: different vector dimensions",
        "DROP INDEX near",
    ),
    "index of two vectors": Trial(
        "ALTER TABLE docs ADD twin vector(48)[]; UPDATE docs SET twin = ARRAY[embedding]; "
        "CREATE INDEX near ON docs ((embedding <-> twin[1]))",
        "public.docs's index near, made for the new vectors: different vector dimensions",
        "DROP INDEX near",
    ),
    "tables are not made": Trial(FORBID.format("CREATE TABLE"), "no create table here", ALLOW),
    "tables are not changed": Trial(FORBID.format("ALTER TABLE"), "no alter table here", ALLOW),
    "indexes are not made": Trial(FORBID.format("CREATE INDEX"), "no create index here", ALLOW),
    "pgvector is closed": Trial(
        "REVOKE USAGE ON TYPE vector FROM PUBLIC",
        "permission denied for type vector",
        "GRANT USAGE ON TYPE vector TO PUBLIC",
    ),
    "a function of an index": Trial(
        ONE.format("text", "text", "$1") + "CREATE INDEX by_one ON docs (one(content))"
        + CLOSED.format("text"),
        "public.docs's index by_one, made for the new vectors: permission denied for function one",
        "GRANT EXECUTE ON FUNCTION one(text) TO PUBLIC",
    ),
    "a function of a check": Trial(
        ONE.format("text", "boolean", "true") + "ALTER TABLE docs ADD CHECK (one(content))"
        + CLOSED.format("text"),
        "permission denied for function one",
        "GRANT EXECUTE ON FUNCTION one(text) TO PUBLIC",
    ),
    "rights of new tables": Trial(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE INSERT ON TABLES FROM {role}",
        "permission denied for table docs__",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT INSERT ON TABLES TO {role}",
    ),
    "rows that are published and not told apart": Trial(
        "ALTER TABLE docs REPLICA IDENTITY NOTHING; CREATE PUBLICATION news FOR TABLE docs (id)",
        "because it does not have a replica identity and publishes updates. Postgres says: To "
        "enable updating the table, set REPLICA IDENTITY",
        "ALTER TABLE docs REPLICA IDENTITY DEFAULT",
    ),
    "rows that are published by what does not tell them apart": Trial(
        "CREATE PUBLICATION news FOR TABLE docs (id) WHERE (price > 1)",
        "Column used in the publication WHERE expression is not part of the replica identity",
        "ALTER PUBLICATION news SET (publish = 'insert')",
    ),
}  # fmt: skip
ALL = TRIALS | RARE


class Owned(NamedTuple):
    """A database whose table belongs to a role without other rights."""

    root: str
    url: str
    role: str

    def run(self, statements: str) -> None:
        with psycopg.connect(self.root, autocommit=True) as connection:
            connection.execute(statements.replace("{role}", self.role))


@pytest.fixture
def owned(postgres: PostgresServer, postgres_url: str) -> Iterator[Owned]:
    database = postgres_url.split("?")[0].rsplit("/", 1)[-1]
    made = Owned(postgres_url, postgres.url(database, f"o_{database}"), f"o_{database}")
    made.run("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")
    make_docs(made.url, 40)
    yield made
    made.run("DROP EVENT TRIGGER IF EXISTS forbid")
    made.run("DROP OWNED BY {role} CASCADE")
    made.run("DROP ROLE {role}")


def told(one: Migration) -> str:
    return "; ".join(f"{problem.message}. {problem.hint}" for problem in one.plan().blockers)


@follows_hint("Let Postgres allow it, or drop what it names", sometimes=True)
@pytest.mark.parametrize(
    "kind", [*TRIALS, *(pytest.param(kind, marks=pytest.mark.long) for kind in RARE)]
)
def test_what_would_end_a_run_is_tried_and_undone(owned: Owned, tmp_path: Path, kind: str) -> None:
    trial, one = ALL[kind], migration(pg_manifest(tmp_path, owned.url))
    owned.run(trial.statements)
    before = snapshot(owned.root)
    assert trial.told in told(one)
    assert differences(before, snapshot(owned.root)) == []
    owned.run(trial.undone)
    assert told(one) == ""


@pytest.mark.long
@pytest.mark.parametrize("kind", ALL)
def test_with_it_out_of_the_way_the_table_moves_there_and_back(
    owned: Owned, tmp_path: Path, kind: str
) -> None:
    one = migration(pg_manifest(tmp_path, owned.url))
    owned.run(ALL[kind].statements)
    owned.run(ALL[kind].undone)
    one.run()
    one.swap()
    one.rollback()
    one.swap()
    one.clean()
    with app(owned.root) as docs:
        assert docs.wrong_vectors("new") == []


def test_a_member_that_may_not_become_the_owner_is_refused(owned: Owned, tmp_path: Path) -> None:
    one = migration(pg_manifest(tmp_path, owned.url))
    holder = f"{owned.role}_holder"
    owned.run(
        f"CREATE ROLE {holder}; GRANT CREATE ON SCHEMA public TO {holder}; ALTER TABLE docs OWNER "
        f"TO {holder}; GRANT {holder} TO {{role}} WITH INHERIT TRUE, SET FALSE"
    )
    try:
        assert f'must be able to SET ROLE "{holder}"' in told(one)
        owned.run(f"GRANT {holder} TO {{role}} WITH SET TRUE")
        assert told(one) == ""
        one.run()
    finally:
        owned.run(f"DROP OWNED BY {holder} CASCADE")
        owned.run(f"DROP ROLE {holder}")


def test_what_postgres_does_not_allow_now_is_no_lost_connection(docs_url: str) -> None:
    with (
        connect(docs_url) as connection,
        pytest.raises(PreflightError, match="not yet defined in this session") as refused,
        mapped("docs"),
    ):
        connection.execute("SELECT currval('docs_id_seq')")
    assert "connection was lost" not in refused.value.message
