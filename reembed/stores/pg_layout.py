"""How a table holds records: which column is the id, the text, the metadata and the vector.

A layout is found by the columns of a table and may be named in the manifest (`source.layout`,
`source.columns`). Metadata is JSON text: that of the one JSON column as the table holds it, byte by
byte, or, where a row has more columns than that, an object of all of them by column name, which
`json_populate_record` turns back into the same values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.manifest import Layout
from reembed.stores.pg_client import Connection, fetch_all, fetch_one
from reembed.stores.pg_table import Column, Table

VECTOR_TYPES = ("vector", "halfvec")
TEXT_TYPES = ("text", "varchar", "bpchar", "citext")
JSON_TYPES = ("json", "jsonb")
TEXT_NAMES = ("document", "content", "text", "body", "chunk", "page_content", "data", "memory")
"""Names that a text column has, the likeliest first, where a table has several."""
Found: TypeAlias = tuple[int, str, str]
"""Oid, schema and name of a table."""
ENTITIES = "_entities"
"""What mem0 calls the second table of a unit, after the first one's name."""
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


def split_name(name: str) -> tuple[str | None, str]:
    """`schema.table` or `table`."""
    schema, dot, table = name.partition(".")
    return (schema, table) if dot else (None, name)


def find_table(connection: Connection, name: str) -> Found | None:
    """Oid, schema and name of a table; without a schema, as the role's search path finds it."""
    schema, table = split_name(name)
    row = None
    if schema is not None:
        row = fetch_one(
            connection,
            "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
            "relnamespace WHERE nspname = %s AND relname = %s AND relkind IN ('r', 'p', 'v', 'm', "
            "'f')",
            [schema, table],
        )
    return row or fetch_one(
        connection,
        "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE relname = %s AND pg_table_is_visible(c.oid) AND relkind IN "
        "('r', 'p', 'v', 'm', 'f')",
        [name],
    )


def vector_tables(connection: Connection) -> list[Found]:
    """Oid, schema and name of every table with a vector column that is no system's."""
    return fetch_all(
        connection,
        "SELECT DISTINCT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "relnamespace JOIN pg_attribute a ON attrelid = c.oid JOIN pg_type t ON t.oid = atttypid "
        "WHERE relkind = 'r' AND typname IN ('vector', 'halfvec') AND attnum > 0 AND NOT "
        "attisdropped AND nspname !~ '^pg_' AND relpersistence <> 't' ORDER BY 2, 3",
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
) -> Table:
    """How a table holds records.

    Args:
        layout: which one it must be; auto takes what the columns say.
        named: columns that the manifest names: id, text, metadata, embedding.

    Raises:
        PreflightError: it holds no vectors, has no single-column key, or is not of this layout;
            the message names the columns.
    """
    oid, schema, name = found
    columns = read_columns(connection, oid)
    label = f"{schema}.{name}"
    vectors = [c.name for c in columns if c.type in VECTOR_TYPES]
    if not vectors:
        raise PreflightError(
            f"{label} has no column of type vector or halfvec",
            f"Its columns: {', '.join(f'{c.name} {c.written}' for c in columns)}.",
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
    if table is None or named:
        table = _plain(connection, base, named or {})
    return replace(table, layout=found_layout if not named else "table")


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


def _plain(connection: Connection, base: Table, named: Mapping[str, str]) -> Table:
    columns = {c.name: c for c in base.columns}
    vectors = [c.name for c in base.columns if c.type in VECTOR_TYPES]
    vector = named.get("embedding") or _only(
        base, vectors, "embedding", "columns hold vectors", ("embedding", "vector", "embeddings")
    )
    id = named.get("id") or _key(connection, base)
    texts = [
        c.name for c in base.columns if c.type in TEXT_TYPES and c.name != id and not c.generated
    ]
    preferred = [name for name in TEXT_NAMES if name in texts]
    text = named.get("text") or next(iter(preferred), texts[0] if len(texts) == 1 else None)
    jsons = [c.name for c in base.columns if c.type in JSON_TYPES]
    preferred = [name for name in ("metadata", "meta", "payload") if name in jsons]
    metadata = named.get("metadata") or next(iter(preferred), jsons[0] if len(jsons) == 1 else None)
    ours = set(columns) == {"id", "document", "metadata", "uri", "embedding"}
    uri = "uri" if ours and columns["uri"].type == "text" else None
    return replace(base, id=id, vector=vector, text=text, metadata=metadata, uri=uri)


def _only(table: Table, names: list[str], key: str, what: str, preferred: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    known = [name for name in preferred if name in names]
    if len(known) == 1:
        return known[0]
    raise PreflightError(
        f"{len(names)} {what} in {table.label}: {', '.join(names)}",
        f"Say which one with source.columns: {{{key}: NAME}}.",
    )


def _key(connection: Connection, table: Table) -> str:
    """The one column that tells rows apart: the primary key, or a unique one without nulls."""
    rows = fetch_all(
        connection,
        "SELECT attname, indisprimary FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND "
        "attnum = indkey[0] WHERE indrelid = %s AND indisunique AND indnkeyatts = 1 AND indpred "
        "IS NULL AND indexprs IS NULL AND indimmediate AND attnotnull ORDER BY indisprimary DESC, "
        "attnum",
        [table.oid],
    )
    if not rows:
        raise PreflightError(
            f"{table.label} has no primary key of one column, nor another unique one without nulls",
            "Add one (ALTER TABLE ... ADD COLUMN ... GENERATED ALWAYS AS IDENTITY PRIMARY KEY).",
        )
    return str(rows[0][0])


def read_parts(
    connection: Connection, found: Found, layout: Layout,
    named: Mapping[str, str] | None = None,
) -> list[Table]:  # fmt: skip
    """The tables that move together: one, or mem0's two."""
    table = read_table(connection, found, layout, named)
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


def missing_table(name: str, url: str, known: list[str]) -> CollectionNotFoundError:
    """The refusal of a name that is no table, naming those that are."""
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:20]) or "none"
    return CollectionNotFoundError(
        f"{url} has no table {name!r}; tables with vectors: {listed}",
        f"Did you mean {close[0]!r}?" if close else "",
    )


def check_identifier(name: str) -> None:
    """Raise PreflightError, saying why, where Postgres would refuse or cut the name."""
    _, table = split_name(name)
    size = len(table.encode())
    if not table or "/" in table or table != table.strip() or "\x00" in name:
        raise PreflightError(
            f"{name[:80]!r} is no usable table name",
            "Use letters, digits and underscores, as schema.table where need be.",
        )
    if size > 63:
        raise PreflightError(
            f"{name[:80]!r} is {size} bytes long, and Postgres cuts names at 63",
            "Choose a shorter one.",
        )
