"""Records that could not be moved, each with its reason: a list a shard, and one of them all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.disk import atomic_file
from reembed.errors import DamagedError
from reembed.records import (
    QUARANTINE_SCHEMA,
    hashes_of,
)
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger

QUARANTINE_FILE = "quarantine.parquet"


QUARANTINE_DIR = "quarantine"


def write_quarantine(run: RunDir, ledger: Ledger) -> int:
    """Gather the records that are quarantined now into one file. Returns their number.

    A record quarantined in one shard may have been mended or deleted by a later delta; the ledger
    knows which shard speaks for it.
    """
    rows = 0
    with (
        atomic_file(run.path / QUARANTINE_FILE) as file,
        pq.ParquetWriter(file, QUARANTINE_SCHEMA, compression="zstd") as writer,
    ):
        for part in sorted((run.path / QUARANTINE_DIR).glob("*.parquet")):
            table = _read_part(run, part)
            entries = ledger.lookup(table.column("id").to_pylist())
            current = [
                (entry := entries.get(id)) is not None and entry.shard == part.stem
                for id in table.column("id").to_pylist()
            ]
            table = table.filter(pa.array(current, pa.bool_()))
            writer.write_table(table)
            rows += table.num_rows
    return rows


def quarantined_ids(run: RunDir, ledger: Ledger) -> list[str]:
    """Ids of the records that are quarantined now, in the order of their shards."""
    found: dict[str, None] = {}
    for part in sorted((run.path / QUARANTINE_DIR).glob("*.parquet")):
        ids = _read_part(run, part).column("id").to_pylist()
        known = ledger.lookup(ids)
        found |= {
            id: None
            for id in ids
            if id in known and known[id].quarantined and known[id].shard == part.stem
        }
    return list(found)


def _read_part(run: RunDir, part: Path) -> pa.Table:
    try:
        return pq.read_table(part, partitioning=None)
    except MemoryError:  # Arrow has one of its own, and it says nothing of the file
        raise
    except (OSError, pa.ArrowException) as error:
        raise DamagedError(
            f"{part}: the list of a shard's quarantined records is damaged: {error}",
            f"Delete it and {run.path / 'embed' / part.name}, and run the same command again: both "
            "are made again, and what was paid for is in the cache.",
        ) from error


def quarantined_of(run: RunDir, stem: str) -> dict[str, bytes]:
    """Row hash of each record of a shard that was set aside when it was embedded."""
    part = run.path / QUARANTINE_DIR / f"{stem}.parquet"
    if not part.is_file():
        return {}
    return hashes_of(_read_part(run, part))
