"""Files of records as a source: `parquet:./corpus`, `jsonl:./corpus.jsonl`. They are only read.

A URL is a file, which is one collection by its name without the suffix, or a folder. In a folder
each file is a collection, and so is each folder in it with all files below; the folder's own name
stands for all files together. An object id is the path of the file or folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import pyarrow as pa

from reembed.errors import (
    CollectionGoneError,
    CollectionNotFoundError,
    PreflightError,
    SourceChangedError,
)
from reembed.records import EXPORT_SCHEMA, SHARD_ROWS, chunked
from reembed.run.disk import read_errors
from reembed.stores.corpus.formats import FORMATS, Format, Slice
from reembed.stores.corpus.rows import Fault, Roles, fault_error
from reembed.stores.store import Store
from reembed.stores.values import Capabilities, CollectionInfo, StoreOptions, Where, some_of

FEW = 0.5
"""Share of a slice's records up to which they are picked out of it."""
Stamp = tuple[int, int, int]
"""What a file is like while it is the same one: inode, bytes, and when it was written."""


@dataclass
class _Slot:
    """A slice of a file, which can be read again."""

    path: Path
    mark: tuple[int, int]
    ordinal: int
    """which of the slices with this mark"""
    roles: Roles
    hashes: pa.Array
    """of its rows, `binary(32)`"""


@dataclass
class _Indexed:
    """What is known of a collection once it was read: its ids, and where each one is."""

    stamps: dict[Path, Stamp]
    slots: list[_Slot] = field(default_factory=list)
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)
    """to slot, and row in it"""


class Corpus:
    """See `Catalog` and `Reader`.

    Args:
        place: the file or folder of the URL.
    """

    def __init__(self, url: str, place: Path, format: Format, options: StoreOptions) -> None:
        self._url, self._place, self._format = url, place, format
        self._columns = options.columns
        self._known: dict[str, _Indexed] = {}
        self._cursor: tuple[object, Iterator[Slice]] | None = None

    # Catalog

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def collections(self) -> list[str]:
        if self._place.is_file():
            return [self._place.stem]
        with read_errors(self._place):
            there = sorted(self._place.iterdir())
        folders = {path.name for path in there if path.is_dir() and self._files(path)}
        return sorted({path.stem for path in there if self._fits(path)} | folders)

    def find(self, name: str) -> CollectionInfo | None:
        path = self._path_of(name)
        return None if path is None else self._info(name, path)

    def describe(self, name: str) -> CollectionInfo:
        found = self.find(name)
        if found is None:
            names = self.collections()
            close = get_close_matches(name, names, 1)
            whole = "" if self._place.is_file() else (
                f" {self._place.name!r}, the folder's own name, stands for all of them."
            )  # fmt: skip
            raise CollectionNotFoundError(
                f"{self._url} has no collection {name!r}; it has: {some_of(names)}",
                (f"Did you mean {close[0]!r}?" if close else "") + whole,
            )
        return found

    def describe_id(self, id: str) -> CollectionInfo | None:
        path = Path(id)
        inside = path == self._place or self._place in path.parents
        if not inside or not path.exists():
            return None
        return self._info(path.name if path.is_dir() else path.stem, path)

    def _info(self, name: str, path: Path) -> CollectionInfo:
        found = self._index(path)
        dimensions = None
        first = next(iter(found.ids), None)
        if first is not None and found.slots[0].roles.embedding is not None:
            vector = self.fetch(str(path), [first], vectors=True).column("embedding")[0].as_py()
            dimensions = len(vector) if vector else None
        return CollectionInfo(str(path), name, len(found.ids), dimensions, "cosine")

    def _path_of(self, name: str) -> Path | None:
        if self._place.is_file():
            return self._place if name == self._place.stem else None
        for suffix in self._format.suffixes:
            path = self._place / f"{name}{suffix}"
            if path.is_file() and path.parent == self._place:
                return path
        folder = self._place / name
        if name and folder.parent == self._place and folder.is_dir() and self._files(folder):
            return folder
        return self._place if name == self._place.name else None

    def _fits(self, path: Path) -> bool:
        return path.suffix in self._format.suffixes and path.is_file()

    def _files(self, path: Path) -> list[Path]:
        """The files of a collection, in the order of their names."""
        if path.is_file():
            return [path]
        with read_errors(path):
            return sorted(file for file in path.rglob("*") if self._fits(file))

    def close(self) -> None:
        self._cursor = None

    # Reader

    def check_where(self, where: Where) -> None:
        if where is not None:
            raise PreflightError(
                f"source.where: {self._url} has no filter",
                "Leave it out, and write what is to be moved into a file of its own.",
            )

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        self.check_where(where)
        for page in chunked(list(self._require(id).ids), SHARD_ROWS):
            yield pa.array(page, pa.string())

    def count(self, id: str) -> int:
        return len(self._require(id).ids)

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        self.check_where(where)
        known = self._require(id)
        places = {one: known.ids[one] for one in ids if one in known.ids}
        wanted: dict[int, list[int]] = {}
        for slot, row in sorted(places.values()):
            wanted.setdefault(slot, []).append(row)
        parts, order = list[pa.RecordBatch](), dict[tuple[int, int], int]()
        for slot, rows in wanted.items():
            records = self._picked(known, slot, rows, vectors)
            if records is None:
                whole = self._read(known, slot, vectors)
                records = whole.take(pa.array([row for row in rows if row < whole.num_rows]))
            if records.num_rows < len(rows):
                raise self._changed(known.slots[slot].path)
            for row in rows:
                order[slot, row] = len(order)
            parts.append(records)
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=EXPORT_SCHEMA)
        table = pa.Table.from_batches(parts).take(
            pa.array([order[place] for place in places.values()], pa.int64())
        )
        found = table.combine_chunks().to_batches()[0]
        if found.column("id").to_pylist() != list(places):
            raise self._changed(self._place)
        return found

    def row_hashes(self, id: str) -> Iterator[pa.RecordBatch]:
        """The ids and row hashes of all records, as they were read."""
        known = self._require(id)
        ids = iter(known.ids)
        for slot in known.slots:
            page = pa.array(islice(ids, len(slot.hashes)), pa.string())
            yield pa.record_batch([page, slot.hashes], names=["id", "row_sha256"])

    def _picked(
        self, known: _Indexed, number: int, rows: Sequence[int], vectors: bool
    ) -> pa.RecordBatch | None:
        """A few records of a slice; None where it has to be read whole."""
        slot = known.slots[number]
        if len(rows) > FEW * len(slot.hashes):
            return None
        if _stamp(slot.path) != known.stamps[slot.path]:
            raise self._changed(slot.path)
        return self._format.picked(slot.path, slot.mark, slot.roles, rows, vectors=vectors)

    def _read(self, known: _Indexed, number: int, vectors: bool) -> pa.RecordBatch:
        """The records of a slice. Slices that are asked for in their order are read in one go."""
        slot = known.slots[number]
        if _stamp(slot.path) != known.stamps[slot.path]:
            raise self._changed(slot.path)
        faults: list[Fault] = []
        expected, ahead = self._cursor or (None, iter(()))
        if expected != (id(known), number, vectors):
            ahead = self._format.slices(
                slot.path, self._columns, faults, mark=slot.mark, known=slot.roles,
                vectors=vectors,
            )  # fmt: skip
            for _ in range(slot.ordinal):
                next(ahead, None)
        found = next(ahead, None)
        if faults:
            raise fault_error(str(slot.path), self._format.unit, faults)
        if found is None:
            raise self._changed(slot.path)
        following = number + 1
        goes_on = following < len(known.slots) and known.slots[following].path == slot.path
        self._cursor = ((id(known), following, vectors), ahead) if goes_on else None
        return found.records

    def _changed(self, path: Path) -> SourceChangedError:
        return SourceChangedError(
            f"{path} was written to while it was read",
            "Let its writer put a whole new file in its place (write beside it, then rename), and "
            "run the same command again.",
        )

    def _require(self, id: str) -> _Indexed:
        path = Path(id)
        if not path.exists():
            raise CollectionGoneError(f"{self._url}: {id} is not there any more")
        return self._index(path)

    def _index(self, path: Path) -> _Indexed:
        """Read a collection once through: ids, places, and all that is wrong with it."""
        files = self._files(path)
        known = self._known.get(str(path))
        if known is not None:
            if [*known.stamps] != files:
                raise self._changed(path)
            return known
        known = _Indexed({file: _stamp(file) for file in files})
        for file in files:
            faults: list[Fault] = []
            before: tuple[int, int] | None = None
            ordinal = 0
            for found in self._format.slices(file, self._columns, faults):
                ordinal = ordinal + 1 if found.mark == before else 0
                before = found.mark
                hashes = found.records.column("row_sha256")
                known.slots.append(_Slot(file, found.mark, ordinal, found.roles, hashes))
                ids = found.records.column("id").to_pylist()
                for row, (one, place) in enumerate(zip(ids, found.places, strict=False)):
                    if one in known.ids:
                        other = known.slots[known.ids[one][0]].path
                        faults.append((place, f"id {one!r} is there already, in {other.name}"))
                    known.ids[one] = (len(known.slots) - 1, row)
            if faults:
                raise fault_error(str(file), self._format.unit, faults)
            if _stamp(file) != known.stamps[file]:
                raise self._changed(file)
        self._known[str(path)] = known
        return known


def _stamp(path: Path) -> Stamp:
    with read_errors(path):
        found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_store(url: str, options: StoreOptions) -> Store:
    """Open the file or folder of a URL such as `jsonl:./corpus.jsonl`."""
    scheme, _, rest = url.partition(":")
    place = Path(rest)
    if not place.exists():
        raise CollectionNotFoundError(
            f"{url}: there is no such file or folder", "A path is relative to the manifest."
        )
    corpus = Corpus(url, place.resolve(), FORMATS[scheme], options)
    return Store(url, corpus, corpus, row_hashes=corpus.row_hashes, close=corpus.close)
