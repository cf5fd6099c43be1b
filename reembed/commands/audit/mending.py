"""One mending on the disk: which records, the vectors that they had and those that they get.

    <state>/audits/<collection>/<id>/journal.jsonl   what was intended and done
                                     old.parquet     the way back: ids, hashes and vectors before
                                     new.parquet     what the model made of their texts

What is in the journal is on the disk: a call that was killed is gone on with by doing the same
again, and each step finds what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reembed.backup.directory import folder_name
from reembed.errors import DamagedError
from reembed.records import Vectors, list_array_to_vectors
from reembed.run.directory import new_run_id
from reembed.run.disk import atomic_file, make_private_dir
from reembed.run.files import RunFile, damaged, read
from reembed.run.journal import Journal

FOLDER = "audits"
VECTORS = RunFile(
    "vectors of a mending", "the vectors of records that are embedded again",
    "Put it back from a copy; the snapshot that was taken before has the old vectors too.",
)  # fmt: skip
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row_sha256", pa.binary(32), nullable=False),
        pa.field("embedding", pa.list_(pa.float32())),
    ]
)
"""Of both files; `embedding` is null where there is none."""


@dataclass(frozen=True)
class Kept:
    """The rows of one of the files.

    Attributes:
        vectors: `(n, d) float32`, zeros where there is none.
        there: which there are.
    """

    ids: list[str]
    hashes: list[bytes]
    vectors: Vectors
    there: npt.NDArray[np.bool_]


class Mending:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._book = Journal(path / "journal.jsonl")

    def note(self, event: str, **fields: Any) -> None:
        """Write one event: `planned`, `embedded`, `done` or `undone`."""
        self._book.append(event, **fields)

    def lost(self) -> DamagedError:
        """The error of a mending of which a file is gone."""
        return self._book.lost()

    def event(self, name: str) -> dict[str, Any] | None:
        """The last event of this name, None without one."""
        found = [one for one in self._book.read() if one["event"] == name]
        return found[-1] if found else None

    @property
    def planned(self) -> dict[str, Any]:
        """What it is of: keys `url`, `collection`, `id` (object id), `model`, `fingerprint`,
        `template`, `layout`, `line_breaks`, `records`, `snapshot`."""
        found = self.event("planned")
        if found is None:
            raise self.lost()
        return found

    @property
    def open(self) -> bool:
        """Whether it was begun and not brought to its end."""
        return self.event("planned") is not None and not self.event("done")

    @property
    def undoable(self) -> bool:
        return bool(self.event("planned")) and not self.event("undone")

    def keep(self, name: str, rows: pa.Table) -> None:
        """Write one of the files, whole or not at all."""
        with atomic_file(self.path / name) as file:
            pq.write_table(rows.cast(SCHEMA), file, compression="zstd")

    def kept(self, name: str) -> Kept | None:
        """What one of the files holds, None where it is not there. Raises DamagedError."""
        table = read(self.path / name, VECTORS, pq.read_table)
        if table is None:
            return None
        if table.schema.names != SCHEMA.names:
            raise damaged(self.path / name, VECTORS, "its columns are not those that were written")
        found, there = list_array_to_vectors(table.column("embedding"))
        vectors = np.zeros((len(table), found.shape[1]), np.float32)
        vectors[there] = found
        hashes = table.column("row_sha256").to_pylist()
        return Kept(table.column("id").to_pylist(), hashes, vectors, there)


def folder_of(state: Path, collection: str) -> Path:
    """Where the mendings of a collection lie."""
    return state / FOLDER / folder_name(collection)


def all_of(state: Path, collection: str, url: str) -> list[Mending]:
    """The mendings of a collection, oldest first."""
    folder = folder_of(state, collection)
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [Mending(path) for path in paths if path.is_dir()]
    return [one for one in found if one.event("planned") and one.planned["url"] == url]


def begin(state: Path, collection: str) -> Mending:
    """A new one; it counts once it is planned in its journal."""
    folder = folder_of(state, collection)
    make_private_dir(folder)
    latest = max((path.name for path in folder.iterdir()), default="")
    path = folder / new_run_id(latest)
    make_private_dir(path)
    return Mending(path)
