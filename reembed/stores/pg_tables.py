"""Making shadow tables: like the source's or plain, and their indexes after the load.

A shadow has the source's columns, defaults, checks and comments from the start, its primary key and
unique constraints too, and gets every other index once it is full: an HNSW index is built 3.5 times
faster after the load than row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from reembed.errors import PreflightError
from reembed.records import Metric
from reembed.stores.pg_client import Connection, fetch_all, fetch_one
from reembed.stores.pg_table import Table

MOST_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}
"""Dimensions that an HNSW or IVFFlat index of a type can have (pgvector's README)."""
LARGEST = 16_000
"""Dimensions that a column can have at all."""
OPERATORS: dict[Metric, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
OPERATOR_CLASSES: dict[Metric, str] = {"cosine": "cosine_ops", "l2": "l2_ops", "ip": "ip_ops"}
SETTINGS = {"hnsw": {"m": (2, 100), "ef_construction": (4, 1000)}, "ivfflat": {"lists": (1, 32768)}}
"""Index types, and what each can be told, with its limits."""
BUILD_MEMORY = "1GB"
"""`maintenance_work_mem` for building an index, where the server's is lower."""
NOTE = "reembed:"
"""What a vector column's comment begins with where it says which model made the vectors."""


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
    """The index of the table's vector column, None without one."""
    rows = fetch_all(
        connection,
        "SELECT c.relname, amname, opcname, coalesce(c.reloptions, '{}') FROM pg_index i "
        "JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam "
        "JOIN pg_opclass o ON o.oid = indclass[0] WHERE indrelid = %s AND amname IN ('hnsw', "
        "'ivfflat') AND (indkey[0] = %s OR pg_get_indexdef(indexrelid) ~ %s) ORDER BY "
        "indkey[0] = 0, c.relname",
        [
            table.oid,
            table.column(table.vector).number,
            rf"\({re.escape(table.vector)}\)?::",
        ],
    )
    for name, method, opclass, options in rows:
        metric = next((m for m, ops in OPERATOR_CLASSES.items() if opclass.endswith(ops)), None)
        if metric is None:
            continue
        settings = {
            key: int(value) for key, value in (one.split("=") for one in options)
            if key in SETTINGS[method]
        }  # fmt: skip
        return VectorIndex(name, method, metric, settings)
    return None


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
            f"target.index.type {method!r} is no index of pgvector", "Use hnsw, ivfflat or none."
        )
    if index.get("column_type", "vector") not in MOST_DIMENSIONS:
        raise PreflightError(
            f"target.index.column_type {index['column_type']!r} is no type of pgvector's",
            "Use vector or halfvec.",
        )
    for key, (least, most) in SETTINGS.get(method, {}).items():
        value = index.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise PreflightError(
                f"target.index.{key} is {value!r}; it is a whole number from {least} to {most}"
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


def create_plain(connection: Connection, schema: str, name: str, type: str, d: int) -> None:
    """A table of reembed's own: id, document, metadata, uri, embedding."""
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id text PRIMARY KEY, document text, metadata json, uri text, "
            "embedding {}({}))"
        ).format(sql.Identifier(schema, name), sql.SQL(type), sql.Literal(d))
    )


def create_like(connection: Connection, table: Table, name: str, type: str, d: int) -> None:
    """An empty table like another one, whose vector column is of this type.

    A column that takes vectors of any length is typed: it can be indexed then, and refuses vectors
    of another model. Only keys and unique constraints are made now; `make_indexes` makes the rest.
    """
    shadow = sql.Identifier(table.schema, name)
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(
            shadow, table.identifier
        )
    )
    vector = sql.Identifier(table.vector)
    written = sql.SQL("{}({})").format(sql.SQL(type), sql.Literal(d))
    connection.execute(
        sql.SQL("ALTER TABLE {} ALTER {} DROP DEFAULT, ALTER {} TYPE {}").format(
            shadow, vector, vector, written
        )
    )
    for (definition,) in fetch_all(
        connection,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype "
        "IN ('p', 'u') ORDER BY contype, conname",
        [table.oid],
    ):
        connection.execute(sql.SQL("ALTER TABLE {} ADD {}").format(shadow, sql.SQL(definition)))
    _copy_relation(connection, table, name)


def _copy_relation(connection: Connection, table: Table, name: str) -> None:
    """Owner, storage parameters and comment of a table."""
    row = fetch_one(
        connection,
        "SELECT relowner::regrole::text, relowner = current_user::regrole, coalesce(reloptions, "
        "'{}'), obj_description(oid, 'pg_class') FROM pg_class WHERE oid = %s",
        [table.oid],
    )
    assert row is not None, "the table is there"
    owner, ours, options, comment = row
    shadow = sql.Identifier(table.schema, name)
    if options:
        connection.execute(
            sql.SQL("ALTER TABLE {} SET ({})").format(shadow, sql.SQL(", ".join(options)))
        )
    if comment:
        connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(shadow, sql.Literal(comment))
        )
    if not ours:
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(shadow, sql.SQL(owner)))


def write_note(connection: Connection, table: Table, note: Mapping[str, Any]) -> None:
    """Keep a note (model, collection metadata) as the vector column's comment. `comment` is what
    its owner had written there, which stands alone where there is nothing else to note."""
    own = note.get("comment")
    text = own if set(note) <= {"comment"} else NOTE + json.dumps(note, sort_keys=True)
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            table.identifier, sql.Identifier(table.vector), sql.Literal(text)
        )
    )


def read_note(connection: Connection, table: Table) -> dict[str, Any]:
    """The note of a vector column; empty where there is none."""
    row = fetch_one(
        connection, "SELECT col_description(%s, %s)", [table.oid, table.column(table.vector).number]
    )
    text = row[0] if row else None
    if not text:
        return {}
    if not text.startswith(NOTE):
        return {"comment": text}
    try:
        note = json.loads(text.removeprefix(NOTE))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


# Indexes


def make_indexes(
    connection: Connection, shadow: Table, like: Table | None, metric: Metric,
    index: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    """Make every index that the shadow lacks: those of `like`, and the vector's. Idempotent.

    Returns the definitions of what was made.
    """
    made = []
    present = {(unique, tail) for unique, tail, _ in _definitions(connection, shadow.oid)}
    with connection.transaction():
        connection.execute(
            "SELECT set_config('maintenance_work_mem', %s, true) WHERE pg_size_bytes("
            "current_setting('maintenance_work_mem')) < pg_size_bytes(%s)",
            [BUILD_MEMORY, BUILD_MEMORY],
        )
        for unique, tail, of_vector in _definitions(connection, like.oid) if like else []:
            if not of_vector and (unique, tail) not in present:
                made.append(_create_index(connection, shadow, unique, sql.SQL(tail)))
        if vector_index(connection, shadow) is None and index.get("type", "hnsw") != "none":
            method = index.get("type", "hnsw")
            settings = {key: int(index[key]) for key in SETTINGS[method] if key in index}
            wanted = VectorIndex("", method, metric, settings)
            made.append(create_vector_index(connection, shadow, shadow.vector, wanted))
        connection.execute(sql.SQL("ANALYZE {}").format(shadow.identifier))
    return made


def _create_index(connection: Connection, table: Table, unique: bool, tail: sql.Composable) -> str:
    """Make an index under a name that Postgres chooses. Returns the statement."""
    head = sql.SQL("CREATE UNIQUE INDEX" if unique else "CREATE INDEX")
    statement = sql.SQL("{} ON {}{}").format(head, table.identifier, tail)
    connection.execute(statement)
    return statement.as_string(connection)


def _definitions(connection: Connection, oid: int) -> list[tuple[bool, str, bool]]:
    """Of each index that no constraint made: whether it is unique, its definition from USING on,
    and whether it is of a vector."""
    return fetch_all(
        connection,
        "SELECT indisunique, substr(pg_get_indexdef(indexrelid), 1 + length(format('CREATE %%s"
        "INDEX %%I ON %%I.%%I', CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, "
        "nspname, t.relname))), amname IN ('hnsw', 'ivfflat') FROM pg_index JOIN pg_class c ON "
        "c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_class t ON t.oid = indrelid "
        "JOIN pg_namespace n ON n.oid = t.relnamespace WHERE indrelid = %s AND indisvalid AND NOT "
        "EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', "
        "'x')) ORDER BY c.relname",
        [oid],
    )


def create_vector_index(
    connection: Connection, table: Table, column: str, index: VectorIndex
) -> str:
    """Make an index of a column of vectors. Returns the statement."""
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
        sql.SQL(f"{row[0]}_{OPERATOR_CLASSES[index.metric]}"),
        sql.SQL(f" WITH ({pairs})" if pairs else ""),
    )  # fmt: skip
    return _create_index(connection, table, False, tail)
