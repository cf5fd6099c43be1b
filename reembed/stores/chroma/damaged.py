"""What SQLite says of a database file that it cannot read as one."""

from __future__ import annotations

from reembed.errors import DamagedStoreError

_DAMAGED = ("file is not a database", "disk image is malformed", "(code: 11)", "(code: 26)")
"""SQLITE_CORRUPT and SQLITE_NOTADB (sqlite.org/rescode.html)."""


def damage(told: str) -> DamagedStoreError | None:
    """The error of a damaged database file; None where it is another.

    Args:
        told: what is to be said, with SQLite's own words.
    """
    if not any(words in told for words in _DAMAGED):
        return None
    return DamagedStoreError(
        told,
        "The database file is damaged, and running again changes nothing. Put it back from a "
        "backup. Without one, stop the application and let `sqlite3 chroma.sqlite3 .recover` read "
        "what is left into a new file.",
    )
