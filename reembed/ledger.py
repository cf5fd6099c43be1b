"""What a run knows of every record: its row hash, the shard that speaks for it, whether quarantined.

An index over the run's shards, in SQLite so that memory stays flat, folded from the journal: it can
be deleted at any time and is built again. Catch-up, sweep, rollback and the integrity gate all ask
it whether a record is the one that was moved.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from reembed.records import SHARD_ROWS
from reembed.rundir import RunDir, Shard, write_errors

FILE = "ledger.sqlite"
SQL_VARIABLES = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS folded (stem TEXT PRIMARY KEY, export TEXT, embed TEXT);
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, row_sha256 BLOB NOT NULL, shard TEXT NOT NULL,
    quarantined INTEGER NOT NULL, scan INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_shard ON records (shard);
"""


class Entry(NamedTuple):
    """What the ledger knows of one record."""

    row_sha256: bytes
    shard: str
    quarantined: bool


class Ledger:
    """The ledger of a run, brought up to its journal when opened."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._scan = 0
        self._path: Path = run.path / FILE
        with write_errors(self._path):
            self._path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # it is rebuilt from the shards if lost
        self._db.executescript(SCHEMA)
        self.fold()

    def fold(self) -> None:
        """Take in shards journalled since; start over if one of those taken in was made again."""
        exported = self._run.shards("export")
        embedded = self._run.shards("embed")
        ready = {
            stem: (shard, embedded[stem])
            for stem, shard in exported.items()
            if stem in embedded and embedded[stem].source == shard.sha256
        }
        folded = {
            stem: (export, embed)
            for stem, export, embed in self._db.execute("SELECT stem, export, embed FROM folded")
        }
        same = all(
            stem in ready and (ready[stem][0].sha256, ready[stem][1].sha256) == hashes
            for stem, hashes in folded.items()
        )
        if not same:
            self._db.execute("DELETE FROM records")
            self._db.execute("DELETE FROM folded")
            folded = {}
        for stem, (export, embed) in ready.items():
            if stem not in folded:
                self._fold_shard(stem, export, embed)

    def _fold_shard(self, stem: str, export: Shard, embed: Shard) -> None:
        records = self._run.read_shard(export, ["id", "row_sha256"])
        moved = set(self._run.read_shard(embed, ["id"]).column("id").to_pylist())
        rows = zip(
            records.column("id").to_pylist(), records.column("row_sha256").to_pylist(), strict=True
        )
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, 0)",
            ((id, row, stem, id not in moved) for id, row in rows),
        )
        self._db.executemany("DELETE FROM records WHERE id = ?", ((id,) for id in export.deleted))
        self._db.execute("INSERT INTO folded VALUES (?, ?, ?)", (stem, export.sha256, embed.sha256))
        self._db.execute("COMMIT")

    def counts(self) -> tuple[int, int]:
        """Records in all, and how many of them are quarantined."""
        total, quarantined = self._db.execute(
            "SELECT count(*), coalesce(sum(quarantined), 0) FROM records"
        ).fetchone()
        return total, quarantined

    def lookup(self, ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of those of `ids` that the run knows."""
        found: dict[str, Entry] = {}
        for start in range(0, len(ids), SQL_VARIABLES):
            part = ids[start : start + SQL_VARIABLES]
            marks = ",".join("?" * len(part))
            for id, row, shard, quarantined in self._db.execute(
                f"SELECT id, row_sha256, shard, quarantined FROM records WHERE id IN ({marks})",  # noqa: S608
                part,
            ):
                found[id] = Entry(row, shard, bool(quarantined))
        return found

    def current(self, stem: str) -> set[str]:
        """Ids that this shard speaks for and that are not in quarantine."""
        return {
            id
            for (id,) in self._db.execute(
                "SELECT id FROM records WHERE shard = ? AND NOT quarantined", (stem,)
            )
        }

    def begin_scan(self) -> None:
        """Begin to mark records as seen, for `unseen`."""
        (self._scan,) = self._db.execute(
            "SELECT coalesce(max(scan), 0) + 1 FROM records"
        ).fetchone()

    def mark_seen(self, ids: Sequence[str]) -> None:
        """Mark records as seen in this scan."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE records SET scan = ? WHERE id = ?", ((self._scan, id) for id in ids)
        )
        self._db.execute("COMMIT")

    def unseen(self, *, include_quarantined: bool = True) -> Iterator[list[str]]:
        """Pages of ids that were not marked since `begin_scan`."""
        cursor = self._db.execute(
            "SELECT id FROM records WHERE scan <> ? AND (? OR NOT quarantined)",
            (self._scan, include_quarantined),
        )
        while page := cursor.fetchmany(SHARD_ROWS):
            yield [id for (id,) in page]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
