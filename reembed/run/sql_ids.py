"""Ids into a table of SQLite, many at once. Only the standard library is imported here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence


def insert_ids(connection: sqlite3.Connection, table: str, ids: Sequence[str]) -> None:
    """Insert ids into a table that has one column, in their order; those that it has are left."""
    insert = f"INSERT OR IGNORE INTO {table}"
    if any("\0" in id for id in ids):  # which SQLite's JSON ends a text at
        connection.executemany(f"{insert} VALUES (?)", ((id,) for id in ids))
    else:
        listed = json.dumps(ids, ensure_ascii=False)
        connection.execute(f"{insert} SELECT value FROM json_each(?)", (listed,))  # noqa: S608 - our name
