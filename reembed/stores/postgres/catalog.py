"""Which tables a database holds, and which of them a collection is.

A collection's object id is `<cluster>/<database oid>/<table oid>`: it says which database it is in,
so that the same name in another one, freshly made, is never taken for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from psycopg import sql

from reembed.errors import CollectionNotFoundError, PreflightError, SourceChangedError
from reembed.records import Metric
from reembed.stores.postgres.client import (
    Connection,
    Database,
    connect,
    fetch_one,
    identify,
    is_alive,
    mapped,
)
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.layout import read_parts, table_by_oid, vector_tables
from reembed.stores.postgres.schema.names import (
    ENTITIES,
    Found,
    check_free,
    check_identifier,
    find_table,
    fitted,
    missing_table,
    place_for,
)
from reembed.stores.postgres.schema.table import Table, nameless
from reembed.stores.postgres.search_path import path_of
from reembed.stores.postgres.vectors import count_vectors
from reembed.stores.values import Capabilities, CollectionInfo, StoreOptions

SAMPLE = 200
"""Rows looked at for the dimensions of a column that is not typed."""


class Catalog:
    """A database's tables as collections. See `reembed.stores.store.Catalog`.

    Args:
        options: what the manifest says of the source.
    """

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = url
        self.options = options
        self.schema = options.schema
        self._connection = connect(url)
        self._used = time.monotonic()

    @property
    def main(self) -> Connection:
        """A connection in autocommit mode, opened again where it was lost, be it while it was
        idle.

        Raises:
            SourceChangedError: another database answers by now.
        """
        used, self._used = self._used, time.monotonic()
        if not is_alive(self._connection, used):
            connection = connect(self.url)
            before: Database | None = self.__dict__.get("database")
            now = identify(connection, self.url) if before else None
            if before is not None and now is not None and now.key != before.key:
                connection.close()
                raise SourceChangedError(
                    f"{self.url}: after the connection was lost, another database answers (cluster "
                    f"{now.system}, was {before.system})",
                    "Somebody created it again or moved the address; nothing was written to it. "
                    "Let the address lead to the old one, and run the same command again.",
                )
            self._connection = connection
        return self._connection

    @cached_property
    def database(self) -> Database:
        """Which database this is."""
        return identify(self.main, self.url)

    @property
    def capabilities(self) -> Capabilities:
        notes = []
        row = fetch_one(self.main, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
        if not row or not row[0]:
            notes.append(
                f"the role {self.database.role!r} cannot see other roles' snapshots "
                "(pg_read_all_stats): a REPEATABLE READ transaction of another role that began "
                "before the swap may find the table empty"
            )
        if left_out := path_of(self.main).left_out:
            notes.append(
                f"other roles may create in the schema {', '.join(left_out)}, so reembed does not "
                "look there for functions and operators: a trigger's function or a source.where "
                "that uses one of it has to name the schema (or REVOKE CREATE ON SCHEMA "
                f"{left_out[0]} FROM PUBLIC)"
            )
        return Capabilities(notes=tuple(notes))

    def collections(self) -> list[str]:
        with mapped(self.url):
            found = vector_tables(self.main)
            seconds = {(one[1], f"{one[2]}{ENTITIES}") for one in found if self._is_unit(one)}
            return sorted(self.display(one) for one in found if one[1:] not in seconds)

    def _is_unit(self, found: Found) -> bool:
        with contextlib.suppress(PreflightError):
            return len(read_parts(self.main, found, "auto")) > 1
        return False

    def display(self, found: Found) -> str:
        """The name as the role's search path finds it, with the schema where it does not."""
        _, schema, name = found
        return name if find_table(self.main, name) == found else f"{schema}.{name}"

    def find(self, name: str) -> CollectionInfo | None:
        with mapped(self.url):
            found = find_table(self.main, name)
            return None if found is None else self.describe_found(found)

    def describe(self, name: str) -> CollectionInfo:
        with mapped(self.url):
            found = self.find(name)
            if found is None:
                raise missing_table(name, self.url, self.collections())
            return found

    def describe_id(self, id: str) -> CollectionInfo | None:
        with mapped(self.url):
            found = self.found(id)
            return self.describe_found(found) if found else None

    def id_of(self, found: Found) -> str:
        """The object id of the collection that a table holds; no row is looked at."""
        main = self.parts(found)[0]
        return self._id(pg_notes.read_note(self.main, main), main)

    def _id(self, note: Mapping[str, Any], table: Table) -> str:
        if "stands_for" in note:
            pg_notes.standing_in(self.main, int(note["stands_for"]))  # refuses if another one does
        return f"{self.database.key}/{note.get('stands_for', table.oid)}"

    def describe_found(self, found: Found) -> CollectionInfo:
        parts = self.parts(found)
        main = parts[0]
        note = pg_notes.read_note(self.main, main)
        index = pg_indexes.vector_index(self.main, main)
        settings = index.to_dict() if index else note.get("index", {"type": "none"})
        return CollectionInfo(
            id=self._id(note, main),
            name=self.display(found),
            count=sum(self.count_of(part) for part in parts),
            dimensions=self._dimensions(main),
            metric=_metric(index, note),
            metadata=note.get("metadata"),
            index=settings,
            model=note.get("model"),
            database=self.database.to_dict(),
            layout=main.layout,
            columns={
                f"{part.prefix}{column.name}": column.written
                for part in parts
                for column in part.columns
            },
            holds=main.holds,
        )

    def metric_of(self, table: Table) -> Metric:
        """The metric of the vector column's index, else the one it was made for."""
        index = pg_indexes.vector_index(self.main, table)
        return _metric(index, {} if index else pg_notes.read_note(self.main, table))

    def count_of(self, table: Table) -> int:
        count = sql.SQL("SELECT count(*) FROM {} WHERE {}")
        row = fetch_one(self.main, count.format(table.identifier, table.condition()))
        return int(row[0]) if row else 0

    def _dimensions(self, table: Table) -> int | None:
        """Of the column's type, or of the vectors in it."""
        if table.dimensions is not None:
            return table.dimensions
        found = count_vectors(self.main, table, self.options.where, most=SAMPLE)
        if len(found.dimensions) > 1:
            raise count_vectors(self.main, table, self.options.where).mixed()
        return next(iter(found.dimensions), None)

    def parts(self, found: Found) -> list[Table]:
        options = self.options
        tables = read_parts(self.main, found, options.layout, options.columns, options.text_query)
        keeps = options.without_vector == "keep"
        return [replace(table, only_with_vector=keeps) for table in tables]

    def stays(self, table: Table) -> bool:
        """Whether a table keeps its place at a swap, whatever hangs on it: its new one is in
        another schema, or it has rows that are no records and that a new one would lack."""
        return self.schema not in (None, table.schema) or self.options.without_vector == "keep"

    def found(self, id: str) -> Found | None:
        """The table that holds the collection of this id; None if it is gone, or if the id is of
        another database."""
        key, _, oid = id.rpartition("/")
        if key != self.database.key or not oid.isdigit():
            return None
        table = pg_notes.standing_in(self.main, int(oid))
        return None if table is None else table_by_oid(self.main, table)

    def tables(self, id: str) -> list[Table]:
        with mapped(self.url):
            found = self.found(id)
            if found is None:
                raise CollectionNotFoundError(
                    f"{self.url}: there is no table with the id {id}",
                    "Run the same command again: it says what can be done. Somebody dropped it, or "
                    "this is another database than it was in "
                    f"({self.database.name!r} of the cluster {self.database.system}).",
                )
            return self.parts(found)

    def remains(self, id: str) -> list[Table]:
        """What is left of the tables of the collection of this id: the tables, or one without
        columns where it has no vectors any more, and without a name where it is gone. Empty for an
        id of another database."""
        found = self.found(id)
        if found is not None:
            with contextlib.suppress(PreflightError):
                return self.parts(found)
        key, _, oid = id.rpartition("/")
        if found is None and (key != self.database.key or not oid.isdigit()):
            return []
        return [nameless(*(found or (int(oid), "", "")))]

    def check_name(self, name: str, beside: str | None = None) -> None:
        """Raise PreflightError, saying why, if no table can have the name.

        Args:
            beside: object id of the collection with which this one is to exchange names.
        """
        with mapped(self.url):
            found = self.found(beside) if beside else None
            schema, table = place_for(self.main, name, found[1] if found else None)
            check_identifier(table)
            check_free(self.main, schema, table)

    def place(self, name: str, like: list[Table]) -> tuple[str, str]:
        """Schema and name of a new table: target.schema, else where those are that it is like."""
        schema = self.schema or (like[0].schema if like else None)
        if schema is not None and not fetch_one(
            self.main, "SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]
        ):
            raise PreflightError(
                f"{self.url}: there is no schema {schema!r} (target.schema)",
                f"CREATE SCHEMA {sql.Identifier(schema).as_string(None)};",
            )
        return place_for(self.main, name, schema)

    def fit_name(self, name: str) -> str:
        """A name that was made up, shortened to what Postgres keeps."""
        with mapped(self.url):
            _, table = place_for(self.main, name)
        return name.removesuffix(table) + fitted(table)

    def tables_of_name(self, name: str) -> list[Table]:
        """The tables of the collection of this name. Raises CollectionNotFoundError."""
        found = find_table(self.main, name)
        if found is None:
            raise missing_table(name, self.url, self.collections())
        return self.parts(found)

    def close(self) -> None:
        self._connection.close()


def _metric(index: pg_indexes.VectorIndex | None, note: Mapping[str, Any]) -> Metric:
    metric: Metric = index.metric if index else note.get("metric", "cosine")
    return metric
