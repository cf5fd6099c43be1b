"""How many records a run knows, for people: from a copy of the ledger, since another process may be
at work on it."""

from __future__ import annotations

import contextlib
import shutil

from reembed.errors import DamagedError
from reembed.run.directory import RunDir
from reembed.run.disk import read_errors, temporary_folder
from reembed.run.ledger import FILE, Ledger, closed_counts
from reembed.run.sqlite import files_of, sum_of


def count_records(run: RunDir, notes: list[str]) -> tuple[int, int]:
    """Records in all, and how many of them are quarantined, for people. Writes nothing into the
    run.

    Args:
        notes: told where a file is damaged, so that the counts are those of the journal.
    """
    exports, embeds = run.shards("export"), run.shards("embed")
    if not embeds:
        return 0, 0
    closed = closed_counts(run)
    if closed is not None:
        return closed
    path = run.path / FILE
    try:
        with temporary_folder() as folder:
            copy = folder / FILE
            database, wal, _ = files_of(path)
            for source in (database, wal, sum_of(path)):
                with read_errors(source), contextlib.suppress(FileNotFoundError):
                    if source.is_file():
                        shutil.copyfile(source, folder / source.name)
            with Ledger(run, copy) as ledger:
                return ledger.counts()
    except DamagedError as error:
        notes.append(f"{error.message}. {error.hint} Until then the counts are the journal's.")
    total = sum(shard.rows for shard in exports.values())
    return total, max(total - sum(shard.rows for shard in embeds.values()), 0)
