"""mem0's history, a SQLite file beside the database: which memories it knows that a table lacks.

The history is keyed by memory and survives the database, so an application that was pointed to a
fresh one still answers `history` while every search finds nothing. That is how this loss looks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from reembed.errors import PreflightError

LOST_SHARE = 0.5
"""Share of the history's living memories whose absence is no drift any more, but another
database."""


def living_memories(history_db: Path) -> list[str]:
    """Ids whose last event is not DELETE, sorted. The file is opened read-only.

    Raises:
        PreflightError: it is not there, or not mem0's history.
    """
    # SQLite takes the other columns from the row that max() is from: sqlite.org/lang_select.html
    query = "SELECT memory_id, event, max(rowid) FROM history GROUP BY memory_id ORDER BY memory_id"
    try:
        with closing(sqlite3.connect(f"{history_db.resolve().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(query).fetchall()
    except sqlite3.Error as error:
        why = error if history_db.exists() else "there is no such file"
        raise PreflightError(
            f"{history_db}: cannot be read as mem0's history: {why}",
            "Name the file of history_db_path in source.mem0.history, or leave it out.",
        ) from None
    return [memory_id for memory_id, event, _ in rows if memory_id and event != "DELETE"]


def refuse_fresh_database(
    history_db: Path, living: Sequence[str], missing: Sequence[str], table: str, held: int
) -> None:
    """Refuse a table that lacks more than LOST_SHARE of the memories that live, and more than it
    holds. One that holds more than a history misses was restored beside a history that was begun
    anew, as in a new container: the memories that it lacks are few, and told by the caller.

    Args:
        living: what `living_memories` gave.
        missing: those of them that the table lacks.
        held: records that the table holds.

    Raises:
        PreflightError: it is a fresh database, or another one.
    """
    if len(missing) > LOST_SHARE * len(living) and len(missing) > held:
        raise PreflightError(
            f"{history_db} knows {len(living):,} living memories, and {len(missing):,} of them are "
            f"not in the table {table}, which holds {held:,}: mem0 was pointed to a fresh "
            "database, or to another one. Its search, get and get_all find nothing there and "
            "raise no error, while history goes on answering",
            "Find the database that holds the memories (its host, dbname and collection_name), and "
            "name that one in source.url; what mem0 wrote since is in this table.",
        )
