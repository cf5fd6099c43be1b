"""Records of a collection in Postgres: listed, read, written, searched.

A collection of mem0's has two tables; the ids of the second begin with `entities/`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
from psycopg import sql

from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, Vectors
from reembed.stores import pg_indexes
from reembed.stores.pg_catalog import Catalog
from reembed.stores.pg_client import (
    Connection,
    beside_parameters,
    connect,
    fetch_all,
    fetch_one,
    mapped,
)
from reembed.stores.pg_layout import ENTITY_PREFIX
from reembed.stores.pg_rows import copy_ids, copy_rows, write_rows
from reembed.stores.pg_shadow import ShadowMaker
from reembed.stores.pg_table import Table

_ID_FORMS = {
    "uuid": re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),
    "int2": re.compile(r"-?\d{1,5}"), "int4": re.compile(r"-?\d{1,10}"),
    "int8": re.compile(r"-?\d{1,19}"),
}  # fmt: skip


def _is_id(table: Table, name: str) -> bool:
    """Whether this can be an id of the table at all: Postgres refuses a whole statement for one."""
    form = _ID_FORMS.get(table.column(table.id).type)
    return "\x00" not in name and (form is None or form.fullmatch(name) is not None)


class Records:
    """The records of one database's collections."""

    def __init__(self, catalog: Catalog, shadows: ShadowMaker) -> None:
        self._catalog = catalog
        self._shadows = shadows
        self._reader: Connection | None = None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is as of one moment."""
        with mapped(self._catalog.url):
            reader = connect(self._catalog.url)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._reader = reader
        try:
            yield
        finally:
            self._reader = None
            reader.close()

    def list_ids(self, id: str, where: str | None) -> Iterator[pa.Array]:
        """See `Store.list_ids`."""
        tables = self._catalog.tables(id)
        connection = connect(self._catalog.url)  # of its own: the caller reads between two pages
        try:
            if self._reader is not None:
                shared = fetch_one(self._reader, "SELECT pg_export_snapshot()")
                assert shared is not None, "a snapshot can be shared"
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.execute(
                    sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(shared[0]))
                )
            for table in tables:
                yield from copy_ids(connection, table, where)
        finally:
            connection.close()

    def fetch(
        self, id: str, ids: Sequence[str], where: str | None, vectors: bool
    ) -> pa.RecordBatch:
        """See `Store.fetch`."""
        batches = []
        for table, names in self._split(self._catalog.tables(id), ids):
            usable = [name for name in names if _is_id(table, name)]
            if usable:
                batches.append(
                    copy_rows(self._reader or self._catalog.main, table, usable, where, vectors)
                )
        if not batches:
            return pa.RecordBatch.from_pylist([], schema=EXPORT_SCHEMA)
        rows = pa.Table.from_batches(batches).combine_chunks()
        place = {one: row for row, one in enumerate(rows.column("id").to_pylist())}
        order = [place[one] for one in ids if one in place]
        if order != list(range(len(rows))):
            rows = rows.take(pa.array(order, pa.int64())).combine_chunks()
        return rows.to_batches()[0] if len(rows) else batches[0].slice(0, 0)

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

    def query(self, id: str, vectors: Vectors, k: int) -> list[list[str]]:
        """See `Store.query`."""
        tables = self._catalog.tables(id)
        metric = self._catalog.describe_found(
            (tables[0].oid, tables[0].schema, tables[0].name)
        ).metric
        answers: list[list[tuple[float, str]]] = [[] for _ in vectors]
        with mapped(tables[0].label), self._catalog.main.transaction():
            # The index's list of candidates is never shorter than what is asked for.
            self._catalog.main.execute(
                "SELECT set_config('hnsw.ef_search', greatest(coalesce(current_setting("
                "'hnsw.ef_search', true), '40')::int, least(%s, 1000))::text, true)",
                [k],
            )
            for table in tables:
                type = table.column(table.vector).type
                query = sql.SQL(
                    "SELECT {id}::text, {vector} {operator} %s::{type} AS distance FROM {table} "
                    "WHERE {vector} IS NOT NULL ORDER BY distance LIMIT {k}"
                ).format(
                    id=beside_parameters(sql.Identifier(table.id)),
                    vector=beside_parameters(sql.Identifier(table.vector)),
                    operator=sql.SQL(pg_indexes.OPERATORS[metric]), type=sql.SQL(type),
                    table=beside_parameters(table.identifier), k=sql.Literal(k),
                )  # fmt: skip
                for answer, vector in zip(answers, vectors, strict=True):
                    text = "[" + ",".join(map(repr, vector.tolist())) + "]"
                    rows = self._catalog.main.execute(query, [text], prepare=True).fetchall()
                    answer.extend((row[1], table.prefix + row[0]) for row in rows)
        return [[one for _, one in sorted(answer)[:k]] for answer in answers]

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, *, replacing: bool) -> None:
        """See `Store.add` and `Store.replace`."""
        tables = self._catalog.tables(id)
        ids = records.column("id").to_pylist()
        if len(tables) == 1 and any(one.startswith(ENTITY_PREFIX) for one in ids):
            tables = self._shadows.with_entities(tables[0])
        place = {one: row for row, one in enumerate(ids)}
        with mapped(tables[0].label), self._catalog.main.transaction():
            for table, names in self._split(tables, ids):
                if not names:
                    continue
                if replacing:
                    self._delete(table, names)
                else:
                    there = self._present(table, names)
                    names = [name for name in names if name not in there]
                rows = pa.array([place[table.prefix + name] for name in names], pa.int64())
                part = records.take(rows)
                if table.prefix:
                    part = part.set_column(
                        0, EXPORT_SCHEMA.field("id"), pa.array(names, pa.string())
                    )
                write_rows(self._catalog.main, table, part, vectors[rows.to_numpy()])

    def _present(self, table: Table, names: Sequence[str]) -> set[str]:
        rows = fetch_all(
            self._catalog.main,
            sql.SQL("SELECT {0}::text FROM {1} WHERE {0} = ANY ({2}::{3}[])").format(
                sql.Identifier(table.id), table.identifier,
                sql.Literal([name for name in names if _is_id(table, name)]),
                sql.SQL(table.column(table.id).written),
            ),
        )  # fmt: skip
        return {row[0] for row in rows}

    def delete(self, id: str, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        tables = self._catalog.tables(id)
        for start in range(0, len(ids), SHARD_ROWS):
            for table, names in self._split(tables, ids[start : start + SHARD_ROWS]):
                with mapped(table.label):
                    self._delete(table, names)

    def _delete(self, table: Table, names: Sequence[str]) -> None:
        usable = [name for name in names if _is_id(table, name)]
        if usable:
            self._catalog.main.execute(
                sql.SQL("DELETE FROM {} WHERE {} = ANY ({}::{}[])").format(
                    table.identifier, sql.Identifier(table.id), sql.Literal(usable),
                    sql.SQL(table.column(table.id).written),
                )
            )  # fmt: skip
