"""Rows out of and into Postgres by binary COPY, to and from Arrow and numpy.

Out: every column but the vector is read as the text that Postgres gives it, so one parser serves
every type. In: a table of simple columns (mem0's, or id, text, JSON, vector) is written directly;
any other goes through a temporary table (`pg_metadata`). The format is that of the COPY
documentation (PostgreSQL 18, "Binary Format"), a vector's that of pgvector's `vector_recv`.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import LiteralString

import numpy as np
import pyarrow as pa
from psycopg import errors, sql

from reembed.errors import PreflightError
from reembed.records import NO_METADATA, SHARD_ROWS, Vectors, export_batch, vectors_to_list_array
from reembed.stores import pg_metadata
from reembed.stores.pg_client import Connection, mapped
from reembed.stores.pg_layout import TEXT_TYPES
from reembed.stores.pg_metadata import BLANKS, JSON_TYPES
from reembed.stores.pg_table import Table

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)
BUFFER = 1 << 20
"""Bytes written to the server at once."""

_length = struct.Struct(">i")
_count = struct.Struct(">h")
Encoder = Callable[[str], bytes]


# Out


def copy_ids(connection: Connection, table: Table, where: str | None) -> Iterator[pa.Array]:
    """Ids of all (matching) rows in pages of at most SHARD_ROWS, as they lie on disk."""
    query = sql.SQL("COPY (SELECT {}::text FROM {}{}) TO STDOUT (FORMAT BINARY)").format(
        sql.Identifier(table.id), table.identifier, _where(where)
    )
    page: list[str] = []
    with mapped(table.label), connection.cursor() as cursor, cursor.copy(query) as copy:
        for (id,) in _fields(copy, 1):
            page.append(table.prefix + _text(id))
            if len(page) == SHARD_ROWS:
                yield pa.array(page, pa.string())
                page = []
    if page:
        yield pa.array(page, pa.string())


def copy_rows(
    connection: Connection, table: Table, ids: Sequence[str], where: str | None, vectors: bool
) -> pa.RecordBatch:
    """The rows of these ids (without the table's prefix) as `EXPORT_SCHEMA`, in no order."""
    id_type = sql.SQL(table.column(table.id).written)
    vector: sql.Composable = sql.Identifier(table.vector)
    if table.column(table.vector).type == "halfvec":
        vector = sql.SQL("{}::vector").format(vector)
    query = sql.SQL(
        "COPY (SELECT {id}::text, {document}, {metadata}, {uri}, {vector} FROM {table} WHERE "
        "{id} = ANY ({ids}::{type}[]){where}) TO STDOUT (FORMAT BINARY)"
    ).format(
        id=sql.Identifier(table.id), document=table.document_expression(),
        metadata=pg_metadata.to_text(table), uri=table.uri_expression(),
        vector=vector if vectors else sql.SQL("NULL"), table=table.identifier,
        ids=sql.Literal(list(ids)), type=id_type,
        where=_where(where, "AND"),
    )  # fmt: skip
    names: list[str] = []
    documents: list[str | None] = []
    metadatas: list[str] = []
    uris: list[str | None] = []
    embeddings: list[bytes | memoryview | None] = []
    with mapped(table.label), connection.cursor() as cursor, cursor.copy(query) as copy:
        for id, document, metadata, uri, embedding in _fields(copy, 5):
            names.append(table.prefix + _text(id))
            documents.append(None if document is None else str(document, "utf-8"))
            metadatas.append(_text(metadata))
            uris.append(None if uri is None else str(uri, "utf-8"))
            embeddings.append(embedding)
    return export_batch(names, documents, metadatas, uris, _embeddings(embeddings))


def _where(where: str | None, word: LiteralString = "WHERE") -> sql.Composable:
    """The condition on a line of its own, since it may end in a comment."""
    return sql.SQL(f" {word} ({{}}\n)").format(sql.SQL(where)) if where else sql.SQL("")


def _fields(
    copy: Iterable[bytes | bytearray | memoryview], width: int
) -> Iterator[list[memoryview | None]]:
    """The fields of each row; libpq hands out one row a chunk, the first behind a header."""
    start = len(HEADER)
    for chunk in copy:
        data = memoryview(chunk)
        (count,) = _count.unpack_from(data, start)
        if count < 0:  # the trailer; the copy ends when it is read to its end
            continue
        assert count == width, f"{count} fields, {width} asked for"
        at = start + 2
        row: list[memoryview | None] = []
        for _ in range(width):
            (size,) = _length.unpack_from(data, at)
            at += 4
            if size < 0:
                row.append(None)
            else:
                row.append(data[at : at + size])
                at += size
        yield row
        start = 0


def _text(field: memoryview | None) -> str:
    assert field is not None, "ids and metadata texts are never null"
    return str(field, "utf-8")


def _embeddings(fields: Sequence[bytes | memoryview | None]) -> pa.Array:
    """Vectors as `list<float32>`, null where there is none."""
    kept = [field for field in fields if field is not None]
    if not kept:
        return pa.nulls(len(fields), pa.list_(pa.float32()))
    sizes = np.array([-1 if field is None else len(field) for field in fields])
    if (sizes == sizes[0]).all():
        raw = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), sizes[0])
        vectors = raw[:, 4:].copy().view(">f4").astype(np.float32)
        return vectors_to_list_array(vectors)
    return pa.array(
        [None if f is None else np.frombuffer(f, ">f4", offset=4).astype(np.float32)
         for f in fields],
        pa.list_(pa.float32()),
    )  # fmt: skip


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
        names, encoders = plan
        columns = [records.column(source).to_pylist() for source, _ in encoders]
        fields = [
            list(map(encode, column)) for column, (_, encode) in zip(columns, encoders, strict=True)
        ]
        fields.append(_vector_fields(vectors, table.column(table.vector).type))
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            table.identifier, sql.SQL(", ").join(map(sql.Identifier, [*names, table.vector]))
        )
        _send(connection, query, fields)


def _direct(
    table: Table,
) -> tuple[list[str], list[tuple[str, Callable[[str | None], bytes]]]] | None:
    """Column names and encoders where every column has a simple binary form, else None."""
    if table.composite or table.column(table.vector).type not in ("vector", "halfvec"):
        return None
    wanted: list[tuple[str | None, str]] = [
        (table.id, "id"), (table.text, "document"), (table.metadata, "metadata"),
        (table.uri, "uri"),
    ]  # fmt: skip
    names, encoders = [], []
    for name, source in wanted:
        if name is None:
            continue
        column = table.column(name)
        encode = _ENCODERS.get(column.type)
        if encode is None or (column.type in TEXT_TYPES and column.typmod > 0):
            return None
        if (source == "metadata") != (column.type in JSON_TYPES):
            return None
        names.append(name)
        encoders.append((source, encode))
    return names, encoders


def _framed(data: bytes) -> bytes:
    return _length.pack(len(data)) + data


def _encode_text(value: str | None) -> bytes:
    return NULL if value is None else _framed(value.encode("utf-8"))


def _encode_json(value: str | None) -> bytes:
    if value is None or value == NO_METADATA:
        return NULL
    if value[0] == " " and value.strip(BLANKS) == "null":  # JSON's null, see `pg_metadata.to_text`
        value = value[1:]
    return _framed(value.encode("utf-8"))


def _encode_jsonb(value: str | None) -> bytes:
    if value is None or value == NO_METADATA:
        return NULL
    return _framed(b"\x01" + value.encode("utf-8"))


def _integer(form: str) -> Callable[[str | None], bytes]:
    packer = struct.Struct(f">i{form}")
    size = struct.calcsize(f">{form}")
    return lambda value: NULL if value is None else packer.pack(size, int(value))


_ENCODERS: dict[str, Callable[[str | None], bytes]] = {
    "uuid": lambda value: NULL if value is None else _framed(uuid.UUID(value).bytes),
    "int2": _integer("h"), "int4": _integer("i"), "int8": _integer("q"),
    "text": _encode_text, "varchar": _encode_text, "json": _encode_json, "jsonb": _encode_jsonb,
}  # fmt: skip


def _vector_fields(vectors: Vectors, type: str) -> list[bytes]:
    """Each row framed as pgvector reads it: int16 dimensions, int16 0, then the values."""
    n, d = vectors.shape
    wide, code = (4, ">f4") if type == "vector" else (2, ">f2")
    with np.errstate(over="ignore"):
        values = vectors.astype(code)
    frame = np.empty((n, 8 + wide * d), np.uint8)
    frame[:, :8] = np.frombuffer(struct.pack(">ihh", 4 + wide * d, d, 0), np.uint8)
    frame[:, 8:] = values.view(np.uint8).reshape(n, wide * d)
    data = frame.tobytes()
    step = frame.shape[1]
    return [data[at : at + step] for at in range(0, n * step, step)]


def _send(connection: Connection, query: sql.Composed, fields: Sequence[Sequence[bytes]]) -> None:
    head = _count.pack(len(fields))
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(query) as copy:
        waiting, size = [HEADER], 0
        for row in zip(*fields, strict=True):
            waiting.append(head)
            waiting.extend(row)
            size += len(row[-1])
            if size > BUFFER:
                copy.write(b"".join(waiting))
                waiting, size = [], 0
        copy.write(b"".join([*waiting, TRAILER]))


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
        connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS reembed_stage (id text, document text, metadata "
            "text, uri text, embedding vector) ON COMMIT DELETE ROWS"
        )
        fields: list[list[bytes]] = [
            list(map(_encode_text, records.column(name).to_pylist()))
            for name in ("id", "document", "metadata", "uri")
        ]
        fields.append(_vector_fields(vectors, "vector"))
        _send(connection, sql.SQL("COPY reembed_stage FROM STDIN (FORMAT BINARY)").format(), fields)
        connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM reembed_stage s{}"
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
            "Postgres holds neither NUL characters nor non-finite or over-long vectors; mend or "
            "leave out the record (source.where).",
        ) from error


def _culprit(table: Table, records: pa.RecordBatch, vectors: Vectors) -> str | None:
    """Id of the first record that cannot be held for a reason that can be seen from here."""
    half = table.column(table.vector).type == "halfvec"
    with np.errstate(over="ignore"):
        held = vectors.astype(np.float16) if half else vectors
    finite = [bool(np.isfinite(vector).all()) for vector in held]
    encode = _ENCODERS.get(table.column(table.id).type)
    for row in range(records.num_rows):
        fields = [
            records.column(name)[row].as_py() for name in ("id", "document", "metadata", "uri")
        ]
        escaped = "\\u0000" in (fields[2] or "") and table.metadata is not None
        if not finite[row] or escaped or any("\x00" in field for field in fields if field):
            return str(fields[0])
        try:
            _ = encode(fields[0]) if encode else b""
        except (ValueError, struct.error):
            return str(fields[0])
    return None
