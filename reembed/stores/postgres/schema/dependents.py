"""What hangs on a table, and so which way its live name can move.

A leaf table is exchanged by renaming. What else in the database holds on to a table by its oid
(foreign keys, views, policies, grants, triggers, publications) would stay with the old one, so such
a table keeps its place and exchanges its vector column instead. Some things allow neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import sql

from reembed.errors import LockedError, PreflightError
from reembed.stores.postgres.client import Connection, fetch_all, mapped
from reembed.stores.postgres.schema.neighbours import neighbours, own_readers
from reembed.stores.postgres.schema.replication import stopped_by_exchange
from reembed.stores.postgres.schema.table import Table

_HELD_BY = """
SELECT 'foreign key ' || conname || CASE confrelid WHEN conrelid THEN ' of ' ELSE ' to ' END ||
  confrelid::regclass FROM pg_constraint WHERE contype = 'f' AND conrelid = %(oid)s
UNION ALL SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = %(oid)s
UNION ALL SELECT 'row-level security' FROM pg_class WHERE oid = %(oid)s AND relrowsecurity
  AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = %(oid)s)
UNION ALL SELECT 'grant to ' || string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
  ELSE grantee::regrole::text END, ', ') FROM pg_class, aclexplode(relacl)
  WHERE oid = %(oid)s AND grantee <> relowner HAVING count(*) > 0
UNION ALL SELECT 'grant on column ' || attname FROM pg_attribute WHERE attrelid = %(oid)s
  AND attacl IS NOT NULL AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal
  AND tgname !~ '^zz_reembed_'
UNION ALL SELECT 'publication ' || pubname FROM pg_publication_rel
  JOIN pg_publication p ON p.oid = prpubid WHERE prrelid = %(oid)s
UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = %(oid)s
UNION ALL SELECT 'index ' || indexrelid::regclass || ' that depends on an extension' FROM pg_index
  WHERE indrelid = %(oid)s AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass
  AND objid = indexrelid AND deptype = 'x')
UNION ALL SELECT 'security label of ' || provider FROM pg_seclabel
  WHERE classoid = 'pg_class'::regclass AND objoid = %(oid)s
"""

_FORBIDDEN = r"""
SELECT 'is a partition or inherits from ' || inhparent::regclass FROM pg_inherits
  WHERE inhrelid = %(oid)s
UNION ALL SELECT 'is inherited by ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = %(oid)s
UNION ALL SELECT 'belongs to the extension ' || extname FROM pg_depend
  JOIN pg_extension e ON e.oid = refobjid WHERE classid = 'pg_class'::regclass AND objid = %(oid)s
  AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
UNION ALL SELECT 'is the type of a column of ' || attrelid::regclass FROM pg_attribute
  JOIN pg_class c ON c.oid = %(oid)s JOIN pg_type t ON t.oid = c.reltype
  WHERE atttypid IN (t.oid, t.typarray) AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'is made of the type ' || reloftype::regtype FROM pg_class
  WHERE oid = %(oid)s AND reloftype <> 0
UNION ALL SELECT 'its vector column is of the domain ' || atttypid::regtype FROM pg_attribute
  JOIN pg_type t ON t.oid = atttypid WHERE attrelid = %(oid)s AND attnum = %(column)s
  AND typtype = 'd'
UNION ALL SELECT 'its vector column has a default: ' || left(pg_get_expr(adbin, adrelid), 60)
  FROM pg_attrdef WHERE adrelid = %(oid)s AND adnum = %(column)s
  AND pg_get_expr(adbin, adrelid) !~ '^NULL'
UNION ALL SELECT 'its check ' || conname || ' is NOT VALID, so a row may break it, and the new '
  || 'table would refuse that row: validate the check or drop it' FROM pg_constraint
  WHERE conrelid = %(oid)s AND contype = 'c' AND NOT convalidated
UNION ALL SELECT 'its check ' || conname || ' reads whole rows' FROM pg_constraint
  WHERE conrelid = %(oid)s AND contype = 'c' AND conbin::text ~ ':varattno 0 '
UNION ALL SELECT 'its index ' || indexrelid::regclass || ' reads whole rows' FROM pg_index
  WHERE indrelid = %(oid)s AND concat(indexprs, indpred) ~ ':varattno 0 '
UNION ALL SELECT 'its column ' || attname || ' is computed from the vector column' FROM pg_attrdef f
  JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
  JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
  WHERE adrelid = %(oid)s AND attgenerated <> '' AND d.refobjid = %(oid)s
  AND d.refobjsubid = %(column)s AND adnum <> %(column)s
UNION ALL SELECT 'has a column reembed_incoming, which no move of reembed made' FROM pg_attribute
  WHERE attrelid = %(oid)s AND attname = 'reembed_incoming' AND NOT attisdropped
  AND coalesce(col_description(attrelid, attnum), '') !~ '^reembed:.*"incoming"'
"""

_OF_THE_VECTOR = r"""
SELECT 'the policy ' || polname || ' reads the vector column' FROM pg_policy p
  JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
  WHERE d.refobjid = %(oid)s AND d.refobjsubid = %(column)s
UNION ALL SELECT 'the trigger ' || tgname || ' is told of the vector column, and ' || CASE
  WHEN tgconstraint <> 0 THEN 'is a constraint'
  WHEN tgqual::text ~ (':varattno ' || %(column)s::text || ' ') THEN 'its condition reads it'
  WHEN NOT has_function_privilege(tgfoid, 'EXECUTE') THEN 'this role may not call its function'
  ELSE 'depends on an extension' END FROM pg_trigger t
  WHERE tgrelid = %(oid)s AND NOT tgisinternal AND %(column)s = ANY (tgattr) AND (
  tgconstraint <> 0 OR tgqual::text ~ (':varattno ' || %(column)s::text || ' ')
  OR NOT has_function_privilege(tgfoid, 'EXECUTE') OR EXISTS (SELECT FROM pg_depend WHERE classid =
  'pg_trigger'::regclass AND objid = t.oid AND deptype IN ('x', 'e')))
UNION ALL SELECT 'the publication ' || pubname || ' lists the vector column' FROM
  pg_publication_rel JOIN pg_publication p ON p.oid = prpubid WHERE prrelid = %(oid)s
  AND %(column)s = ANY (prattrs)
UNION ALL SELECT 'the sequence ' || d.objid::regclass || ' belongs to the vector column' FROM
  pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.refobjid = %(oid)s AND d.refobjsubid = %(column)s
UNION ALL SELECT 'the rule ' || rulename || ' rewrites updates' FROM pg_rewrite
  WHERE ev_class = %(oid)s AND ev_type = '2'
UNION ALL SELECT 'the constraint ' || conname || ' is of the vector column' FROM pg_constraint
  WHERE conrelid = %(oid)s AND %(column)s = ANY (conkey) AND contype NOT IN ('c', 'n', 'u')
UNION ALL SELECT 'the index ' || c.relname || ' of the vector column is ' || CASE
  WHEN NOT indisvalid THEN 'not valid: REINDEX INDEX CONCURRENTLY makes it so'
  WHEN indisreplident THEN 'what rows are told apart by in replication'
  ELSE 'one that depends on an extension' END
  FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = %(oid)s AND EXISTS (SELECT
  FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = indexrelid AND d.refobjid =
  indrelid AND d.refobjsubid = %(column)s) AND (NOT indisvalid OR indisreplident OR EXISTS (SELECT
  FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = indexrelid AND deptype = 'x'))
UNION ALL SELECT 'the vector column has a grant by ' || string_agg(DISTINCT grantor::regrole::text,
  ', ') || ', who is not the owner of its table' FROM pg_attribute JOIN pg_class c ON c.oid =
  attrelid, aclexplode(attacl) WHERE attrelid = %(oid)s AND attnum = %(column)s AND grantor <>
  relowner HAVING count(*) > 0
UNION ALL SELECT 'the vector column has a security label of ' || provider FROM pg_seclabel
  WHERE classoid = 'pg_class'::regclass AND objoid = %(oid)s AND objsubid = %(column)s
UNION ALL SELECT 'row-level security is forced on its owner' FROM pg_class
  JOIN pg_roles r ON r.rolname = current_user
  WHERE pg_class.oid = %(oid)s AND relforcerowsecurity AND NOT rolsuper AND NOT rolbypassrls
"""


@dataclass(frozen=True)
class Dependents:
    """What hangs on a table.

    Attributes:
        held_by: what would stay with the old table if names were exchanged.
        forbidden: what allows no exchange at all.
    """

    held_by: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)

    @property
    def leaf(self) -> bool:
        """Whether the table can be exchanged by renaming."""
        return not self.held_by and not self.forbidden


def dependents(connection: Connection, table: Table, *, stays: bool = False) -> Dependents:
    """Look up what hangs on a table.

    Args:
        stays: whether it keeps its place in any case, since the new table is in another schema.
    """
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}

    def ask(query: str) -> list[str]:
        return [row[0] for row in connection.execute(query, of_table).fetchall()]

    leading = neighbours(connection, table)
    held_by = ask(_HELD_BY) + [one.label for one in leading]
    forbidden = ask(_FORBIDDEN)
    forbidden += [f"{one.label} is made of its row type" for one in leading if one.type]
    forbidden += stopped_by_exchange(connection, table)
    if held_by or stays:
        forbidden += ask(_OF_THE_VECTOR)
        readers = [one.label for one in leading if one.of_vector] + own_readers(connection, table)
        forbidden += [f"the {label} reads the vector column" for label in readers]
        if table.columns[-1].name != table.vector:
            forbidden += [
                f"the {one.label} returns its rows, whose columns would change their order: the "
                "vector column becomes the last"
                for one in leading
                if one.returns_rows
            ]
    owner = fetch_all(
        connection,
        "SELECT pg_has_role(relowner, 'USAGE'), relowner::regrole::text FROM pg_class "
        "WHERE oid = %s",
        [table.oid],
    )
    if owner and not owner[0][0]:
        forbidden.append(f"belongs to the role {owner[0][1]}, of which this role is not a member")
    return Dependents(sorted({*held_by}), sorted({*forbidden}))


_WRITES: dict[str, LiteralString] = {
    "UPDATE": "EXPLAIN UPDATE {table} SET {vector} = {vector} WHERE false",
    "INSERT": "EXPLAIN INSERT INTO {table} ({id}) OVERRIDING SYSTEM VALUE SELECT {id} FROM {table} "
              "WHERE false",
    "DELETE": "EXPLAIN DELETE FROM {table} WHERE false",
}  # fmt: skip


def unwritable(connection: Connection, table: Table, *, stays: bool) -> list[str]:
    """Which writes Postgres would refuse, by its own word: for want of a right, or since a
    publication sends them and nothing tells its rows apart. Only planned: no trigger fires. Not to
    be asked while another session of ours holds the table.

    Args:
        stays: whether it keeps its place. Its rows are updated then; else the way back writes to it
            what has been written to the other one.
    """
    told: list[str] = []
    for verb in ("UPDATE",) if stays else _WRITES:
        statement = sql.SQL(_WRITES[verb]).format(
            table=table.identifier, id=sql.Identifier(table.id),
            vector=sql.Identifier(table.vector),
        )  # fmt: skip
        try:
            with mapped(f"reembed has to {verb} its rows"), connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '2s'")
                connection.execute(statement)
        except LockedError:  # somebody holds its writers, as an index that is being made does
            return told
        except PreflightError as error:
            told.append(f"{error.message}. {error.hint}".rstrip(". "))
    return told
