"""Postgres with pgvector as a store: `postgresql://user@host/db`.

A collection is a table with a vector column, or mem0's two tables, which move as one. Its object id
is `<cluster>/<database oid>/<table oid>`: it says which database it is in, so that the same name in
another one, freshly made, is never taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
from psycopg import sql

from reembed.errors import CollectionNotFoundError, PreflightError, SourceChangedError
from reembed.manifest import Model
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, Metric, Vectors
from reembed.stores import pg_capture, pg_columns, pg_tables
from reembed.stores.base import (
    Capabilities,
    CollectionInfo,
    Exchange,
    Receipt,
    StoreOptions,
    Survey,
)
from reembed.stores.pg_client import (
    Connection,
    Database,
    connect,
    fetch_all,
    fetch_one,
    identify,
    mapped,
)
from reembed.stores.pg_dependents import dependents
from reembed.stores.pg_exchange import exchange_names, rename_table
from reembed.stores.pg_hold import Hold
from reembed.stores.pg_layout import (
    ENTITIES,
    ENTITY_PREFIX,
    Table,
    check_identifier,
    find_table,
    missing_table,
    read_parts,
    split_name,
    table_by_oid,
    vector_tables,
)
from reembed.stores.pg_rows import copy_ids, copy_rows, write_rows

GUARANTEE = (
    "one transaction: every statement sees the old table or the new one whole, never neither and "
    "never an empty one; writers wait while their last writes are carried, readers for the instant "
    "of the move, and transactions on an older snapshot are waited for"
)
SAMPLE = 200
"""Rows looked at for the dimensions of a column that is not typed."""
WORD = re.compile(r"[^A-Za-z0-9_-]+")
IDENTIFIER_BYTES = 63


class PgVectorStore:
    """See `reembed.stores.base.Store`.

    Args:
        options: `layout` and `columns` of the source.
    """

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = url
        self._options = options
        self._connection = connect(url)
        self._reader: Connection | None = None
        self._hold: Hold | None = None
        self._touched: dict[str, list[tuple[Table, list[int]]]] = {}

    @cached_property
    def database(self) -> Database:
        """Which database this is."""
        return identify(self._main, self.url)

    @property
    def _main(self) -> Connection:
        """A connection in autocommit mode, opened again where it was lost."""
        if self._connection.closed or self._connection.broken:
            self._connection = connect(self.url)
        return self._connection

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities({"transaction": GUARANTEE}, notes=self._notes())

    def _notes(self) -> tuple[str, ...]:
        row = fetch_one(self._main, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
        if row and row[0]:
            return ()
        return (
            f"the role {self.database.role!r} cannot see other roles' snapshots "
            "(pg_read_all_stats): a REPEATABLE READ transaction of another role that began before "
            "the swap may find the table empty",
        )

    # What is there

    def collections(self) -> list[str]:
        with mapped(self.url):
            found = vector_tables(self._main)
            units = {(schema, f"{name}{ENTITIES}") for _, schema, name in found
                     if self._is_unit((_, schema, name))}  # fmt: skip
            return sorted(self._display(one) for one in found if (one[1], one[2]) not in units)

    def _is_unit(self, found: tuple[int, str, str]) -> bool:
        with contextlib.suppress(PreflightError):
            return len(read_parts(self._main, found, "auto")) > 1
        return False

    def _display(self, found: tuple[int, str, str]) -> str:
        """The name as the role's search path finds it, with the schema where it does not."""
        oid, schema, name = found
        row = fetch_one(self._main, "SELECT pg_table_is_visible(%s)", [oid])
        return name if row and row[0] else f"{schema}.{name}"

    def describe(self, name: str) -> CollectionInfo:
        with mapped(self.url):
            found = find_table(self._main, name)
            if found is None:
                raise missing_table(name, self.url, self.collections())
            return self._describe(found)

    def describe_id(self, id: str) -> CollectionInfo | None:
        with mapped(self.url):
            found = self._found(id)
            return self._describe(found) if found else None

    def resolve(self, live: str) -> CollectionInfo:
        return self.describe(live)

    def is_pointer(self, live: str) -> bool:
        return False

    def _describe(self, found: tuple[int, str, str]) -> CollectionInfo:
        parts = self._parts(found)
        main = parts[0]
        note = pg_tables.read_note(self._main, main)
        index = pg_tables.vector_index(self._main, main)
        settings = index.to_dict() if index else note.get("index", {"type": "none"})
        return CollectionInfo(
            id=f"{self.database.key}/{note.get('stands_for', main.oid)}",
            name=self._display(found),
            count=sum(self._count(part) for part in parts),
            dimensions=self._dimensions(main),
            metric=index.metric if index else note.get("metric", "cosine"),
            metadata=note.get("metadata"),
            index=settings,
            model=note.get("model"),
            database=self.database.to_dict(),
        )

    def _count(self, table: Table) -> int:
        row = fetch_one(self._main, sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
        return int(row[0]) if row else 0

    def _dimensions(self, table: Table) -> int | None:
        """Of the column's type, or of the vectors in it."""
        if table.dimensions is not None:
            return table.dimensions
        rows = fetch_all(
            self._main,
            sql.SQL(
                "SELECT DISTINCT vector_dims({0}) FROM (SELECT {0} FROM {1} WHERE {0} IS NOT NULL "
                "LIMIT {2})"
            ).format(sql.Identifier(table.vector), table.identifier, sql.Literal(SAMPLE)),
        )
        if len(rows) > 1:
            found = " and ".join(str(row[0]) for row in sorted(rows))
            raise PreflightError(
                f"{table.label} holds vectors of {found} dimensions, so of several models",
                "Move one of them at a time into a table of its own.",
            )
        return int(rows[0][0]) if rows else None

    def _parts(self, found: tuple[int, str, str]) -> list[Table]:
        return read_parts(self._main, found, self._options.layout, self._options.columns)

    def _found(self, id: str) -> tuple[int, str, str] | None:
        """The table that holds the collection of this id; None if it is gone, or if the id is of
        another database."""
        key, _, oid = id.rpartition("/")
        if key != self.database.key or not oid.isdigit():
            return None
        return table_by_oid(self._main, pg_columns.standing_in(self._main, int(oid)))

    def _tables(self, id: str) -> list[Table]:
        with mapped(self.url):
            found = self._found(id)
            if found is None:
                raise CollectionNotFoundError(
                    f"{self.url}: there is no table with the id {id}",
                    "Somebody dropped it, or this is another database than it was in "
                    f"({self.database.name!r} of the cluster {self.database.system}).",
                )
            return self._parts(found)

    def survey(self, id: str) -> Survey:
        notes, blockers = [], []
        for table in self._tables(id):
            held = dependents(self._main, table)
            notes.append(_layout_note(table))
            if held.forbidden:
                blockers.append(f"{table.label}: {'; '.join(held.forbidden)}")
            elif held.held_by:
                notes.append(
                    f"{table.label} keeps its place at the swap and exchanges its vector column, "
                    f"since these hold on to it: {', '.join(held.held_by)}. Writers wait while the "
                    "vectors are copied and indexed; the vector becomes the last column"
                )
            else:
                notes.append(f"{table.label} is exchanged by renaming: nothing else hangs on it")
            if not self._may_capture(table):
                notes.append(
                    f"the role {self.database.role!r} may not make triggers on {table.label}: "
                    "every round of catch-up compares all of its rows, the last one while writers "
                    "wait"
                )
        return Survey(tuple(notes), tuple(blockers))

    def _may_capture(self, table: Table) -> bool:
        row = fetch_one(
            self._main,
            "SELECT has_table_privilege(%s::oid, 'TRIGGER') AND has_schema_privilege(%s, 'CREATE') "
            "AND pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %s",
            [table.oid, table.schema, table.oid],
        )
        return bool(row and row[0])

    # Names and settings

    def check_name(self, name: str) -> None:
        check_identifier(name)

    def check_index(self, index: Mapping[str, Any], metric: Metric) -> None:
        pg_tables.check_index(index)

    def check_where(self, where: Mapping[str, Any] | str | None) -> None:
        if where is not None and not isinstance(where, str):
            raise PreflightError(
                f"source.where is an SQL condition on Postgres, not {where!r}",
                "For example: where: \"payload->>'user_id' = 'alice'\".",
            )

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        schema, table = split_name(collection)
        word = WORD.sub("-", model).strip("-") or "model"
        ending = f"-{dimensions}"
        room = IDENTIFIER_BYTES - len(ENTITIES) - len(f"{table}__".encode()) - len(ending)
        if len(word) > room:
            digest = hashlib.sha256(model.encode()).hexdigest()[:6]
            word = f"{word[: max(0, room - 7)]}-{digest}".lstrip("-")
        return f"{schema}.{table}__{word}{ending}" if schema else f"{table}__{word}{ending}"

    # Reading

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is as of one moment."""
        with mapped(self.url):
            reader = connect(self.url)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._reader = reader
        try:
            yield
        finally:
            self._reader = None
            reader.close()

    def list_ids(self, id: str, where: Mapping[str, Any] | str | None = None) -> Iterator[pa.Array]:
        self.check_where(where)
        assert where is None or isinstance(where, str)
        tables = self._tables(id)
        connection = connect(self.url)  # of its own: the caller reads between two pages
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
        self,
        id: str,
        ids: Sequence[str],
        *,
        vectors: bool,
        where: Mapping[str, Any] | str | None = None,
    ) -> pa.RecordBatch:
        self.check_where(where)
        assert where is None or isinstance(where, str)
        batches = []
        for table, names in self._split(self._tables(id), ids):
            usable = [name for name in names if _is_id(table, name)]
            if usable:
                batches.append(copy_rows(self._reader or self._main, table, usable, where, vectors))
        if not batches:
            return pa.RecordBatch.from_pylist([], schema=EXPORT_SCHEMA)
        rows = pa.Table.from_batches(batches).combine_chunks()
        place = {one: row for row, one in enumerate(rows.column("id").to_pylist())}
        order = [place[one] for one in ids if one in place]
        if order == list(range(len(rows))):
            return rows.to_batches()[0] if len(rows) else batches[0]
        return (
            rows.take(pa.array(order, pa.int64())).combine_chunks().to_batches()[0]
            if order
            else batches[0].slice(0, 0)
        )

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

    def count(self, id: str) -> int:
        tables = self._tables(id)
        with mapped(self.url):
            return sum(self._count(table) for table in tables)

    def query(self, id: str, vectors: Vectors, k: int) -> list[list[str]]:
        tables = self._tables(id)
        metric = self._describe((tables[0].oid, tables[0].schema, tables[0].name)).metric
        answers: list[list[tuple[float, str]]] = [[] for _ in vectors]
        with mapped(tables[0].label), self._main.transaction():
            # The index's list of candidates is never shorter than what is asked for.
            self._main.execute(
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
                    id=sql.Identifier(table.id), vector=sql.Identifier(table.vector),
                    operator=sql.SQL(pg_tables.OPERATORS[metric]), type=sql.SQL(type),
                    table=table.identifier, k=sql.Literal(k),
                )  # fmt: skip
                for answer, vector in zip(answers, vectors, strict=True):
                    text = "[" + ",".join(map(repr, vector.tolist())) + "]"
                    rows = self._main.execute(query, [text], prepare=True).fetchall()
                    answer.extend((row[1], table.prefix + row[0]) for row in rows)
        return [[one for _, one in sorted(answer)[:k]] for answer in answers]

    # Writing

    def create(
        self,
        name: str,
        *,
        dimensions: int,
        metric: Metric,
        index: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        model: Model,
        like: str | None = None,
    ) -> CollectionInfo:
        self.check_name(name)
        self.check_index(index, metric)
        tables = self._tables(like) if like else []
        schema, bare = split_name(name)
        with mapped(self.url):
            if find_table(self._main, name) is not None:
                raise PreflightError(f"{self.url}: the name {name!r} is taken")
            schema = schema or (tables[0].schema if tables else None) or self._default_schema()
            with self._main.transaction():
                self._create(schema, bare, dimensions, metric, index, metadata, model, tables)
        return self.describe(f"{schema}.{bare}")

    def _create(
        self, schema: str, name: str, dimensions: int, metric: Metric, index: Mapping[str, Any],
        metadata: Mapping[str, Any] | None, model: Model, tables: Sequence[Table],
    ) -> None:  # fmt: skip
        note = {
            "model": model.to_dict(), "metric": metric,
            "index": dict(index) or {"type": "hnsw"}, "metadata": metadata,
        }  # fmt: skip
        if not tables:
            type = pg_tables.column_type(dimensions, "vector", index)
            pg_tables.create_plain(self._main, schema, name, type, dimensions)
            found = find_table(self._main, f"{schema}.{name}")
            assert found is not None, "it has just been made"
            pg_tables.write_note(self._main, self._parts_auto(found)[0], note)
            return
        for table in tables:
            self._create_part(table, name, dimensions, index, note)

    def _create_part(
        self, table: Table, name: str, dimensions: int, index: Mapping[str, Any],
        note: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """A shadow of one table of a unit, with what is needed to index it later."""
        own = f"{name}{ENTITIES}" if table.prefix else name
        check_identifier(own)
        type = pg_tables.column_type(dimensions, table.column(table.vector).type, index)
        pg_tables.create_like(self._main, table, own, type, dimensions)
        found = find_table(self._main, f"{table.schema}.{own}")
        assert found is not None, "it has just been made"
        shadow = replace(table, oid=found[0], name=own)
        pg_tables.write_note(self._main, shadow, {**note, "like": table.oid})

    def _parts_auto(self, found: tuple[int, str, str]) -> list[Table]:
        return read_parts(self._main, found, "auto")

    def _default_schema(self) -> str:
        row = fetch_one(self._main, "SELECT current_schema()")
        if not row or row[0] is None:
            raise PreflightError(
                f"{self.url}: no schema of the role's search path exists",
                "Name the table with its schema: schema.table.",
            )
        return str(row[0])

    def build_index(self, id: str) -> None:
        """Make the indexes that are better made when the records are there."""
        for table in self._tables(id):
            note = pg_tables.read_note(self._main, table)
            found = table_by_oid(self._main, int(note["like"])) if "like" in note else None
            like = self._parts(found)[0] if found else None
            with mapped(table.label):
                pg_tables.make_indexes(
                    self._main, table, like, note.get("metric", "cosine"), note.get("index", {})
                )

    def add(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        self._write(id, records, vectors, replacing=False)

    def replace(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        self._write(id, records, vectors, replacing=True)

    def _write(
        self, id: str, records: pa.RecordBatch, vectors: Vectors, *, replacing: bool
    ) -> None:
        tables = self._tables(id)
        ids = records.column("id").to_pylist()
        if len(tables) == 1 and any(one.startswith(ENTITY_PREFIX) for one in ids):
            tables = self._with_entities(tables[0])
        place = {one: row for row, one in enumerate(ids)}
        with mapped(tables[0].label), self._main.transaction():
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
                write_rows(self._main, table, part, vectors[rows.to_numpy()])

    def _with_entities(self, main: Table) -> list[Table]:
        """A unit whose second table the application has made since."""
        note = pg_tables.read_note(self._main, main)
        source = table_by_oid(self._main, int(note.get("like", 0)))
        parts = self._parts(source) if source else []
        if len(parts) < 2:
            return [main]
        with mapped(main.label), self._main.transaction():
            dimensions = main.dimensions or 0
            like = {key: value for key, value in note.items() if key != "like"}
            self._create_part(parts[1], main.name, dimensions, note.get("index", {}), like)
        return self._parts((main.oid, main.schema, main.name))

    def _present(self, table: Table, names: Sequence[str]) -> set[str]:
        rows = fetch_all(
            self._main,
            sql.SQL("SELECT {0}::text FROM {1} WHERE {0} = ANY ({2}::{3}[])").format(
                sql.Identifier(table.id), table.identifier,
                sql.Literal([name for name in names if _is_id(table, name)]),
                sql.SQL(table.column(table.id).written),
            ),
        )  # fmt: skip
        return {row[0] for row in rows}

    def delete(self, id: str, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), SHARD_ROWS):
            for table, names in self._split(self._tables(id), ids[start : start + SHARD_ROWS]):
                with mapped(table.label):
                    self._delete(table, names)

    def _delete(self, table: Table, names: Sequence[str]) -> None:
        usable = [name for name in names if _is_id(table, name)]
        if usable:
            self._main.execute(
                sql.SQL("DELETE FROM {} WHERE {} = ANY ({}::{}[])").format(
                    table.identifier, sql.Identifier(table.id), sql.Literal(usable),
                    sql.SQL(table.column(table.id).written),
                )
            )  # fmt: skip

    def drop(self, id: str) -> None:
        with mapped(self.url):
            found = self._found(id)
            if found is None:
                return
            with self._main.transaction():
                for table in self._parts(found):
                    pg_capture.remove(self._main, table.oid)
                    self._main.execute(sql.SQL("DROP TABLE {}").format(table.identifier))

    # Live writes

    def capture(self, id: str) -> None:
        """Log writes from now on, so that `changed_since` need not compare every record."""
        for table in self._tables(id):
            with mapped(table.label):
                pg_capture.install(self._main, table)

    def release_capture(self, id: str) -> None:
        """Remove what `capture`, or a move that was given up, has left at a collection."""
        with mapped(self.url):
            found = self._found(id)
            if found is not None:
                for table in self._parts(found):
                    pg_capture.remove(self._main, table.oid)
                    pg_columns.drop_columns(self._main, [table])

    def watermark(self, id: str) -> str | None:
        tables = self._tables(id)
        with mapped(self.url):
            marks = [pg_capture.mark(self._main, table) for table in tables]
        return " ".join(map(str, marks)) if all(marks) else None

    def changed_since(self, id: str, mark: str) -> list[str] | None:
        if self.watermark(id) != mark:
            return None
        tables = self._tables(id)
        with mapped(self.url):
            found = [(table, pg_capture.touched(self._main, table)) for table in tables]
        if any(touched.truncated for _, touched in found):
            return None
        self._touched[id] = [(table, touched.entries) for table, touched in found]
        return [one for _, touched in found for one in touched.ids]

    def acknowledge(self, id: str) -> None:
        with mapped(self.url):
            for table, entries in self._touched.pop(id, []):
                pg_capture.forget(self._main, table, entries)

    # The move

    def hold_writes(self, live: str, seconds: float, incoming: str) -> float | None:
        self.release_writes(live)
        outgoing = self._parts_of_name(live)
        arriving = self._tables(incoming)
        with mapped(self.url):
            if not self._by_name(outgoing, arriving):
                pg_columns.add_columns(self._main, list(zip(outgoing, arriving, strict=False)))
        self._hold = Hold(self.url, seconds)
        try:
            self._hold.writers_of(outgoing)
        except BaseException:
            self.release_writes(live)
            raise
        return 0.0

    def release_writes(self, live: str) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.close()

    def _parts_of_name(self, live: str) -> list[Table]:
        found = find_table(self._main, live)
        if found is None:
            raise missing_table(live, self.url, self.collections())
        return self._parts(found)

    def _by_name(self, outgoing: Sequence[Table], incoming: Sequence[Table]) -> bool:
        """Whether the tables exchange their names: nothing hangs on any of them."""
        notes = [pg_tables.read_note(self._main, table) for table in (*outgoing, *incoming)]
        if any("stands_for" in note for note in notes):  # they exchanged columns, and do so back
            return False
        return all(dependents(self._main, table).leaf for table in (*outgoing, *incoming))

    def exchange(self, kind: str, exchange: Exchange) -> Receipt:
        if kind != "transaction":
            raise PreflightError(f"Postgres swaps by transaction, not by {kind}")
        self.check_name(exchange.live)
        self.check_name(exchange.parked)
        incoming = self._incoming(exchange)
        if incoming is None:
            return Receipt("transaction")
        if exchange.outgoing_id is None:  # a new live name
            with mapped(self.url), self._main.transaction():
                for table in incoming:
                    ending = ENTITIES if table.prefix else ""
                    rename_table(self._main, table, split_name(exchange.live)[1] + ending)
            return Receipt("transaction")
        hold, held = self._hold, True
        if hold is None:
            self.hold_writes(exchange.live, 60.0, exchange.incoming_id)
            hold, held = self._hold, False
        assert hold is not None, "it is held"
        try:
            self._move(hold, exchange, incoming)
        finally:
            if not held or hold.connection.closed:
                self.release_writes(exchange.live)
        return Receipt("transaction")

    def _incoming(self, exchange: Exchange) -> list[Table] | None:
        """The tables that take the live name; None if they have it already.

        Raises:
            SourceChangedError, PreflightError: see `Store.exchange`.
        """
        live = find_table(self._main, exchange.live)
        now = self._describe(live).id if live else None
        if now == exchange.incoming_id:
            return None
        for id in filter(None, (exchange.incoming_id, exchange.outgoing_id)):
            if self._found(id) is None:
                raise SourceChangedError(
                    f"the table with the id {id} is gone, so {exchange.live!r} cannot move",
                    "Somebody dropped it; nothing was moved.",
                )
        if now != exchange.outgoing_id:
            raise SourceChangedError(
                f"{exchange.live!r} leads to another table (id {now}) than the one to be exchanged "
                f"(id {exchange.outgoing_id})",
                "Somebody renamed or made it anew; nothing was moved.",
            )
        return self._tables(exchange.incoming_id)

    def _move(self, hold: Hold, exchange: Exchange, incoming: list[Table]) -> None:
        live = find_table(self._main, exchange.live)
        outgoing = self._parts(live) if live else []
        if len(outgoing) != len(incoming):
            raise SourceChangedError(
                f"{exchange.live!r} has {len(outgoing)} tables by now and the new collection "
                f"{len(incoming)}: the application has made one meanwhile",
                "Run the same command again: it is carried then.",
            )
        by_name = self._by_name(outgoing, incoming)
        _, bare = split_name(exchange.parked)
        parked = [f"{bare}{ENTITIES}" if table.prefix else bare for table in outgoing]
        with mapped(self.url):
            if by_name:
                self._check_free(outgoing, parked, incoming)
            else:
                for old, new in zip(outgoing, incoming, strict=True):
                    pg_columns.copy_vectors(hold.connection, old, new)
            hold.fence()
            hold.everybody_of([*outgoing, *incoming])
            if by_name:
                exchange_names(hold.connection, outgoing, incoming, parked)
                for table in incoming:
                    named = next(o for o in outgoing if o.prefix == table.prefix)
                    pg_capture.install(hold.connection, replace(table, name=named.name))
            else:
                for old, new in zip(outgoing, incoming, strict=True):
                    pg_columns.rename_columns(hold.connection, old, new)
                    self._park_name(hold.connection, new, parked[outgoing.index(old)])
            hold.commit()

    def _park_name(self, connection: Connection, table: Table, name: str) -> None:
        """Name the table that now holds the old vectors as what it is."""
        if table.name != name:
            rename_table(connection, table, name)

    def _check_free(
        self, outgoing: Sequence[Table], parked: Sequence[str], incoming: Sequence[Table]
    ) -> None:
        for table, name in zip(outgoing, parked, strict=True):
            check_identifier(name)
            there = find_table(self._main, f"{table.schema}.{name}")
            if there is not None and there[0] not in {one.oid for one in incoming}:
                raise PreflightError(
                    f"{self.url}: the name {name!r}, which the old table would get, is taken",
                    "Rename that table or move it away; nothing was moved.",
                )

    def close(self) -> None:
        if self._hold is not None:
            self._hold.close()
        self._connection.close()


def _layout_note(table: Table) -> str:
    text = table.text_sql or table.text or "none (give the text template)"
    metadata = ", ".join(filter(None, [table.metadata, *(c.name for c in table.others)])) or "none"
    return (
        f"{table.label} is laid out as {table.layout}: id {table.id}, text {text}, metadata "
        f"{metadata}, vector {table.vector} {table.column(table.vector).written}"
    )


_ID_FORMS = {
    "uuid": re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),
    "int2": re.compile(r"-?\d{1,5}"), "int4": re.compile(r"-?\d{1,10}"),
    "int8": re.compile(r"-?\d{1,19}"),
}  # fmt: skip


def _is_id(table: Table, name: str) -> bool:
    """Whether this can be an id of the table at all: Postgres refuses a whole statement for one."""
    form = _ID_FORMS.get(table.column(table.id).type)
    return "\x00" not in name and (form is None or form.fullmatch(name) is not None)


def open_store(url: str, options: StoreOptions) -> PgVectorStore:
    """Open the database behind `url`."""
    store = PgVectorStore(url, options)
    try:
        _ = store.database
    except BaseException:
        store.close()
        raise
    return store
