"""A collection as an audit holds it: vectors on the disk, the rest in columns.

It is read once. Vectors go to a file of a temporary folder and are mapped from there; of texts only
their hashes stay, and they are fetched again where they are needed. Metadata stays as numbers: a
column for each key, so that a place can be sought in all records at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.records import Vectors, bad_rows, lengths_of, list_array_to_vectors, metadata_object
from reembed.run.disk import write_errors
from reembed.stores.collection import Collection

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
MOST_KEYS = 60
"""Metadata keys that are looked at."""
MOST_VALUES = 2_000
"""Values of one key; one that has more tells records apart, not groups of them."""
LONGEST_VALUE = 200
SECONDS, MILLISECONDS = (1e9, 4e9), (1e12, 4e12)
"""Numbers that look like a time: 2001 to 2096."""


@dataclass
class Column:
    """One metadata key over all records.

    Attributes:
        numbers: a number or a time for each record, NaN where it has none.
        codes: a place in `values` for each record, -1 where it has none.
        times: how many of the numbers were given as dates.
    """

    name: str
    numbers: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int32]
    values: list[str] = field(default_factory=list)
    times: int = 0
    _known: dict[str, int] = field(default_factory=dict)

    def put(self, row: int, value: Any) -> None:
        if isinstance(value, bool):
            self._code(row, "true" if value else "false")
        elif isinstance(value, int | float):
            self.numbers[row] = float(value)
        elif isinstance(value, str) and value and len(value) <= LONGEST_VALUE:
            moment = seconds_of(value)
            if moment is not None:
                self.numbers[row] = moment
                self.times += 1
            else:
                self._code(row, value)

    def _code(self, row: int, value: str) -> None:
        code = self._known.get(value)
        if code is None:
            if len(self.values) >= MOST_VALUES:
                return
            code = self._known[value] = len(self.values)
            self.values.append(value)
        self.codes[row] = code

    @property
    def is_time(self) -> bool:
        """Whether its numbers are moments."""
        seen = self.numbers[np.isfinite(self.numbers)]
        if not len(seen):
            return False
        named = any(word in self.name.lower() for word in ("time", "date", "_at", "created", "day"))
        inside = any(
            ((seen >= low) & (seen <= high)).all() for low, high in (SECONDS, MILLISECONDS)
        )
        return self.times * 2 > len(seen) or (named and inside)


def seconds_of(text: str) -> float | None:
    """Seconds since the epoch of a date as ISO 8601 writes it; None for any other text."""
    if not (len(text) >= 8 and text[:4].isdigit() and text[4] == "-"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass
class Held:
    """All records of a collection, in the order in which the store lists them.

    Attributes:
        vectors: `(n, d) float32`, mapped from a file; NaN where there is none.
        lengths: Euclidean, `(n,)`.
        missing, bad: no vector at all; one that is zero or not finite.
        text_keys, vector_keys: 64-bit hashes, 0 for no text and for no vector.
        text_lengths: characters.
        hashes: of the records, for a look whether one has changed, `(n,) S32`.
    """

    ids: list[str]
    vectors: Vectors
    lengths: npt.NDArray[np.float64]
    missing: Mask
    bad: Mask
    text_keys: npt.NDArray[np.int64]
    vector_keys: npt.NDArray[np.int64]
    text_lengths: npt.NDArray[np.int64]
    hashes: list[bytes]
    columns: list[Column]

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def sound(self) -> Rows:
        """Rows that have a vector that can be one."""
        return np.flatnonzero(~self.missing & ~self.bad)

    @property
    def with_text(self) -> Mask:
        return np.asarray(self.text_keys != 0)

    @property
    def judgeable(self) -> Rows:
        """Rows of which a model can tell whether it made their vector."""
        return np.flatnonzero(~self.missing & ~self.bad & self.with_text)

    def units(self, rows: Rows) -> Vectors:
        """Vectors of sound rows, of length one."""
        found = np.asarray(self.vectors[rows], np.float32)
        return np.asarray(found / self.lengths[rows][:, None], np.float32)


def read(collection: Collection, template: TextTemplate, folder: Path, progress: Progress) -> Held:
    """Read a collection whole.

    Args:
        folder: temporary; the vectors are kept there while they are looked at.

    Raises:
        PreflightError: the disk is full.
    """
    pages: list[_Page] = []
    info = collection.describe()
    path = folder / "vectors.f32"
    dimensions, metadatas, count = 0, list[tuple[int, dict[str, Any]]](), 0
    columns: dict[str, Column] = {}
    with (
        progress.stage("read", info.count if info else 0) as counter,
        write_errors(path), path.open("wb") as file,
    ):  # fmt: skip
        for listed in collection.list_ids():
            rows = collection.fetch(listed.to_pylist(), vectors=True)
            page = _page(rows, template)
            if not dimensions and page.vectors.shape[1]:
                dimensions = page.vectors.shape[1]
                for _ in range(count):  # of earlier pages, none of which had a vector
                    file.write(np.full(dimensions, np.nan, np.float32).tobytes())
            if dimensions:
                file.write(page.placed(dimensions).tobytes())
            parsed = map(metadata_object, rows.column("metadata").to_pylist())
            metadatas += [(count + row, one) for row, one in enumerate(parsed) if one]
            metadatas = _columns(columns, metadatas, count + rows.num_rows)
            count += rows.num_rows
            pages.append(page)
            counter.update(len(listed))
    return _held(pages, path, dimensions, list(columns.values()))


@dataclass
class _Page:
    ids: list[str]
    vectors: Vectors
    there: Mask
    text_keys: npt.NDArray[np.int64]
    text_lengths: npt.NDArray[np.int64]
    hashes: list[bytes]

    def placed(self, dimensions: int) -> Vectors:
        """Of all rows, NaN where there is none."""
        found = np.full((len(self.ids), dimensions), np.nan, np.float32)
        if self.there.any():
            found[self.there] = self.vectors
        return found


def _page(rows: pa.RecordBatch, template: TextTemplate) -> _Page:
    vectors, there = list_array_to_vectors(rows.column("embedding"))
    texts = template.texts_of(rows)
    keys = np.array([_key(text.encode("utf-8", "surrogatepass")) if text.strip() else 0
                     for text in texts], np.int64)  # fmt: skip
    return _Page(
        rows.column("id").to_pylist(), vectors, there, keys,
        np.array([len(text) for text in texts], np.int64), rows.column("row_sha256").to_pylist(),
    )  # fmt: skip


def _key(data: bytes) -> int:
    return hash(data) or 1


def _columns(
    columns: dict[str, Column], metadatas: Sequence[tuple[int, dict[str, Any]]], count: int
) -> list[tuple[int, dict[str, Any]]]:
    """Put metadata into columns of `count` rows. Returns an empty list, for what comes next."""
    for column in columns.values():
        _grow(column, count)
    for row, one in metadatas:
        for key, value in _flat(one):
            if key not in columns:
                if len(columns) >= MOST_KEYS:
                    continue
                columns[key] = Column(key, np.zeros(0), np.zeros(0, np.int32))
                _grow(columns[key], count)
            columns[key].put(row, value)
    return []


def _flat(metadata: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values, those of objects in it with a dot."""
    return [
        pair for key, value in metadata.items()
        for pair in ([(f"{key}.{inner}", one) for inner, one in value.items()]
                     if isinstance(value, dict) else [(key, value)])
    ]  # fmt: skip


def _grow(column: Column, count: int) -> None:
    more = count - len(column.numbers)
    column.numbers = np.concatenate([column.numbers, np.full(more, np.nan)])
    column.codes = np.concatenate([column.codes, np.full(more, -1, np.int32)])


def _held(pages: list[_Page], path: Path, dimensions: int, columns: list[Column]) -> Held:
    ids = [id for page in pages for id in page.ids]
    if dimensions and ids:
        vectors = np.memmap(path, np.float32, "r", shape=(len(ids), dimensions))
    else:
        vectors = np.zeros((len(ids), dimensions), np.float32)  # type: ignore[assignment]
    there = np.concatenate([page.there for page in pages] or [np.zeros(0, np.bool_)])
    lengths, bad = np.zeros(len(ids)), np.zeros(len(ids), np.bool_)
    keys = np.zeros(len(ids), np.int64)
    start = 0
    for page in pages:
        rows = slice(start, start + len(page.ids))
        block = np.asarray(vectors[rows], np.float32)
        lengths[rows], bad[rows] = lengths_of(block), bad_rows(block)
        keys[rows] = [_key(one.tobytes()) for one in block]
        start += len(page.ids)
    keys[~there] = 0
    return Held(
        ids, vectors, lengths, ~there, bad & there,
        np.concatenate([page.text_keys for page in pages] or [np.zeros(0, np.int64)]), keys,
        np.concatenate([page.text_lengths for page in pages] or [np.zeros(0, np.int64)]),
        [one for page in pages for one in page.hashes], columns,
    )  # fmt: skip
