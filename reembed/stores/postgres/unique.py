"""Which records hold the values that a refused write needs for itself.

Postgres names one of them, in words. Here all are found, for every unique index and exclusion
constraint at once: the rows to be written go to a temporary table of the same columns, and each
index's own keys, condition and operators say which rows of the table they cannot stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from psycopg import errors, sql

from reembed.errors import TakenError
from reembed.records import Vectors
from reembed.stores.postgres.client import Connection, fetch_all, mapped
from reembed.stores.postgres.copy.rows import write_rows
from reembed.stores.postgres.schema.table import Table

STAGED = "reembed_taken"

_INDEXES = """
SELECT c.relname, coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
  pg_get_expr(indpred, indrelid),
  ARRAY(SELECT format('(%%s)%%s', pg_get_indexdef(indexrelid, k, false), (SELECT format(
    ' COLLATE %%I.%%I', nspname, collname) FROM pg_collation l JOIN pg_namespace n ON n.oid =
    collnamespace WHERE l.oid = indcollation[k - 1]))
    FROM generate_series(1, indnkeyatts::int) k ORDER BY k),
  ARRAY(SELECT (SELECT format('OPERATOR(%%I.%%s)', nspname, oprname) FROM pg_operator o JOIN
    pg_namespace n ON n.oid = oprnamespace WHERE o.oid = coalesce(x.conexclop[k], (SELECT amopopr
    FROM pg_opclass p JOIN pg_amop ON amopfamily = opcfamily AND amoplefttype = opcintype AND
    amoprighttype = opcintype WHERE p.oid = indclass[k - 1] AND amopstrategy = 3 AND amoppurpose =
    's'))) FROM generate_series(1, indnkeyatts::int) k ORDER BY k)
  FROM pg_index i JOIN pg_class c ON c.oid = indexrelid LEFT JOIN pg_constraint x ON
  conindid = indexrelid AND conrelid = indrelid AND contype IN ('p', 'u', 'x')
  WHERE indrelid = %s AND (indisunique OR indisexclusion) AND indkey::text <> %s ORDER BY relname
"""
"""Strategy 3 of a B-tree is equality; an exclusion constraint names its own operators."""


@dataclass(frozen=True)
class Unique:
    """An index that lets no two rows have the same keys.

    Attributes:
        name: the constraint's, too, where one made it.
        keys: columns and expressions, as SQL.
        operators: for each key, the one that says that two are the same.
        condition: of the rows that it covers, as SQL; None where it covers all.
        nulls_alike: whether two nulls are the same.
    """

    name: str
    keys: tuple[str, ...]
    operators: tuple[str, ...]
    condition: str | None
    nulls_alike: bool


def is_collision(error: BaseException | None) -> bool:
    """Whether it comes of a row that cannot stand beside another one."""
    while error is not None and not isinstance(
        error, errors.UniqueViolation | errors.ExclusionViolation
    ):
        error = error.__cause__
    return error is not None


def uniques(connection: Connection, table: Table) -> list[Unique]:
    """Those of a table, but for the one of its ids."""
    rows = fetch_all(connection, _INDEXES, [table.oid, str(table.column(table.id).number)])
    return [
        Unique(name, tuple(keys), tuple(operators), condition, nulls_alike)
        for name, nulls_alike, condition, keys, operators in rows
    ]


Pair = tuple[str, str, str]
"""Id of a record, id of another one that holds what it needs, name of the index."""


def holders(
    connection: Connection, table: Table, records: pa.RecordBatch, vectors: Vectors
) -> list[Pair]:
    """Which rows of a table hold values that these records, which are not written, must have alone.
    Rows with the ids of these records are none of them; if there are no others, it tells which of
    the records themselves need one value.

    Args:
        records: their ids without the table's prefix.
        vectors: `(n, d) float32`.
    """
    staged = replace(table, schema="pg_temp", name=STAGED)
    with mapped(table.label), connection.transaction():
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING GENERATED) ON COMMIT DROP"
            ).format(sql.Identifier(STAGED), table.identifier)
        )
        write_rows(connection, staged, records, vectors)
        connection.execute(sql.SQL("ANALYZE {}").format(staged.identifier))
        others = sql.SQL("NOT EXISTS (SELECT FROM {} s WHERE s.{id} = t.id)").format(
            staged.identifier, id=sql.Identifier(table.id)
        )
        wanted = uniques(connection, table)
        return _pairs(connection, wanted, staged, table, others) or _pairs(
            connection, wanted, staged, staged, sql.SQL("n.id > t.id")
        )


def duplicates(connection: Connection, table: Table, like: Table) -> list[Pair]:
    """Which rows of a table stand in the way of unique indexes that only `like`, a table of the
    same columns, has."""
    others = sql.SQL("n.id > t.id")
    with mapped(table.label):
        return _pairs(connection, uniques(connection, like), table, table, others)


def _pairs(
    connection: Connection, wanted: Sequence[Unique], needing: Table, having: Table,
    others: sql.Composable,
) -> list[Pair]:  # fmt: skip
    """Rows of one table `n` that cannot stand beside those of the other `t` that are `others`."""
    found: dict[Pair, None] = {}
    for one in wanted:
        for nulls in (False, True) if one.nulls_alike else (False,):
            query = sql.SQL("SELECT n.id::text, t.id::text FROM {} n JOIN {} t ON {} WHERE {}")
            rows = fetch_all(
                connection,
                query.format(
                    _keyed(needing, one, nulls), _keyed(having, one, nulls), _same(one, nulls),
                    others,
                ),
            )  # fmt: skip
            found |= {(id, other, one.name): None for id, other in rows}
    return list(found)


def _keyed(table: Table, unique: Unique, nulls: bool) -> sql.Composed:
    """The id and the keys `k0, k1, ...` of the rows that an index covers.

    Args:
        nulls: only those of which a key is null.
    """
    keys = [sql.SQL("{} AS {}").format(sql.SQL(key), sql.Identifier(f"k{number}"))
            for number, key in enumerate(unique.keys)]  # fmt: skip
    conditions = [sql.SQL("({})").format(sql.SQL(unique.condition))] if unique.condition else []
    if nulls:
        empty = [sql.SQL("({}) IS NULL").format(sql.SQL(key)) for key in unique.keys]
        conditions.append(sql.SQL("({})").format(sql.SQL(" OR ").join(empty)))
    return sql.SQL("(SELECT {} AS id, {} FROM {}{}{})").format(
        sql.Identifier(table.id), sql.SQL(", ").join(keys), table.identifier,
        sql.SQL(" WHERE " if conditions else ""), sql.SQL(" AND ").join(conditions),
    )  # fmt: skip


def _same(unique: Unique, nulls: bool) -> sql.Composed:
    """The condition that the keys of `n` and `t` are the same.

    Args:
        nulls: two nulls are, too. Without them Postgres can look the keys up.
    """
    parts = []
    for number, operator in enumerate(unique.operators):
        names = {"k": sql.Identifier(f"k{number}"), "is": sql.SQL(operator)}
        same = "n.{k} {is} t.{k}"
        if nulls:
            same = f"({same} OR (n.{{k}} IS NULL AND t.{{k}} IS NULL))"
        parts.append(sql.SQL(same).format(**names))
    return sql.SQL(" AND ").join(parts)


def taken_error(table: Table, pairs: Sequence[Pair]) -> TakenError:
    """The error that says which records hold what others need; ids get the table's prefix."""
    taken: dict[str, list[str]] = {}
    constraints: dict[str, str] = {}
    for id, other, name in pairs:
        others = taken.setdefault(table.prefix + id, [])
        if table.prefix + other not in others:
            others.append(table.prefix + other)
        constraints.setdefault(table.prefix + id, name)
    id, others = next(iter(taken.items()))
    return TakenError(
        f"{table.label} cannot hold {len(taken):,} records, e.g. {id!r}: {others[0]!r} has a value "
        f"that must be unique ({constraints[id]})",
        "Change it in one of the two; then `reembed run --restart` begins anew, and pays for no "
        "text twice.",
        taken=taken, constraints=constraints,
    )  # fmt: skip
