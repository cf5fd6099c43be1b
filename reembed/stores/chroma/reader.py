"""Records out of a Chroma database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from reembed.errors import PreflightError
from reembed.records import Vectors
from reembed.stores.chroma import records as chroma_records
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.damaged_index import explained
from reembed.stores.chroma.database import Database
from reembed.stores.values import Change, Where

QUERY_ROWS = 100
WHERE_HINT = (
    "One condition is {KEY: VALUE} or {KEY: {OPERATOR: VALUE}}, with $eq, $ne, $gt, $gte, $lt, "
    '$lte, $in or $nin; two or more are {"$and": [..., ...]} or {"$or": [..., ...]}. For example '
    '{"kind": {"$eq": "function"}}.'
)


class ChromaReader:
    """See `Reader` and `Search`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check_where(self, where: Where) -> None:
        if where is None:
            return
        if isinstance(where, str):
            raise PreflightError(
                f"source.where: Chroma's filter is a mapping, this is the text {where!r}",
                WHERE_HINT,
            )
        from chromadb.api.types import validate_where

        try:
            validate_where(cast(Any, dict(where)))
        except (ValueError, TypeError) as error:
            raise PreflightError(f"source.where: {error}", WHERE_HINT) from error
        if unknown := _unknown_operator(where):
            raise PreflightError(f"source.where: Chroma knows no {unknown}", WHERE_HINT)

    def _where(self, where: Where) -> Mapping[str, Any] | None:
        self.check_where(where)
        return cast("Mapping[str, Any] | None", where)

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        collection, condition = self._database.handle(id), self._where(where)
        if self._database.file is not None and condition is None:
            pages = chroma_sqlite.id_pages(self._database.file, id)
        else:
            pages = chroma_records.list_ids(collection, condition)
        for page in pages:
            yield pa.array(page, pa.string())

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        collection, condition = self._database.handle(id), self._where(where)
        over_http = self._database.path is None
        with explained(self._database.folder, id, collection.name):
            return chroma_records.fetch(
                collection, ids, vectors=vectors, where=condition, over_http=over_http
            )

    def count(self, id: str) -> int:
        collection = self._database.handle(id)
        with explained(self._database.folder, id, collection.name):
            return collection.count()

    def query(self, id: str, vectors: Vectors, k: int, *, freely: bool = False) -> list[list[str]]:
        collection = self._database.handle(id)
        found: list[list[str]] = []
        with explained(self._database.folder, id, collection.name):
            for start in range(0, len(vectors), QUERY_ROWS):
                part = np.ascontiguousarray(vectors[start : start + QUERY_ROWS], np.float32)
                answer = collection.query(query_embeddings=part, n_results=k, include=[])
                found.extend(answer["ids"])
        return found

    def leaves_index_out(self, id: str, vectors: Vectors, k: int) -> bool:
        return False


class ChromaChanges:
    """See `Changes`. Chroma logs no writes: nothing was written at all, or anything may have been.

    Args:
        file: the folder of the file that the server writes to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def since(self, id: str, mark: str | None, besides: object = None) -> Change:
        now = chroma_sqlite.watermark(self._file, id)
        return Change([] if mark is not None and now == mark else None, now)


def _unknown_operator(where: Mapping[str, Any]) -> str | None:
    """What stands where a key does and looks like an operator that Chroma lacks, which its client
    sends and its server refuses."""
    for key, value in where.items():
        if key in {"$and", "$or"}:
            found = next(filter(None, map(_unknown_operator, value)), None)
            if found:
                return found
        elif key.startswith("$"):
            return key
    return None
