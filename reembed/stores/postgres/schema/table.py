"""A table with a vector column, as a set of records: its columns and what they hold, as SQL."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from reembed.manifest import Layout


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        type: name of its base type.
        typmod: `atttypmod`; of a vector its dimensions, -1 where it is not typed.
        written: its type as SQL writes it.
        generated: whether Postgres computes it, so that it cannot be written.
    """

    name: str
    number: int
    type: str
    typmod: int
    written: str
    not_null: bool
    generated: bool


@dataclass(frozen=True)
class Table:
    """A table with a vector column, as a set of records.

    Attributes:
        columns: all of them, in order.
        id, vector: names of the columns.
        text: the column that is the document; None where there is none, or `text_sql` says it.
        metadata: the JSON column; None without one.
        uri: the column that is the uri; only tables that reembed made have one.
        layout: as found.
        text_sql: an expression for the document, where it is no column.
        text_query: SQL that gives key and text of each row, where the text is in another table.
        prefix: put before ids.
        only_with_vector: whether a row without a vector is no record, and is left as it is.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    id: str
    vector: str
    text: str | None
    metadata: str | None
    uri: str | None
    layout: Layout
    text_sql: str | None = None
    text_query: str | None = None
    prefix: str = ""
    only_with_vector: bool = False

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def others(self) -> list[Column]:
        """Columns that are neither id, text, metadata, uri nor the vector, and can be written."""
        known = {self.id, self.vector, self.text, self.metadata, self.uri}
        return [c for c in self.columns if c.name not in known and not c.generated]

    @property
    def holds(self) -> dict[str, str]:
        """What a record has, to the column where it is."""
        known = {"id": self.id, "text": self.text, "metadata": self.metadata}
        known |= {"vector": self.vector}
        return {what: column for what, column in known.items() if column is not None}

    @property
    def composite(self) -> bool:
        """Whether metadata is an object of several columns."""
        return bool(self.others)

    @property
    def dimensions(self) -> int | None:
        """Of the vector column's type; None where it takes vectors of any length."""
        typmod = self.column(self.vector).typmod
        return typmod if typmod > 0 else None

    # As SQL

    def condition(self, where: str | None = None) -> sql.Composable:
        """Which rows are records: of all, or of those that match. The condition is on a line of its
        own, since it may end in a comment."""
        parts: list[sql.Composable] = []
        if where is not None:
            parts.append(sql.SQL("({}\n)").format(sql.SQL(where)))
        if self.only_with_vector:
            parts.append(sql.SQL("{} IS NOT NULL").format(sql.Identifier(self.vector)))
        return sql.SQL(" AND ").join(parts or [sql.SQL("true")])

    def document_expression(self) -> sql.Composable:
        if self.text_query is not None:
            return sql.SQL("(SELECT q.text::text FROM {} WHERE q.key = {}.{})").format(
                self.queried_texts(), self.identifier, sql.Identifier(self.id)
            )
        if self.text_sql is not None:
            return sql.SQL(self.text_sql)
        if self.text is None:
            return sql.SQL("NULL::text")
        return sql.SQL("{}::text").format(sql.Identifier(self.text))

    def queried_texts(self) -> sql.Composable:
        """The rows of `text_query` as `q(key, text)`; on a line of its own, as a condition is."""
        return sql.SQL("({}\n) AS q(key, text)").format(sql.SQL(self.text_query or ""))

    def uri_expression(self) -> sql.Composable:
        return sql.SQL("{}::text").format(sql.Identifier(self.uri)) if self.uri else sql.SQL("NULL")


def nameless(oid: int, schema: str, name: str) -> Table:
    """A table of which nothing but its place is known."""
    return Table(oid, schema, name, (), "", "", None, None, None, "table")
