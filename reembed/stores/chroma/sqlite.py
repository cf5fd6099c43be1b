"""Everything that is read from or written to chroma.sqlite3 without Chroma.

Used where the file is at hand (a local path, or the server's directory). It is done in a process of
its own (`sqlite_process`), by the functions of `sqlite_calls`. All raise UnreachableError where the
file cannot be opened or its lock is not to be had, and PreflightError for a disk that is full.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.records import SHARD_ROWS
from reembed.run.disk import TEMPORARY, full, temporary_folder, write_errors
from reembed.run.sqlite import sqlite_errors
from reembed.stores.chroma.damaged import damage
from reembed.stores.chroma.formats import FORMATS
from reembed.stores.chroma.sqlite_calls import (
    File,
    FloatFix,
    Migrations,
    Names,
    listed,
    refuse_newer,
)
from reembed.stores.chroma.sqlite_fill import Fill, FillRow
from reembed.stores.chroma.sqlite_orphans import Orphans
from reembed.stores.chroma.sqlite_pages import Page, Segments
from reembed.stores.chroma.sqlite_process import beside
from reembed.stores.values import Exchange

FILE = "chroma.sqlite3"
INSTEAD = "move the database to a larger disk that is mounted at the same path"
BUSY_SECONDS = 60.0
"""How long to wait for Chroma's own writers."""


def _read(function: str, folder: Path, *arguments: Any) -> Any:
    return _call(function, folder, arguments)


def _write(function: str, folder: Path, *arguments: Any) -> Any:
    return _call(function, folder, arguments, known_migrations())


def _call(
    function: str, folder: Path, arguments: Sequence[Any], known: Migrations = frozenset()
) -> Any:
    path = folder.absolute() / FILE
    file = File(str(path), BUSY_SECONDS, known, os.getpid())
    try:
        with sqlite_errors(path, INSTEAD):
            return beside.call(function, file, *arguments)
    except sqlite3.Error as error:
        if (damaged := damage(f"{path}: {error}")) is not None:
            raise damaged from error
        raise


def check_openable(folder: Path) -> None:
    """Refuse a folder that opening with the installed chromadb would create or upgrade.

    An upgrade is applied on open, without asking, and cannot be undone.

    Raises:
        CollectionNotFoundError: no database there.
        PreflightError: made by another version of Chroma.
    """
    if not _filled(folder):
        lacks = "empty" if (folder / FILE).is_file() else "missing"
        raise CollectionNotFoundError(
            f"{folder}: there is no Chroma database here ({FILE} is {lacks})",
            "Check the path; relative paths in a manifest are relative to its own folder."
            + _others(folder),
        )
    found = migrations(folder)
    refuse_newer(str(folder / FILE), found, known_migrations())
    missing = known_migrations() - found
    if missing:
        raise _older(folder, found, missing)


def _filled(folder: Path) -> bool:
    """Whether a folder has the file, with something in it: whoever opens a wrong path with SQLite
    leaves an empty one."""
    path = folder / FILE
    return path.is_file() and path.stat().st_size > 0


def _others(folder: Path) -> str:
    """Databases beside a folder that has none, or in it, the likeliest first."""
    found: list[Path] = []
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):
            found += [inner for inner in sorted(place.iterdir()) if _filled(inner)]
    found += [folder.parent] if _filled(folder.parent) else []
    if not found:
        return ""
    close = difflib.get_close_matches(folder.name, [path.name for path in found], 1, 0)
    found.sort(key=lambda path: path.name != close[0] if close else False)
    return f" Did you mean `chroma:{found[0]}`?"


_FIRST_OF_1_0 = ("sysdb", 9)
"""A migration that Chroma 1.0 made and 0.6 did not."""


def _older(folder: Path, found: Migrations, missing: Migrations) -> PreflightError:
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
        f"any more ({listed(missing)})",
        serve + copy if serves else copy[0].upper() + copy[1:],
    )


def known_migrations() -> Migrations:
    """What the installed chromadb gives a new database."""
    return FORMATS.get(version("chromadb")) or asked_migrations()


@lru_cache(maxsize=1)
def asked_migrations() -> Migrations:
    """The same, of a new database in a temporary folder, which is the only one to ask for a version
    that is not listed: Chroma's Rust part holds the list."""
    import chromadb
    from chromadb.config import Settings
    from chromadb.errors import ChromaError

    with temporary_folder() as folder:
        try:
            client: Any = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
        except ChromaError as error:
            raise full(
                folder, TEMPORARY, f"Chroma cannot make a database there: {error}"
            ) from error
        client.close()
        return migrations(Path(folder))


def migrations(folder: Path) -> Migrations:
    """The parts of the format that the file has."""
    found: Migrations = _read("migrations", folder)
    return found


def collection_names(folder: Path, tenant: str, database: str) -> dict[str, str]:
    """Name of each collection of a database, by collection id."""
    names: dict[str, str] = _read("collection_names", folder, tenant, database)
    return names


def legacy_settings(folder: Path, id: str) -> dict[str, Any]:
    """The `hnsw:*` settings of a collection that Chroma 0.5 made; empty for a newer one."""
    settings: dict[str, Any] = _read("legacy_settings", folder, id)
    return settings


def id_pages(folder: Path, id: str) -> Iterator[list[str]]:
    """All record ids of a collection in short pages, each continuing after the last id seen, so
    that writes in between neither hide nor repeat an id."""
    after: str | None = None
    while True:
        page: list[str] = _read("id_page", folder, id, after, SHARD_ROWS)
        if page:
            yield page
        if len(page) < SHARD_ROWS:
            return
        after = page[-1]


def segments(folder: Path, id: str) -> Segments | None:
    """The parts of a collection; None where it has others than those that a local one has."""
    found: Segments | None = _read("segments", folder, id)
    return found


def counts(folder: Path) -> dict[str, int]:
    """Number of records of every collection, by its id, but of those whose last writes wait in the
    log: Chroma itself must be asked for these."""
    found: dict[str, int] = _read("counts", folder)
    return found


def applied(folder: Path, segment: str) -> int:
    """The number of the last write that a segment holds."""
    return int(_read("applied", folder, segment))


def records(folder: Path, id: str, parts: Segments, ids: Sequence[str]) -> Page:
    """The records of these ids, each different, as of one moment and without their vectors."""
    page: Page = _read("records", folder, id, parts, list(ids))
    return page


def watermark(folder: Path, id: str) -> str:
    """A number that grows with every add, update and delete of a collection, even of nothing."""
    return str(_read("watermark", folder, id))


def set_floats(folder: Path, id: str, fixes: Sequence[FloatFix]) -> None:
    """Write metadata floats that Chroma's own writing would round (see `floats`)."""
    if fixes:
        _write("set_floats", folder, id, list(fixes))


def purge_lists(folder: Path) -> None:
    """Delete the list-valued metadata that the next records would take over (see `stale_lists`)."""
    _write("purge_lists", folder)


def orphans(folder: Path) -> Orphans:
    """How much belongs to no record, in the whole file."""
    found: Orphans = _read("orphans", folder)
    return found


def purge_orphans(folder: Path, kept: Path) -> int:
    """Delete metadata that belongs to no record, once it is in a file. Returns how many rows."""
    with write_errors(kept):
        return int(_write("purge_orphans", folder, str(kept.absolute())))


def segment_ids(folder: Path) -> set[str]:
    """The ids of all parts of all collections."""
    found: set[str] = _read("segment_ids", folder)
    return found


def unqueued(folder: Path, id: str, ids: Sequence[str]) -> list[str]:
    """Those of these record ids of which no write waits in the log."""
    found: list[str] = _read("unqueued", folder, id, list(ids))
    return found


def exchange(folder: Path, moves: Sequence[Exchange]) -> None:
    """Exchange the names of two collections, for every move in the same transaction; again where it
    was done already.

    Raises:
        PreflightError: the parked name is taken, or the format is not known.
        SourceChangedError: a collection is gone, or the live name leads to a third one.
    """
    names = [Names(move.live, move.incoming_id, move.outgoing_id, move.parked) for move in moves]
    _write("exchange", folder, names)


# A new collection, filled past Chroma (`bulk`)


def schema_of(folder: Path, id: str) -> tuple[dict[str, Any], int | None]:
    """The schema of a collection, and its dimensions, None for none yet."""
    found: tuple[dict[str, Any], int | None] = _read("schema_of", folder, id)
    return found


def add_rows(folder: Path, fill: Fill, rows: Sequence[FillRow]) -> None:
    """Add records without their vectors, all or none."""
    _write("add_rows", folder, fill, list(rows))


def finish(
    folder: Path, fill: Fill, dimensions: int, records: int, last: bytes,
    kinds: Mapping[str, set[str]],
) -> None:  # fmt: skip
    """Put the index in its place, and let the collection count; see `sqlite_fill.finish`."""
    _write("finish", folder, fill, dimensions, records, last, dict(kinds))


def unfill(folder: Path, fill: Fill, elements: int) -> bool:
    """Take back the rows of a collection that does not count; see `sqlite_fill.unfill`. Returns
    False where it does."""
    return bool(_write("unfill", folder, fill, elements))
