"""Who may do what with the things that we make: nobody but their owner, or as with the original.

Default privileges (ALTER DEFAULT PRIVILEGES) give roles rights to every new table, sequence and
function, so what is made is closed in the transaction that makes it: nobody ever sees it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one

_OF_RELATION = """
WITH these AS (
  SELECT oid FROM pg_class WHERE oid = %(oid)s
  UNION SELECT s.oid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = %(oid)s AND d.deptype IN ('a', 'i'))
SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, nspname, relname, grantee,
  CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END
  FROM these JOIN pg_class c ON c.oid = these.oid JOIN pg_namespace n ON n.oid = relnamespace,
  aclexplode(relacl) WHERE grantee <> relowner GROUP BY 1, 2, 3, 4, 5
"""


def close_relation(connection: Connection, oid: int) -> None:
    """Take every right to a table, and to the sequences of its columns, from all but the owner."""
    for kind, schema, name, _, role in fetch_all(connection, _OF_RELATION, {"oid": oid}):
        connection.execute(
            sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE").format(
                sql.SQL(kind), sql.Identifier(schema, name), _role(role)
            )
        )


def close_function(connection: Connection, schema: str, name: str) -> None:
    """Take every right to a function without arguments from all but its owner."""
    rows = fetch_all(
        connection,
        "SELECT DISTINCT CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END FROM "
        "pg_proc p JOIN pg_namespace n ON n.oid = pronamespace, aclexplode(coalesce(proacl, "
        "acldefault('f', proowner))) WHERE nspname = %s AND proname = %s AND pronargs = 0 AND "
        "grantee <> proowner",
        [schema, name],
    )
    for (role,) in rows:
        connection.execute(
            sql.SQL("REVOKE ALL ON FUNCTION {}() FROM {} CASCADE").format(
                sql.Identifier(schema, name), _role(role)
            )
        )


def copy_grants(connection: Connection, of: int, to: int) -> None:
    """Give one relation exactly the grants of another one of the same owner, on its columns too."""
    replace_grants(connection, to, grants(connection, of))
    held, there = column_grants(connection, of), column_grants(connection, to)
    if held == there:
        return
    row = fetch_one(
        connection, "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE c.oid = %s", [to],
    )  # fmt: skip
    assert row is not None, "it is there"
    table = sql.Identifier(*row)
    for column, privilege, _, role in there:
        connection.execute(
            sql.SQL("REVOKE {} ({}) ON {} FROM {} CASCADE").format(
                sql.SQL(privilege), sql.Identifier(column), table, _role(role)
            )
        )
    for column, privilege, grantable, role in held:
        connection.execute(grant_sql(table, privilege, grantable, role, column))


def replace_grants(
    connection: Connection, to: int, held: Sequence[tuple[str, bool, str | None]]
) -> None:
    """Give a relation exactly these grants, as `grants` has them."""
    if list(held) == grants(connection, to):
        return
    row = fetch_one(
        connection,
        "SELECT nspname, relname, relowner, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = %s",
        [to],
    )
    assert row is not None, "it is there"
    schema, name, owner, kind = row
    there = {"kind": sql.SQL(kind), "name": sql.Identifier(schema, name)}
    close_relation(connection, to)
    connection.execute(
        sql.SQL("REVOKE ALL ON {kind} {name} FROM {owner}").format(
            owner=sql.SQL(_name(connection, owner)), **there
        )
    )
    for privilege, grantable, role in held:
        statement: LiteralString = "GRANT {privilege} ON {kind} {name} TO {role}"
        if grantable:
            statement += " WITH GRANT OPTION"
        connection.execute(
            sql.SQL(statement).format(privilege=sql.SQL(privilege), role=_role(role), **there)
        )


def grants(connection: Connection, oid: int) -> list[tuple[str, bool, str | None]]:
    """Privileges, whether they may be handed on, and to whom; those of a new relation where nobody
    has changed any."""
    rows = fetch_all(
        connection,
        "SELECT privilege_type, is_grantable, CASE grantee WHEN 0 THEN NULL ELSE "
        "pg_get_userbyid(grantee) END FROM pg_class, aclexplode(coalesce(relacl, acldefault(CASE "
        "relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner))) WHERE oid = %s ORDER BY 3, "
        "1, 2",
        [oid],
    )
    return [(row[0], row[1], row[2]) for row in rows]


ColumnGrant = tuple[str, str, bool, str | None]
"""A column, a privilege on it, whether it may be handed on, and the role; None is PUBLIC."""


def column_grants(connection: Connection, oid: int) -> list[ColumnGrant]:
    """Privileges on single columns of a table."""
    rows = fetch_all(
        connection,
        "SELECT attname, privilege_type, is_grantable, CASE grantee WHEN 0 THEN NULL ELSE "
        "pg_get_userbyid(grantee)::text END FROM pg_attribute, aclexplode(attacl) WHERE attrelid = "
        "%s AND attnum > 0 AND NOT attisdropped ORDER BY attnum, 4, 2",
        [oid],
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def grant_sql(
    table: sql.Identifier, privilege: str, grantable: bool, role: str | None, column: str = ""
) -> sql.Composed:
    """The statement that gives a privilege on a table, or on one of its columns."""
    return sql.SQL("GRANT {}{} ON {} TO {}{}").format(
        sql.SQL(privilege),
        sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL(""),
        table, _role(role), sql.SQL(" WITH GRANT OPTION" if grantable else ""),
    )  # fmt: skip


def _name(connection: Connection, role: int) -> str:
    row = fetch_one(connection, "SELECT %s::oid::regrole::text", [role])
    assert row is not None, "a role has a name"
    return str(row[0])


def _role(name: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)


def opened_by_default(connection: Connection, schema: str) -> list[str]:
    """Whom default privileges would give rights to the tables that we make, in words."""
    rows = fetch_all(
        connection,
        "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM "
        "pg_default_acl, aclexplode(defaclacl) WHERE defaclobjtype = 'r' AND defaclrole = (SELECT "
        "oid FROM pg_roles WHERE rolname = current_user) AND grantee <> defaclrole AND "
        "(defaclnamespace = 0 OR defaclnamespace = (SELECT oid FROM pg_namespace WHERE nspname = "
        "%s)) ORDER BY 1",
        [schema],
    )
    return [row[0] for row in rows]


def check_session(connection: Connection, url: str) -> None:
    """Raise PreflightError where every transaction of ours would be read-only."""
    row = fetch_one(
        connection,
        "SELECT current_setting('transaction_read_only') = 'on', pg_is_in_recovery(), current_user",
    )
    if row is None or not row[0]:
        return
    if row[1]:
        raise PreflightError(
            f"{url}: this server is a standby, which takes no writes",
            "Give the primary's address as the URL.",
        )
    raise PreflightError(
        f"{url}: default_transaction_read_only is on for the role {row[2]!r}, the database or the "
        "server, so nothing can be written",
        "Somebody wants it so: use another role, or let it be set to off for this one (ALTER ROLE "
        ".. SET default_transaction_read_only = off).",
    )


def check_rights(connection: Connection, schema: str, like: list[int]) -> None:
    """Raise PreflightError where a table cannot be made in a schema, by us for its owner.

    Args:
        like: oids of tables whose owners the new tables get.
    """
    row = fetch_one(
        connection,
        "SELECT current_user, has_schema_privilege(%s, 'CREATE'), "
        "has_database_privilege(current_database(), 'TEMP'), current_database()",
        [schema],
    )
    assert row is not None, "a SELECT without FROM has one row"
    role, creates, temporary, database = row
    who = sql.Identifier(role).as_string(None)
    if not creates:
        raise PreflightError(
            f"the role {role!r} may not make tables in the schema {schema!r}",
            f"GRANT CREATE ON SCHEMA {sql.Identifier(schema).as_string(None)} TO {who};",
        )
    if not temporary:
        raise PreflightError(
            f"the role {role!r} may not make temporary tables in the database {database!r}, "
            "through which records are written",
            f"GRANT TEMPORARY ON DATABASE {sql.Identifier(database).as_string(None)} TO {who};",
        )
    owners = fetch_all(
        connection,
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid = ANY (%s) AND NOT "
        "has_schema_privilege(relowner, %s, 'CREATE') AND NOT (SELECT rolsuper FROM pg_roles WHERE "
        "rolname = current_user)",
        [like, schema],
    )
    if owners:
        owner = owners[0][0]
        raise PreflightError(
            f"the role {owner!r}, to which the new table must belong, may not make tables in the "
            f"schema {schema!r}",
            f"GRANT CREATE ON SCHEMA {sql.Identifier(schema).as_string(None)} TO "
            f"{sql.Identifier(owner).as_string(None)};",
        )
