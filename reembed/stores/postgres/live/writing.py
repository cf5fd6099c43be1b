"""Records that an application writes to a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from psycopg import sql

from reembed.records import Vectors
from reembed.stores.postgres.client import Connection, beside_parameters, fetch_one
from reembed.stores.postgres.live.rows import View
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector

Row = Mapping[str, Any]
"""A row's columns and values; the vector's is `(d,) float32`."""


def listed(given: Any) -> list[Any] | None:
    """One thing or many, as a list; None where it is not given."""
    if given is None:
        return None
    return [given] if isinstance(given, str | Mapping) else list(given)


@dataclass(frozen=True)
class Batch:
    """What one call writes, a list each, `None` for what it does not give."""

    ids: list[str | None]
    texts: list[str] | None
    metadatas: list[Mapping[str, Any] | None] | None
    uris: list[str | None] | None
    embedded: list[str] | None

    @property
    def to_embed(self) -> list[str] | None:
        """The texts that vectors are made of."""
        return self.texts if self.embedded is None else self.embedded

    @classmethod
    def of(cls, ids: Any, documents: Any, metadatas: Any, uris: Any, texts: Any) -> Self:
        """Raise ValueError where lists are of different lengths or an id comes twice."""
        parts = {"ids": listed(ids), "documents": listed(documents),
                 "metadatas": listed(metadatas), "uris": listed(uris),
                 "texts": listed(texts)}  # fmt: skip
        given = {name: part for name, part in parts.items() if part is not None}
        sizes = {name: len(part) for name, part in given.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"lists of different lengths: {sizes}")
        named = parts["ids"]
        if named is not None and len(set(named)) < len(named):
            twice = next(one for one in named if named.count(one) > 1)
            raise ValueError(f"the id {twice!r} comes twice in one call")
        size = next(iter(sizes.values()), 0)
        return cls(
            named or [None] * size, parts["documents"], parts["metadatas"], parts["uris"],
            parts["texts"],
        )  # fmt: skip

    def rows(self, view: View, vectors: Vectors | None) -> list[dict[str, Any]]:
        """Each record's columns. Raises ValueError where the table has no place for something."""
        has = {"documents": self.texts is not None, "metadatas": self.metadatas is not None,
               "uris": self.uris is not None}  # fmt: skip
        if vectors is not None and len(vectors) != len(self.ids):
            raise ValueError(f"{len(self.ids)} records and {len(vectors)} vectors")
        found = []
        for place, id in enumerate(self.ids):
            row = view.values(
                id, self.texts[place] if self.texts else None,
                self.metadatas[place] if self.metadatas else None,
                self.uris[place] if self.uris else None, has,
            )  # fmt: skip
            if vectors is not None:
                row[view.table.vector] = vectors[place]
            found.append(row)
        return found


def insert(connection: Connection, view: View, rows: Sequence[Row]) -> list[str]:
    """Insert rows. Returns their ids."""
    return [_insert(connection, view, row, sql.SQL("")) for row in rows]


def upsert(connection: Connection, view: View, rows: Sequence[Row]) -> list[str]:
    """Insert rows, or change those that are there. Returns their ids."""
    if not view.unique:  # LlamaIndex's node ids have no unique index
        there = set(update(connection, view, rows))
        return [
            *there, *insert(connection, view, [r for r in rows if r[view.id.name] not in there])
        ]  # fmt: skip
    found = []
    for row in rows:
        changed = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
            for name in row if name != view.id.name
        )  # fmt: skip
        key = sql.Identifier(view.id.name)
        rule = sql.SQL("ON CONFLICT ({}) DO ").format(key) + (
            sql.SQL("UPDATE SET {}").format(changed) if len(row) > 1
            else sql.SQL("UPDATE SET {0} = EXCLUDED.{0}").format(key)
        )  # fmt: skip
        found.append(_insert(connection, view, row, beside_parameters(rule)))
    return found


def update(connection: Connection, view: View, rows: Sequence[Row]) -> list[str]:
    """Change rows that are there. Returns their ids."""
    found = []
    for row in rows:
        values = {name: value for name, value in row.items() if name != view.id.name}
        if not values:
            continue
        sets = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(
                beside_parameters(sql.Identifier(name)), _place(connection, view.table, name)
            )
            for name in values
        )
        key = beside_parameters(sql.Identifier(view.id.name))
        changed = connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE {}::text = %s").format(
                beside_parameters(view.table.identifier), sets, key
            ),
            [*values.values(), row[view.id.name]],
        )
        if changed.rowcount:
            found.append(str(row[view.id.name]))
    return found


def _insert(connection: Connection, view: View, row: Row, rule: sql.Composable) -> str:
    names = sql.SQL(", ").join(beside_parameters(sql.Identifier(name)) for name in row)
    places = sql.SQL(", ").join(_place(connection, view.table, name) for name in row)
    written = fetch_one(
        connection,
        sql.SQL("INSERT INTO {} ({}) VALUES ({}) {} RETURNING {}::text").format(
            beside_parameters(view.table.identifier), names, places, rule,
            beside_parameters(sql.Identifier(view.id.name)),
        ),
        list(row.values()),
    )  # fmt: skip
    assert written is not None, "an inserted row is returned"
    return str(written[0])


def _place(connection: Connection, table: Table, name: str) -> sql.Composable:
    """Where a column's value goes."""
    if name != table.vector:
        return sql.SQL("%s")
    type = table.column(name).type
    cast = sql.SQL("%b::{}").format(beside_parameters(of_pgvector(connection, "vector")))
    if type != "vector":
        cast += sql.SQL("::{}").format(beside_parameters(of_pgvector(connection, type)))
    return cast
