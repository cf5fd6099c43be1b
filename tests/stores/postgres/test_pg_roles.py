"""What another role has put into the schema does not run as us, and is not taken for ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reembed.errors import PreflightError
from reembed.stores.registry import open_store
from tests.support.following import follows_hint
from tests.support.manifests import migration
from tests.support.pg_docs import make_docs, pg_manifest
from tests.support.servers.postgres_server import PostgresServer

ESCALATE = """
CREATE FUNCTION public.escalate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN ALTER ROLE mallory SUPERUSER; RETURN NEW; END $$;
CREATE FUNCTION public.escalates(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN ALTER ROLE mallory SUPERUSER; RETURN true; END $$
"""
LEASE = "CREATE TABLE public.reembed_lease (live text PRIMARY KEY, claim text NOT NULL)"


@dataclass
class Scene:
    """A database whose schema public anybody may create in, with tables of the role `app`."""

    server: PostgresServer
    database: str

    def url(self, role: str = "postgres") -> str:
        return self.server.url(self.database, role)

    def run(self, statements: str, role: str = "postgres") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(role), autocommit=True) as connection:
            cursor = connection.execute(statements)
            return list(cursor.fetchall()) if cursor.description else []

    @property
    def escalated(self) -> bool:
        return bool(self.run("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")[0][0])


@pytest.fixture
def scene(postgres: PostgresServer) -> Iterator[Scene]:
    found = Scene(postgres, postgres.new_database())
    for role in ("mallory", "app", "helper"):
        found.run(f"DROP ROLE IF EXISTS {role}")
        found.run(f"CREATE ROLE {role} LOGIN")
    found.run("GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT app TO helper")
    make_docs(found.url("app"), 60)
    yield found
    postgres.drop_database(found.database)
    for role in ("mallory", "app", "helper"):
        found.database = "postgres"
        found.run(f"DROP ROLE {role}")


TRAPS = {
    "a trigger": f"{LEASE}; CREATE TRIGGER t BEFORE INSERT ON reembed_lease FOR EACH ROW "
                 "EXECUTE FUNCTION escalate()",
    "a rule": f"{LEASE}; CREATE RULE r AS ON INSERT TO reembed_lease DO ALSO "
              "SELECT escalates('x')",
    "a check": "CREATE TABLE reembed_lease (live text PRIMARY KEY, claim text NOT NULL "
               "CHECK (escalates(claim)))",
    "a default": f"{LEASE}; ALTER TABLE reembed_lease ADD b boolean DEFAULT escalates('x')",
    "a default of its own column": f"{LEASE}; ALTER TABLE reembed_lease ALTER claim SET DEFAULT "
                                   "escalates('x')::text",
    "an index": f"{LEASE}; ALTER FUNCTION escalates(text) IMMUTABLE; "
                "CREATE INDEX ON reembed_lease (escalates(claim))",
    "a policy": f"{LEASE}; ALTER TABLE reembed_lease ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON "
                "reembed_lease USING (escalates(live))",
    "a child": f"{LEASE}; CREATE TABLE c () INHERITS (reembed_lease)",
    "a view": "CREATE VIEW reembed_lease AS SELECT ''::text AS live, ''::text AS claim, "
              "escalates('x')",
    "nothing but another owner": LEASE,
}  # fmt: skip


@follows_hint("Run as that role or as the owner of the collection; or look at it, drop it if")
@pytest.mark.parametrize("trap", TRAPS)
def test_a_table_of_leases_that_another_role_made_is_refused_by_name(
    scene: Scene, trap: str
) -> None:
    scene.run(f"{ESCALATE}; {TRAPS[trap]}; GRANT ALL ON reembed_lease TO PUBLIC", "mallory")
    for role in ("postgres", "app"):
        store = open_store(scene.url(role))
        with pytest.raises(PreflightError, match="reembed_lease belongs to the role 'mallory'"):
            store.to_claim().claim("docs", "claim")
        with pytest.raises(PreflightError, match="mallory"):
            store.to_claim().unclaim("docs", "claim")
        store.close()
    assert not scene.escalated
    scene.run("DROP VIEW reembed_lease" if trap == "a view" else "DROP TABLE reembed_lease CASCADE")
    store = open_store(scene.url("app"))
    assert store.to_claim().claim("docs", "claim") is None, "what the hint says ends it"
    store.to_claim().unclaim("docs", "claim")
    store.close()


@follows_hint("Somebody has made or changed it. Look at it, and drop it if no run is at work")
@pytest.mark.parametrize("trap", [trap for trap in TRAPS if "another owner" not in trap])
def test_one_of_the_right_owner_is_refused_if_it_runs_anything(scene: Scene, trap: str) -> None:
    scene.run(f"{ESCALATE}; {TRAPS[trap]}", "app")
    store = open_store(scene.url())
    with pytest.raises(PreflightError, match="is not as reembed makes it") as refused:
        store.to_claim().claim("docs", "claim")
    assert "DROP TABLE" in refused.value.hint
    assert not scene.escalated
    scene.run("DROP VIEW reembed_lease" if trap == "a view" else "DROP TABLE reembed_lease CASCADE")
    assert store.to_claim().claim("docs", "claim") is None, "what the hint says ends it"
    store.to_claim().unclaim("docs", "claim")
    store.close()


def test_all_who_may_move_a_table_share_its_leases(scene: Scene) -> None:
    stores = [open_store(scene.url(role)) for role in ("postgres", "helper", "app")]
    for first in stores:
        assert first.to_claim().claim("docs", "mine") is None
        assert scene.run("SELECT tableowner FROM pg_tables WHERE tablename = 'reembed_lease'") == [
            ("app",)
        ]
        for other in stores:
            assert other.to_claim().claim("docs", "theirs") == "mine"
        first.to_claim().unclaim("docs", "mine")
        assert scene.run("SELECT to_regclass('reembed_lease')") == [(None,)]
    for store in stores:
        store.close()


HIJACK = """
CREATE TABLE public.canary (what text);
GRANT ALL ON public.canary TO PUBLIC;
{functions}
"""
SIGNATURES = [
    ("concat", "name, text, name", "text"),
    ("length", "name", "int"),
    ("format_type", "oid, smallint", "text"),
    ("quote_ident", "name", "text"),
    ("obj_description", "oid, name", "text"),
    ("col_description", "oid, smallint", "text"),
    ("array_position", "name[], name", "int"),
    ("coalesced", "text", "text"),
    ("vector_dims", "text", "int"),
    ("to_json", "bigint", "json"),
    ("substr", "text, bigint", "text"),
    ("greatest_of", "int", "int"),
    ("has_table_privilege", "oid, unknown", "boolean"),
    ("pg_has_role", "oid, unknown", "boolean"),
    ("pg_has_role", "unknown, unknown", "boolean"),
]
OPERATORS = [
    ("=", "oid", "smallint"), ("=", "oid", "integer"), ("=", "oid", "bigint"),
    ("=", "name", "varchar"), ("=", "smallint", "oid"), ("<>", "oid", "integer"),
    (">", "smallint", "smallint"), ("||", "name", "text"), ("||", "text", "name"),
    ("||", "name", "name"), ("~~", "name", "name"), ("~", "name", "name"),
]  # fmt: skip


def hijack() -> str:
    """Functions and operators that fit our statements better than those of Postgres, each of which
    notes who called it."""
    made = []
    for number, (name, arguments, result) in enumerate(SIGNATURES):
        if "unknown" in arguments:
            arguments = arguments.replace("unknown", "text")
        made.append(
            f"CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $$ "
            f"BEGIN INSERT INTO public.canary VALUES ('{number} {name} ' || current_user::text); "
            "RETURN NULL; END $$"
        )
    for number, (symbol, left, right) in enumerate(OPERATORS):
        made.append(
            f"CREATE FUNCTION public.op{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql "
            f"AS $$ BEGIN INSERT INTO public.canary VALUES ('{symbol} {left} {right}'); "
            "RETURN NULL; END $$"
        )
        made.append(
            f"CREATE OPERATOR public.{symbol} (LEFTARG = {left}, RIGHTARG = {right}, "
            f"FUNCTION = public.op{number})"
        )
    return HIJACK.format(functions="; ".join(made))


@pytest.mark.parametrize("role", ["postgres", "app"])
def test_a_whole_migration_calls_no_function_or_operator_of_another_role(
    scene: Scene, tmp_path: Path, role: str
) -> None:
    """Pgvector itself is in a schema that anybody may create in."""
    scene.run(hijack(), "mallory")
    path = pg_manifest(tmp_path, scene.url(role))
    plan = migration(path).plan()
    assert plan.ok
    [told] = [one for one in plan.warnings if "other roles may create" in one.message]
    assert "public" in told.message
    result = migration(path).run(swap=True)
    assert result.swap is not None
    assert result.swap.done
    assert scene.run("SELECT count(*), min(vector_dims(embedding)) FROM docs") == [(60, 64)]
    scene.run("INSERT INTO docs (content, embedding) SELECT 'later', embedding FROM docs LIMIT 1")
    assert migration(path).rollback().done
    assert scene.run("SELECT count(*) FROM docs") == [(61,)]
    assert migration(path).clean().done
    assert scene.run("SELECT * FROM canary") == []
    assert not scene.escalated


def test_what_captures_writes_runs_as_the_owner_of_the_table(scene: Scene) -> None:
    """And not as the superuser who installed it: the owner may change the type of the id."""
    store = open_store(scene.url())
    assert store.capture is not None
    store.capture.start(store.catalog.describe("docs").id)
    owners = "SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname LIKE 'reembed_%'"
    assert scene.run(owners) == [("app",)]
    assert scene.run("SELECT tableowner FROM pg_tables WHERE tablename LIKE 'reembed_%_log'") == [
        ("app",)
    ]
    store.close()


def test_a_schema_of_ones_own_is_looked_into_as_before(scene: Scene) -> None:
    scene.run("CREATE SCHEMA own AUTHORIZATION app; ALTER ROLE app SET search_path = own, public")
    scene.run("CREATE TABLE docs (id text PRIMARY KEY, v public.vector(3))", "app")
    store = open_store(scene.url("app"))
    assert store.catalog.describe("docs").dimensions == 3, "the first of the role's path"
    assert store.catalog.describe("public.docs").dimensions == 48
    store.close()
    scene.run("ALTER ROLE app RESET search_path")
