"""What each role may read, write and delete is the same before, during and after, in every object;
what a run makes is closed to all but the owner, whatever default privileges give away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support.manifests import migration, write_manifest
from tests.support.pg_docs import make_docs

ROLES = ("owner", "member", "app", "reader", "anon", "service", "nobody")
"""The table's owner and a member by inheritance; one with grants on the table, one with grants on
columns; one with default privileges; one that no row security stops, and one that is PUBLIC alone.
"""
VERBS = (
    "SELECT count(*) FROM {}", "INSERT INTO {} DEFAULT VALUES", "UPDATE {} SET {} = {}",
    "DELETE FROM {}", "TRUNCATE {}",
)  # fmt: skip
INSIDERS = {"owner", "member"}
OPEN = """
CREATE FUNCTION noop() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON TABLES TO {anon};
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES TO {anon};
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON FUNCTIONS TO {anon};
GRANT {owner} TO {member};
ALTER TABLE docs OWNER TO {owner}
"""
"""As Supabase's projects are made, and a table from before that."""
SURROUNDINGS = {
    "rename": "GRANT USAGE ON SEQUENCE docs_id_seq TO {app}",
    "columns": """
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON docs TO {app}, {reader} USING (id <= 7);
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO {app};
GRANT SELECT (id, content), INSERT (slug), UPDATE (price) ON docs TO {reader};
GRANT SELECT, INSERT ON docs TO {anon};
GRANT SELECT, UPDATE, DELETE ON docs TO {service}
""",
    "forced": """
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON docs USING (id <= 7);
GRANT SELECT, UPDATE, DELETE ON docs TO {app};
GRANT SELECT, TRUNCATE ON docs TO {service}
""",
    "public": """
GRANT SELECT, INSERT ON docs TO PUBLIC;
GRANT UPDATE (content) ON docs TO PUBLIC;
GRANT DELETE ON docs TO {app} WITH GRANT OPTION
""",
}
RIGHTS = """
SELECT r.rolname, relname, privilege FROM pg_roles r, pg_class c, unnest(CASE relkind WHEN 'S' THEN
  ARRAY['USAGE', 'SELECT', 'UPDATE'] ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',
  'REFERENCES', 'TRIGGER'] END) privilege
  WHERE r.rolname = ANY (%(roles)s) AND relkind IN ('r', 'S')
  AND relnamespace = 'public'::regnamespace AND CASE relkind WHEN 'S' THEN
  has_sequence_privilege(r.oid, c.oid, privilege) ELSE has_table_privilege(r.oid, c.oid, privilege)
  END
UNION ALL SELECT r.rolname, relname || '.' || attname, privilege FROM pg_roles r, pg_class c JOIN
  pg_attribute a ON attrelid = c.oid, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) privilege
  WHERE r.rolname = ANY (%(roles)s) AND relkind = 'r' AND relnamespace = 'public'::regnamespace AND
  attnum > 0 AND NOT attisdropped AND attname <> 'reembed_incoming' AND
  has_column_privilege(r.oid, c.oid, attnum, privilege)
UNION ALL SELECT r.rolname, proname, 'EXECUTE' FROM pg_roles r, pg_proc p WHERE r.rolname =
  ANY (%(roles)s) AND pronamespace = 'public'::regnamespace AND probin IS NULL AND
  has_function_privilege(r.oid, p.oid, 'EXECUTE')
"""
"""What each role may do with each thing, asked of Postgres itself."""


class World:
    """A database with roles, and what they can do in it."""

    def __init__(self, url: str, names: dict[str, str]) -> None:
        self.names = names
        self.connection = psycopg.connect(url, autocommit=True)

    def run(self, statements: str) -> None:
        roles = {short: sql.Identifier(name) for short, name in self.names.items()}
        for statement in statements.split(";"):
            self.connection.execute(sql.SQL(statement).format(**roles))

    def rights(self) -> set[tuple[str, str, str]]:
        short = {name: key for key, name in self.names.items()}
        rows = self.connection.execute(RIGHTS, {"roles": list(short)}).fetchall()
        return {(short[role], thing, what) for role, thing, what in rows}

    def tables(self) -> list[str]:
        rows = self.connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
            "'public'::regnamespace ORDER BY 1"
        ).fetchall()
        return [name for (name,) in rows]

    def columns(self, table: str) -> list[str]:
        """The first column of a table, and those of `docs` that grants name."""
        rows = self.connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND NOT attisdropped "
            "AND (attnum = 1 OR attname IN ('content', 'price'))",
            [f'"{table}"'],
        ).fetchall()
        return [name for (name,) in rows]

    def tries(self, table: str) -> dict[tuple[str, ...], Any]:
        """What comes of reading and writing, as each role: a number of rows, or the refusal."""
        found = dict[tuple[str, ...], Any]()
        columns = self.columns(table)
        for short, name in self.names.items():
            for verb in VERBS:
                for column in columns if verb.startswith("UPDATE") else [""]:
                    parts = [sql.Identifier(one) for one in (table, column, column) if one]
                    found[short, verb[:6], column] = self.outcome(
                        name, sql.SQL(verb).format(*parts)
                    )
        return found

    def outcome(self, role: str, statement: sql.Composed) -> Any:
        """Of a statement that is undone again: a number of rows, "refused", or what is wrong."""
        try:
            with self.connection.transaction(force_rollback=True):
                self.connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                cursor = self.connection.execute(statement)
                row = cursor.fetchone() if cursor.description else (cursor.rowcount,)
            return row[0] if row else None
        except psycopg.errors.InsufficientPrivilege:
            return "refused"
        except psycopg.errors.IntegrityError as error:
            return type(error).__name__


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    ending = postgres_url.split("?")[0].rsplit("/", 1)[-1]
    made = World(postgres_url, {short: f"{short}_{ending}" for short in ROLES})
    for name in made.names.values():
        made.connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    service = sql.Identifier(made.names["service"])
    made.connection.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(service))
    try:
        yield made
    finally:
        for statement in ("DROP OWNED BY {} CASCADE", "DROP ROLE {}"):
            for name in made.names.values():
                made.connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        made.connection.close()


@pytest.mark.parametrize("kind", SURROUNDINGS)
def test_every_role_may_do_the_same_all_along(
    postgres_url: str, tmp_path: Path, world: World, kind: str
) -> None:
    make_docs(postgres_url, 30)
    world.run(OPEN)
    world.run(SURROUNDINGS[kind])
    before, tried = world.rights(), world.tries("docs")
    things = {thing for _, thing, _ in before} | set(world.tables())
    one = migration(write_manifest(tmp_path, postgres_url, swap__keep_old="0d"))
    plan = one.plan()
    assert plan.ok, plan.blockers
    (told,) = [problem.message for problem in plan.warnings if "closed to all" in problem.message]
    assert f"would give to {world.names['anon']} is taken back" in told

    def check() -> None:
        now = world.rights()
        assert {right for right in now if right[1] in things} == before
        assert world.tries("docs") == tried
        opened = {right for right in now - before if right[0] not in INSIDERS}
        # An old table's own sequence goes with it, and has exactly the original's grants.
        opened = {one for one in opened if (one[0], "docs_id_seq", one[2]) not in before}
        assert opened == set()
        for table in set(world.tables()) - things:
            for (role, verb, column), outcome in world.tries(table).items():
                assert outcome == "refused" or role in INSIDERS, (role, verb, column, table)
                seen = verb in ("SELECT", "DELETE", "UPDATE")
                if kind == "forced" and role in INSIDERS and "reembed" not in table and seen:
                    assert outcome == 0  # not even the owner sees more than in the original

    steps: list[Callable[[], Any]] = [one.run, one.swap, one.rollback, one.swap, one.clean]
    for step in steps:
        step()
        check()
    assert set(world.tables()) == {"docs"}
