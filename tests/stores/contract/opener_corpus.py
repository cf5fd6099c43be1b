"""Parquet and JSON lines, which can only be read: the suite writes the files itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reembed.records import Vectors, vectors_to_list_array
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionInfo
from tests.stores.contract.stores import PARTS, Entry, Opened


def _write_lines(path: Path, table: pa.Table) -> None:
    lines = [
        json.dumps(row | {"metadata": json.loads(row["metadata"])})
        for row in table.drop_columns(["row_sha256"]).to_pylist()
    ]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=3_000)


def _opener(
    scheme: str, write: Callable[[Path, pa.Table], None]
) -> Callable[[Path, Callable[[str], Any]], AbstractContextManager[Opened]]:
    @contextmanager
    def opened(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Opened]:
        place = folder / "corpus"
        place.mkdir()
        store = open_store(f"{scheme}:{place}")

        def fill(name: str, records: pa.RecordBatch, vectors: Vectors) -> CollectionInfo:
            table = pa.Table.from_batches([records])
            at = table.schema.get_field_index("embedding")
            table = table.set_column(at, "embedding", vectors_to_list_array(vectors))
            write(place / f"{name}.{scheme}", table)
            return store.catalog.describe(name)

        yield Opened(store, fill)
        store.close()

    return opened


LACKS = dict.fromkeys(PARTS, "files are only read")
STORES = {
    "parquet": Entry(_opener("parquet", _write_parquet), LACKS),
    "jsonl": Entry(_opener("jsonl", _write_lines), LACKS),
}
