"""Everything that reads or writes chroma.sqlite3 without Chroma.

Used where the file is at hand (a local path, or the server's directory). Chroma runs SQLite in
rollback-journal mode, so a reader that stays open stalls the server's writers: every function here
opens a connection, does one short thing and closes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reembed.disk import TEMPORARY, sqlite_errors, temporary_folder
from reembed.errors import CollectionNotFoundError, PreflightError, UnreachableError
from reembed.records import SHARD_ROWS

FILE = "chroma.sqlite3"
INSTEAD = "copy the database to another disk and point the manifest there"
BUSY_SECONDS = 60.0
"""How long to wait for Chroma's own writers."""

FloatFix = tuple[str, str, int | None, float]
"""Record id, metadata key, position in a list (None for a scalar), the exact value."""


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection, closed at the end. Raises UnreachableError."""
    with _connection(folder, "ro") as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _LEFT_BY_A_KILL:
                raise
            _recover(folder)
        yield connection


_LEFT_BY_A_KILL = (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY)
"""A writer was killed in a transaction, and what it left cannot be undone through a read-only
connection."""


def _recover(folder: Path) -> None:
    """Let SQLite undo the transaction of a writer that was killed, as whoever opens the database
    next would. One that is alive holds a lock, and is not undone."""
    with _connection(folder, "rw") as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that holds SQLite's write lock from its start, committed at the end.

    Raises:
        PreflightError: the file's format is not known to the installed chromadb, the disk is full,
            or the file may not be written.
        UnreachableError: the lock is not to be had.
    """
    with _connection(folder, "rw") as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _refuse_unknown_migrations(folder, connection)
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


@contextmanager
def _connection(folder: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(str(folder / FILE))}?mode={mode}"
    try:
        with sqlite_errors(folder / FILE, INSTEAD):
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                yield connection
            finally:
                connection.close()
    except sqlite3.Error as error:
        raise UnreachableError(
            f"{folder / FILE}: {error}",
            "Another process may hold its lock, or this user may not open it. Run again to resume.",
        ) from error


def check_openable(folder: Path) -> None:
    """Refuse a folder that opening with the installed chromadb would create or upgrade.

    An upgrade is applied on open, without asking, and cannot be undone.

    Raises:
        CollectionNotFoundError: no database there.
        PreflightError: made by another version of Chroma.
    """
    if not (folder / FILE).is_file():
        raise CollectionNotFoundError(
            f"{folder}: there is no Chroma database here ({FILE} is missing)",
            "Check the path; relative paths in a manifest are relative to its own folder.",
        )
    with reading(folder) as connection:
        found = _refuse_unknown_migrations(folder, connection)
    missing = known_migrations() - found
    if missing:
        raise _older(folder, found, missing)


_FIRST_OF_1_0 = ("sysdb", 9)
"""A migration that Chroma 1.0 made and 0.6 did not."""


def _older(
    folder: Path, found: set[tuple[str, int]], missing: set[tuple[str, int]] | frozenset[Any]
) -> PreflightError:
    """The refusal of a folder that opening it would upgrade, with the ways on."""
    serves = _FIRST_OF_1_0 in found
    copy = (
        f"copy the folder (cp -r {folder} {folder}-upgraded), open the copy once with the new "
        f"Chroma (python -c 'import chromadb; chromadb.PersistentClient(\"{folder}-upgraded\")'), "
        "point the manifest and the application at the copy, and install chromadb 1.5 for the "
        "application too: its own cannot read the copy."
    )
    serve = (
        "Either serve the folder with the Chroma that the application has (chroma run --path "
        f"{folder} --port 8000, in its environment) and set the URL to "
        "chroma+http://127.0.0.1:8000; then nothing is upgraded. Or "
    )
    return PreflightError(
        f"{folder}: this database was made by an older version of Chroma "
        f"({'1.0 to 1.4' if serves else '0.4 to 0.6'}); opening it with the installed one would "
        "upgrade it, which cannot be undone, and the application's own Chroma could not read it "
        f"any more ({_list(missing)})",
        serve + copy if serves else copy[0].upper() + copy[1:],
    )


def _refuse_unknown_migrations(
    folder: Path, connection: sqlite3.Connection
) -> set[tuple[str, int]]:
    try:
        rows = connection.execute("SELECT dir, version FROM migrations").fetchall()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise
        raise PreflightError(f"{folder / FILE}: is no Chroma database: {error}") from error
    found = {(str(part), int(version)) for part, version in rows}
    unknown = found - known_migrations()
    if unknown:
        raise PreflightError(
            f"{folder}: this database was made by a newer version of Chroma than the installed one "
            f"(it has {_list(unknown)})",
            "Install a chromadb at least as new as the one that made it.",
        )
    return found


def _list(migrations: set[tuple[str, int]] | frozenset[tuple[str, int]]) -> str:
    return ", ".join(f"{part} {version}" for part, version in sorted(migrations))


@lru_cache(maxsize=1)
def known_migrations() -> frozenset[tuple[str, int]]:
    """What the installed chromadb gives a new database. Its Rust part holds the list, so a new
    database in a temporary folder is the only one to ask."""
    import chromadb
    from chromadb.config import Settings
    from chromadb.errors import ChromaError

    with temporary_folder() as folder:
        try:
            client: Any = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
        except ChromaError as error:
            raise PreflightError(
                f"{folder}: Chroma cannot make a database there: {error}",
                f"Free some space, or {TEMPORARY}.",
            ) from error
        client.close()
        with reading(folder) as connection:
            rows = connection.execute("SELECT dir, version FROM migrations").fetchall()
    return frozenset((str(part), int(version)) for part, version in rows)


def collection_names(folder: Path, tenant: str, database: str) -> dict[str, str]:
    """Name of each collection of a database, by collection id."""
    with reading(folder) as connection:
        rows = connection.execute(
            "SELECT c.id, c.name FROM collections c JOIN databases d ON d.id = c.database_id "
            "WHERE d.tenant_id = ? AND d.name = ?",
            (tenant, database),
        ).fetchall()
    return dict(rows)


def legacy_settings(folder: Path, id: str) -> dict[str, Any]:
    """The `hnsw:*` settings of a collection that Chroma 0.5 made; empty for a newer one.

    0.5 kept them with the vector segment, where they still decide after an upgrade, while the
    configuration that the upgrade writes holds defaults.
    """
    with reading(folder) as connection:
        rows = connection.execute(
            "SELECT m.key, coalesce(m.str_value, m.int_value, m.float_value) "
            "FROM segment_metadata m JOIN segments s ON s.id = m.segment_id "
            "WHERE s.collection = ? AND s.scope = 'VECTOR'",
            (id,),
        ).fetchall()
    return dict(rows)


def id_pages(folder: Path, id: str) -> Iterator[list[str]]:
    """All record ids of a collection in short pages, each continuing after the last id seen, so
    that writes in between neither hide nor repeat an id."""
    segment = _metadata_segment(folder, id)
    after = ""
    query = (
        "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id {} ? "
        "ORDER BY embedding_id LIMIT ?"
    )
    comparison = ">="
    while True:
        with reading(folder) as connection:
            page = [
                row[0]
                for row in connection.execute(
                    query.format(comparison), (segment, after, SHARD_ROWS)
                )
            ]
        if page:
            yield page
        if len(page) < SHARD_ROWS:
            return
        after, comparison = page[-1], ">"


def watermark(folder: Path, id: str) -> str:
    """A number that grows with every add, update and delete of a collection, even of nothing."""
    segment = _metadata_segment(folder, id)
    with reading(folder) as connection:
        applied = connection.execute(
            "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
        ).fetchone()
        queued = connection.execute(
            "SELECT max(seq_id) FROM embeddings_queue WHERE topic LIKE '%/' || ?", (id,)
        ).fetchone()
    return str(max((row[0] or 0 for row in (applied, queued) if row), default=0))


def set_floats(folder: Path, id: str, fixes: Sequence[FloatFix]) -> None:
    """Write metadata floats that Chroma's own writing would round (see `chroma_floats`)."""
    if not fixes:
        return
    segment = _metadata_segment(folder, id)
    with writing(folder) as connection:
        for record, key, position, value in fixes:
            row = connection.execute(
                "SELECT id FROM embeddings WHERE segment_id = ? AND embedding_id = ?",
                (segment, record),
            ).fetchone()
            if row is None:  # deleted meanwhile
                continue
            if position is None:
                connection.execute(
                    "UPDATE embedding_metadata SET float_value = ? "
                    "WHERE id = ? AND key = ? AND float_value IS NOT NULL",
                    (value, row[0], key),
                )
            else:
                connection.execute(
                    "UPDATE embedding_metadata_array SET float_value = ? WHERE rowid = ("
                    "SELECT rowid FROM embedding_metadata_array WHERE id = ? AND key = ? "
                    "ORDER BY rowid LIMIT 1 OFFSET ?) AND float_value IS NOT NULL",
                    (value, row[0], key, position),
                )


def _metadata_segment(folder: Path, id: str) -> str:
    with reading(folder) as connection:
        row = connection.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'METADATA'", (id,)
        ).fetchone()
    if row is None:
        raise CollectionNotFoundError(f"{folder}: the collection {id} is gone")
    return str(row[0])
