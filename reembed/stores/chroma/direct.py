"""Records of a local collection from Chroma's files, many times faster than through its API.

Ids, documents and metadata come from chroma.sqlite3, a page as of one moment; vectors from the
files of the index. A record that was written after the index's files were is asked of the API, and
so is one that holds anything unusual. Of every page a sample is compared with what the API answers,
to the last bit: where the two differ, the files are not what they are taken for, and the API is
asked for everything from there on.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa

from reembed import progress
from reembed.records import export_batch, vectors_to_list_array
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.formats import is_known
from reembed.stores.chroma.index_files import ChangedError, IndexFiles
from reembed.stores.chroma.sqlite_pages import Page, Segments
from reembed.stores.chroma.sqlite_process import in_thread
from reembed.stores.store import Reader

FEW = 20
"""So few records are asked of the API alone."""
SAMPLE = 8
"""Records of a page that are compared."""
TRIES = 3
"""How often a page is read anew where it was written to meanwhile."""


class Direct:
    """Reads collections of a folder past the API.

    Args:
        folder: of the database.
        api: the same collections by Chroma's API.
    """

    def __init__(self, folder: Path, api: Reader) -> None:
        self._folder, self._api = folder, api
        self._known = is_known(chroma_sqlite.migrations(folder))
        self._ways: dict[str, _Way | None] = {}

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, then: Sequence[str] = ()
    ) -> pa.RecordBatch:
        """See `Reader.fetch`.

        Args:
            then: the ids of the next call, whose rows are read while the caller works on these.
        """
        wanted = list(dict.fromkeys(ids))
        way = self._way(id) if len(wanted) >= FEW else None
        found = way.read(wanted, vectors, then) if way is not None else None
        if found is None:
            return self._api.fetch(id, wanted, vectors=vectors)
        return found

    def _way(self, id: str) -> _Way | None:
        if id not in self._ways:
            parts = chroma_sqlite.segments(self._folder, id) if self._known else None
            self._ways[id] = _Way(self._folder, id, parts, self._api) if parts else None
        return self._ways[id]


class _Begun:
    """A page that is being read in a thread of its own; the reading itself is another process's."""

    def __init__(self, read: Callable[[list[str]], Page], ids: list[str]) -> None:
        self.ids = ids
        self._found = in_thread(read, ids)

    def page(self) -> Page:
        """The page. Raises what reading it raised."""
        return self._found.result()


class _Way:
    """The way to the records of one collection."""

    def __init__(self, folder: Path, id: str, parts: Segments, api: Reader) -> None:
        self._folder, self._id, self._parts = folder, id, parts
        self._api = api
        self._one_reader = threading.Lock()
        self._index: IndexFiles | None = None
        self._lengthened: bool | None = None
        self._failures = 0
        self._begun: _Begun | None = None

    def read(self, wanted: list[str], vectors: bool, then: Sequence[str]) -> pa.RecordBatch | None:
        """The records of these ids, in that order; None where the API is to be asked instead."""
        with self._one_reader:
            begun, self._begun = self._begun, None
            if begun is None and vectors and self._index is None:
                begun = self._begin_with_index(wanted)
            for _ in range(TRIES if self._failures < TRIES else 0):
                if begun is not None and begun.ids == wanted:
                    page, begun = begun.page(), None
                else:
                    page = self._page(wanted)
                if then and self._begun is None:
                    self._begun = _Begun(self._page, list(dict.fromkeys(then)))
                if page.behind:  # Chroma brings the rows up to date before it answers
                    self._api.fetch(self._id, wanted[:1], vectors=False)
                    continue
                try:
                    ours = self._checked(page, vectors)
                except ChangedError:
                    self._index = None
                    continue
                if ours is None:
                    self._give_up()
                    return None
                self._failures = 0
                return self._completed(wanted, page, ours, vectors)
            self._failures += 1
            return None

    def _begin_with_index(self, wanted: list[str]) -> _Begun:
        """Begin to read the first page, and read the index's files meanwhile."""
        applied = chroma_sqlite.applied(self._folder, self._parts.vectors)
        begun = _Begun(self._page, wanted)
        if applied:
            with contextlib.suppress(ChangedError):  # it is read again for the page, and told then
                self._index = self._index_files(applied)
        return begun

    def _index_files(self, applied: int) -> IndexFiles:
        return IndexFiles(self._folder / self._parts.vectors, applied)

    def _page(self, ids: list[str]) -> Page:
        return chroma_sqlite.records(self._folder, self._id, self._parts, ids)

    def _give_up(self) -> None:
        self._failures = TRIES
        progress.note(
            f"{self._folder}: Chroma answers otherwise than its files say, as it does where "
            "another process writes to them; records are read through Chroma from here on, which "
            "takes longer"
        )

    def _completed(
        self, wanted: list[str], page: Page, ours: pa.RecordBatch, vectors: bool
    ) -> pa.RecordBatch:
        """`ours` with the records of the page that it lacks, from the API, in the order wanted."""
        here = ours.column("id").to_pylist()
        rest = page.odd.union(page.ids).difference(here)
        if not rest:
            return ours
        theirs = self._api.fetch(self._id, [id for id in wanted if id in rest], vectors=vectors)
        (both,) = pa.Table.from_batches([ours, theirs]).combine_chunks().to_batches()
        place = {id: row for row, id in enumerate(both.column("id").to_pylist())}
        return both.take(pa.array([place[id] for id in wanted if id in place], pa.int64()))

    # What the files hold

    def _batch(self, page: Page, vectors: bool, lengthened: bool) -> pa.RecordBatch:
        """The records of a page that are in the files as they are now.

        Args:
            lengthened: whether the index keeps vectors of length one and their lengths beside
                them, as it does for cosine.

        Raises:
            ChangedError: the index was written to meanwhile.
        """
        ids = pa.array(page.ids, pa.string())
        if not vectors:
            return export_batch(ids, page.documents, page.metadatas, page.uris)
        if not page.applied:  # nothing but the log has any
            return export_batch([], [], [], [], vectors_to_list_array(np.zeros((0, 0), np.float32)))
        if self._index is None or self._index.applied < page.applied:
            self._index = self._index_files(page.applied)
        found, rows, lengths = self._index.vectors(ids)
        current = np.frombuffer(page.written, np.int64) <= self._index.applied
        use = found & current
        if not use.all():
            rows, lengths = rows[current[found]], lengths[current[found]]
        if lengthened:
            with np.errstate(all="ignore"):
                rows *= lengths[:, None]
        return export_batch(
            ids.filter(pa.array(use)),
            list(compress(page.documents, use)),
            list(compress(page.metadatas, use)),
            list(compress(page.uris, use)),
            vectors_to_list_array(rows),
        )

    # What is compared with the API

    def _checked(self, page: Page, vectors: bool) -> pa.RecordBatch | None:
        """`_batch`, of which a sample is what the API answers; None where it is not."""
        if self._lengthened is not None or not vectors:
            tried = [bool(self._lengthened)]
        else:
            tried = [False, True] if self._index and self._index.plain() else [True, False]
        for lengthened in tried:
            ours = self._batch(page, vectors, lengthened)
            if self._agrees(ours, vectors, lengthened):
                if vectors and len(ours):
                    self._lengthened = lengthened
                return ours
        return None

    def _agrees(self, ours: pa.RecordBatch, vectors: bool, lengthened: bool) -> bool:
        """Whether the API answers the same of some of these records, but for those that were
        written to between the two looks."""
        picked = secrets.SystemRandom().sample(range(len(ours)), min(SAMPLE, len(ours)))
        some = ours.take(pa.array(picked, pa.int64()))
        for _ in range(TRIES):
            ids = some.column("id").to_pylist()
            theirs = self._api.fetch(self._id, ids, vectors=vectors) if ids else some
            if theirs.equals(some):
                return True
            again = self._batch(self._page(ids), vectors, lengthened)
            if again.equals(some):
                return False
            some = again
        return False
