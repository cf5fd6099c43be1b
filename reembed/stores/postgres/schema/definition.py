"""A table written down, so that it can be made again where it is gone: see `stores.store.Shapes`.

Columns with their types, defaults, identities and sequences; keys, unique constraints and checks;
indexes, comments and grants, also on single columns. Triggers, policies, rules, views, foreign keys
and publications lead to other things and are not made again; their names and definitions are
written down, so that a restore can tell them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.access import (
    column_grants,
    grant_sql,
    grants,
    replace_grants,
)
from reembed.stores.postgres.schema.indexes import definitions
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.names import find_table
from reembed.stores.postgres.schema.replication import addition, publications
from reembed.stores.postgres.schema.table import Table

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull,
  (SELECT conname FROM pg_constraint WHERE conrelid = attrelid AND contype = 'n' AND conkey =
  ARRAY[attnum]), pg_get_expr(adbin, adrelid),
  attidentity::text, attgenerated::text,
  CASE WHEN attcollation <> typcollation THEN attcollation::regcollation::text END,
  col_description(attrelid, attnum), pg_get_serial_sequence(attrelid::regclass::text, attname)
FROM pg_attribute JOIN pg_type t ON t.oid = atttypid LEFT JOIN pg_attrdef ON adrelid = attrelid
  AND adnum = attnum WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attname <> %s
ORDER BY attnum
"""
_CONSTRAINTS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype IN
('p', 'u', 'x', 'c') ORDER BY contype DESC, conname
"""
_LEFT = """
SELECT 'trigger ' || quote_ident(tgname), pg_get_triggerdef(oid) || CASE tgenabled WHEN 'O' THEN ''
  ELSE '; ALTER TABLE ' || tgrelid::regclass || CASE tgenabled WHEN 'D' THEN ' DISABLE' WHEN 'R'
  THEN ' ENABLE REPLICA' ELSE ' ENABLE ALWAYS' END || ' TRIGGER ' || quote_ident(tgname) END
  FROM pg_trigger
  WHERE tgrelid = %(table)s AND NOT tgisinternal AND tgname NOT LIKE 'reembed%%'
UNION ALL SELECT 'policy ' || quote_ident(polname), concat_ws(' ',
  'CREATE POLICY', quote_ident(polname), 'ON', polrelid::regclass, 'AS', CASE WHEN polpermissive
  THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, 'FOR', CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN
  'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, 'TO', (SELECT
  string_agg(CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END, ', ')
  FROM unnest(polroles) role),
  'USING (' || pg_get_expr(polqual, polrelid) || ')',
  'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')') FROM pg_policy
  WHERE polrelid = %(table)s
UNION ALL SELECT 'row level security', 'ALTER TABLE ' || oid::regclass ||
  ' ENABLE ROW LEVEL SECURITY' || CASE WHEN relforcerowsecurity THEN ', FORCE ROW LEVEL SECURITY'
  ELSE '' END FROM pg_class WHERE oid = %(table)s AND relrowsecurity
UNION ALL SELECT 'foreign key ' || quote_ident(conname) || CASE WHEN conrelid = %(table)s THEN ''
  ELSE ' of ' || conrelid::regclass END, 'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT '
  || quote_ident(conname) || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
  WHERE contype = 'f' AND %(table)s IN (conrelid, confrelid)
UNION ALL SELECT DISTINCT CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view '
  ELSE 'rule ' || quote_ident(rulename) || ' of ' END || ev_class::regclass, CASE WHEN relkind IN
  ('v', 'm') THEN 'CREATE ' || CASE relkind WHEN 'm' THEN 'MATERIALIZED ' ELSE '' END || 'VIEW ' ||
  ev_class::regclass || coalesce(' WITH (' || array_to_string(reloptions, ', ') || ')', '') || ' AS'
  || pg_get_viewdef(ev_class) ELSE pg_get_ruledef(r.oid) END
  FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
  JOIN pg_class c ON c.oid = ev_class WHERE refclassid = 'pg_class'::regclass
  AND refobjid = %(table)s ORDER BY 1
"""
_NAMES = (
    "name", "type", "not_null", "not_null_name", "default", "identity", "generated", "collation",
    "comment", "sequence",
)  # fmt: skip


def define(connection: Connection, table: Table) -> dict[str, Any]:
    """What `make` needs to make a table like this one, as JSON has it."""
    columns = []
    for row in fetch_all(connection, _COLUMNS, [table.oid, COMING]):
        column = dict(zip(_NAMES, row, strict=True))
        if column["name"] == table.vector:
            column["comment"] = None  # a note of this very table's
        if column["sequence"]:
            column["sequence"] = _sequence(connection, column["sequence"])
        columns.append(column)
    indexes = [{"name": one.name, "unique": one.unique, "tail": one.tail}
               for one in definitions(connection, table)]  # fmt: skip
    left = [list(row) for row in fetch_all(connection, _LEFT, {"table": table.oid})]
    left += [
        [f"publication {one.name}", addition(table, one).as_string(None)]
        for one in publications(connection, table) if one.scope == "table"
    ]  # fmt: skip
    comment = fetch_one(connection, "SELECT obj_description(%s, 'pg_class')", [table.oid])
    return {
        "schema": table.schema, "name": table.name, "prefix": table.prefix, "columns": columns,
        "constraints": [list(row) for row in fetch_all(connection, _CONSTRAINTS, [table.oid])],
        "indexes": indexes, "comment": comment[0] if comment else None,
        "grants": [list(one) for one in grants(connection, table.oid)],
        "column_grants": [list(one) for one in column_grants(connection, table.oid)],
        "left": left,
    }  # fmt: skip


def _sequence(connection: Connection, name: str) -> dict[str, Any]:
    row = fetch_one(
        connection,
        "SELECT nspname, relname, seqincrement, seqstart FROM pg_class c JOIN pg_namespace n ON "
        "n.oid = relnamespace JOIN pg_sequence ON seqrelid = c.oid WHERE c.oid = %s::regclass",
        [name],
    )
    assert row is not None, "it is there"
    schema, own, increment, start = row
    place = sql.Identifier(schema, own)
    last = fetch_one(connection, sql.SQL("SELECT last_value, is_called FROM {}").format(place))
    assert last is not None, "a sequence has a row"
    return {"schema": schema, "name": own, "increment": increment, "start": start,
            "last": last[0], "called": last[1]}  # fmt: skip


def make(connection: Connection, written: Mapping[str, Any], schema: str, name: str) -> int:
    """Make an empty table as it is written down, but for its name. Returns its oid.

    Its constraints, indexes and sequences have the names that they had, where these are free.
    """
    table = sql.Identifier(schema, name)
    for column in written["columns"]:
        if column["sequence"] and not column["identity"]:
            connection.execute(
                sql.SQL("CREATE SEQUENCE IF NOT EXISTS {} INCREMENT {} START {}").format(
                    _place(column["sequence"]), sql.Literal(column["sequence"]["increment"]),
                    sql.Literal(column["sequence"]["start"]),
                )
            )  # fmt: skip
    connection.execute(
        sql.SQL("CREATE TABLE {} ({})").format(
            table, sql.SQL(", ").join(map(_column, written["columns"]))
        )
    )
    found = find_table(connection, f"{schema}.{name}")
    assert found is not None, "it has just been made"
    for column in written["columns"]:
        if column["sequence"]:
            _own_sequence(connection, table, found[0], column)
        if column["comment"]:
            connection.execute(
                sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                    table, sql.Identifier(column["name"]), sql.Literal(column["comment"])
                )
            )
    for own, definition in written["constraints"]:
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                table, sql.Identifier(own), sql.SQL(definition)
            )
        )
    for index in written["indexes"]:
        head = sql.SQL("CREATE UNIQUE INDEX" if index["unique"] else "CREATE INDEX")
        connection.execute(
            sql.SQL("{} {} ON {}{}").format(
                head, sql.Identifier(index["name"]), table, sql.SQL(index["tail"])
            )
        )
    if written["comment"]:
        connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(written["comment"]))
        )
    roles = _roles(connection)
    held = [(one[0], one[1], one[2]) for one in written["grants"] if one[2] in roles]
    replace_grants(connection, found[0], held)
    for column, privilege, grantable, role in written.get("column_grants", ()):
        if role in roles:
            connection.execute(grant_sql(table, privilege, grantable, role, column))
    return int(found[0])


def without_role(connection: Connection, tables: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was granted to roles that this server does not have: each of these roles, and its
    grants, with the SQL that makes them."""
    roles, found = _roles(connection), dict[str, list[str]]()
    for written in tables:
        table = sql.Identifier(written["schema"], written["name"])
        held = [("", *one) for one in written["grants"]] + [*written.get("column_grants", ())]
        for column, privilege, grantable, role in held:
            if role not in roles:
                given = grant_sql(table, privilege, grantable, role, column)
                found.setdefault(role, []).append(given.as_string(None))
    return [
        one for role, statements in sorted(found.items()) for one in (
            [f"role {role}", f"CREATE ROLE {sql.Identifier(role).as_string(None)}"],
            [f"grants to {role}", "; ".join(statements)],
        )
    ]  # fmt: skip


def _roles(connection: Connection) -> set[str | None]:
    """Whom this server knows; None is PUBLIC."""
    return {None, *(row[0] for row in fetch_all(connection, "SELECT rolname FROM pg_roles"))}


def _column(column: Mapping[str, Any]) -> sql.Composed:
    parts = [sql.Identifier(column["name"]), sql.SQL(column["type"])]
    if column["collation"]:
        parts.append(sql.SQL("COLLATE " + column["collation"]))
    if column["identity"]:
        how = {"a": "ALWAYS", "d": "BY DEFAULT"}[column["identity"]]
        parts.append(
            sql.SQL("GENERATED {} AS IDENTITY (START {} INCREMENT {})").format(
                sql.SQL(how), sql.Literal(column["sequence"]["start"]),
                sql.Literal(column["sequence"]["increment"]),
            )
        )  # fmt: skip
    elif column["generated"]:
        parts.append(sql.SQL(f"GENERATED ALWAYS AS ({column['default']}) STORED"))
    elif column["default"]:
        parts.append(sql.SQL("DEFAULT " + column["default"]))
    if column["not_null"]:
        if column["not_null_name"]:
            parts.append(sql.SQL("CONSTRAINT {}").format(sql.Identifier(column["not_null_name"])))
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


def _own_sequence(
    connection: Connection, table: sql.Identifier, oid: int, column: Mapping[str, Any]
) -> None:
    """Give a column its sequence by its old name, and let it go on counting where it was."""
    written = column["sequence"]
    if column["identity"]:
        row = fetch_one(
            connection, "SELECT pg_get_serial_sequence(%s::oid::regclass::text, %s)",
            [oid, column["name"]],
        )  # fmt: skip
        assert row is not None, "an identity has a sequence"
        if fetch_one(connection, "SELECT to_regclass(%s)", [_text(written)]) == (None,):
            connection.execute(
                sql.SQL("ALTER SEQUENCE {} RENAME TO {}").format(
                    sql.SQL(row[0]), sql.Identifier(written["name"])
                )
            )
    else:
        connection.execute(
            sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                _place(written), table, sql.Identifier(column["name"])
            )
        )
    connection.execute(
        "SELECT setval(pg_get_serial_sequence(%s::oid::regclass::text, %s), %s, %s)",
        [oid, column["name"], written["last"], written["called"]],
    )


def _place(sequence: Mapping[str, Any]) -> sql.Identifier:
    return sql.Identifier(sequence["schema"], sequence["name"])


def _text(sequence: Mapping[str, Any]) -> str:
    return _place(sequence).as_string(None)
