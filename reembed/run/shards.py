"""A shard: an immutable Parquet file of a run, known by its name and hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DELTA = "delta-"
"""How the stems of shards begin that catch-up adds; the census's own are `shard-`."""


@dataclass(frozen=True)
class Besides:
    """What an export shard says besides its records: see the attributes of `Shard`."""

    deleted: Sequence[str] = ()
    foreign: bool = False
    missing: Sequence[tuple[str, str, bool]] = ()


NOTHING = Besides()


@dataclass(frozen=True)
class Shard:
    """A journalled Parquet file of a run.

    Attributes:
        name: path relative to the run directory, e.g. `export/shard-00000.parquet`.
        rows: number of rows.
        sha256: hash of the file's bytes, hexadecimal.
        source: `sha256` of the shard it was made from; empty for an export shard.
        deleted: ids that the source no longer had when this delta was exported.
        foreign: whether its records come from another collection than the source, which therefore
            need not hold them.
        missing: id, row hash (hexadecimal) and whether it is quarantined, of each record that it
            held before it was made again and that no collection held any more as it was.
    """

    name: str
    rows: int
    sha256: str
    source: str = ""
    deleted: tuple[str, ...] = ()
    foreign: bool = False
    missing: tuple[tuple[str, str, bool], ...] = ()

    @property
    def stem(self) -> str:
        """`shard-00000`, the same for a shard of every stage."""
        return Path(self.name).stem


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """How a shard's columns are written. Hashes and the values of vectors stand as they are: zstd
    takes 7 % off floats and a dictionary nothing, in more time than all else takes together."""
    compression = {}
    for field in schema:
        vector = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
        plain = vector or pa.types.is_fixed_size_binary(field.type)
        name = f"{field.name}.list.element" if vector else field.name
        compression[name] = "none" if plain else "zstd"
    texts = [name for name, codec in compression.items() if codec != "none"]
    return {
        "compression": compression,
        "compression_level": dict.fromkeys(texts, 1),
        "use_dictionary": False,
        "write_statistics": texts,
        "write_batch_size": 1 << 16,
    }


PART_BYTES = 8 << 20
"""Of a shard's columns that are decoded at once. Arrow holds eight times what it decodes."""
BUFFER_BYTES = 1 << 20


def opened(path: Path) -> pq.ParquetFile:
    """A shard's file, to be read in parts."""
    return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)


def in_parts(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """These columns, about `PART_BYTES` at a time."""
    kept, size = file.metadata, 0
    for group in range(kept.num_row_groups):
        chunks = kept.row_group(group)
        for place in range(chunks.num_columns):
            chunk = chunks.column(place)
            if chunk.path_in_schema.partition(".")[0] in columns:
                size += chunk.total_uncompressed_size
    rows = max(1, PART_BYTES * kept.num_rows // max(1, size))
    yield from file.iter_batches(rows, columns=columns)


Told = Callable[[Shard], None]
"""Is told of a shard that is done, by the thread that called."""


def untold(shard: Shard) -> None:
    """Nobody wants to know."""
