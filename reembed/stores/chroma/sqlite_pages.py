"""Records out of chroma.sqlite3, a page in one short transaction, called as `sqlite_calls` are.

Chroma keeps the scalars of a record's metadata as rows of `embedding_metadata`, its document and
uri among them, and lists as rows of `embedding_metadata_array`, one an element. Vectors are not in
this file, but for those that the index has not got yet.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reembed.stores.canonical import metadata_text
from reembed.stores.chroma.sqlite_calls import File

DOCUMENT, URI = "chroma:document", "chroma:uri"
METADATA_SEGMENT = "urn:chroma:segment/metadata/sqlite"
VECTOR_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"


class Segments(NamedTuple):
    """The two parts of a collection: `metadata` in the file, `vectors` in a folder of its name."""

    metadata: str
    vectors: str


@dataclass
class Page:
    """Records as columns: those of the ids asked for that are there, in that order.

    Attributes:
        written: of each record the number of its last write.
        odd: ids of records that are left out, since they hold what Chroma itself must be asked for.
        applied: the number of the last write that the index's files are to hold.
        behind: writes wait in the log that have not reached these rows.
    """

    ids: list[str] = field(default_factory=list)
    documents: list[str | None] = field(default_factory=list)
    metadatas: list[str] = field(default_factory=list)
    uris: list[str | None] = field(default_factory=list)
    written: array[int] = field(default_factory=lambda: array("q"))
    odd: set[str] = field(default_factory=set)
    applied: int = 0
    behind: bool = False


def segments(file: File, id: str) -> Segments | None:
    """The parts of a collection; None where it has others than those that a local one has."""
    with file.reading() as connection:
        found = connection.execute(
            "SELECT scope, type, id FROM segments WHERE collection = ? ORDER BY scope", (id,)
        ).fetchall()
    kinds = [(scope, kind) for scope, kind, _ in found]
    if kinds != [("METADATA", METADATA_SEGMENT), ("VECTOR", VECTOR_SEGMENT)]:
        return None
    return Segments(found[0][2], found[1][2])


def applied(file: File, segment: str) -> int:
    """The number of the last write that a segment holds."""
    with file.reading() as connection:
        return _applied(connection, segment)


def _applied(connection: sqlite3.Connection, segment: str) -> int:
    found = connection.execute(
        "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
    ).fetchone()
    return _number(found[0]) if found else 0


def _number(value: int | bytes) -> int:
    """A write's number, which older versions kept as bytes."""
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value


_ROWS = """
SELECT e.embedding_id, e.seq_id, m.key, m.string_value, m.int_value, m.float_value, m.bool_value
FROM wanted w CROSS JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = w.id
LEFT JOIN embedding_metadata m ON m.id = e.id
"""
_LISTS = """
SELECT e.embedding_id, a.key, a.string_value, a.int_value, a.float_value, a.bool_value
FROM wanted w CROSS JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = w.id
JOIN embedding_metadata_array a ON a.id = e.id ORDER BY a.rowid
"""
_WAITING = (
    "SELECT EXISTS (SELECT 1 FROM embeddings_queue WHERE seq_id > ? AND topic LIKE '%/' || ?)"
)


def records(file: File, id: str, parts: Segments, ids: Sequence[str]) -> Page:
    """The records of these ids, each different, without their vectors."""
    with file.reading() as connection:
        connection.execute("CREATE TEMP TABLE wanted (id TEXT)")
        connection.executemany("INSERT INTO wanted VALUES (?)", ((one,) for one in ids))
        connection.execute("BEGIN")  # one moment for all that follows
        try:
            kept = _applied(connection, parts.metadata)
            waiting = connection.execute(_WAITING, (kept, id)).fetchone()
            lists = _lists(connection, parts.metadata)
            page = Page(applied=_applied(connection, parts.vectors), behind=bool(waiting[0]))
            _fill(page, connection.execute(_ROWS, (parts.metadata,)), lists)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            page = Page(odd=set(ids))  # a text that is not UTF-8
        finally:
            connection.execute("COMMIT")
    return page


_Lists = dict[str, dict[str, list[Any]]]
_ODD: Any = object()
"""Stands for a value that is none of Chroma's."""


def _lists(connection: sqlite3.Connection, segment: str) -> _Lists:
    """The lists of the records by id and key."""
    found: _Lists = {}
    if connection.execute("SELECT EXISTS (SELECT 1 FROM embedding_metadata_array)").fetchone()[0]:
        for id, key, *columns in connection.execute(_LISTS, (segment,)):
            found.setdefault(id, {}).setdefault(key, []).append(_value(*columns))
    return found


def _value(text: Any, whole: Any, real: Any, truth: Any) -> Any:
    """The one value of a row, of its column's kind."""
    if text is not None:
        alone = whole is None and real is None and truth is None
        return text if alone and type(text) is str else _ODD
    if whole is not None:
        return whole if real is None and truth is None and type(whole) is int else _ODD
    if real is not None:
        return real if truth is None and type(real) is float else _ODD
    return bool(truth) if truth in (0, 1) else _ODD


def _fill(page: Page, rows: sqlite3.Cursor, lists: _Lists) -> None:
    current, written = None, 0
    values: dict[str, Any] = {}
    for id, number, key, *columns in rows:
        if id != current:
            if current is not None:
                _add(page, current, written, values, lists)
            current, written, values = id, _number(number), {}
        if key is not None:
            values[key] = _value(*columns)
    if current is not None:
        _add(page, current, written, values, lists)


def _add(page: Page, id: str, written: int, values: dict[str, Any], lists: _Lists) -> None:
    document, uri = values.pop(DOCUMENT, None), values.pop(URI, None)
    listed = lists.get(id, {})
    odd = (
        _ODD in values.values()
        or not isinstance(document, str | None)
        or not isinstance(uri, str | None)
        or any(key in values or _ODD in elements for key, elements in listed.items())
        or any(key.startswith("chroma:") for key in (*values, *listed))
    )
    text = ""
    if not odd:
        try:
            text = metadata_text({**values, **listed})
        except ValueError:  # a number that is not finite
            odd = True
    if odd:
        page.odd.add(id)
        return
    page.ids.append(id)
    page.documents.append(document)
    page.metadatas.append(text)
    page.uris.append(uri)
    page.written.append(written)
