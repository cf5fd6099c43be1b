"""A row's metadata as JSON text, and back, as SQL.

A table whose only other column is one of JSON gives that column's text as it stands. Any other
gives an object of all of its further columns by name: numbers, texts and their arrays as JSON has
them, JSON as it stands, everything else as the text that Postgres reads back to the same value.
Where the plain form would lose something (JSON's null against SQL's, blanks around a JSON text,
an array that does not begin at 1) the value is the text of it, as a JSON string.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from reembed.stores.canonical import NO_METADATA
from reembed.stores.postgres.schema.table import Column, Table

JSON_TYPES = ("json", "jsonb")
BLANKS = " \t\n\r"
"""What JSON allows around a value."""
JSON_NULL = f"^[{BLANKS}]*null[{BLANKS}]*$"
"""JSON's null. As metadata text it has one more blank in front, which tells it from SQL's."""
SCALARS = frozenset(
    "bool int2 int4 int8 numeric float4 float8 text varchar bpchar uuid".split()  # noqa: SIM905
)
"""Types whose JSON form Postgres reads back to the same value."""
ARRAYS = frozenset(f"_{type}" for type in SCALARS)


def to_text(table: Table) -> sql.Composable:
    """JSON text, before `of_texts`."""
    if table.composite:
        return _object([table.column(table.metadata)] if table.metadata else [], table.others)
    if table.metadata is None:
        return sql.SQL("NULL::text")
    return sql.SQL("{}::text").format(sql.Identifier(table.metadata))


def of_texts(table: Table, texts: pa.Array) -> pa.Array:
    """What `to_text` gave as metadata: `null` for SQL's null, and with one more blank in front for
    JSON's. Done here rather than by Postgres, which would write each JSON out three times."""
    if table.composite:
        return texts
    nulls = pc.match_substring_regex(texts, JSON_NULL)
    if pc.any(nulls).as_py():
        texts = pc.if_else(nulls, prefixed(" ", texts), texts)
    return texts.fill_null(NO_METADATA)


def prefixed(prefix: str, texts: pa.Array) -> pa.Array:
    """Texts with something put before each."""
    return pc.binary_join_element_wise(
        pa.scalar(prefix, texts.type), texts, pa.scalar("", texts.type)
    )


def _object(metadata: Sequence[Column], others: Sequence[Column]) -> sql.Composable:
    parts = [
        sql.SQL("{} || coalesce({}::text, 'null')").format(
            sql.Literal(f'{"," if place else "{"}{json.dumps(column.name, ensure_ascii=False)}:'),
            _value(column),
        )
        for place, column in enumerate([*metadata, *others])
    ]  # fmt: skip
    return sql.SQL("{} || '}}'").format(sql.SQL(" || ").join(parts))


def _value(column: Column) -> sql.Composable:
    """A column's value as JSON."""
    name = sql.Identifier(column.name)
    if column.type in SCALARS:
        return sql.SQL("to_json({})").format(name)
    as_text = sql.SQL("to_json({}::text)").format(name)
    if column.type in ARRAYS:
        return sql.SQL("CASE WHEN {0}::text LIKE '[%' THEN {1} ELSE to_json({0}) END").format(
            name, as_text
        )
    if column.type in JSON_TYPES:  # a null, a string, or blanks around it
        return sql.SQL("CASE WHEN {0}::text ~ {1} THEN {2}::text ELSE {0}::text END").format(
            name, sql.Literal(f'^["n{BLANKS}]|[{BLANKS}]$'), as_text
        )
    return as_text


def from_text(
    table: Table, text: sql.Composable
) -> tuple[sql.Composable, dict[str, sql.Composable]]:
    """The way back, for a SELECT from a table that holds metadata texts.

    Args:
        text: the column that holds them.

    Returns:
        what to join that table with, and for each column that metadata holds an expression.
    """
    if not table.composite:
        if table.metadata is None:
            return sql.SQL(""), {}
        written = sql.SQL(table.column(table.metadata).written)
        value = sql.SQL(
            "CASE WHEN {0} = 'null' THEN NULL WHEN btrim({0}, {1}) = 'null' THEN substr({0}, 2) "
            "ELSE {0} END::{2}"
        ).format(text, sql.Literal(BLANKS), written)
        return sql.SQL(""), {table.metadata: value}
    columns = ([table.column(table.metadata)] if table.metadata else []) + table.others
    join = sql.SQL(" CROSS JOIN LATERAL (SELECT {}::json AS object) m").format(text)
    plain = [column for column in columns if column.type not in JSON_TYPES]
    if plain:
        join += sql.SQL(" CROSS JOIN LATERAL json_to_record(m.object) p ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.written))
                for column in plain
            )
        )
    values: dict[str, sql.Composable] = {
        column.name: sql.SQL("p.{}").format(sql.Identifier(column.name)) for column in plain
    }
    values |= {
        column.name: sql.SQL(
            "CASE json_typeof(m.object -> {0}) WHEN 'null' THEN NULL WHEN 'string' THEN "
            "m.object ->> {0} ELSE (m.object -> {0})::text END::{1}"
        ).format(sql.Literal(column.name), sql.SQL(column.written))
        for column in columns if column.type in JSON_TYPES
    }  # fmt: skip
    return join, values
