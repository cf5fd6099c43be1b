"""A table's rows as an application of `reembed.live` sees them, and back, as SQL.

An id, a text and flat metadata: the keys of the table's JSON column beside its other columns.
LlamaIndex calls `node_id` what it means by an id, and leaves the number to Postgres.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, LiteralString

from psycopg import sql

from reembed.records import Metric
from reembed.stores.postgres.client import beside_parameters
from reembed.stores.postgres.schema.metadata import JSON_TYPES
from reembed.stores.postgres.schema.table import Column, Table

COMPARISONS: dict[str, LiteralString] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class View:
    """One table as records for an application. `metric`: its index's, else what it was made for."""

    def __init__(self, table: Table, metric: Metric = "cosine") -> None:
        self.table, self.metric = table, metric
        node = next((c for c in table.columns if c.name == "node_id"), None)
        self.id = table.column(table.id)
        self.unique = True
        if table.layout == "llamaindex" and node is not None:
            self.id, self.unique = node, False
        hidden = {self.id.name, table.id}
        self.columns = {c.name: c for c in table.others if c.name not in hidden}

    # --- reading ---------------------------------------------------------------------------------

    def selected(self, vectors: bool) -> sql.Composable:
        """Id, text, JSON column, other columns, uri and vector, as texts."""
        table = self.table
        others: sql.Composable = sql.SQL("NULL")
        if self.columns:
            others = sql.SQL("(SELECT to_json(o) FROM (SELECT {}) o)::text").format(
                sql.SQL(", ").join(
                    sql.SQL("{0}.{1} AS {1}").format(table.identifier, sql.Identifier(name))
                    for name in self.columns
                )
            )
        return sql.SQL(", ").join([
            sql.SQL("{}::text").format(self.id_expression()),
            table.document_expression(),
            sql.SQL("{}::text").format(sql.Identifier(table.metadata)) if table.metadata
            else sql.SQL("NULL"),
            others, table.uri_expression(),
            sql.SQL("{}::text").format(sql.Identifier(table.vector)) if vectors
            else sql.SQL("NULL"),
        ])  # fmt: skip

    def id_expression(self) -> sql.Composable:
        return sql.Identifier(self.id.name)

    def record(self, row: Sequence[Any]) -> dict[str, Any]:
        """A row of `selected` as `id`, `document`, `metadata`, `uri`, `embedding`."""
        own = json.loads(row[2]) if row[2] is not None else None
        others = json.loads(row[3]) if row[3] is not None else {}
        metadata = {**(own if isinstance(own, dict) else {})}
        metadata |= {key: value for key, value in others.items() if value is not None}
        return {
            "id": row[0], "document": row[1], "metadata": metadata or None, "uri": row[4],
            "embedding": json.loads(row[5]) if row[5] is not None else None,
        }  # fmt: skip

    # --- conditions ------------------------------------------------------------------------------

    def ids(self, ids: Sequence[str]) -> tuple[sql.Composable, list[Any]]:
        """The rows of these ids."""
        key = beside_parameters(self.id_expression())
        return sql.SQL("{}::text = ANY (%s)").format(key), [list(ids)]

    def where(self, where: Mapping[str, Any]) -> tuple[sql.Composable, list[Any]]:
        """A condition in Chroma's form: `{key: value}`, `{key: {"$gt": 3}}`, `$and`, `$or`.

        Raises:
            ValueError: it is none.
        """
        parts: list[tuple[sql.Composable, list[Any]]] = []
        for key, wanted in where.items():
            if key in ("$and", "$or"):
                if not isinstance(wanted, list | tuple) or not wanted:
                    raise ValueError(f"where: {key} takes a list of conditions, not {wanted!r}")
                parts.append(
                    _joined([self.where(one) for one in wanted], "AND" if key == "$and" else "OR")
                )
                continue
            if key.startswith("$"):
                raise ValueError(f"where: {key} is not known; there are $and and $or")
            tests = wanted if isinstance(wanted, Mapping) else {"$eq": wanted}
            parts += [self._test(key, operator, value) for operator, value in tests.items()]
        return _joined(parts, "AND")

    def _test(self, key: str, operator: str, value: Any) -> tuple[sql.Composable, list[Any]]:
        found, keys = self._value(key)
        if operator in ("$eq", "$ne", "$in", "$nin"):
            several = operator in ("$in", "$nin")
            test = sql.SQL("{} = ANY (%s::jsonb[])").format(found)
            wanted = [json.dumps(one) for one in (value if several else [value])]
            if operator in ("$eq", "$in"):
                return test, [*keys, wanted]
            negated = sql.SQL("({} IS NULL OR NOT {})").format(found, test)
            return negated, [*keys, *keys, wanted]
        if operator in COMPARISONS:
            # jsonb orders values of different types, too; only like is compared with like here
            return sql.SQL(
                "(jsonb_typeof({0}) = jsonb_typeof(%s::jsonb) AND {0} {1} %s::jsonb)"
            ).format(found, sql.SQL(COMPARISONS[operator])), [
                *keys, json.dumps(value), *keys, json.dumps(value),
            ]  # fmt: skip
        known = ", ".join(["$eq", "$ne", "$in", "$nin", *COMPARISONS])
        raise ValueError(f"where: {operator} is not known; there are {known}")

    def _value(self, key: str) -> tuple[sql.Composable, list[Any]]:
        """A key's value as jsonb, SQL's null where there is none; and its parameters."""
        if key in self.columns:
            return sql.SQL("to_jsonb({})").format(beside_parameters(sql.Identifier(key))), []
        if self.table.metadata is None:
            raise ValueError(
                f"where: {self.table.label} has no column {key!r}; it has: "
                f"{', '.join(self.columns) or 'none besides id, text and vector'}"
            )
        column = beside_parameters(sql.Identifier(self.table.metadata))
        return sql.SQL("({}::jsonb -> %s::text)").format(column), [key]

    # --- writing ---------------------------------------------------------------------------------

    def values(
        self, id: str | None, document: str | None, metadata: Mapping[str, Any] | None,
        uri: str | None, has: Mapping[str, bool],
    ) -> dict[str, Any]:  # fmt: skip
        """Columns to write and their values; what the application does not give is left out.

        Args:
            has: which of `documents`, `metadatas` and `uris` the call gave at all.

        Raises:
            ValueError: the table has no place for something.
        """
        table, found = self.table, dict[str, Any]()
        if id is not None:
            found[self.id.name] = id
        if has["documents"]:
            if table.text is None:
                raise ValueError(f"{table.label} has no column for documents")
            found[table.text] = document
        if has["uris"] and uri is not None:
            if table.uri is None:
                raise ValueError(f"{table.label} has no column for uris")
            found[table.uri] = uri
        if has["metadatas"]:
            rest = dict(metadata or {})
            found |= {
                key: _given(self.columns[key], rest.pop(key)) for key in list(rest)
                if key in self.columns
            }  # fmt: skip
            if table.metadata is not None:
                found[table.metadata] = json.dumps(rest) if metadata is not None else None
            elif rest:
                raise ValueError(
                    f"{table.label} has no column {next(iter(rest))!r} and none of JSON; it has: "
                    f"{', '.join(self.columns) or 'none besides id, text and vector'}"
                )
        return found


def _given(column: Column, value: Any) -> Any:
    return json.dumps(value) if column.type in JSON_TYPES and value is not None else value


def _joined(
    parts: Sequence[tuple[sql.Composable, list[Any]]], word: Literal["AND", "OR"]
) -> tuple[sql.Composable, list[Any]]:
    if not parts:
        return sql.SQL("true"), []
    told = sql.SQL(" AND " if word == "AND" else " OR ").join(part for part, _ in parts)
    return sql.SQL("({})").format(told), [one for _, values in parts for one in values]


def columns_of(records: Sequence[dict[str, Any]], keep: Callable[[str], bool]) -> dict[str, Any]:
    """Records as columns, `None` for those that are not asked for: Chroma's form of an answer."""
    names = {"documents": "document", "metadatas": "metadata", "uris": "uri",
             "embeddings": "embedding", "distances": "distance"}  # fmt: skip
    found: dict[str, Any] = {"ids": [one["id"] for one in records]}
    for name, key in names.items():
        if name != "distances" or (records and "distance" in records[0]) or not records:
            found[name] = [one.get(key) for one in records] if keep(name) else None
    return found
