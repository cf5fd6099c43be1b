"""Rows out of and into Postgres by binary COPY, to and from Arrow and numpy.

Out: every column but the vector is read as the text that Postgres gives it, so one parser serves
every type (`pg_parse`). In: a table of simple columns (mem0's, or id, text, JSON, vector) is
written directly (`pg_encode`); any other goes through a temporary table (`pg_metadata`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from psycopg import errors, sql

from reembed.errors import PreflightError
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, Vectors, export_batch
from reembed.stores.postgres.client import Connection, first_line, mapped
from reembed.stores.postgres.copy.encode import ENCODERS, Encoder, encode_rows
from reembed.stores.postgres.copy.parse import HEADER, TRAILER, VectorColumn
from reembed.stores.postgres.copy.reading import Reader, Reading
from reembed.stores.postgres.schema import metadata as pg_metadata
from reembed.stores.postgres.schema.ids import any_of
from reembed.stores.postgres.schema.layout import TEXT_TYPES
from reembed.stores.postgres.schema.metadata import JSON_TYPES, prefixed
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.search_path import of_pgvector

SEND_BYTES = 1 << 21
"""Bytes of rows that are encoded at once."""
TEXT_BYTES = 1024
"""A row's texts, roughly."""


# Out


def read_ids(connection: Connection, table: Table, where: str | None) -> Iterator[pa.Array]:
    """Ids of all (matching) rows in pages of SHARD_ROWS, as they lie on disk; within a transaction.
    A cursor gives small rows with less ado than COPY, which sends each as a message."""
    query = sql.SQL("SELECT {}::text FROM {} WHERE {}").format(
        sql.Identifier(table.id), table.identifier, table.condition(where)
    )
    readable = mapped(table.label) if where is None else _condition(table)
    with readable, connection.cursor("reembed_ids") as cursor:
        connection.execute("SET LOCAL cursor_tuple_fraction = 1")  # all of them will be read
        cursor.execute(query)
        while rows := cursor.fetchmany(SHARD_ROWS):
            yield pa.array([table.prefix + id for (id,) in rows], pa.string())


@contextlib.contextmanager
def _condition(table: Table) -> Iterator[None]:
    """`mapped`, where a query that Postgres does not understand is so by `source.where`."""
    with mapped(table.label):
        try:
            yield
        except errors.UndefinedTable:
            raise
        except (errors.ProgrammingError, errors.DataError) as error:
            if isinstance(error, errors.InsufficientPrivilege):
                raise
            raise PreflightError(
                f"source.where: {table.label}: {first_line(error)}",
                "It is an SQL condition, as it stands behind WHERE, on the columns "
                f"{', '.join(sorted(column.name for column in table.columns))}.",
            ) from error


def begin_rows(
    reader: Reader, table: Table, ids: Sequence[str], where: str | None, vectors: bool
) -> Reading:
    """Begin to read the rows of these ids (without the table's prefix), in no order; `take_rows`
    takes them."""
    vector: sql.Composable = sql.Identifier(table.vector)
    if table.column(table.vector).type == "halfvec":
        vector = sql.SQL("{}::{}").format(vector, of_pgvector(reader.connection, "vector"))
    query = sql.SQL(
        "COPY (SELECT {id}::text, {document}, {metadata}, {uri}, {vector} FROM {table} WHERE "
        "{any_of} AND {where}) TO STDOUT (FORMAT BINARY)"
    ).format(
        id=sql.Identifier(table.id), document=table.document_expression(),
        metadata=pg_metadata.to_text(table), uri=table.uri_expression(),
        vector=vector if vectors else sql.SQL("NULL"), table=table.identifier,
        any_of=any_of(table, ids), where=table.condition(where),
    )  # fmt: skip
    return Reading(reader, query, 5)


def copy_rows(
    connection: Connection, table: Table, ids: Sequence[str], where: str | None, vectors: bool
) -> pa.RecordBatch:
    """The rows of these ids (without the table's prefix) as `EXPORT_SCHEMA`, in no order."""
    with Reader(connection) as reader:
        return take_rows(begin_rows(reader, table, ids, where, vectors), table, len(ids))


def take_rows(reading: Reading, table: Table, most: int) -> pa.RecordBatch:
    """Rows as `EXPORT_SCHEMA`, `most` at most."""
    parts: list[pa.RecordBatch] = []
    embeddings = VectorColumn(most)
    with mapped(table.label):
        for block in reading:
            id, document, metadata, uri = block.texts(4)
            id = prefixed(table.prefix, id)
            metadata = pg_metadata.of_texts(table, metadata)
            parts.append(export_batch(id, document, metadata, uri))
            embeddings.append(*block.vectors(4))
    if not parts:
        return export_batch([], [], [], [])
    (batch,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
    place = EXPORT_SCHEMA.get_field_index("embedding")
    return batch.set_column(place, EXPORT_SCHEMA.field(place), embeddings.array())


# In


def write_rows(
    connection: Connection, table: Table, records: pa.RecordBatch, vectors: Vectors
) -> None:
    """Insert records with vectors `(n, d) float32`, all or none. Ids come without the prefix.

    Raises:
        PreflightError: the table refuses a record; the message names it.
    """
    if not records.num_rows:
        return
    plan = _direct(table)
    with _refusals(table, records, vectors):
        if plan is None:
            _write_staged(connection, table, records, vectors)
            return
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            table.identifier,
            sql.SQL(", ").join(map(sql.Identifier, [*(name for name, *_ in plan), table.vector])),
        )
        encoders = [(source, encode) for _, source, encode in plan]
        _send(connection, query, encoders, records, vectors, table.column(table.vector).type)


def _direct(table: Table) -> list[tuple[str, str, Encoder]] | None:
    """Each column's name, what of a record it holds, and its encoder, where every column has a
    simple binary form; else None."""
    if table.composite or table.column(table.vector).type not in ("vector", "halfvec"):
        return None
    wanted: list[tuple[str | None, str]] = [
        (table.id, "id"), (table.text, "document"), (table.metadata, "metadata"),
        (table.uri, "uri"),
    ]  # fmt: skip
    plan = []
    for name, source in wanted:
        if name is None:
            continue
        column = table.column(name)
        encode = ENCODERS.get(column.type)
        if encode is None or (column.type in TEXT_TYPES and column.typmod > 0):
            return None
        if (source == "metadata") != (column.type in JSON_TYPES):
            return None
        plan.append((name, source, encode))
    return plan


def _send(
    connection: Connection, query: sql.Composed, encoders: Sequence[tuple[str, Encoder]],
    records: pa.RecordBatch, vectors: Vectors, type: str,
) -> None:  # fmt: skip
    """COPY these columns of the records and the vectors, all or none. A block of rows is encoded
    in a thread while the one before is sent."""
    rows = max(1, SEND_BYTES // (4 * vectors.shape[1] + TEXT_BYTES))

    def encoded(start: int) -> memoryview:
        part = records.slice(start, rows)
        fields = [encode(part.column(source)) for source, encode in encoders]
        return encode_rows(fields, vectors[start : start + rows], type)

    with ThreadPoolExecutor(1, "encode") as thread:
        ahead = thread.submit(encoded, 0)
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.write(HEADER)
            for start in range(rows, len(records) + rows, rows):
                block = ahead.result()
                if start < len(records):
                    ahead = thread.submit(encoded, start)
                copy.write(block)
            copy.write(TRAILER)


def _write_staged(
    connection: Connection, table: Table, records: pa.RecordBatch, vectors: Vectors
) -> None:
    """Through a temporary table of texts, cast by Postgres to whatever the columns are."""
    names = [table.id, table.vector]
    values: list[sql.Composable] = [
        sql.SQL("s.id::{}").format(_written(table, table.id)),
        sql.SQL("s.embedding::{}").format(_written(table, table.vector)),
    ]
    for name, column in ((table.text, "document"), (table.uri, "uri")):
        if name is not None:
            names.append(name)
            values.append(sql.SQL("s.{}::{}").format(sql.SQL(column), _written(table, name)))
    join, held = pg_metadata.from_text(table, sql.SQL("s.metadata"))
    names += held
    values += held.values()
    with connection.transaction():
        # Vectors are kept in the row, not cut into pieces that are put together again.
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE IF NOT EXISTS reembed_stage (id text, document text, "
                "metadata text, uri text, embedding {}) WITH (toast_tuple_target = 8160) ON COMMIT "
                "DELETE ROWS"
            ).format(of_pgvector(connection, "vector"))
        )
        query = sql.SQL("COPY pg_temp.reembed_stage FROM STDIN (FORMAT BINARY)").format()
        texts = [(name, ENCODERS["text"]) for name in ("id", "document", "metadata", "uri")]
        _send(connection, query, texts, records, vectors, "vector")
        connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.reembed_stage "
                "s{}"
            ).format(
                table.identifier, sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(values), join,
            )
        )  # fmt: skip


def _written(table: Table, name: str) -> sql.SQL:
    return sql.SQL(table.column(name).written)


@contextlib.contextmanager
def _refusals(table: Table, records: pa.RecordBatch, vectors: Vectors) -> Iterator[None]:
    """Name the record that Postgres cannot hold."""
    try:
        with mapped(table.label):
            yield
    except (PreflightError, ValueError) as error:
        cause = error.__cause__
        if isinstance(error, PreflightError) and isinstance(
            cause, errors.UndefinedTable | errors.InsufficientPrivilege
        ):
            raise
        said = error.message if isinstance(error, PreflightError) else str(error)
        culprit = _culprit(table, records, vectors)
        raise PreflightError(
            f"{table.label} refuses {f'the record {culprit!r}' if culprit else 'a record'}: {said}",
            "Postgres holds neither NUL characters nor non-finite or over-long vectors: correct "
            "the record or leave it out (source.where); where a run has exported it, `reembed run "
            "--restart` then reads it anew and pays for no text twice.",
        ) from error


def _culprit(table: Table, records: pa.RecordBatch, vectors: Vectors) -> str | None:
    """Id of the first record that cannot be held for a reason that can be seen from here."""
    half = table.column(table.vector).type == "halfvec"
    with np.errstate(over="ignore"):
        held = vectors.astype(np.float16) if half else vectors
    finite = [bool(np.isfinite(vector).all()) for vector in held]
    encode = ENCODERS.get(table.column(table.id).type)
    for row in range(records.num_rows):
        fields = [
            records.column(name)[row].as_py() for name in ("id", "document", "metadata", "uri")
        ]
        escaped = "\\u0000" in (fields[2] or "") and table.metadata is not None
        if not finite[row] or escaped or any("\x00" in field for field in fields if field):
            return str(fields[0])
        try:
            _ = encode(pa.array([fields[0]])) if encode else None
        except ValueError:
            return str(fields[0])
    return None
