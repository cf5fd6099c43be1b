"""A new collection of a local folder filled past Chroma's `add`, which keeps one core busy.

Rows go straight into chroma.sqlite3, a shard in one transaction, by the process that `sqlite_fill`
runs in, while the index of the shard's vectors is built here on all cores (`index_build`). At the
end the index's files are put in their place and the collection gets its dimension, in one
transaction. Until then it has none, so that Chroma opens nothing of it, and what a killed call left
is taken back before the next begins. Nobody knows the collection's name yet.

Only for folders of a form that is known and indexes that were compared with Chroma's own; all else
goes through `add`. What has been filled so is read back through Chroma by the integrity gate, every
record of it.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.errors import PreflightError
from reembed.records import Metric, Vectors
from reembed.stores.chroma import records as chroma_records
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.formats import is_known
from reembed.stores.chroma.index_build import IndexBuild, faiss_or_none
from reembed.stores.chroma.index_files import HEADER, header_of
from reembed.stores.chroma.sqlite_fill import Fill, FillRow, kinds_of
from reembed.stores.chroma.sqlite_process import in_thread
from reembed.stores.values import CollectionSpec


class ChromaBulk:
    """See `Bulk`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, spec: CollectionSpec) -> None:
        if not is_known(chroma_sqlite.migrations(self._folder)):
            raise _left_to_chroma("the folder has another form than those that are known")
        if spec.key_indexes:
            raise _left_to_chroma("the source has indexes of keys that are not the standard ones")
        if not _has_trigrams():
            raise _left_to_chroma("Python's SQLite has no full-text index of trigrams")
        if faiss_or_none() is None:
            raise PreflightError(
                "target.bulk: always: faiss, which builds the index, is not installed",
                "Install it (pip install 'reembed-pipeline[bulk]'), or leave target.bulk out.",
            )

    def begin(self, id: str, metric: Metric, dimensions: int, expected: int) -> Filling:
        """See `Bulk.begin`."""
        schema, _ = chroma_sqlite.schema_of(self._folder, id)
        vectors = schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"]
        build = IndexBuild(
            metric,
            dimensions,
            neighbours=int(vectors["hnsw"]["max_neighbors"]),
            breadth=int(vectors["hnsw"]["ef_construction"]),
            expected=expected,
        )
        return Filling(self._folder, self._fill(id), build)

    def take_back(self, id: str) -> bool:
        """See `Bulk.take_back`."""
        return take_back(self._folder, id)

    def _fill(self, id: str) -> Fill:
        parts = chroma_sqlite.segments(self._folder, id)
        if parts is None:
            raise _left_to_chroma(f"the collection {id} has other parts than a local one has")
        return Fill(id, parts, self._folder.absolute())


def take_back(folder: Path, id: str) -> bool:
    """Remove what a filling that did not finish has left. Returns False, and removes nothing, where
    the collection counts, or is none that is ever filled."""
    parts = chroma_sqlite.segments(folder, id)
    if parts is None:
        return False
    fill = Fill(id, parts, folder.absolute())
    if not chroma_sqlite.unfill(folder, fill, _elements(fill.place)):
        return False
    for made in (fill.workshop, fill.place):
        shutil.rmtree(made, ignore_errors=True)
    return True


def _elements(index: Path) -> int:
    """How many vectors the files of an index hold."""
    try:
        return header_of((index / HEADER).read_bytes())[0]
    except (OSError, ValueError, struct.error):
        return 0


def _left_to_chroma(why: str) -> PreflightError:
    return PreflightError(
        f"target.bulk: always: {why}",
        "Leave target.bulk out: records are then added through Chroma.",
    )


class Filling:
    """See `stores.filling`. While one shard's rows are written, in another process, its
    vectors are put into the index."""

    def __init__(self, folder: Path, fill: Fill, build: IndexBuild) -> None:
        self._folder, self._fill = folder, fill
        self._build: IndexBuild | None = build
        self._ids: list[str] = []
        self._kinds: dict[str, set[str]] = {}
        self._last = b""
        self._writing: Future[None] | None = None

    def add(self, records: pa.RecordBatch, vectors: Vectors) -> None:
        if not records.num_rows:
            return
        ids = records.column("id").to_pylist()
        vectors = np.ascontiguousarray(vectors, np.float32)
        chroma_records.refuse_not_finite(ids, vectors)
        rows = list(_rows(records))
        for row in rows:
            for key, kind in kinds_of(row.metadata):
                self._kinds.setdefault(key, set()).add(kind)
        self._written()
        if not self._ids:
            chroma_sqlite.purge_lists(self._folder)
        self._writing = in_thread(chroma_sqlite.add_rows, self._folder, self._fill, rows)
        self._building().add(vectors)
        self._ids += ids
        self._last = vectors[-1].astype("<f4").tobytes()

    def _building(self) -> IndexBuild:
        assert self._build is not None, "it is finished"
        return self._build

    def _written(self) -> None:
        """Wait for the rows that are being written. Raises what writing them raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def finish(self) -> None:
        self._written()
        if self._ids:
            shutil.rmtree(self._fill.workshop, ignore_errors=True)
            self._building().write(self._fill.workshop, self._ids)
            self._build = None  # which is as large as all vectors together
            dimensions = len(self._last) // 4
            chroma_sqlite.finish(
                self._folder, self._fill, dimensions, len(self._ids), self._last, self._kinds
            )


def _rows(records: pa.RecordBatch) -> Iterator[FillRow]:
    """Records as they are to stand, refused where Chroma would refuse them."""
    from chromadb.api.types import validate_metadata

    columns = (records.column(name).to_pylist() for name in ("id", "document", "uri", "metadata"))
    for id, document, uri, text in zip(*columns, strict=True):
        metadata = json.loads(text) or {}
        try:
            if metadata:
                validate_metadata(metadata)
            _refuse_not_kept(metadata)
        except (ValueError, TypeError) as error:
            raise PreflightError(
                f"record {chroma_records.short(id)}: Chroma refuses it: {error}"
            ) from error
        yield FillRow(id, document, uri, metadata)


def _refuse_not_kept(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError for what Chroma would alter or leave out in silence."""
    for key, value in metadata.items():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"metadata {key!r} is not finite")
            if isinstance(one, int) and one not in chroma_records.INT64:
                raise ValueError(f"metadata {key!r} is {one}, beyond 64-bit integers")
            if not isinstance(one, str | bool | int | float):
                raise TypeError(f"metadata {key!r} holds {type(one).__name__}")


@lru_cache(maxsize=1)
def _has_trigrams() -> bool:
    """Whether Python's SQLite can write to the full-text index."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='trigram')")
        except sqlite3.Error:
            return False
    return True
