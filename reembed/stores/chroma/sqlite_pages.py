"""Records out of chroma.sqlite3, a page in one short transaction, called as `sqlite_calls` are.

Chroma keeps the scalars of a record's metadata as rows of `embedding_metadata`, its document and
uri among them, and lists as rows of `embedding_metadata_array`, one an element. Vectors are not in
this file, but for those that the index has not got yet.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from reembed.run.sql_ids import insert_ids
from reembed.stores.canonical import metadata_text
from reembed.stores.chroma.sqlite_calls import File

_OWN = "chroma:"
DOCUMENT, URI = f"{_OWN}document", f"{_OWN}uri"
METADATA_SEGMENT = "urn:chroma:segment/metadata/sqlite"
VECTOR_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"


class Segments(NamedTuple):
    """The two parts of a collection: `metadata` in the file, `vectors` in a folder of its name."""

    metadata: str
    vectors: str


class Page:
    """Records as columns: those of the ids asked for that are there, in that order.

    Attributes:
        written: of each record the number of its last write.
        odd: ids of records that are left out, since they hold what Chroma itself must be asked for.
        applied: the number of the last write that the index's files are to hold.
        behind: writes wait in the log that have not reached these rows.
    """

    def __init__(self, applied: int = 0, *, behind: bool = False, odd: Iterable[str] = ()) -> None:
        self.ids: list[str] = []
        self.documents: list[str | None] = []
        self.metadatas: list[str] = []
        self.uris: list[str | None] = []
        self.written = array("q")
        self.odd, self.applied, self.behind = set(odd), applied, behind


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


_COUNTS = """
SELECT s.collection, m.seq_id, (SELECT count(*) FROM embeddings e WHERE e.segment_id = s.id)
FROM segments s LEFT JOIN max_seq_id m ON m.segment_id = s.id WHERE s.type = ?
"""
_QUEUED = "SELECT topic, max(seq_id) FROM embeddings_queue GROUP BY topic"


def counts(file: File) -> dict[str, int]:
    """Number of records of every collection, by its id, but of those whose last writes wait in the
    log."""
    with file.reading() as connection:
        connection.execute("BEGIN")  # one moment for both
        try:
            rows = connection.execute(_COUNTS, (METADATA_SEGMENT,)).fetchall()
            queued = connection.execute(_QUEUED).fetchall()
        finally:
            connection.execute("COMMIT")
    last = {topic.rpartition("/")[2]: _number(number) for topic, number in queued}
    return {id: count for id, kept, count in rows if last.get(id, 0) <= _number(kept or 0)}


# The value of a row, NULL for a bool; the bool; and how many columns hold one of their own kind,
# which is one in every row of Chroma's.
_ROWS = """
SELECT e.embedding_id, e.seq_id, m.key, coalesce(string_value, int_value, float_value), bool_value,
    (string_value IS NOT NULL) + (typeof(int_value) = 'integer')
    + (typeof(float_value) = 'real') + coalesce(bool_value IN (0, 1), 0)
FROM wanted w CROSS JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = w.id
LEFT JOIN embedding_metadata m ON m.id = e.id
"""
_LISTS = """
SELECT e.embedding_id, a.key, coalesce(string_value, int_value, float_value), bool_value,
    (string_value IS NOT NULL) + (typeof(int_value) = 'integer')
    + (typeof(float_value) = 'real') + coalesce(bool_value IN (0, 1), 0)
FROM wanted w CROSS JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = w.id
JOIN embedding_metadata_array a ON a.id = e.id ORDER BY a.rowid
"""
_WAITING = (
    "SELECT EXISTS (SELECT 1 FROM embeddings_queue WHERE seq_id > ? AND topic LIKE '%/' || ?)"
)


def records(file: File, id: str, parts: Segments, ids: Sequence[str]) -> Page:
    """The records of these ids, each different, without their vectors."""
    with file.reading() as connection:
        _want(connection, ids)
        connection.execute("BEGIN")  # one moment for all that follows
        try:
            kept = _applied(connection, parts.metadata)
            waiting = connection.execute(_WAITING, (kept, id)).fetchone()
            lists = _lists(connection, parts.metadata)
            page = Page(_applied(connection, parts.vectors), behind=bool(waiting[0]))
            _fill(page, connection.execute(_ROWS, (parts.metadata,)), lists)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            page = Page(odd=ids)  # a text that is not UTF-8
        finally:
            connection.execute("COMMIT")
    return page


def _want(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Make the temporary table `wanted` of ids, in this connection alone."""
    connection.execute("CREATE TEMP TABLE wanted (id TEXT)")
    insert_ids(connection, "wanted", ids)


_Lists = dict[str, dict[str, list[Any]]]
_ODD: Any = object()
"""Stands for a value that is none of Chroma's."""


def _lists(connection: sqlite3.Connection, segment: str) -> _Lists:
    """The lists of the records by id and key."""
    found: _Lists = {}
    if connection.execute("SELECT EXISTS (SELECT 1 FROM embedding_metadata_array)").fetchone()[0]:
        for id, key, value, truth, kinds in connection.execute(_LISTS, (segment,)):
            value = bool(truth) if value is None else value
            found.setdefault(id, {}).setdefault(key, []).append(value if kinds == 1 else _ODD)
    return found


def _fill(page: Page, rows: sqlite3.Cursor, lists: _Lists) -> None:
    current, written = None, 0
    values: dict[str, Any] = {}
    for id, number, key, value, truth, kinds in rows:
        if id != current:
            if current is not None:
                _add(page, current, written, values, lists)
            current, written, values = id, number, {}
        if kinds == 1:
            values[key] = bool(truth) if value is None else value
        elif key is not None:
            values[key] = _ODD
    if current is not None:
        _add(page, current, written, values, lists)


def _add(page: Page, id: str, written: int | bytes, values: dict[str, Any], lists: _Lists) -> None:
    document, uri = values.pop(DOCUMENT, None), values.pop(URI, None)
    try:
        for text in (document, uri):
            if text is not None and type(text) is not str:
                raise TypeError(text)
        if id in lists:
            if not lists[id].keys().isdisjoint(values):
                raise TypeError(id)
            values.update(lists[id])
        for key in values:
            if key[:7] == _OWN:
                raise TypeError(key)
        metadata = metadata_text(values)
    except (TypeError, ValueError):  # _ODD is none of JSON's, and neither is a number not finite
        page.odd.add(id)
        return
    page.ids.append(id)
    page.documents.append(document)
    page.metadatas.append(metadata)
    page.uris.append(uri)
    page.written.append(_number(written))
