"""What hangs on a vector column, read so that it can be made again for the one that comes.

Each definition is written by Postgres itself while the column has, for the moment of a transaction
that is undone, the name of the coming one: nothing is guessed about names in an expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.access import column_grants
from reembed.stores.postgres.schema.layout import COMING
from reembed.stores.postgres.schema.table import Table

_ASIDE = "reembed_aside"
INDEXES = """
SELECT c.relname::text, indisunique, substr(pg_get_indexdef(indexrelid), 1 + length(format(
    'CREATE %%sINDEX %%I ON %%I.%%I', CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, c.relname,
    nspname, t.relname))),
  spcname::text, obj_description(c.oid, 'pg_class'), indisclustered,
  (SELECT CASE WHEN condeferred THEN 'DEFERRABLE INITIALLY DEFERRED' WHEN condeferrable THEN
    'DEFERRABLE' ELSE '' END FROM pg_constraint WHERE conindid = indexrelid AND contype = 'u'),
  (SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conindid = indexrelid AND
    contype = 'u'),
  ARRAY(SELECT ARRAY[attnum::int, attstattarget::int] FROM pg_attribute WHERE attrelid = indexrelid
    AND attstattarget >= 0 ORDER BY attnum)
FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_class t ON t.oid = indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE indrelid = %(oid)s AND indisvalid AND (%(column)s = ANY (indkey) OR EXISTS (SELECT FROM
  pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = indexrelid AND d.refclassid =
  'pg_class'::regclass AND d.refobjid = indrelid AND d.refobjsubid = %(column)s))
ORDER BY c.relname
"""
"""Of a unique constraint, Postgres keeps the dependence on the column with the constraint."""


@dataclass(frozen=True)
class Index:
    """An index that reads a vector column.

    Attributes:
        name: of the index while its table is live.
        tail: its definition from ` USING` on, with COMING in the vector column's place.
        space: its tablespace; None for the database's own.
        clustered: whether its table is clustered by it.
        constraint: how the unique constraint is deferred that it stands for; None where it stands
            for none.
        about: comment of that constraint.
        statistics: statistics targets, each with the number of the index's column.
    """

    name: str
    unique: bool
    tail: str
    space: str | None = None
    comment: str | None = None
    clustered: bool = False
    constraint: str | None = None
    about: str | None = None
    statistics: list[list[int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """A check that reads a vector column.

    Attributes:
        definition: with COMING in the vector column's place.
    """

    name: str
    definition: str
    comment: str | None


def sound_indexes(value: Any) -> bool:
    """Whether a part of a note can be a list of `Index`. Each is run as one statement, which makes
    an index of its own table and nothing else."""
    if not isinstance(value, list):
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str, "unique": bool, "tail": str, "space": (str, type(None)),
        "comment": (str, type(None)), "clustered": bool,
        "constraint": (str, type(None)), "about": (str, type(None)), "statistics": list,
    }  # fmt: skip
    for one in value:
        if not isinstance(one, dict) or one.keys() != kinds.keys():
            return False
        if not all(isinstance(one[key], kind) for key, kind in kinds.items()):
            return False
        if not one["tail"].startswith(" USING ") or "\x00" in one["tail"]:
            return False
        if one["constraint"] not in (None, "", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"):
            return False
        if not all(
            isinstance(pair, list) and [type(number) for number in pair] == [int, int]
            for pair in one["statistics"]
        ):
            return False
    return True


@contextmanager
def _as_coming(connection: Connection, table: Table) -> Iterator[None]:
    """The table's vector column has the coming one's name in the block; undone after it.

    The table is locked: its own run's alone, or held already.
    """
    there = fetch_one(
        connection,
        "SELECT 1 FROM pg_attribute WHERE attrelid = %s AND attname = %s AND NOT attisdropped",
        [table.oid, COMING],
    )
    rename = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
    with connection.transaction() as undone:
        if there:
            connection.execute(
                rename.format(table.identifier, sql.Identifier(COMING), sql.Identifier(_ASIDE))
            )
        connection.execute(
            rename.format(table.identifier, sql.Identifier(table.vector), sql.Identifier(COMING))
        )
        yield
        raise psycopg.Rollback(undone)


def read_indexes(connection: Connection, table: Table) -> list[Index]:
    """The indexes that read the table's vector column, by name."""
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}
    with _as_coming(connection, table):
        rows = fetch_all(connection, INDEXES, of_table)
    return [Index(*row) for row in rows]


def read_checks(connection: Connection, table: Table) -> list[Check]:
    """The checks that read the table's vector column, by name."""
    with _as_coming(connection, table):
        rows = fetch_all(
            connection,
            "SELECT conname::text, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')"
            " FROM pg_constraint WHERE conrelid = %s AND contype = 'c' AND %s = ANY (conkey) ORDER "
            "BY conname",
            [table.oid, table.column(table.vector).number],
        )
    return [Check(*row) for row in rows]


@dataclass(frozen=True)
class Told:
    """A trigger that fires for updates of a vector column, or a statistics object that counts it.

    Attributes:
        drop: what removes it, where it keeps the column from being dropped.
        make: makes it again, with COMING in the vector column's place, and all that a definition
            leaves out.
    """

    drop: str | None
    make: list[str]


_TOLD_TRIGGERS = """
SELECT format('DROP TRIGGER %%I ON %%s', tgname, tgrelid::regclass), array_remove(ARRAY[
  pg_get_triggerdef(t.oid), CASE tgenabled WHEN 'O' THEN NULL ELSE format(
  'ALTER TABLE %%s %%s TRIGGER %%I', tgrelid::regclass, CASE tgenabled WHEN 'D' THEN 'DISABLE'
  WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, tgname) END,
  format('COMMENT ON TRIGGER %%I ON %%s IS %%L', tgname, tgrelid::regclass,
  obj_description(t.oid, 'pg_trigger'))], NULL)
FROM pg_trigger t WHERE tgrelid = %(oid)s AND NOT tgisinternal AND %(column)s = ANY (tgattr)
ORDER BY tgname
"""
_TOLD_STATISTICS = """
SELECT NULL, array_remove(ARRAY[pg_get_statisticsobjdef(s.oid), format(
  'ALTER STATISTICS %%I.%%I OWNER TO %%I', nspname, stxname, pg_get_userbyid(stxowner)),
  CASE WHEN stxstattarget >= 0 THEN format('ALTER STATISTICS %%I.%%I SET STATISTICS %%s', nspname,
  stxname, stxstattarget) END, format('COMMENT ON STATISTICS %%I.%%I IS %%L', nspname, stxname,
  obj_description(s.oid, 'pg_statistic_ext'))], NULL)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace WHERE stxrelid = %(oid)s
AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid =
  s.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = stxrelid AND d.refobjsubid =
  %(column)s) ORDER BY stxname
"""


def read_told(connection: Connection, table: Table) -> list[Told]:
    """The triggers that fire for updates of the table's vector column, and the statistics objects
    that count it."""
    of_table = {"oid": table.oid, "column": table.column(table.vector).number}
    with _as_coming(connection, table):
        rows = fetch_all(connection, _TOLD_TRIGGERS, of_table)
        rows += fetch_all(connection, _TOLD_STATISTICS, of_table)
    return [Told(*row) for row in rows]


_SETTINGS = """
SELECT CASE WHEN attstorage <> typstorage THEN attstorage::text END,
  CASE WHEN attcompression <> '' THEN attcompression::text END,
  CASE WHEN attstattarget >= 0 THEN attstattarget::int END, attoptions
FROM pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attrelid = %s AND attname = %s
"""
STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
COMPRESSION = {"p": "pglz", "l": "lz4"}


def copy_column_settings(connection: Connection, table: Table) -> None:
    """Give the coming column the vector column's storage, compression, statistics target and
    options. It is empty yet, so all that is written there follows them."""
    row = fetch_one(connection, _SETTINGS, [table.oid, table.vector])
    assert row is not None, "the column is there"
    storage, compression, target, options = row
    changes: list[sql.Composable] = []
    if storage:
        changes.append(sql.SQL(f"SET STORAGE {STORAGE[storage]}"))
    if compression:
        changes.append(sql.SQL(f"SET COMPRESSION {COMPRESSION[compression]}"))
    if target is not None:
        changes.append(sql.SQL("SET STATISTICS {}").format(sql.Literal(target)))
    if options:
        changes.append(sql.SQL("SET ({})").format(sql.SQL(", ".join(options))))
    for change in changes:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {} {}").format(
                table.identifier, sql.Identifier(COMING), change
            )
        )


Grant = tuple[str, bool, str | None]
"""A privilege on a column, whether it may be handed on, and the role; None is PUBLIC."""


def read_grants(connection: Connection, table: Table) -> list[Grant]:
    """Who may do what with the vector column, by grants on it alone."""
    every = column_grants(connection, table.oid)
    return [grant[1:] for grant in every if grant[0] == table.vector]


def give_grants(connection: Connection, table: Table, grants: list[Grant]) -> None:
    """Give the vector column these grants."""
    for privilege, grantable, role in grants:
        connection.execute(
            sql.SQL("GRANT {} ({}) ON {} TO {}{}").format(
                sql.SQL(privilege), sql.Identifier(table.vector), table.identifier,
                sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
                sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )  # fmt: skip
