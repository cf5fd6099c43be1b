"""What chroma.sqlite3 holds of no record, called as `sqlite_calls` are.

The tables are gone through in slices, each in a transaction of its own: Chroma's writers wait while
one is read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reembed.stores.chroma.sqlite_calls import File

STEP = 100_000
"""Row ids of a slice."""
FEW = 500
"""Ids of one statement."""
METADATA = ("embedding_metadata", "embedding_metadata_array")
"""Both are keyed by the row ids of `embeddings`, and one row is a key or an element of a list."""
_OF_NONE = (
    "FROM {0} WHERE id > ? AND id <= ? AND NOT EXISTS "
    "(SELECT 1 FROM embeddings e WHERE e.id = {0}.id)"
)
_COUNTED = f"SELECT key, count(*), sum(id > ?) {_OF_NONE} GROUP BY key"
_FOUND, _DELETED = f"SELECT * {_OF_NONE}", f"DELETE {_OF_NONE}"
_LAST = "SELECT coalesce(max(id), 0) FROM {}"
_WAITING = "SELECT id FROM embeddings_queue WHERE topic LIKE '%/' || ? AND id IN ({})"


class Orphans(NamedTuple):
    """Rows that belong to no record.

    Attributes:
        metadata: keys and elements of lists.
        next: those of them whose row id the next records are given.
        keys: that they have.
        records: whose collection is gone.
    """

    metadata: int
    next: int
    keys: tuple[str, ...]
    records: int


def orphans(file: File) -> Orphans:
    """Count them."""
    with file.reading() as connection:
        count = above = 0
        keys = set[str]()
        last = _last(connection, "embeddings")
        for table, start in _slices(connection):
            rows = connection.execute(_COUNTED.format(table), (last, start, start + STEP))
            for key, number, free in rows.fetchall():
                keys.add(str(key))
                count, above = count + number, above + free
        lost = connection.execute(
            "SELECT count(*) FROM embeddings WHERE segment_id NOT IN (SELECT id FROM segments)"
        ).fetchone()[0]
    return Orphans(count, above, tuple(sorted(keys)), lost)


def purge_orphans(file: File, kept: str) -> int:
    """Delete metadata that belongs to no record. Returns how many rows.

    Args:
        kept: a file that they are added to before they are deleted, a JSON object a line.
    """
    with file.reading() as connection:
        slices = list(_slices(connection))
    deleted = 0
    with open(kept, "a", encoding="utf-8", opener=_private) as lines:
        for table, start in slices:
            bounds = (start, start + STEP)
            with file.writing() as connection:
                cursor = connection.execute(_FOUND.format(table), bounds)
                names = [column[0] for column in cursor.description]
                for row in cursor:
                    line = {"table": table} | dict(zip(names, row, strict=True))
                    lines.write(json.dumps(line, default=repr) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
                deleted += connection.execute(_DELETED.format(table), bounds).rowcount
    return deleted


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _slices(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    for table in METADATA:
        if table in there:  # before 1.5 there are no lists
            yield from ((table, start) for start in range(0, _last(connection, table), STEP))


def _last(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(_LAST.format(table)).fetchone()[0])


def segment_ids(file: File) -> set[str]:
    """The ids of all parts of all collections."""
    with file.reading() as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM segments")}


def unqueued(file: File, id: str, ids: Sequence[str]) -> list[str]:
    """Those of these record ids of which no write waits in the log."""
    found = list(ids)
    with file.reading() as connection:
        waiting = set[str]()
        for start in range(0, len(found), FEW):
            part = found[start : start + FEW]
            query = _WAITING.format(", ".join("?" * len(part)))
            waiting |= {row[0] for row in connection.execute(query, (id, *part))}
    return [one for one in found if one not in waiting]
