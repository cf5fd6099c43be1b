"""How a table holds records: which column is the id, the text, the metadata and the vector.

A layout is found by the columns of a table and may be named in the manifest (`source.layout`,
`source.columns`). What a row holds besides is its metadata (`pg_metadata`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reembed.errors import PreflightError
from reembed.manifest import Layout
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one
from reembed.stores.postgres.schema.metadata import JSON_TYPES
from reembed.stores.postgres.schema.names import ENTITIES, Found, find_table
from reembed.stores.postgres.schema.table import Column, Table
from reembed.stores.values import some_of

VECTOR_TYPES = ("vector", "halfvec")
TEXT_TYPES = ("text", "varchar", "bpchar", "citext")
TEXT_NAMES = ("document", "content", "text", "body", "chunk", "page_content", "data", "memory")
"""Names that tell a text column where a table has several."""
VECTOR_NAMES = ("embedding", "vector", "embeddings")
ENTITY_PREFIX = "entities/"
"""Put before the ids of a unit's second table, so that ids of a unit are unique."""

COMING = "reembed_incoming"
"""A column that a swap copies vectors to before it takes the vector column's name; no part of a
record."""

LAYOUT_COLUMNS: dict[Layout, dict[str, str]] = {
    "mem0": {"id": "id", "embedding": "vector", "metadata": "payload"},
    "langchain": {},
    "llamaindex": {
        "id": "id", "text": "text", "metadata": "metadata_", "node_id": "node_id",
        "embedding": "embedding",
    },
}  # fmt: skip
LANGCHAIN_V1 = {
    "id": "id", "collection_id": "collection_id", "embedding": "embedding", "text": "document",
    "metadata": "cmetadata",
}  # fmt: skip
LANGCHAIN_V2 = {
    "id": "langchain_id", "text": "content", "embedding": "embedding",
    "metadata": "langchain_metadata",
}  # fmt: skip


def vector_tables(connection: Connection) -> list[Found]:
    """Oid, schema and name of every table with a vector column that is not a system's."""
    return fetch_all(
        connection,
        "SELECT DISTINCT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace JOIN pg_attribute a ON attrelid = c.oid JOIN pg_type t ON t.oid = atttypid "
        "WHERE relkind = 'r' AND typname IN ('vector', 'halfvec') AND attnum > 0 AND NOT "
        "attisdropped AND nspname !~ '^pg_' AND relpersistence <> 't' ORDER BY 2, 3",
    )


def _tables_with_vectors(connection: Connection) -> str:
    """Which tables there are instead, as a hint."""
    names = [f"{schema}.{name}" for _, schema, name in vector_tables(connection)]
    if names:
        return f"Tables that have one: {some_of(names)}."
    return (
        "No table of this database has one. Is this the right one? Other types (sparsevec, bit, "
        "arrays of vectors) are not moved."
    )


def read_columns(connection: Connection, oid: int) -> tuple[Column, ...]:
    """The columns of a table, in order."""
    rows = fetch_all(
        connection,
        "SELECT attname, attnum, coalesce(b.typname, t.typname), atttypmod, "
        "format_type(atttypid, atttypmod), attnotnull, attgenerated <> '' FROM pg_attribute "
        "JOIN pg_type t ON t.oid = atttypid LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = "
        "t.typbasetype WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attname <> %s "
        "ORDER BY attnum",
        [oid, COMING],
    )
    return tuple(Column(*row) for row in rows)


def read_table(
    connection: Connection,
    found: Found,
    layout: Layout = "auto",
    named: Mapping[str, str] | None = None,
    text_query: str | None = None,
) -> Table:
    """How a table holds records.

    Args:
        layout: which one it must be; auto takes what the columns say.
        named: columns that the manifest names: id, text, metadata, embedding.
        text_query: SQL that gives key and text of each row, where it is no column.

    Raises:
        PreflightError: it holds no vectors, has no single-column key, or is not of this layout;
            the message names the columns.
    """
    oid, schema, name = found
    label = f"{schema}.{name}"
    _require_table(connection, oid, label)
    columns = read_columns(connection, oid)
    vectors = [c.name for c in columns if c.type in VECTOR_TYPES]
    if not vectors:
        raise PreflightError(
            f"{label} has no column of type vector or halfvec, but "
            f"{', '.join(f'{c.name} {c.written}' for c in columns)}",
            _tables_with_vectors(connection),
        )
    names = {c.name for c in columns}
    unknown = sorted(set((named or {}).values()) - names)
    if unknown:
        raise PreflightError(
            f"{label} has no column {unknown[0]!r} (source.columns)",
            f"Its columns: {', '.join(sorted(names))}.",
        )
    base = Table(oid, schema, name, columns, "", "", None, None, None, "table")
    found_layout, table = _known_layout(base, layout)
    if table is None and layout not in ("auto", "table"):
        raise PreflightError(
            f"{label} is not laid out as {layout} makes its tables",
            f"Its columns: {', '.join(f'{c.name} {c.written}' for c in columns)}. Leave "
            "source.layout at auto, or set it to table and name source.columns.",
        )
    if table is None or named or text_query is not None:
        return _plain(connection, base, named or {}, text_query)
    if table.id not in _keys(connection, base):
        raise _no_key(base, table.id)
    return replace(table, layout=found_layout)


def _require_table(connection: Connection, oid: int, label: str) -> None:
    row = fetch_one(connection, "SELECT relkind::text FROM pg_class WHERE oid = %s", [oid])
    what = {"p": "a partitioned table", "v": "a view", "m": "a materialized view",
            "f": "a foreign table"}.get(row[0] if row else "r")  # fmt: skip
    if what is not None:
        raise PreflightError(
            f"{label} is {what}, and reembed moves ordinary tables",
            "Name the table that holds the rows"
            + ("; a partition moves with swap.kind: config alone." if row == ("p",) else "."),
        )


def _known_layout(base: Table, wanted: Layout) -> tuple[Layout, Table | None]:
    """A framework's table, told by its columns."""
    types = {c.name: c.type for c in base.columns}
    tries: list[tuple[Layout, dict[str, str]]] = [
        ("mem0", LAYOUT_COLUMNS["mem0"]), ("langchain", LANGCHAIN_V2), ("langchain", LANGCHAIN_V1),
        ("llamaindex", LAYOUT_COLUMNS["llamaindex"]),
    ]  # fmt: skip
    for layout, columns in tries:
        if wanted not in ("auto", layout) or not set(columns.values()) <= types.keys():
            continue
        if types[columns["embedding"]] not in VECTOR_TYPES:
            continue
        if types[columns["metadata"]] not in JSON_TYPES:
            continue
        if layout == "mem0" and (types["id"] != "uuid" or len(types) != 3):
            continue
        return layout, replace(
            base, id=columns["id"], vector=columns["embedding"], text=columns.get("text"),
            metadata=columns["metadata"], layout=layout,
            text_sql="payload->>'data'" if layout == "mem0" else None,
        )  # fmt: skip
    return "table", None


def _plain(
    connection: Connection, base: Table, named: Mapping[str, str], text_query: str | None
) -> Table:
    _check_types(base, named)
    columns = {c.name: c for c in base.columns}
    vectors = [c.name for c in base.columns if c.type in VECTOR_TYPES]
    vector = named.get("embedding") or _one(base, vectors, "embedding", VECTOR_NAMES)
    keys = _keys(connection, base)
    if not keys or named.get("id", keys[0]) not in keys:
        raise _no_key(base, named.get("id"))
    id = named.get("id") or keys[0]
    texts = [
        c.name for c in base.columns if c.type in TEXT_TYPES and c.name != id and not c.generated
    ]
    ours = set(columns) == {"id", "document", "metadata", "uri", "embedding"}
    uri = "uri" if ours and columns["uri"].type == "text" else None
    texts = [name for name in texts if name != uri]
    text = named.get("text")
    if text is None and texts and text_query is None:
        text = _one(base, texts, "text", TEXT_NAMES)
    jsons = [c.name for c in base.columns if c.type in JSON_TYPES and c.name != text]
    preferred = [name for name in ("metadata", "meta", "payload") if name in jsons]
    metadata = named.get("metadata") or next(iter(preferred), jsons[0] if len(jsons) == 1 else None)
    found = replace(base, id=id, vector=vector, text=text, metadata=metadata, uri=uri)
    return found if text_query is None else replace(found, text_query=text_query)


def _one(table: Table, names: list[str], key: str, preferred: Sequence[str]) -> str:
    """The only column, or the only one of a usual name. Nothing is guessed among several."""
    known = [name for name in preferred if name in names]
    for found in (names, known):
        if len(found) == 1:
            return found[0]
    what = {"embedding": "hold vectors", "text": "may be the text"}[key]
    raise PreflightError(
        f"{len(names)} columns of {table.label} {what}: {', '.join(names)}",
        f"Say which one with source.columns: {{{key}: {(known or names)[0]}}}.",
    )


def _check_types(table: Table, named: Mapping[str, str]) -> None:
    """Refuse named columns that cannot be what they are named for."""
    wanted = {"embedding": VECTOR_TYPES, "metadata": JSON_TYPES}
    for key, name in named.items():
        column = table.column(name)
        if key in wanted and column.type not in wanted[key]:
            raise PreflightError(
                f"source.columns: {key} is the column {name!r} of {table.label}, of the type "
                f"{column.written}",
                f"It must be of type {' or '.join(wanted[key])}.",
            )
        if column.generated:
            raise PreflightError(
                f"source.columns: {key} is the column {name!r} of {table.label}, which Postgres "
                "computes",
                "Name a column that can be written.",
            )
    twice = [name for name in named.values() if [*named.values()].count(name) > 1]
    if twice:
        raise PreflightError(
            f"source.columns names {twice[0]!r} for two things", "Each holds one of them."
        )


def _keys(connection: Connection, table: Table) -> list[str]:
    """Columns that tell rows apart by themselves: the primary key first, then unique ones without
    nulls."""
    rows = fetch_all(
        connection,
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND "
        "attnum = indkey[0] WHERE indrelid = %s AND indisunique AND indisvalid AND indnkeyatts = 1 "
        "AND indpred IS NULL AND indexprs IS NULL AND indimmediate AND attnotnull ORDER BY "
        "indisprimary DESC, attnum",
        [table.oid],
    )
    return [row[0] for row in rows]


def _no_key(table: Table, named: str | None) -> PreflightError:
    if named is not None:
        return PreflightError(
            f"the column {named!r} of {table.label} does not tell rows apart: it is not unique "
            "and without nulls",
            "Make it the primary key or name another column (source.columns: {id: NAME}).",
        )
    return PreflightError(
        f"{table.label} has no primary key of one column, nor another unique one without nulls, "
        "that is not deferrable",
        "Add one, which need not be the primary key: ALTER TABLE "
        f"{table.identifier.as_string(None)} ADD COLUMN reembed_key bigint GENERATED BY DEFAULT AS "
        "IDENTITY UNIQUE; it may be dropped after `reembed clean`.",
    )


def read_parts(
    connection: Connection, found: Found, layout: Layout,
    named: Mapping[str, str] | None = None, text_query: str | None = None,
) -> list[Table]:  # fmt: skip
    """The tables that move together: one, or mem0's two. See `read_table`."""
    table = read_table(connection, found, layout, named, text_query)
    if table.layout != "mem0" or table.name.endswith(ENTITIES):
        return [table]
    other = find_table(connection, f"{table.schema}.{table.name}{ENTITIES}")
    if other is None:
        return [table]
    entities = read_table(connection, other, "mem0")
    return [table, replace(entities, prefix=ENTITY_PREFIX)]


def table_by_oid(connection: Connection, oid: int) -> Found | None:
    """Oid, schema and name of the table of this oid."""
    return fetch_one(
        connection,
        "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE c.oid = %s AND relkind = 'r'",
        [oid],
    )
