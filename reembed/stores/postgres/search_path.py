"""Where sessions of ours look for names: nowhere that another role could have put one.

Operators and functions are found by the search path, and one that fits its arguments better wins
from whatever schema. So a schema in which others may create is not on it, and what pgvector brings
is named with its schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_SAFE_SCHEMAS = """
SELECT nspname FROM pg_namespace n, pg_database d, pg_roles me
WHERE nspname = ANY (%s) AND datname = current_database() AND me.rolname = current_user
AND NOT EXISTS (
  SELECT FROM (
    SELECT grantee FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    WHERE privilege_type = 'CREATE'
    UNION SELECT nspowner
  ) g LEFT JOIN pg_roles r ON r.oid = g.grantee,
  LATERAL (SELECT CASE r.rolname WHEN 'pg_database_owner' THEN datdba ELSE g.grantee END AS oid) w
  WHERE w.oid = 0 OR NOT (
    pg_has_role(w.oid, me.oid, 'MEMBER')
    OR (NOT me.rolsuper AND (w.oid = datdba OR (w.oid = nspowner AND r.rolname IS NOT NULL)))
  )
)
"""
"""Schemas in which only roles may create that could act as us anyway, or, where we are no
superuser, the owner of the schema or of the database, whose objects we use all the time."""


@dataclass(frozen=True)
class Path:
    """Where a session of ours looks for names.

    Attributes:
        role: the schemas of the role's own path, for the names of tables.
        extension: the schema of pgvector.
        left_out: those of them that are not on the session's path, since others may create there.
    """

    role: tuple[str, ...]
    extension: str
    left_out: tuple[str, ...]


_PATHS: WeakKeyDictionary[Connection, Path] = WeakKeyDictionary()


def fix_path(connection: Connection) -> None:
    """Let this session find nothing that a role could have put there which is not us already. What
    the role's own path was, and where pgvector is, is kept beside the connection."""
    connection.execute("SET client_encoding = 'UTF8'")  # or names are bytes
    row = connection.execute("SELECT pg_catalog.current_schemas(false)").fetchone()
    own = [name for name in (row[0] if row else []) if not name.startswith("pg_")]
    connection.execute("SET search_path = pg_catalog, pg_temp")
    found = connection.execute(
        "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE "
        "extname = 'vector'"
    ).fetchone()
    extension = str(found[0]) if found else ""
    safe = {
        row[0] for row in connection.execute(_SAFE_SCHEMAS, [[*own, extension]]).fetchall()
    }  # fmt: skip
    path = [name for name in dict.fromkeys([*own, extension]) if name in safe]
    connection.execute(
        sql.SQL("SET search_path = {}").format(
            sql.SQL(", ").join(map(sql.Identifier, ["pg_catalog", *path, "pg_temp"]))
        )
    )
    wanted = [name for name in dict.fromkeys([*own, extension]) if name]
    _PATHS[connection] = Path(tuple(own), extension, tuple(n for n in wanted if n not in safe))


def path_of(connection: Connection) -> Path:
    """Where names are looked for."""
    return _PATHS[connection]


def schema_of_pgvector(connection: Connection) -> str:
    """The schema that the extension is in."""
    return _PATHS[connection].extension


def of_pgvector(connection: Connection, name: str) -> sql.Identifier:
    """A type, function or operator class of pgvector, by its schema."""
    return sql.Identifier(_PATHS[connection].extension, name)


def operator_of_pgvector(connection: Connection, name: str) -> sql.Composed:
    """An operator of pgvector, by its schema."""
    schema = sql.Identifier(_PATHS[connection].extension)
    return sql.SQL("OPERATOR({}.{})").format(schema, sql.SQL(name))
