"""What a rollback has carried back: the list that tells what came to the new collection later.

Where a record of the old collection holds a value that must be unique and that the new one gives to
another record, it is displaced: noted in the journal, then deleted, and written in its turn. Until
the way back has come to its end, its absence is nobody's deletion.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.errors import DamagedError
from reembed.run import files
from reembed.run.directory import RunDir
from reembed.run.disk import atomic_file, write_errors

CARRIED_FILE = files.CARRIED.name
CARRIED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("new_sha256", pa.binary(32)),
        pa.field("old_sha256", pa.binary(32)),
    ]
)
"""Row hashes of a record in the new and in the old collection after it was carried back; null where
it is not there, zeros where it was displaced and not written again."""

Hashes = tuple[bytes | None, bytes | None]


def read_carried(run: RunDir) -> dict[str, Hashes]:
    """The hashes of each record that was carried back, in the new and in the old collection.

    Raises:
        DamagedError: the list cannot be read.
    """
    return files.read(run.path / CARRIED_FILE, files.CARRIED, _parse) or {}


def known_carried(run: RunDir, note: Callable[[str], None]) -> dict[str, Hashes]:
    """As `read_carried`; where the list cannot be read it is begun anew, and that is noted.

    Without it both collections are compared record by record: what is the same in both needs no
    list. Only where the old collection has deleted what was carried to it does that look like a
    late write of the new one, and the record is kept, since to keep it loses nothing.
    """
    try:
        return read_carried(run)
    except DamagedError as error:
        note(
            f"{error.message}. Both collections are compared again; a record that was copied back "
            "and then deleted from the old collection counts as a late write"
        )
        return {}


def _parse(path: Path) -> dict[str, Hashes]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        columns = file.read().cast(CARRIED_SCHEMA).to_pydict()
    pairs = zip(columns["new_sha256"], columns["old_sha256"], strict=True)
    return dict(zip(columns["id"], pairs, strict=True))


def write_carried(run: RunDir, known: Mapping[str, Hashes]) -> None:
    """Write the list, in place of whatever stands there."""
    path = run.path / CARRIED_FILE
    if path.is_dir() and not path.is_symlink():  # no file can take the place of a folder
        with write_errors(path):
            path.rename(path.with_name(f"{CARRIED_FILE}.{secrets.token_hex(4)}.damaged"))
    columns = [list(known), *([pair[side] for pair in known.values()] for side in (0, 1))]
    with atomic_file(path) as file:
        pq.write_table(pa.table(columns, schema=CARRIED_SCHEMA), file, write_page_checksum=True)
