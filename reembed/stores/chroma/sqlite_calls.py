"""What is done to chroma.sqlite3, each function whole: it opens the file, does one short thing and
closes it, in the process that `sqlite_process` keeps for this.

Chroma runs SQLite in rollback-journal mode, so a reader that stays open stalls the server's
writers. Only the standard library and our errors are imported here: the process starts in no time.
Every function's first argument is a `File`; SQLite's errors go to the caller as they are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from reembed.errors import CollectionGoneError, PreflightError, SourceChangedError

Migrations = frozenset[tuple[str, int]]
"""Parts of the schema and their versions, as the table `migrations` lists them."""

FloatFix = tuple[str, str, int | None, float]
"""Record id, metadata key, position in a list (None for a scalar), the exact value."""

_LEFT_BY_A_KILL = (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY)
"""A writer was killed in a transaction, and what it left cannot be undone through a read-only
connection."""


class File(NamedTuple):
    """A chroma.sqlite3, and how to open it.

    Attributes:
        path: of the file.
        busy_seconds: how long to wait for Chroma's own writers.
        known: the format's parts that writing is allowed to meet.
        caller: the process that asked; a transaction whose caller is gone is not committed. None
            asks nobody.
    """

    path: str
    busy_seconds: float = 60.0
    known: Migrations = frozenset()
    caller: int | None = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection, closed at the end."""
        with self._connection("ro") as connection:
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in _LEFT_BY_A_KILL:
                    raise
                self._recover()
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds SQLite's write lock from its start, committed at the end.

        Raises:
            PreflightError: the file's format is not known to the installed chromadb.
            SystemExit: who asked for it is gone, so nobody would know that it was done.
        """
        with self._connection("rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                refuse_newer(self.path, _migrations(self.path, connection), self.known)
                yield connection
                if self.caller is not None and os.getppid() != self.caller:
                    raise SystemExit
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _recover(self) -> None:
        """Let SQLite undo the transaction of a writer that was killed, as whoever opens the
        database next would. One that is alive holds a lock, and is not undone."""
        with self._connection("rw") as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    @contextmanager
    def _connection(self, mode: str) -> Iterator[sqlite3.Connection]:
        uri = f"file:{quote(self.path)}?mode={mode}"
        with closing(
            sqlite3.connect(uri, uri=True, timeout=self.busy_seconds, isolation_level=None)
        ) as connection:
            yield connection


# --- the format ----------------------------------------------------------------------------------


def migrations(file: File) -> Migrations:
    """The parts of the format that the file has. Raises PreflightError."""
    with file.reading() as connection:
        return _migrations(file.path, connection)


def _migrations(path: str, connection: sqlite3.Connection) -> Migrations:
    try:
        rows = connection.execute("SELECT dir, version FROM migrations").fetchall()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise
        raise PreflightError(
            f"{path}: is not a Chroma database: {error}",
            "Another program made this file. Name the folder that the application gives to Chroma.",
        ) from error
    return frozenset((str(part), int(version)) for part, version in rows)


def refuse_newer(path: str, found: Migrations, known: Migrations) -> None:
    """Raise PreflightError where the file has parts that are not known."""
    unknown = found - known
    if unknown:
        raise PreflightError(
            f"{Path(path).parent}: this database was made by a newer version of Chroma than "
            f"the installed one (it has {listed(unknown)})",
            "Install a chromadb at least as new as the one that made it.",
        )


def listed(migrations: Migrations) -> str:
    """Parts of the format in a sentence."""
    return ", ".join(f"{part} {version}" for part, version in sorted(migrations))


# --- reading -------------------------------------------------------------------------------------


def collection_names(file: File, tenant: str, database: str) -> dict[str, str]:
    """Name of each collection of a database, by collection id."""
    with file.reading() as connection:
        rows = connection.execute(
            "SELECT c.id, c.name FROM collections c JOIN databases d ON d.id = c.database_id "
            "WHERE d.tenant_id = ? AND d.name = ?",
            (tenant, database),
        ).fetchall()
    return dict(rows)


def legacy_settings(file: File, id: str) -> dict[str, Any]:
    """The `hnsw:*` settings of a collection that Chroma 0.5 made; empty for a newer one.

    0.5 kept them with the vector segment, where they still decide after an upgrade, while the
    configuration that the upgrade writes holds defaults.
    """
    with file.reading() as connection:
        rows = connection.execute(
            "SELECT m.key, coalesce(m.str_value, m.int_value, m.float_value) "
            "FROM segment_metadata m JOIN segments s ON s.id = m.segment_id "
            "WHERE s.collection = ? AND s.scope = 'VECTOR'",
            (id,),
        ).fetchall()
    return dict(rows)


def id_page(file: File, id: str, after: str | None, rows: int) -> list[str]:
    """The next `rows` record ids of a collection in their order, the first ones where `after` is
    None."""
    query = (
        "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id {} ? "
        "ORDER BY embedding_id LIMIT ?"
    )
    comparison = ">=" if after is None else ">"
    with file.reading() as connection:
        segment = _metadata_segment(file, connection, id)
        page = connection.execute(query.format(comparison), (segment, after or "", rows))
        return [row[0] for row in page]


def watermark(file: File, id: str) -> int:
    """A number that grows with every add, update and delete of a collection, even of nothing."""
    with file.reading() as connection:
        applied = connection.execute(
            "SELECT seq_id FROM max_seq_id WHERE segment_id = ?",
            (_metadata_segment(file, connection, id),),
        ).fetchone()
        queued = connection.execute(
            "SELECT max(seq_id) FROM embeddings_queue WHERE topic LIKE '%/' || ?", (id,)
        ).fetchone()
    return max((row[0] or 0 for row in (applied, queued) if row), default=0)


def _metadata_segment(file: File, connection: sqlite3.Connection, id: str) -> str:
    row = connection.execute(
        "SELECT id FROM segments WHERE collection = ? AND scope = 'METADATA'", (id,)
    ).fetchone()
    if row is None:
        raise CollectionGoneError(f"{Path(file.path).parent}: the collection {id} is gone")
    return str(row[0])


# --- writing -------------------------------------------------------------------------------------


def set_floats(file: File, id: str, fixes: Sequence[FloatFix]) -> None:
    """Write metadata floats that Chroma's own writing would round (see `floats`)."""
    with file.writing() as connection:
        segment = _metadata_segment(file, connection, id)
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


_ABOVE = "FROM embedding_metadata_array WHERE id > (SELECT coalesce(max(id), 0) FROM embeddings)"


def purge_lists(file: File) -> None:
    """Delete list-valued metadata that belongs to no record and that the next ones would take over
    (see `stale_lists`): SQLite gives the next row the highest id plus one."""
    with file.reading() as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'embedding_metadata_array'"
        ).fetchone():  # a server before 1.5 keeps no lists
            return
        found = connection.execute(f"SELECT EXISTS (SELECT 1 {_ABOVE})").fetchone()
    if found[0]:
        with file.writing() as connection:
            connection.execute(f"DELETE {_ABOVE}")


# --- the move ------------------------------------------------------------------------------------


class Names(NamedTuple):
    """Whose name becomes what in a move; the attributes are those of `stores.values.Exchange`."""

    live: str
    incoming_id: str
    outgoing_id: str | None
    parked: str


class Moving(Protocol):
    """What `Names` and `Exchange` have in common."""

    @property
    def live(self) -> str: ...
    @property
    def incoming_id(self) -> str: ...
    @property
    def outgoing_id(self) -> str | None: ...
    @property
    def parked(self) -> str: ...


def exchange(file: File, moves: Sequence[Names]) -> None:
    """Exchange the names of two collections, for every move in the same transaction; again where it
    was done already.

    Raises:
        PreflightError: the parked name is taken, or the format is not known.
        SourceChangedError: a collection is gone, or the live name leads to a third one.
    """
    with file.writing() as connection:
        for move in moves:
            exchange_names(connection, move)


def exchange_names(connection: sqlite3.Connection, move: Moving) -> None:
    """The three UPDATEs of a swap, inside an open transaction. Public for the test that kills a
    process before its COMMIT."""
    rows = connection.execute(
        "SELECT id, name, database_id FROM collections WHERE id IN (?, ?)",
        (move.incoming_id, move.outgoing_id or ""),
    ).fetchall()
    names = {id: name for id, name, _ in rows}
    databases = {database for _, _, database in rows}
    if len(databases) > 1:
        raise SourceChangedError("the two collections are in different databases")
    database = next(iter(databases), None)

    def holder_of(name: str) -> str | None:
        row = connection.execute(
            "SELECT id FROM collections WHERE name = ? AND database_id = ?", (name, database)
        ).fetchone()
        return row[0] if row else None

    refuse_others(move, names, holder_of(move.live), holder_of(move.parked))
    if is_done(move, names):
        return
    rename = "UPDATE collections SET name = ? WHERE id = ?"
    connection.execute(rename, (name_between(move), move.incoming_id))
    if move.outgoing_id:
        connection.execute(rename, (move.parked, move.outgoing_id))
    connection.execute(rename, (move.live, move.incoming_id))


def refuse_others(
    move: Moving, names: Mapping[str, str], live_id: str | None, parked_id: str | None
) -> None:
    """Refuse unless the two collections are there and only they have the two names.

    Args:
        names: the present name of each of the two that exists, by id.
        live_id, parked_id: who has the live and the parked name now.
    """
    ours = {move.incoming_id, move.outgoing_id}
    for role, id in (("incoming", move.incoming_id), ("outgoing", move.outgoing_id)):
        if id is not None and id not in names:
            raise SourceChangedError(f"the {role} collection {id} is gone")
    if live_id is not None and live_id not in ours:
        raise SourceChangedError(
            f"{move.live} serves a third collection now ({live_id})",
            "Nothing was moved. Give the old one its name again, and run the same command again.",
        )
    if move.outgoing_id is None:
        return
    if parked_id is not None and parked_id not in ours:
        raise PreflightError(f"the name {move.parked} is taken by another collection ({parked_id})")
    if names[move.outgoing_id] not in (move.live, move.parked):
        raise SourceChangedError(
            f"the outgoing collection was renamed to {names[move.outgoing_id]!r}",
            f"It should be {move.live!r}, or {move.parked!r} after a swap.",
        )


def is_done(move: Moving, names: Mapping[str, str]) -> bool:
    """Whether both collections have the names that the move gives them."""
    return names[move.incoming_id] == move.live and (
        move.outgoing_id is None or names[move.outgoing_id] == move.parked
    )


def name_between(move: Moving) -> str:
    """What the incoming collection is called while both names are being given away."""
    return f"{move.live[:400]}__moving-{move.incoming_id[:8]}"
