"""What else in a database leads to a table, as Postgres itself keeps account of it (pg_depend).

Every kind of object that can hold on to a table, its columns, its row type, its indexes and
constraints or the sequence of an identity is found by one question, whatever its kind: functions
that take or return rows or have a body that Postgres has read (BEGIN ATOMIC), views, rules and
policies of other tables, foreign keys, casts, operators, aggregates, types, defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.table import Table

_PARTS = """
WITH part (classid, objid) AS (
  SELECT 'pg_class'::regclass, %(oid)s::oid
  UNION ALL SELECT 'pg_type'::regclass, reltype FROM pg_class WHERE oid = %(oid)s
  UNION ALL SELECT 'pg_type'::regclass, typarray FROM pg_class c JOIN pg_type t ON t.oid = reltype
    WHERE c.oid = %(oid)s
  UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid IN (
    SELECT unnest(ARRAY[oid, reltoastrelid]) FROM pg_class WHERE oid = %(oid)s)
  UNION ALL SELECT 'pg_class'::regclass, reltoastrelid FROM pg_class WHERE oid = %(oid)s
  UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = %(oid)s
  UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = %(oid)s
  UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = %(oid)s
  UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = %(oid)s
  UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = %(oid)s
  UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid = %(oid)s
  UNION ALL SELECT 'pg_publication_rel'::regclass, oid FROM pg_publication_rel
    WHERE prrelid = %(oid)s
  UNION ALL SELECT classid::regclass, objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND
    refclassid = 'pg_class'::regclass AND refobjid = %(oid)s AND refobjsubid > 0 AND deptype = 'i'
), sequence (classid, objid) AS (
  SELECT classid::regclass, objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND
    refclassid = 'pg_class'::regclass AND refobjid = %(oid)s AND refobjsubid > 0 AND deptype = 'a'
)
"""
"""What a table is made of; the sequence of a serial column goes along with the live name."""

_NEIGHBOURS = """
SELECT CASE
    WHEN ev_type = '1' THEN 'view ' || ev_class::regclass
    WHEN ev_type IS NOT NULL THEN 'rule ' || rulename || ' of ' || ev_class::regclass
    WHEN contype = 'f' THEN 'foreign key ' || conname || ' of ' || conrelid::regclass
    ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END,
  prosqlbody IS NULL AND prorettype IN (SELECT objid FROM part WHERE classid =
    'pg_type'::regclass),
  d.classid = 'pg_type'::regclass, bool_or(d.refclassid = 'pg_class'::regclass AND
    d.refobjid = %(oid)s AND d.refobjsubid = %(column)s)
FROM pg_depend d JOIN part ON part.classid = d.refclassid AND part.objid = d.refobjid
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE d.deptype <> 'e'
  AND NOT EXISTS (SELECT FROM part o WHERE o.classid = d.classid AND o.objid = d.objid)
  AND NOT EXISTS (SELECT FROM sequence o WHERE o.classid = d.classid AND o.objid = d.objid)
  AND NOT EXISTS (SELECT FROM pg_trigger t WHERE d.classid = 'pg_trigger'::regclass AND
    t.oid = d.objid AND tgisinternal)
  AND NOT (d.classid = 'pg_class'::regclass AND d.objsubid > 0)
  AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_inherits
    WHERE inhrelid = d.objid AND inhparent = d.refobjid))
GROUP BY 1, 2, 3 ORDER BY 1
"""
"""Columns of its row type and its children are told by `dependents`, which refuses them."""

_OWN_READERS = """
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d
JOIN part ON part.classid = d.classid AND part.objid = d.objid
WHERE d.classid = 'pg_statistic_ext'::regclass
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND d.refobjsubid = %(column)s
  AND NOT EXISTS (SELECT FROM pg_statistic_ext s JOIN pg_class c ON c.oid = stxrelid WHERE s.oid =
  d.objid AND stxowner = relowner)
UNION SELECT 'trigger ' || tgname FROM pg_depend d JOIN pg_trigger t ON t.oid = d.objid
WHERE d.classid = 'pg_trigger'::regclass AND tgrelid = %(oid)s AND NOT tgisinternal
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND d.refobjsubid = %(column)s
  AND NOT %(column)s = ANY (tgattr)
UNION SELECT 'rule ' || rulename FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND ev_class = %(oid)s AND ev_type <> '2'
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND d.refobjsubid = %(column)s
ORDER BY 1
"""


@dataclass(frozen=True)
class Neighbour:
    """Something that is no part of a table and leads to it.

    Attributes:
        label: its kind and name, as Postgres writes them.
        returns_rows: whether it is a function that returns rows of the table, which its text makes
            anew at each call.
        type: whether it is a type that is made of the table's row type.
        of_vector: whether it needs the vector column.
    """

    label: str
    returns_rows: bool
    type: bool
    of_vector: bool


def neighbours(connection: Connection, table: Table) -> list[Neighbour]:
    """Everything that leads to a table, to a part of it or to its row type, by name."""
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}
    rows = fetch_all(connection, _PARTS + _NEIGHBOURS, of_table)
    return [Neighbour(*(row[0], *map(bool, row[1:]))) for row in rows]


def own_readers(connection: Connection, table: Table) -> list[str]:
    """Parts of a table that need its vector column and cannot be made again beside it: statistics
    objects of another owner, conditions of triggers, rules."""
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}
    rows = fetch_all(connection, _PARTS + _OWN_READERS, of_table)
    return [row[0] for row in rows]
