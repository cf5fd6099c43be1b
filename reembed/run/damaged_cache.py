"""What can still be read of a damaged cache of paid vectors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reembed.records import SHARD_ROWS

Row = tuple[bytes, int, bytes, int]
"""Of the table: text hash, tokens, vector, checksum."""

NARROWEST = 2
"""Bytes that the keys of the narrowest range read from a damaged file have in common."""
FEWEST_ROWS = 32
"""In the narrowest range of row numbers read from it."""
LEAST_BYTES = 36
"""Of a row, a text hash and one float: the file cannot hold more rows than of these."""


def readable(damaged: Path) -> Iterator[list[Row]]:
    """What a damaged file still gives: by its keys, and past its index, either of which may be
    whole. Rows that both give come twice."""
    with contextlib.closing(sqlite3.connect(damaged)) as db:
        yield from _by_key(db)
        yield from _by_place(db, damaged.stat().st_size // LEAST_BYTES)


def _by_key(db: sqlite3.Connection) -> Iterator[list[Row]]:
    """By ranges of keys, narrower ones where a page is bad, so that it hides few of them."""
    waiting = [bytes([first]) for first in range(256)]
    while waiting:
        prefix = waiting.pop()
        try:
            rows = db.execute(
                "SELECT text_sha256, tokens, vector, crc32 FROM vectors "
                "WHERE text_sha256 BETWEEN ? AND ?",
                (prefix, prefix.ljust(32, b"\xff")),
            ).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                return  # no table, or no database at all
            if len(prefix) < NARROWEST:
                waiting += [prefix + bytes([next]) for next in range(256)]
            continue
        yield rows


def _by_place(db: sqlite3.Connection, most: int) -> Iterator[list[Row]]:
    """By ranges of row numbers up to `most`, a page of rows at a time; a range with a bad page is
    halved until that is nearly alone. Nothing of an older file, whose rows have no numbers."""
    waiting = [(0, most)]
    while waiting:
        first, last = waiting.pop()
        try:
            found = db.execute(
                "SELECT rowid, text_sha256, tokens, vector, crc32 FROM vectors NOT INDEXED "
                "WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT ?",
                (first, last, SHARD_ROWS),
            ).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                return  # as above, or no row numbers
            if last - first > FEWEST_ROWS:
                middle = (first + last) // 2
                waiting += [(middle + 1, last), (first, middle)]
            continue
        if len(found) == SHARD_ROWS:
            waiting.append((found[-1][0] + 1, last))
        yield [(key, tokens, vector, crc) for _, key, tokens, vector, crc in found]
