"""The formats of files, each read in slices of at most SHARD_ROWS from any slice on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from reembed.errors import PreflightError
from reembed.records import SHARD_ROWS
from reembed.run.disk import read_errors
from reembed.stores.corpus.rows import Fault, Roles, Row, roles, to_records

LIST = pa.list_(pa.float32())


@dataclass(frozen=True)
class Slice:
    """Some rows of a file.

    Attributes:
        mark: from which the format reads this slice again.
        records: `EXPORT_SCHEMA`.
        places: line or row of each, counted from 1 over the file.
        roles: which column is which in this file.
    """

    mark: tuple[int, int]
    records: pa.RecordBatch
    places: Sequence[int]
    roles: Roles


class Format(Protocol):
    """How a kind of file is read."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of its files."""
        ...

    @property
    def unit(self) -> str:
        """What its rows are called in an error: line or row."""
        ...

    def slices(
        self, path: Path, columns: Mapping[Any, str], faults: list[Fault], *,
        mark: tuple[int, int] | None = None, known: Roles | None = None, vectors: bool = False,
    ) -> Iterator[Slice]:  # fmt: skip
        """The file's rows as records, in its order, from a mark on. What is no record is added to
        `faults`.

        Args:
            known: as the first slice of the file had them; needed with a mark.
        """
        ...

    def picked(
        self, path: Path, mark: tuple[int, int], known: Roles, rows: Sequence[int], *,
        vectors: bool,
    ) -> pa.RecordBatch | None:  # fmt: skip
        """Some records of the slice at a mark, by their places in it, which ascend; None where
        that takes as long as the whole slice. Fewer come where the file has changed."""
        ...


class JsonLines:
    """A JSON object a line. A mark is the byte at which a slice begins, and lines before it."""

    suffixes = (".jsonl", ".ndjson")
    unit = "line"

    def slices(
        self, path: Path, columns: Mapping[Any, str], faults: list[Fault], *,
        mark: tuple[int, int] | None = None, known: Roles | None = None, vectors: bool = False,
    ) -> Iterator[Slice]:  # fmt: skip
        with read_errors(path), path.open("rb") as file:
            start, before = mark or (0, 0)
            file.seek(start)
            number, rows, places = before, list[Row](), list[int]()
            while True:
                line = file.readline()
                if line:
                    number += 1
                    row = _parsed(line, number, faults)
                    if row is not None:
                        rows.append(row)
                        places.append(number)
                if rows and (len(rows) == SHARD_ROWS or not line):
                    if known is None:
                        names = dict.fromkeys(key for row in rows for key in row)
                        known = roles(columns, [*names], str(path))
                    records = self._records(rows, places, known, faults, vectors)
                    yield Slice((start, before), records, places, known)
                    start, before, rows, places = file.tell(), number, [], []
                if not line:
                    return

    def picked(
        self, path: Path, mark: tuple[int, int], known: Roles, rows: Sequence[int], *,
        vectors: bool,
    ) -> pa.RecordBatch | None:  # fmt: skip
        wanted, found, faults = set(rows), list[Row](), list[Fault]()
        number, place = mark[1], 0
        with read_errors(path), path.open("rb") as file:
            file.seek(mark[0])
            while len(found) < len(wanted) and (line := file.readline()):
                number += 1
                if not line.startswith(b"{") and not _text_of(line, number):
                    continue
                if place in wanted:
                    row = _parsed(line, number, faults)
                    if row is None:
                        break
                    found.append(row)
                place += 1
        return self._records(found, range(1, len(found) + 1), known, faults, vectors)

    def _records(
        self,
        rows: list[Row],
        places: Sequence[int],
        known: Roles,
        faults: list[Fault],
        vectors: bool,
    ) -> pa.RecordBatch:
        found: list[Fault] = []
        embeddings = None
        if vectors and known.embedding:
            try:
                embeddings = pa.array([row.get(known.embedding) for row in rows], LIST)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                found.append((1, f"{known.embedding!r} is no list of numbers: {error}"))
        records = to_records(rows, known, 1, found, embeddings)
        faults += [(places[number - 1], what) for number, what in found]
        return records


def _text_of(line: bytes, number: int) -> str:
    return line.decode("utf-8-sig" if number == 1 else "utf-8").strip()


def _parsed(line: bytes, number: int, faults: list[Fault]) -> Row | None:
    """The object of a line; None of an empty one, and of one with a fault."""
    quick = _quickly(line)
    if quick is not None:
        return quick
    try:
        text = _text_of(line, number)
        if not text:
            return None
        row = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        faults.append((number, f"no JSON: {error}"))
        return None
    if not isinstance(row, dict):
        faults.append((number, f"no JSON object, but {type(row).__name__}"))
        return None
    return row


def _quickly(line: bytes) -> Row | None:
    """The object of a usual line. Of any other the standard library's reader says what is wrong, or
    takes it."""
    try:
        row = orjson.loads(line)
        return row if type(row) is dict and not _may_be_rounded(row) else None
    except (ValueError, RecursionError):
        return None


def _may_be_rounded(value: Any) -> bool:
    """Whether a value holds a float so large that it may have been a whole number, which orjson
    rounds beyond 64 bits."""
    kind = type(value)
    if kind is float:
        return not -_WHOLE < value < _WHOLE
    if kind is dict:
        return any(map(_may_be_rounded, value.values()))
    return kind is list and any(map(_may_be_rounded, value))


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_WHOLE = 2.0**63


_DECODER = json.JSONDecoder(parse_constant=_refuse)


class Parquet:
    """A row is a record. A mark is a row group, and rows of the file before it."""

    suffixes = (".parquet", ".pq")
    unit = "row"

    def slices(
        self, path: Path, columns: Mapping[Any, str], faults: list[Fault], *,
        mark: tuple[int, int] | None = None, known: Roles | None = None, vectors: bool = False,
    ) -> Iterator[Slice]:  # fmt: skip
        with read_errors(path):
            try:
                with pq.ParquetFile(path) as file:
                    yield from self._slices(file, path, columns, faults, mark, vectors)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise PreflightError(
                    f"{path}: this is no whole Parquet file: {error}",
                    "Write it again; nothing was changed.",
                ) from error

    def _slices(
        self, file: pq.ParquetFile, path: Path, columns: Mapping[Any, str], faults: list[Fault],
        mark: tuple[int, int] | None, vectors: bool,
    ) -> Iterator[Slice]:  # fmt: skip
        names = file.schema_arrow.names
        known = roles(columns, names, str(path))
        wanted = [name for name in names if name != known.embedding or vectors]
        group, before = mark or (0, 0)
        for number in range(group, file.num_row_groups):
            found = file.iter_batches(SHARD_ROWS, row_groups=[number], columns=wanted)
            start = before
            for batch in found:
                embeddings = None
                if vectors and known.embedding:
                    embeddings = batch.column(known.embedding).cast(LIST)
                    batch = batch.drop_columns([known.embedding])
                rows = batch.to_pylist()
                # A mark is its row group's, so a slice within it is found by reading on.
                records = to_records(rows, known, before + 1, faults, embeddings)
                places = range(before + 1, before + 1 + len(rows))
                before += len(rows)
                yield Slice((number, start), records, places, known)

    def picked(
        self, path: Path, mark: tuple[int, int], known: Roles, rows: Sequence[int], *,
        vectors: bool,
    ) -> pa.RecordBatch | None:  # fmt: skip
        return None


FORMATS: Mapping[str, Format] = {"jsonl": JsonLines(), "parquet": Parquet()}
"""By the scheme of a URL."""
