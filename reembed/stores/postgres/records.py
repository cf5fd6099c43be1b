"""Records of a collection in Postgres: listed, read, written.

A collection of mem0's has two tables; the ids of the second begin with `entities/`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
from psycopg import sql

from reembed.errors import PreflightError
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, Vectors
from reembed.stores.postgres import unique as pg_unique
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import (
    Connection,
    connect,
    fetch_all,
    fetch_one,
    mapped,
)
from reembed.stores.postgres.copy.pages import Pages
from reembed.stores.postgres.copy.rows import copy_rows, read_ids, write_rows
from reembed.stores.postgres.schema.ids import any_of, usable
from reembed.stores.postgres.schema.layout import ENTITY_PREFIX
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector
from reembed.stores.postgres.shadow import ShadowMaker
from reembed.stores.values import Where, WriteMode


def _rows(
    table: Table, names: Sequence[str], rows: Sequence[int], records: pa.RecordBatch,
    vectors: Vectors,
) -> tuple[pa.RecordBatch, Vectors]:  # fmt: skip
    """Those rows with their ids in the table; all of them are not copied."""
    if rows != range(len(records)):
        places = pa.array(rows, pa.int64())
        records, vectors = records.take(places), vectors[places.to_numpy()]
    if table.prefix:
        records = records.set_column(0, EXPORT_SCHEMA.field("id"), pa.array(names, pa.string()))
    return records, vectors


def _in_order(batches: Sequence[pa.RecordBatch], ids: Sequence[str]) -> pa.RecordBatch:
    """The rows in the order in which their ids were asked for."""
    rows = pa.Table.from_batches(batches).combine_chunks()
    found = rows.column("id").to_pylist()
    if found != ids:
        place = {one: row for row, one in enumerate(found)}
        order = [place[one] for one in ids if one in place]
        if order != list(range(len(rows))):
            rows = rows.take(pa.array(order, pa.int64())).combine_chunks()
    return rows.to_batches()[0] if len(rows) else batches[0].slice(0, 0)


def condition_of(where: Where) -> str | None:
    """The SQL condition of `source.where`. Raises PreflightError if it is none."""
    if where is not None and not isinstance(where, str):
        raise PreflightError(
            f"source.where is an SQL condition on Postgres, not {where!r}",
            "For example: where: \"payload->>'user_id' = 'alice'\".",
        )
    return where


class Records:
    """The records of one database's collections. See `Reader` and `Writer`."""

    def __init__(self, catalog: Catalog, shadows: ShadowMaker) -> None:
        self._catalog = catalog
        self._shadows = shadows
        self._reader: Connection | None = None
        self._pages: Pages | None = None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is as of one moment."""
        with mapped(self._catalog.url):
            reader = connect(self._catalog.url)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            with Pages(reader) as self._pages:
                self._reader = reader
                yield
        finally:
            self._reader = self._pages = None
            reader.close()

    def check_where(self, where: Where) -> None:
        condition_of(where)

    def count(self, id: str) -> int:
        tables = self._catalog.tables(id)
        with mapped(self._catalog.url):
            return sum(self._catalog.count_of(table) for table in tables)

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        condition = condition_of(where)
        tables = self._catalog.tables(id)
        connection = connect(self._catalog.url)  # of its own: the caller reads between two pages
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._settle()
            if self._reader is not None:
                shared = fetch_one(self._reader, "SELECT pg_export_snapshot()")
                assert shared is not None, "a snapshot can be shared"
                connection.execute(
                    sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(shared[0]))
                )
            for table in tables:
                yield from read_ids(connection, table, condition)
        finally:
            connection.close()

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        self._settle()
        condition, batches = condition_of(where), []
        for table, names in self._split(self._catalog.tables(id), ids):
            wanted = usable(table, names)
            if wanted:
                batches.append(
                    copy_rows(self._reader or self._catalog.main, table, wanted, condition, vectors)
                )
        if not batches:
            return pa.RecordBatch.from_pylist([], schema=EXPORT_SCHEMA)
        return _in_order(batches, ids)

    def fetch_page(
        self, id: str, ids: Sequence[str], *, vectors: bool, then: Sequence[str] = ()
    ) -> pa.RecordBatch:
        """See `Store.many`. In a snapshot the next page is read while the caller works on this
        one."""
        if self._pages is None:
            return self.fetch(id, ids, vectors=vectors)
        table = self._pages.table_of(id)
        if table is None:
            tables = self._catalog.tables(id)
            if len(tables) > 1 or tables[0].prefix:
                return self.fetch(id, ids, vectors=vectors)
            (table,) = tables
        rows = self._pages.fetch((id, table), ids, vectors, then)
        return _in_order([rows], ids)

    def _settle(self) -> None:
        """Let the snapshot's connection be free for something else than its pages."""
        if self._pages is not None:
            self._pages.settle()

    def _split(self, tables: Sequence[Table], ids: Sequence[str]) -> list[tuple[Table, list[str]]]:
        """Ids by the table of the unit that they are of, without the table's prefix."""
        if len(tables) == 1 and not tables[0].prefix:
            return [(tables[0], list(ids))]
        split: list[tuple[Table, list[str]]] = [(table, []) for table in tables]
        for id in ids:
            for table, names in reversed(split):
                if id.startswith(table.prefix):
                    names.append(id.removeprefix(table.prefix))
                    break
        return split

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        replacing = mode == "replace"
        tables = self._catalog.tables(id)
        ids = records.column("id").to_pylist()
        if len(tables) == 1 and any(one.startswith(ENTITY_PREFIX) for one in ids):
            tables = self._shadows.with_entities(tables[0])
        try:
            self._write(tables, records, vectors, replacing)
        except PreflightError as error:
            if not pg_unique.is_collision(error):
                raise
            self._refuse_taken(tables, records, vectors, replacing, error)
            self._write(tables, records, vectors, replacing)  # it has been given up meanwhile

    def _write(
        self, tables: Sequence[Table], records: pa.RecordBatch, vectors: Vectors, replacing: bool
    ) -> None:
        with mapped(tables[0].label), self._catalog.main.transaction():
            for table, names, rows in self._parts(tables, records):
                if replacing:
                    self._delete(table, names)
                self._insert(table, names, rows, records, vectors)

    def _parts(
        self, tables: Sequence[Table], records: pa.RecordBatch
    ) -> Iterator[tuple[Table, list[str], Sequence[int]]]:
        """For each table the ids of its records, without its prefix, and their rows."""
        ids = records.column("id").to_pylist()
        if len(tables) == 1 and not tables[0].prefix:
            yield tables[0], ids, range(len(ids))
            return
        place = {one: row for row, one in enumerate(ids)}
        for table, names in self._split(tables, ids):
            yield table, names, [place[table.prefix + name] for name in names]

    def _refuse_taken(
        self, tables: Sequence[Table], records: pa.RecordBatch, vectors: Vectors, replacing: bool,
        error: PreflightError,
    ) -> None:  # fmt: skip
        """Raise TakenError if other rows hold what these records need."""
        for table, names, rows in self._parts(tables, records):
            there = set[str]() if replacing else self._present(table, names)
            new = [at for at, name in enumerate(names) if name not in there]
            kept = [names[at] for at in new], [rows[at] for at in new]
            part = _rows(table, *kept, records, vectors)
            pairs = pg_unique.holders(self._catalog.main, table, *part) if new else []
            if pairs:
                raise pg_unique.taken_error(table, pairs) from error

    def _insert(
        self, table: Table, names: Sequence[str], rows: Sequence[int], records: pa.RecordBatch,
        vectors: Vectors,
    ) -> None:  # fmt: skip
        """Insert those rows of a batch, but for records that are there. That any are is rare (a
        load that was killed), so it is looked at only when Postgres refuses one for it."""
        part = _rows(table, names, rows, records, vectors)
        try:
            write_rows(self._catalog.main, table, *part)
        except PreflightError as error:
            there = self._present(table, names) if pg_unique.is_collision(error) else set()
            if not there:
                raise
            new = [at for at, name in enumerate(names) if name not in there]
            kept = [names[at] for at in new], [rows[at] for at in new]
            write_rows(self._catalog.main, table, *_rows(table, *kept, records, vectors))

    def _present(self, table: Table, names: Sequence[str]) -> set[str]:
        rows = fetch_all(
            self._catalog.main,
            sql.SQL("SELECT {}::text FROM {} WHERE {}").format(
                sql.Identifier(table.id), table.identifier, any_of(table, usable(table, names))
            ),
        )
        return {row[0] for row in rows}

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        tables, main = self._catalog.tables(id), self._catalog.main
        place = {one: row for row, one in enumerate(ids)}
        with mapped(tables[0].label), main.transaction():
            for table, names in self._split(tables, ids):
                type = of_pgvector(main, table.column(table.vector).type)
                for name in usable(table, names):
                    value = json.dumps(vectors[place[table.prefix + name]].tolist())
                    main.execute(
                        sql.SQL("UPDATE {} SET {} = {}::{} WHERE {}").format(
                            table.identifier, sql.Identifier(table.vector), sql.Literal(value),
                            type, any_of(table, [name]),
                        )
                    )  # fmt: skip

    def delete(self, id: str, ids: Sequence[str]) -> None:
        tables = self._catalog.tables(id)
        for start in range(0, len(ids), SHARD_ROWS):
            for table, names in self._split(tables, ids[start : start + SHARD_ROWS]):
                with mapped(table.label):
                    self._delete(table, names)

    def _delete(self, table: Table, names: Sequence[str]) -> None:
        wanted = usable(table, names)
        if wanted:
            self._catalog.main.execute(
                sql.SQL("DELETE FROM {} WHERE {}").format(table.identifier, any_of(table, wanted))
            )
