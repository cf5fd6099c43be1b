"""The forms of chroma.sqlite3 that are known, by the version of Chroma that makes them.

What is not in this table is asked of Chroma itself: which parts the installed version gives a new
database (`sqlite.known_migrations`), and the records of a collection (`direct`).
"""

from __future__ import annotations

from reembed.stores.chroma.sqlite_calls import Migrations


def _form(sysdb: int, metadb: int, embeddings_queue: int) -> Migrations:
    """Every migration of each part up to a number."""
    parts = {"sysdb": sysdb, "metadb": metadb, "embeddings_queue": embeddings_queue}
    return frozenset((part, n) for part, most in parts.items() for n in range(1, most + 1))


FORMATS: dict[str, Migrations] = {"1.5.9": _form(sysdb=10, metadb=6, embeddings_queue=2)}
"""Parts of the schema that a version of Chroma gives a new database."""


def is_known(found: Migrations) -> bool:
    """Whether a file has exactly the form of a version that is known."""
    return found in FORMATS.values()
