"""Records that could not be moved, each with its reason: a list a shard, and one of them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.errors import DamagedError
from reembed.records import QUARANTINE_SCHEMA, hashes_of
from reembed.run import files
from reembed.run.directory import RunDir
from reembed.run.disk import atomic_file, remove
from reembed.run.files import RunFile
from reembed.run.ledger import Ledger

QUARANTINE_DIR = "quarantine"
PART = RunFile(
    QUARANTINE_DIR, "the list of a shard's quarantined records",
    "`reembed run` makes it again or, where the live name has moved, `reembed sweep`; what was "
    "paid for is in the cache.",
)  # fmt: skip


def write_part(path: Path, rows: pa.Table) -> None:
    """Write the list of one shard, with checksums."""
    with atomic_file(path) as file:
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)


Reason = tuple[str, str]
"""Why a record is not moved: a short word, and a sentence."""


def quarantine_rows(
    run: RunDir, stem: str, records: pa.Table, reasons: Mapping[int, Reason]
) -> None:
    """Write the list of one shard: these of its rows, each with its reason. Without any there is no
    list."""
    path = run.path / QUARANTINE_DIR / f"{stem}.parquet"
    if not reasons:
        remove(path)
        return
    rows = records.take(list(reasons))
    table = pa.table(
        [
            *rows.columns,
            pa.array([reason for reason, _ in reasons.values()]),
            pa.array([detail for _, detail in reasons.values()]),
        ],
        schema=QUARANTINE_SCHEMA,
    )
    write_part(path, table)


def write_quarantine(run: RunDir, ledger: Ledger) -> int:
    """Gather the records that are quarantined now into one file. Returns their number.

    A record quarantined in one shard may have been mended or deleted by a later delta; the ledger
    knows which shard speaks for it.
    """
    rows = 0
    with (
        atomic_file(run.path / files.QUARANTINE.name) as file,
        pq.ParquetWriter(
            file, QUARANTINE_SCHEMA, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        for path in sorted((run.path / QUARANTINE_DIR).glob("*.parquet")):
            table = _read_part(path)
            ids = table.column("id").to_pylist()
            current = ledger.of_shards(ids, {path.stem})
            table = table.filter(pa.array([id in current for id in ids], pa.bool_()))
            writer.write_table(table)
            rows += table.num_rows
    return rows


def quarantined_ids(run: RunDir, ledger: Ledger) -> list[str]:
    """Ids of the records that are quarantined now, in the order of their shards."""
    found: dict[str, None] = {}
    for path in sorted((run.path / QUARANTINE_DIR).glob("*.parquet")):
        ids = _read_part(path).column("id").to_pylist()
        known = ledger.lookup(ids)
        found |= {
            id: None
            for id in ids
            if id in known and known[id].quarantined and known[id].shard == path.stem
        }
    return list(found)


def count_listed(run: RunDir, ledger: Ledger) -> int:
    """How many records the list of all holds; one that is damaged is made again first."""
    try:
        found = files.read(
            run.path / files.QUARANTINE.name, files.QUARANTINE, lambda path: _table(path).num_rows
        )
    except DamagedError:
        return write_quarantine(run, ledger)
    return found or 0


def _read_part(path: Path) -> pa.Table:
    found = files.read(path, PART, _table)
    return QUARANTINE_SCHEMA.empty_table() if found is None else found


def _table(path: Path) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read().select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)


def lists_all(run: RunDir, stem: str, rows: int) -> bool:
    """Whether the list of a shard that lacks so many records of its export can be read, and tells
    of each of them."""
    if not rows:
        return True
    try:
        return len(_read_part(run.path / QUARANTINE_DIR / f"{stem}.parquet")) == rows
    except DamagedError:
        return False


def quarantined_of(run: RunDir, stem: str) -> dict[str, bytes]:
    """Row hash of each record of a shard that was set aside when it was embedded."""
    rows = _read_part(run.path / QUARANTINE_DIR / f"{stem}.parquet")
    return hashes_of(rows)
