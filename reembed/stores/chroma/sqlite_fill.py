"""The rows of a new collection, straight into chroma.sqlite3, called as `sqlite_calls` are.

They are those that Chroma itself writes for an `add`, once it has carried its log into both parts
of the collection: the record, its metadata a row each, lists a row an element, the document in the
full-text index, and the newest write in the log, which Chroma keeps there. Until `finish` the
collection has no dimension, so Chroma opens no index for it: what is there counts for nobody.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reembed.errors import SourceChangedError
from reembed.stores.chroma.sqlite_calls import File
from reembed.stores.chroma.sqlite_pages import DOCUMENT, URI, Segments

_ADD = 0
_OURS = "(SELECT id FROM embeddings WHERE segment_id = ?)"
_KINDS = {bool: "bool", int: "int", float: "float", str: "string"}
_COLUMNS = {"string": 0, "int": 1, "float": 2, "bool": 3}


class FillRow(NamedTuple):
    """A record without its vector; `metadata` holds what Chroma takes, and nothing else."""

    id: str
    document: str | None
    uri: str | None
    metadata: dict[str, Any]


class Fill(NamedTuple):
    """A collection that is being filled: its id, its parts, and in which folder they are."""

    id: str
    parts: Segments
    folder: Path

    @property
    def place(self) -> Path:
        """Where Chroma looks for the index."""
        return self.folder / self.parts.vectors

    @property
    def workshop(self) -> Path:
        """Where the index is made: the same file system, a name that Chroma does not look for."""
        return self.folder / f"reembed-{self.parts.vectors}"

    @property
    def topic(self) -> str:
        """What the log calls the collection."""
        return f"persistent://default/default/{self.id}"


def schema_of(file: File, id: str) -> tuple[dict[str, Any], int | None]:
    """The schema of a collection, and its dimensions, None for none yet. Raises
    SourceChangedError: it is gone."""
    with file.reading() as connection:
        return _schema(connection, id)


def _schema(connection: sqlite3.Connection, id: str) -> tuple[dict[str, Any], int | None]:
    row = connection.execute(
        "SELECT schema_str, dimension FROM collections WHERE id = ?", (id,)
    ).fetchone()
    if row is None:
        raise SourceChangedError(f"the collection {id} is gone: somebody deleted it")
    return json.loads(row[0] or "{}"), row[1]


def add_rows(file: File, fill: Fill, rows: Sequence[FillRow]) -> None:
    """Add records, all in one transaction. Raises sqlite3.IntegrityError: one is there already."""
    with file.writing() as connection:
        _schema(connection, fill.id)
        first = _number(connection, "SELECT max(seq_id) FROM embeddings_queue") + 1
        place = _number(connection, "SELECT max(id) FROM embeddings") + 1
        connection.executemany(
            "INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) VALUES (?, ?, ?, ?)",
            (
                (place + n, fill.parts.metadata, row.id, first + n)
                for n, row in enumerate(rows)
            ),
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO embedding_metadata (id, key, string_value, int_value, float_value, "
            "bool_value) VALUES (?, ?, ?, ?, ?, ?)",
            (one for n, row in enumerate(rows) for one in _scalars(place + n, row)),
        )
        connection.executemany(
            "INSERT INTO embedding_metadata_array (id, key, string_value, int_value, float_value, "
            "bool_value) VALUES (?, ?, ?, ?, ?, ?)",
            (one for n, row in enumerate(rows) for one in _elements(place + n, row.metadata)),
        )
        connection.executemany(
            "INSERT INTO embedding_fulltext_search (rowid, string_value) VALUES (?, ?)",
            (
                (place + n, row.document)
                for n, row in enumerate(rows)
                if row.document is not None
            ),
        )  # fmt: skip
        last = first + len(rows) - 1
        _applied(connection, fill.parts.metadata, last)
        _log_last(connection, fill, last, rows[-1])


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0] or 0)


def _scalars(place: int, row: FillRow) -> Iterator[tuple[Any, ...]]:
    """The rows of `embedding_metadata`."""
    own = {DOCUMENT: row.document, URI: row.uri}
    for key, value in (own | row.metadata).items():
        if value is not None and not isinstance(value, list):
            yield place, key, *_columns(value)


def _elements(place: int, metadata: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of `embedding_metadata_array`."""
    for key, values in metadata.items():
        if isinstance(values, list):
            for value in values:
                yield place, key, *_columns(value)


def _columns(value: Any) -> list[Any]:
    columns: list[Any] = [None] * 4
    columns[_COLUMNS[_KINDS[type(value)]]] = value
    return columns


def _applied(connection: sqlite3.Connection, segment: str, number: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO max_seq_id (segment_id, seq_id) VALUES (?, ?)", (segment, number)
    )


def _log_last(connection: sqlite3.Connection, fill: Fill, number: int, row: FillRow) -> None:
    """Leave the newest write of a collection in the log, so that its number is not given again."""
    kept = {DOCUMENT: row.document, URI: row.uri}
    metadata = {key: value for key, value in (kept | row.metadata).items() if value is not None}
    connection.execute("DELETE FROM embeddings_queue WHERE topic = ?", (fill.topic,))
    connection.execute(
        "INSERT INTO embeddings_queue (seq_id, operation, topic, id, metadata) "
        "VALUES (?, ?, ?, ?, ?)",
        (number, _ADD, fill.topic, row.id, json.dumps(metadata, ensure_ascii=False)),
    )


def finish(
    file: File, fill: Fill, dimensions: int, records: int, last: bytes,
    kinds: Mapping[str, set[str]],
) -> None:  # fmt: skip
    """Put the index that was made in its place, and let the collection count.

    Args:
        records: how many there are to be.
        last: the vector of the newest write.
        kinds: of which kinds the values of each metadata key are, as `kinds_of` tells.

    Raises:
        SourceChangedError: somebody else has written to the collection meanwhile.
    """
    from reembed.run.disk import fsync_dir  # for the others here it would be start-up alone

    with file.writing() as connection:
        schema, known = _schema(connection, fill.id)
        there = connection.execute(
            "SELECT count(*), max(seq_id) FROM embeddings WHERE segment_id = ?",
            (fill.parts.metadata,),
        ).fetchone()
        if known is not None or there[0] != records:
            raise SourceChangedError(
                f"the collection {fill.id} was written to by somebody else while it was filled: "
                f"it holds {there[0]:,} records of {records:,}",
                "Let nobody else write to it, and run the same command again.",
            )
        connection.execute(
            "UPDATE collections SET dimension = ?, schema_str = ? WHERE id = ?",
            (dimensions, json.dumps(_with_keys(schema, kinds), separators=(",", ":")), fill.id),
        )
        connection.execute(
            "UPDATE embeddings_queue SET vector = ?, encoding = 'FLOAT32' WHERE topic = ?",
            (last, fill.topic),
        )
        _applied(connection, fill.parts.vectors, int(there[1]))
        fill.workshop.rename(fill.place)
        fsync_dir(fill.folder)


def kinds_of(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key of a record's metadata with the kind of its values, as Chroma's schema names it."""
    for key, value in metadata.items():
        yield key, _KINDS[type(value[0] if isinstance(value, list) else value)]


def _with_keys(schema: Mapping[str, Any], kinds: Mapping[str, set[str]]) -> dict[str, Any]:
    """The schema with what Chroma adds to it at the first value of each kind that a key has."""
    changed: dict[str, Any] = copy.deepcopy(dict(schema))
    for key, found in kinds.items():
        known = changed["keys"].setdefault(key, {})
        for kind in sorted(found):
            known.setdefault(kind, copy.deepcopy(changed["defaults"][kind]))
    return changed


def unfill(file: File, fill: Fill, elements: int) -> bool:
    """Take back all rows of a collection that `finish` did not make count, with what others tried
    to write to it meanwhile, which Chroma has refused them. Returns False, and takes none, where it
    did.

    Args:
        elements: that its index holds.
    """
    with file.writing() as connection:
        there = connection.execute(
            "SELECT count(*) FROM embeddings WHERE segment_id = ?", fill.parts[:1]
        ).fetchone()
        if _schema(connection, fill.id)[1] is not None and there[0] <= elements:
            return False
        for delete in (
            "DELETE FROM embedding_fulltext_search WHERE rowid IN ",
            "DELETE FROM embedding_metadata_array WHERE id IN ",
            "DELETE FROM embedding_metadata WHERE id IN ",
        ):
            connection.execute(delete + _OURS, fill.parts[:1])
        connection.execute("DELETE FROM embeddings WHERE segment_id = ?", fill.parts[:1])
        connection.execute("DELETE FROM max_seq_id WHERE segment_id IN (?, ?)", fill.parts)
        connection.execute("DELETE FROM embeddings_queue WHERE topic = ?", (fill.topic,))
        connection.execute("UPDATE collections SET dimension = NULL WHERE id = ?", (fill.id,))
    return True
