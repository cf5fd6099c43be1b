"""What a run knows of every record: row hash, the shard that speaks for it, quarantine.

An index over the run's shards (`sqlite.py`), in SQLite so that memory stays flat, folded from the
journal: it can be deleted at any time and is built again. Catch-up, sweep, rollback and the
integrity gate all ask it whether a record is the one that was moved, so a file that was changed by
another is not believed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from reembed.errors import DamagedError
from reembed.records import SHARD_ROWS, chunked
from reembed.run import events
from reembed.run.directory import RunDir, Shard
from reembed.run.sql_ids import insert_ids
from reembed.run.sqlite import (
    close_index,
    index_errors,
    open_index,
    read_closed,
    remove_database,
    select_in,
    temporary_errors,
    transaction,
)

FILE = "ledger.sqlite"
UNKNOWN = bytes(32)
"""The row hash of a record of which nothing but its id is known: no record has it."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS folded (stem TEXT PRIMARY KEY, export TEXT, embed TEXT);
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, row_sha256 BLOB NOT NULL, shard TEXT NOT NULL,
    quarantined INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_shard ON records (shard);
"""
SCAN = """
DROP TABLE IF EXISTS temp.seen;
CREATE TEMP TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
UNSEEN = """SELECT id FROM records WHERE (? OR NOT quarantined)
AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.id = records.id)"""
STRANGE = """SELECT id FROM seen WHERE NOT EXISTS
(SELECT 1 FROM records WHERE records.id = seen.id AND NOT quarantined)"""
RECORD = "INSERT OR REPLACE INTO records (id, row_sha256, shard, quarantined) VALUES (?, ?, ?, ?)"


class DamagedLedgerError(DamagedError):
    """The ledger's own file is damaged, and removed."""


class Entry(NamedTuple):
    """What the ledger knows of one record."""

    row_sha256: bytes
    shard: str
    quarantined: bool


Rows = Mapping[str, bytes]
"""Id to row hash of the records that are there."""


class Ledger:
    """The ledger of a run, brought up to its journal when opened.

    Args:
        path: its file; default: the run's own.
        removes: False beside another one of this process, which is to find damage itself: a file
            that is removed while it is open elsewhere is read on there as it was, or as nothing.

    Raises:
        DamagedError: a shard that is to be taken in is not whole; from every method: the file was
            damaged since it was opened. It is removed then, and made again by the next command.
        PreflightError: its file cannot be written, or the disk is full; from every method.
        UnreachableError: another process holds it for long; from every method.
    """

    def __init__(self, run: RunDir, path: Path | None = None, *, removes: bool = True) -> None:
        self._run, self._removes = run, removes
        self._displaced = frozenset[str]()
        self._path = path or run.path / FILE
        try:
            self._open()
        except DamagedLedgerError:  # it is only an index over the shards
            if not removes:
                raise
            self._open()

    def _open(self) -> None:
        self._db = open_index(self._path, SCHEMA)
        try:
            self.fold()
        except BaseException:
            self._db.close()
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """`index_errors`, and a file that is damaged is removed."""
        try:
            with index_errors(self._path):
                yield
        except sqlite3.ProgrammingError:
            raise  # it is closed
        except sqlite3.DatabaseError as error:
            if self._removes:
                self._db.close()
                remove_database(self._path)
            raise DamagedLedgerError(
                f"{self._path}: what the run knows of its records was damaged: {error}",
                "It is removed. Run the same command again: it is made again from the shards.",
            ) from error

    def fold(self) -> None:
        """Take in shards journalled since; start over if one of those taken in was made again.

        Safe beside another process that does the same, as `status` does during a run.
        """
        with self._errors():
            self._fold()
        self.displaced()

    def _fold(self) -> None:
        ready = _ready(self._run)
        hashes = _hashes(ready)
        if _folded(self._db) == hashes:
            return
        with transaction(self._db):
            same = all(hashes.get(stem) == folded for stem, folded in _folded(self._db).items())
            if not same:
                self._db.execute("DELETE FROM records")
                self._db.execute("DELETE FROM folded")
        folded = _folded(self._db)
        for stem, (export, embed) in ready.items():
            if stem not in folded:
                self._fold_shard(stem, export, embed)

    def _fold_shard(self, stem: str, export: Shard, embed: Shard) -> None:
        for shard in (export, embed):
            if not self._run.is_whole(shard):
                raise self._run.damaged(shard)
        records = self._run.read_shard(export, ["id", "row_sha256"])
        moved = set(self._run.read_shard(embed, ["id"]).column("id").to_pylist())
        rows = zip(
            records.column("id").to_pylist(), records.column("row_sha256").to_pylist(), strict=True
        )
        with transaction(self._db):
            if stem in _folded(self._db):  # by another process, since we looked
                return
            self._db.executemany(RECORD, ((id, row, stem, id not in moved) for id, row in rows))
            self._db.executemany(
                RECORD, ((id, bytes.fromhex(row), stem, out) for id, row, out in export.missing)
            )
            self._db.executemany(
                "DELETE FROM records WHERE id = ?", ((id,) for id in export.deleted)
            )
            self._db.execute(
                "INSERT INTO folded VALUES (?, ?, ?)", (stem, export.sha256, embed.sha256)
            )

    def counts(self) -> tuple[int, int]:
        """Records in all, and how many of them are quarantined."""
        with self._errors():
            return _counts(self._db)

    def displaced(self) -> frozenset[str]:
        """Ids of records that the shadow lacks, as the journal tells by now: they had to make room
        for what others say, and the shard that speaks for them has not been loaded since. From here
        on their row hash is UNKNOWN to `lookup`, so that every comparison finds them."""
        given_up, loaded = dict[str, int](), dict[str, int]()
        for place, event in enumerate(self._run.history.all(events.Displaced, events.Loaded)):
            if isinstance(event, events.Loaded):
                loaded[event.stem] = place
            else:
                given_up |= dict.fromkeys(event.ids, place)
        self._displaced = frozenset(
            id for id, entry in self.lookup(list(given_up)).items()
            if not entry.quarantined and loaded.get(entry.shard, -1) < given_up[id]
        )  # fmt: skip
        return self._displaced

    def lookup(self, ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of those of `ids` that the run knows."""
        query = "SELECT id, row_sha256, shard, quarantined FROM records WHERE id IN ({})"
        with self._errors():
            rows = list(select_in(self._db, query, ids))
        found = {id: Entry(row, shard, bool(out)) for id, row, shard, out in rows}
        for id in self._displaced.intersection(found):
            found[id] = found[id]._replace(row_sha256=UNKNOWN)
        return found

    def count_unknown(self, ids: Sequence[str]) -> int:
        """How many of `ids` the run does not know."""
        return sum(len(part) - len(self.lookup(part)) for part in chunked(ids, SHARD_ROWS))

    def of_shards(self, ids: Sequence[str], stems: Collection[str]) -> set[str]:
        """Those of `ids` for which one of these shards speaks."""
        return {id for id, entry in self.lookup(ids).items() if entry.shard in stems}

    def unlike(
        self, ids: Sequence[str], there: Rows, *, include_quarantined: bool = False
    ) -> list[str]:
        """Those of `ids` whose record is there otherwise than the run knows it, or is not there.

        Args:
            include_quarantined: whether quarantined records are expected.
        """
        known, found = self.lookup(ids), list[str]()
        for id in ids:
            entry = known.get(id)
            if entry is not None and entry.quarantined and not include_quarantined:
                entry = None
            if there.get(id) != (entry.row_sha256 if entry else None):
                found.append(id)
        return found

    def compare(
        self, pages: Iterable[tuple[Sequence[str], Rows]], told: Callable[[float], object], *,
        whole: bool, include_quarantined: bool,
    ) -> tuple[list[str], list[str], int]:  # fmt: skip
        """Compare records of a collection. Returns the ids that are new or whose row hash differs,
        those that it no longer has, and the number of records compared.

        Args:
            pages: ids, and those of them that are there.
            told: is called with the number of ids of each page.
            whole: whether these are all that the collection has, so that others are deleted.
            include_quarantined: whether quarantined records are expected.
        """
        changed, deleted, rows = list[str](), list[str](), 0
        if whole:
            self.begin_scan()
        for ids, there in pages:
            unlike = self.unlike(ids, there, include_quarantined=include_quarantined)
            changed += [id for id in unlike if id in there]
            deleted += sorted(id for id in unlike if id not in there)
            rows += len(there)
            if whole:
                self.mark_seen(ids)
            told(len(ids))
        for page in self.unseen(include_quarantined=include_quarantined) if whole else ():
            deleted += page
        return changed, deleted, rows

    def gone(self, export: Shard, exported: Sequence[str]) -> list[str]:
        """Ids of a shard's records that the new collection must not hold: deleted and quarantined
        ones.

        Args:
            exported: the ids of its records.
        """
        known = self.lookup([*exported, *export.deleted])
        gone = [id for id in export.deleted if id not in known]
        return gone + [
            id for id in exported
            if id in known and known[id].shard == export.stem and known[id].quarantined
        ]  # fmt: skip

    def current(self, stem: str) -> set[str]:
        """Ids that this shard speaks for and that are not in quarantine."""
        query = "SELECT id FROM records WHERE shard = ? AND NOT quarantined"
        with self._errors():
            return {id for (id,) in self._db.execute(query, (stem,))}

    def of_shard(self, stem: str) -> dict[str, Entry]:
        """The entries of all records that this shard speaks for, quarantined ones too."""
        query = "SELECT id, row_sha256, quarantined FROM records WHERE shard = ?"
        with self._errors():
            rows = self._db.execute(query, (stem,)).fetchall()
        return {id: Entry(row, stem, bool(out)) for id, row, out in rows}

    def begin_scan(self) -> None:
        """Begin to mark records as seen, for `unseen`. The marks are beside the ledger's file, in a
        temporary one, so that a look leaves it as it is."""
        with self._errors(), temporary_errors():
            self._db.executescript(SCAN)

    def mark_seen(self, ids: Sequence[str]) -> None:
        """Mark records as seen in this scan."""
        with self._errors(), temporary_errors(), transaction(self._db):
            insert_ids(self._db, "seen", ids)

    def unseen(self, *, include_quarantined: bool = True) -> Iterator[list[str]]:
        """Pages of ids that were not marked since `begin_scan`."""
        with self._errors():
            cursor = self._db.execute(UNSEEN, (include_quarantined,))
            while page := cursor.fetchmany(SHARD_ROWS):
                yield [id for (id,) in page]

    def strange(self) -> list[str]:
        """Ids marked since `begin_scan` that the run does not know, or has in quarantine."""
        with self._errors():
            return [id for (id,) in self._db.execute(STRANGE)]

    def close(self) -> None:
        """Close the file, and write down what is in it."""
        close_index(self._db, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def closed_counts(run: RunDir) -> tuple[int, int] | None:
    """`Ledger.counts` of a ledger that is closed and up to its journal, read where it is; None of
    every other. Writes nothing."""

    def read(db: sqlite3.Connection) -> tuple[int, int] | None:
        return _counts(db) if _folded(db) == _hashes(_ready(run)) else None

    return read_closed(run.path / FILE, read)


def _ready(run: RunDir) -> dict[str, tuple[Shard, Shard]]:
    """Stem to the export and the embed shard of it that belong together."""
    exported, embedded = run.shards("export"), run.shards("embed")
    return {
        stem: (shard, embedded[stem])
        for stem, shard in exported.items()
        if stem in embedded and embedded[stem].source == shard.sha256
    }


def _hashes(ready: dict[str, tuple[Shard, Shard]]) -> dict[str, tuple[str, str]]:
    return {stem: (export.sha256, embed.sha256) for stem, (export, embed) in ready.items()}


def _folded(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Stem to the hashes of the export and the embed shard that were taken in."""
    rows = db.execute("SELECT stem, export, embed FROM folded")
    return {stem: (export, embed) for stem, export, embed in rows}


def _counts(db: sqlite3.Connection) -> tuple[int, int]:
    total, quarantined = db.execute(
        "SELECT count(*), coalesce(sum(quarantined), 0) FROM records"
    ).fetchone()
    return total, quarantined
