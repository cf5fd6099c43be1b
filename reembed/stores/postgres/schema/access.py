"""Who may do what with the things that we make: nobody but their owner, or as with the original.

Default privileges (ALTER DEFAULT PRIVILEGES) give roles rights to every new table, sequence and
function, so what is made is closed in the transaction that makes it: nobody ever sees it open.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

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
    """Give one relation exactly the grants of another one of the same owner."""
    if _acl(connection, of) == _acl(connection, to):
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
    for privilege, grantable, role in _acl(connection, of):
        statement: LiteralString = "GRANT {privilege} ON {kind} {name} TO {role}"
        if grantable:
            statement += " WITH GRANT OPTION"
        connection.execute(
            sql.SQL(statement).format(privilege=sql.SQL(privilege), role=_role(role), **there)
        )


def _acl(connection: Connection, oid: int) -> list[tuple[str, bool, str | None]]:
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
