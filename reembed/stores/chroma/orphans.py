"""What a Chroma database holds of no record; see `Store.orphans`.

Chroma leaves list-valued metadata and the index's folder of a collection that is deleted (see
`stale_lists`), and an index that is ahead of chroma.sqlite3, as after a restore of that file alone,
answers with ids of records that are not there.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.index_files import HEADER, ChangedError, IndexFiles
from reembed.stores.values import Orphans

KEYS = 5
"""Metadata keys that are named."""


def orphans(database: Database, id: str) -> list[Orphans]:
    """Of the database, and of the index of this collection. Nothing where no file is at hand."""
    folder = database.file
    if folder is None:
        return []
    left = _folders(folder)  # before the segments are asked for: a new folder has one
    return [*_rows(folder), *_vectors(folder, id), *_left(folder, left)]


def _rows(folder: Path) -> list[Orphans]:
    rows = chroma_sqlite.orphans(folder)
    found = []
    if rows.metadata:
        keys = ", ".join(rows.keys[:KEYS]) + (", ..." if len(rows.keys) > KEYS else "")
        about = f"metadata rows belong to no record (keys: {keys})"
        if rows.next:
            about += (
                f", and the next records that are added take {rows.next:,} of them over, as "
                "metadata that nobody gave them"
            )
        found.append(Orphans(
            "metadata", rows.metadata, about, bool(rows.next),
            partial(chroma_sqlite.purge_orphans, folder),
        ))  # fmt: skip
    if rows.records:
        found.append(Orphans("rest", rows.records, "records are of collections that are gone"))
    return found


def _vectors(folder: Path, id: str) -> list[Orphans]:
    """Vectors in the index whose records are not there."""
    parts = chroma_sqlite.segments(folder, id)
    if parts is None:
        return []
    try:
        indexed = IndexFiles(folder / parts.vectors, 0).ids()
    except ChangedError:  # it was never written out, or is being written
        return []
    known = {one.encode() for page in chroma_sqlite.id_pages(folder, id) for one in page}
    lost = [one.decode() for one in indexed.to_pylist() if one not in known]
    lost = chroma_sqlite.unqueued(folder, id, lost)
    if not lost:
        return []
    about = "vectors in the index are of no record: a search answers with their ids, and no text"
    return [Orphans("vectors", len(lost), about, True, ids=tuple(lost))]


def _folders(folder: Path) -> dict[str, int]:
    """The folders of indexes, and the bytes of each."""
    return {
        path.name: sum(one.stat().st_size for one in path.iterdir())
        for path in folder.iterdir() if (path / HEADER).is_file()
    }  # fmt: skip


def _left(folder: Path, folders: dict[str, int]) -> list[Orphans]:
    known = chroma_sqlite.segment_ids(folder)
    left = {name: size for name, size in folders.items() if name not in known}
    if not left:
        return []
    size = f"{sum(left.values()) / 1e6:,.1f} MB"
    what = "folders hold" if len(left) > 1 else "folder holds"
    about = f"{what} vectors of collections that are gone, beside chroma.sqlite3 ({size})"
    return [Orphans("rest", len(left), about, ids=tuple(sorted(left)))]
