"""Objects of ours in a database, known by owner and shape before they are used.

Whoever may create in a schema can make a table of the name that reembed will use, with a trigger
that runs as whoever writes to it. So a table is used only if it is owned by a role that could act
as us anyway, or by the owner of the collection that it serves, and if nothing of it runs anybody's
code. The check counts while a lock is held under which nobody can change that.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_one


@dataclass(frozen=True)
class Shape:
    """What a table of ours looks like.

    Attributes:
        columns: as `SQL` below writes them.
        purpose: what it is kept for, for messages.
    """

    columns: tuple[str, ...]
    purpose: str


_LOOK = """
SELECT relkind::text, pg_get_userbyid(relowner)::text,
  pg_has_role(relowner, (SELECT oid FROM pg_roles WHERE rolname = current_user), 'MEMBER')
    OR relowner IS NOT DISTINCT FROM (SELECT relowner FROM pg_class WHERE oid = %(of)s),
  ARRAY(SELECT attname || ' ' || format_type(atttypid, atttypmod)
      || CASE WHEN attnotnull THEN ' not null' ELSE '' END
      || CASE WHEN attidentity <> '' THEN ' identity' WHEN attgenerated <> '' THEN ' generated'
         WHEN atthasdef THEN ' default' ELSE '' END
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
  array_remove(ARRAY[
    CASE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid) THEN 'a trigger' END,
    CASE WHEN EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid) THEN 'a rule' END,
    CASE WHEN relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
      THEN 'a policy' END,
    CASE WHEN EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent))
      THEN 'a parent or a child' END,
    CASE WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype NOT IN ('p', 'n')
      OR confrelid = c.oid) THEN 'a constraint' END,
    CASE WHEN (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) <> 1 OR EXISTS (
      SELECT FROM pg_index WHERE indrelid = c.oid AND (NOT indisprimary OR indexprs IS NOT NULL OR
        indpred IS NOT NULL OR EXISTS (SELECT FROM unnest(indclass) u (id) JOIN pg_opclass o ON
        o.oid = u.id WHERE opcnamespace <> 'pg_catalog'::regnamespace)))
      THEN 'other indexes than a key' END,
    CASE WHEN relam IS DISTINCT FROM (SELECT oid FROM pg_am WHERE amname = 'heap')
      THEN 'a storage of its own' END
  ], NULL)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relname = %(name)s
"""


_KINDS = {
    "r": "table", "v": "view", "m": "materialized view", "i": "index", "S": "sequence", "c": "type",
    "f": "foreign table", "p": "table", "I": "index",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What stands in the place of a table of ours.

    Attributes:
        what: which kind of thing, as SQL calls it.
        trusted: whether its owner is a role that could act as us, or that of the collection.
        is_as_made: whether it is a table with the columns that reembed gives it.
        wrong: what it is or has that reembed does not make, in words.
    """

    what: str
    owner: str
    trusted: bool
    is_as_made: bool
    wrong: tuple[str, ...]


def look(
    connection: Connection, schema: str, name: str, shape: Shape, of: int | None
) -> Look | None:
    """What there is of this name, of whatever kind; None where there is nothing.

    Args:
        of: oid of the table of records that it serves, if there is one.
    """
    named = {"schema": schema, "name": name, "of": of}
    row = connection.execute(_LOOK, named).fetchone()
    if row is None:
        return None
    kind, owner, trusted, columns, wrong = row
    fits = kind == "r" and tuple(columns) == shape.columns
    if kind != "r":
        wrong = ["another kind of thing than a table"]
    elif not fits:
        wrong = [f"the columns {', '.join(columns)}", *wrong]
    return Look(_KINDS.get(kind, "table"), owner, trusted, fits, tuple(wrong))


def require_own(
    connection: Connection, schema: str, name: str, shape: Shape, of: int | None
) -> bool:
    """Whether there is a table of ours of this name.

    Args:
        of: oid of the table of records that it serves, if there is one.

    Raises:
        PreflightError: there is something else of this name, or it is another role's.
    """
    found = look(connection, schema, name, shape, of)
    if found is None:
        return False
    label = f"{schema}.{name}"
    if not found.trusted:
        raise PreflightError(
            f"{label} belongs to the role {found.owner!r}, and what reembed keeps there "
            f"({shape.purpose}) must not be controlled by another role",
            "Run as that role or as the owner of the collection; or look at it, drop it if "
            "no run of that role is at work, and revoke the role's right to create in the schema"
            f" {schema!r}.",
        )
    if found.wrong:
        raise PreflightError(
            f"{label} is not as reembed makes it ({shape.purpose}): it has "
            f"{', '.join(found.wrong)}",
            "Somebody has made or changed it. Look at it, and drop it if no run is at work: "
            f"DROP TABLE {sql.Identifier(schema, name).as_string(None)}.",
        )
    return True


def may_own(connection: Connection, oid: int, schema: str) -> str | None:
    """The owner of a table, as SQL writes it, if that is another role than we are and we may give
    it a table in this schema; else None."""
    row = fetch_one(
        connection,
        "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = %s AND "
        "pg_get_userbyid(relowner) <> current_user AND pg_has_role(relowner, CASE WHEN "
        "current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) AND "
        "has_schema_privilege(relowner, %s, 'USAGE') AND (has_schema_privilege(relowner, %s, "
        "'CREATE') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))",
        [oid, schema, schema],
    )
    return None if row is None else str(row[0])
