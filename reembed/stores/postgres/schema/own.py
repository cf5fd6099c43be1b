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


def require_own(
    connection: Connection, schema: str, name: str, shape: Shape, of: int | None
) -> bool:
    """Whether there is a table of ours of this name.

    Args:
        of: oid of the table of records that it serves, if there is one.

    Raises:
        PreflightError: there is something else of this name, or it is another role's.
    """
    named = {"schema": schema, "name": name, "of": of}
    row = connection.execute(_LOOK, named).fetchone()
    if row is None:
        return False
    kind, owner, trusted, columns, extras = row
    label = f"{schema}.{name}"
    if not trusted:
        raise PreflightError(
            f"{label} belongs to the role {owner!r}, and what reembed keeps there "
            f"({shape.purpose}) must not be in another role's hands",
            "Run as that role or as the owner of the collection; or look at it, drop it if "
            "no run of that role is at work, and take from the role the right to create in the "
            f"schema {schema!r}.",
        )
    wrong = list(extras)
    if kind != "r":
        wrong = ["another kind of thing than a table"]
    elif tuple(columns) != shape.columns:
        wrong.insert(0, f"the columns {', '.join(columns)}")
    if wrong:
        raise PreflightError(
            f"{label} is not as reembed makes it ({shape.purpose}): it has {', '.join(wrong)}",
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
        "pg_get_userbyid(relowner) <> current_user AND pg_has_role(relowner, 'MEMBER') AND "
        "has_schema_privilege(relowner, %s, 'CREATE')",
        [oid, schema],
    )
    return None if row is None else str(row[0])
