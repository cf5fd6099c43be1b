"""Which constraints, indexes and statistics objects of two tables mean the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg import sql

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.indexes import Definition, definitions
from reembed.stores.postgres.schema.table import Table


def constraint_pairs(connection: Connection, old: Table, new: Table) -> list[tuple[str, str]]:
    """Names of constraints of equal definition in both tables."""
    query = (
        "SELECT conname, contype::text || pg_get_constraintdef(oid) FROM pg_constraint WHERE "
        "conrelid = %s AND contype IN ('p', 'u', 'x', 'c', 'n') ORDER BY conname"
    )
    return _pairs(fetch_all(connection, query, [old.oid]), fetch_all(connection, query, [new.oid]))


def index_pairs(connection: Connection, old: Table, new: Table) -> list[tuple[str, str]]:
    """Names of indexes that mean the same in both tables: of equal definition, and those of the
    vectors also where type, dimensions, settings or metric differ."""
    waiting = [definitions(connection, old), definitions(connection, new)]
    pairs: list[tuple[str, str]] = []
    for key in (_exactly, _but_for_dimensions, _of_vector):
        found = _pairs(*([(one.name, key(one)) for one in side if key(one)] for side in waiting))
        pairs += found
        waiting = [
            [one for one in side if one.name not in {pair[place] for pair in found}]
            for place, side in enumerate(waiting)
        ]
    return pairs


def _exactly(one: Definition) -> str:
    return f"{one.unique} {one.tail}"


def _but_for_dimensions(one: Definition) -> str:
    return re.sub(r"halfvec|vector|\(\d+\)", "", one.tail) if one.of_vector else ""


def _of_vector(one: Definition) -> str:
    return "vector" if one.of_vector else ""


def _pairs(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names of things of equal definition, old and new."""
    waiting: dict[str, list[str]] = {}
    for name, definition in new:
        waiting.setdefault(definition, []).append(name)
    return [
        (name, waiting[definition].pop(0)) for name, definition in old if waiting.get(definition)
    ]


def statistics_pairs(connection: Connection, old: Table, new: Table) -> list[tuple[str, str]]:
    """Names of statistics objects of equal definition in both tables."""
    query = (
        "SELECT stxname, concat(stxkind, stxkeys, pg_get_statisticsobjdef_expressions(oid)) FROM "
        "pg_statistic_ext WHERE stxrelid = %s ORDER BY stxname"
    )
    return _pairs(fetch_all(connection, query, [old.oid]), fetch_all(connection, query, [new.oid]))


def copy_settings(connection: Connection, old: Table, new: Table) -> None:
    """Give the new table's indexes and statistics objects what their definitions leave out: which
    index is the replica identity and which one rows are clustered by, tablespaces, settings of
    those that constraints have, targets."""
    indexes = [*index_pairs(connection, old, new), *constraint_pairs(connection, old, new)]
    for name, its_name in indexes:
        for identity, clustered, space, options in fetch_all(
            connection, _OF_INDEX, [old.oid, name]
        ):
            index = sql.Identifier(new.schema, its_name)
            for wanted, statement in (
                (identity, "ALTER TABLE {table} REPLICA IDENTITY USING INDEX {name}"),
                (clustered, "ALTER TABLE {table} CLUSTER ON {name}"),
                (space, "ALTER INDEX {index} SET TABLESPACE {space}"),
                (options, "ALTER INDEX {index} SET ({options})"),
            ):
                if wanted:
                    connection.execute(
                        sql.SQL(statement).format(
                            table=new.identifier, name=sql.Identifier(its_name), index=index,
                            space=sql.Identifier(space or ""),
                            options=sql.SQL(", ".join(options or ())),
                        )
                    )  # fmt: skip
            for number, target in fetch_all(connection, _TARGETS, [old.oid, name]):
                connection.execute(
                    sql.SQL("ALTER INDEX {} ALTER {} SET STATISTICS {}").format(
                        index, sql.Literal(number), sql.Literal(target)
                    )
                )
    for name, its_name in statistics_pairs(connection, old, new):
        for (target,) in fetch_all(
            connection,
            "SELECT stxstattarget FROM pg_statistic_ext WHERE stxrelid = %s AND stxname = %s AND "
            "stxstattarget >= 0",
            [old.oid, name],
        ):
            connection.execute(
                sql.SQL("ALTER STATISTICS {} SET STATISTICS {}").format(
                    sql.Identifier(new.schema, its_name), sql.Literal(target)
                )
            )


_OF_INDEX = """
SELECT indisreplident, indisclustered, spcname, CASE WHEN EXISTS (SELECT FROM pg_constraint
  WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x')) THEN c.reloptions END FROM pg_index
JOIN pg_class c ON c.oid = indexrelid LEFT JOIN pg_tablespace s ON s.oid = reltablespace
WHERE indrelid = %s AND relname = %s
"""
_TARGETS = """
SELECT attnum, attstattarget FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_attribute
ON attrelid = indexrelid WHERE indrelid = %s AND relname = %s AND attstattarget >= 0
"""


def copy_comments(connection: Connection, old: Table, new: Table) -> None:
    """Give the new table's constraints, indexes and row type the comments of the old one's."""
    for (comment,) in fetch_all(
        connection,
        "SELECT obj_description(reltype, 'pg_type') FROM pg_class WHERE oid = %s",
        [old.oid],
    ):
        if comment is not None:
            connection.execute(
                sql.SQL("COMMENT ON TYPE {} IS {}").format(new.identifier, sql.Literal(comment))
            )
    constraints = constraint_pairs(connection, old, new)
    indexes = [*index_pairs(connection, old, new), *constraints]
    on_constraint = (
        "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = %s AND "
        "conname = %s"
    )
    on_index = (
        "SELECT obj_description(c.oid, 'pg_class') FROM pg_index JOIN pg_class c ON c.oid = "
        "indexrelid WHERE indrelid = %s AND relname = %s"
    )
    for query, pairs, statement in (
        (on_constraint, constraints, "COMMENT ON CONSTRAINT {name} ON {table} IS {comment}"),
        (on_index, indexes, "COMMENT ON INDEX {schema}.{name} IS {comment}"),
    ):
        for name, its_name in pairs:
            for (comment,) in fetch_all(connection, query, [old.oid, name]):
                if comment is not None:
                    connection.execute(
                        sql.SQL(statement).format(
                            name=sql.Identifier(its_name), table=new.identifier,
                            schema=sql.Identifier(new.schema), comment=sql.Literal(comment),
                        )
                    )  # fmt: skip
