"""Indexes of vectors, and making a shadow's indexes once it is full.

An HNSW index is built 3.5 times faster after the load than row by row. Every index of the source is
made again by its definition; those of the vector column for the new type and dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Error, sql

from reembed.errors import PreflightError
from reembed.records import Metric
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one, mapped
from reembed.stores.postgres.schema.building import forbid_workers, lacks_shared_memory, prepare
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector, path_of

MOST_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}
"""Dimensions that an HNSW or IVFFlat index of a type can have (pgvector's README)."""
LARGEST = 16_000
"""Dimensions that a column can have at all."""
OPERATORS: dict[Metric, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
OPERATOR_CLASSES: dict[Metric, str] = {"cosine": "cosine_ops", "l2": "l2_ops", "ip": "ip_ops"}
SETTINGS = {"hnsw": {"m": (2, 100), "ef_construction": (4, 1000)}, "ivfflat": {"lists": (1, 32768)}}
"""Index types, and what each can be told, with its limits."""
DEFAULTS = {"m": 16, "ef_construction": 64, "lists": 100}
"""What pgvector takes where nothing is told."""


@dataclass(frozen=True)
class VectorIndex:
    """The index of a vector column.

    Attributes:
        method: hnsw or ivfflat.
        settings: as `target.index` takes them.
    """

    name: str
    method: str
    metric: Metric
    settings: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.method, **self.settings}


def vector_index(connection: Connection, table: Table) -> VectorIndex | None:
    """The index of the table's vector column, None without one: of several, one of all rows rather
    than of some, and of the column rather than of an expression."""
    return next(iter(_vector_indexes(connection, table)), None)


def _vector_indexes(connection: Connection, table: Table) -> list[VectorIndex]:
    rows = fetch_all(
        connection,
        "SELECT c.relname, amname, opcname, coalesce(c.reloptions, '{}') FROM pg_index i "
        "JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam "
        "JOIN pg_opclass o ON o.oid = indclass[0] WHERE indrelid = %s AND amname IN ('hnsw', "
        "'ivfflat') AND indisvalid AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = "
        "'pg_class'::regclass AND d.objid = indexrelid AND d.refobjid = indrelid AND "
        "d.refobjsubid = %s) ORDER BY indpred IS NOT NULL, indkey[0] = 0, c.relname",
        [table.oid, table.column(table.vector).number],
    )
    found = []
    for name, method, opclass, options in rows:
        metric = next((m for m, ops in OPERATOR_CLASSES.items() if opclass.endswith(ops)), None)
        if metric is None:
            continue
        settings = {
            key: int(value) for key, value in (one.split("=") for one in options)
            if key in SETTINGS[method]
        }  # fmt: skip
        found.append(VectorIndex(name, method, metric, settings))
    return found


def check_index(index: Mapping[str, Any]) -> None:
    """Raise PreflightError, saying why, where an index cannot be made with these settings."""
    known = {"type", "column_type", *(key for keys in SETTINGS.values() for key in keys)}
    for key in index:
        if key not in known:
            raise PreflightError(
                f"target.index has no setting {key!r} on Postgres",
                f"Known: {', '.join(sorted(known))}.",
            )
    method = index.get("type", "hnsw")
    if method not in (*SETTINGS, "none"):
        raise PreflightError(
            f"target.index.type {method!r} is not an index of pgvector",
            "Use hnsw, ivfflat or none.",
        )
    if index.get("column_type", "vector") not in MOST_DIMENSIONS:
        raise PreflightError(
            f"target.index.column_type {index['column_type']!r} is not a type of pgvector's",
            "Use vector or halfvec.",
        )
    settings = SETTINGS.get(method, {})
    for key in set(index) - {"type", "column_type", *settings}:
        owner = next(kind for kind, keys in SETTINGS.items() if key in keys)
        raise PreflightError(
            f"target.index.{key} is no setting where the index is of type {method}",
            f"Leave it out, or set target.index.type to {owner}.",
        )
    for key, (least, most) in settings.items():
        value = index.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise PreflightError(
                f"target.index.{key} is {value!r}; it is a whole number from {least} to {most}",
                f"Set it to one of these, or remove it: pgvector's default is {DEFAULTS[key]}.",
            )
    if method == "hnsw":
        m, lists = (index.get(key, DEFAULTS[key]) for key in ("m", "ef_construction"))
        if lists < 2 * m:
            raise PreflightError(
                f"target.index.ef_construction is {lists} and m is {m}: pgvector takes twice m "
                "at least",
                f"Set ef_construction to {max(2 * m, DEFAULTS['ef_construction'])}.",
            )


def column_type(dimensions: int, source: str, index: Mapping[str, Any]) -> str:
    """The type of column for vectors of so many dimensions: halfvec where vector has no index.

    Raises:
        PreflightError: no column or index takes so many.
    """
    wanted = index.get("column_type") or source
    indexed = index.get("type", "hnsw") != "none"
    if indexed and dimensions > MOST_DIMENSIONS[wanted]:
        wanted = "halfvec"
    if dimensions > (MOST_DIMENSIONS[wanted] if indexed else LARGEST):
        raise PreflightError(
            f"pgvector cannot index vectors of {dimensions:,} dimensions "
            f"(vector up to {MOST_DIMENSIONS['vector']:,}, halfvec up to "
            f"{MOST_DIMENSIONS['halfvec']:,})",
            "Ask the model for fewer dimensions, or set target.index: {type: none} and search "
            "without an index.",
        )
    return str(wanted)


def make_indexes(
    connection: Connection, shadow: Table, like: Table | None, metric: Metric,
    index: Mapping[str, Any],
) -> None:  # fmt: skip
    """Make every index that the shadow lacks: those of `like`, and the vector's. Idempotent.

    Args:
        metric, index: of the vector's; where they are not those of `like`, it is made by them.
    """
    method = index.get("type", "hnsw")
    settings = {key: int(index[key]) for key in SETTINGS.get(method, ()) if key in index}
    wanted, made = VectorIndex("", method, metric, settings), False
    with connection.transaction():
        if like is not None:
            main = vector_index(connection, like)
            other = main is not None and replace(main, name="") != wanted
            present = {(one.unique, one.tail) for one in definitions(connection, shadow)}
            for one in definitions(connection, like):
                tail = one.tail
                if one.of_vector:
                    asked = method == "none" or (
                        main is not None and one.name == main.name and other
                    )
                    if main is not None and asked:
                        continue
                    tail = retyped(tail, like, shadow, prefix_of_pgvector(connection))
                if (one.unique, tail) not in present:
                    with mapped(f"{like.label}'s index {one.name}, made for the new vectors"):
                        _create_index(connection, shadow, one.unique, sql.SQL(tail))
                    made = True
        there = [replace(one, name="") for one in _vector_indexes(connection, shadow)]
        if method != "none" and wanted not in there:
            create_vector_index(connection, shadow, shadow.vector, wanted)
            made = True
        if made or not _analyzed(connection, shadow):
            connection.execute(sql.SQL("ANALYZE {}").format(shadow.identifier))


def _analyzed(connection: Connection, table: Table) -> bool:
    row = fetch_one(connection, "SELECT reltuples >= 0 FROM pg_class WHERE oid = %s", [table.oid])
    return row is not None and bool(row[0])


def _create_index(connection: Connection, table: Table, unique: bool, tail: sql.Composable) -> None:
    """Make an index under a name that Postgres chooses."""
    head = sql.SQL("CREATE UNIQUE INDEX" if unique else "CREATE INDEX")
    statement = sql.SQL("{} ON {}{}").format(head, table.identifier, tail)
    prepare(connection, table, tail.as_string(connection), lasting=False)
    try:
        with connection.transaction():
            connection.execute(statement)
    except Error as error:
        if not lacks_shared_memory(error):
            raise
        forbid_workers(connection, lasting=False)
        connection.execute(statement)


@dataclass(frozen=True)
class Definition:
    """An index that no constraint made.

    Attributes:
        tail: its definition from ` USING` on, which names no table.
        of_vector: whether it is an HNSW or IVFFlat index over the table's vectors.
    """

    name: str
    unique: bool
    tail: str
    of_vector: bool


def definitions(connection: Connection, table: Table) -> list[Definition]:
    """The table's indexes that no constraint made, by name."""
    rows = fetch_all(
        connection,
        "SELECT c.relname, indisunique, substr(pg_get_indexdef(indexrelid), 1 + length(format("
        "'CREATE %%sINDEX %%I ON %%I.%%I', CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, "
        "c.relname, nspname, t.relname))), amname IN ('hnsw', 'ivfflat') AND EXISTS (SELECT FROM "
        "pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = indexrelid AND "
        "d.refobjid = indrelid AND d.refobjsubid = %s) FROM pg_index JOIN pg_class c ON "
        "c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_class t ON t.oid = indrelid "
        "JOIN pg_namespace n ON n.oid = t.relnamespace WHERE indrelid = %s AND indisvalid AND NOT "
        "EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', "
        "'x')) ORDER BY c.relname",
        [table.column(table.vector).number, table.oid],
    )
    return [Definition(*row) for row in rows]


def prefix_of_pgvector(connection: Connection) -> str:
    """What Postgres puts before the names of pgvector in a definition; nothing where the session's
    path leads there."""
    path = path_of(connection)
    if path.extension not in path.left_out:
        return ""
    plain = re.fullmatch("[a-z_][a-z0-9_]*", path.extension)
    return f"{path.extension if plain else sql.Identifier(path.extension).as_string(None)}."


def retyped(tail: str, like: Table, shadow: Table, prefix: str) -> str:
    """The definition of an index over the vectors of `like`, for those of its shadow, as Postgres
    will write it.

    Args:
        prefix: put before the name of an operator class.
    """
    before, after = like.column(like.vector).type, shadow.column(shadow.vector).type
    d = shadow.dimensions or 0
    if "::" in tail:  # of an expression, which names a type with its dimensions
        old = like.dimensions or r"\d+"  # another length is of a part of a vector
        tail = re.sub(rf"\b(vector|halfvec|bit)\({old}\)", rf"\g<1>({d})", tail)
        if d > MOST_DIMENSIONS["vector"]:
            tail = re.sub(r"\bvector(\(\d+\)|_\w+_ops\b)", r"halfvec\1", tail)
        name = r'\(\(("(?:[^"]|"")+"|\w+)\)::'
        return re.sub(rf"{name}(?:[^()]+\.)?{after}\({d}\)\)", r"\1", tail)  # no cast is left
    if before != after:
        if "_ops" not in tail:
            tail = re.sub(r"\)(?= WITH| WHERE|$)", f" {prefix}{before}_l2_ops)", tail, count=1)
        tail = re.sub(rf"\b{before}_(\w+_ops)\b", rf"{after}_\1", tail)
    default = re.escape(f"{prefix}vector_l2_ops")
    return re.sub(rf"( USING ivfflat .*?) {default}", r"\1", tail)


def create_vector_index(
    connection: Connection, table: Table, column: str, index: VectorIndex
) -> None:
    """Make an index of a column of vectors.

    Raises:
        PreflightError: it is none that pgvector makes.
    """
    check_index(index.to_dict())
    row = fetch_one(
        connection,
        "SELECT typname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attrelid = %s "
        "AND attname = %s",
        [table.oid, column],
    )
    assert row is not None, "the column is there"
    pairs = ", ".join(f"{key} = {value}" for key, value in index.settings.items())
    tail = sql.SQL(" USING {} ({} {}){}").format(
        sql.SQL(index.method), sql.Identifier(column),
        of_pgvector(connection, f"{row[0]}_{OPERATOR_CLASSES[index.metric]}"),
        sql.SQL(f" WITH ({pairs})" if pairs else ""),
    )  # fmt: skip
    _create_index(connection, table, False, tail)
