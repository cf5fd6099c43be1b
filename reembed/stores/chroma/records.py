"""Records in and out of a Chroma collection: pages, batches by bytes, lost vectors, floats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson
import pyarrow as pa
from chromadb.errors import InternalError

from reembed.errors import PreflightError
from reembed.records import SHARD_ROWS, Vectors, export_batch, vectors_to_list_array
from reembed.stores.canonical import metadata_text
from reembed.stores.chroma.failures import is_too_large, mapped, of_record, refused
from reembed.stores.chroma.floats import to_send
from reembed.stores.chroma.sqlite_calls import FloatFix

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import GetResult

BATCH_ROWS = 1_000
"""Rows in one write. Measured: 100 is half as fast, 5,000 no faster."""
BATCH_BYTES = 20 << 20
"""JSON bytes in one write; the server's default limit is 40 MiB."""
PAGE_BYTES = 16 << 20
"""JSON bytes to aim for in one answer over HTTP."""
PAGE_VALUES = 1_000_000
"""Values of vectors in one answer of a local client, which has a Python object for each."""
OVERLAP = 100
"""Ids that two consecutive pages of a listing share."""
INT64 = range(-(2**63), 2**63)
_LOST_VECTOR = "Error finding id"


def list_ids(collection: Collection, where: Mapping[str, Any] | None) -> Iterator[list[str]]:
    """Ids page by page through the API, each exactly once.

    The API counts its offset over what is there now, so records deleted meanwhile pull later ones
    to the left. Consecutive pages therefore overlap; where a page does not begin among ids already
    seen, the scan steps back until it does.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        start, step = max(0, offset - OVERLAP), SHARD_ROWS
        page = _id_page(collection, where, start)
        while start and not (page and seen.issuperset(page[: OVERLAP // 10])):
            start, step = max(0, start - step), step * 2
            page = _id_page(collection, where, start)
        new = [id for id in page if id not in seen]
        seen.update(new)
        if new:
            yield new
        if len(page) < SHARD_ROWS:
            return
        offset = start + len(page)


def _id_page(collection: Collection, where: Mapping[str, Any] | None, start: int) -> list[str]:
    with mapped(collection.name):
        answer = collection.get(where=cast(Any, where), limit=SHARD_ROWS, offset=start, include=[])
    return list(answer["ids"])


@dataclass
class _Columns:
    """Records as columns, in any order. `embeddings` holds a vector or None for each id."""

    ids: list[str] = field(default_factory=list)
    documents: list[str | None] = field(default_factory=list)
    metadatas: list[str] = field(default_factory=list)
    uris: list[str | None] = field(default_factory=list)
    embeddings: list[Any] = field(default_factory=list)


def fetch(
    collection: Collection,
    ids: Sequence[str],
    *,
    vectors: bool,
    where: Mapping[str, Any] | None,
    over_http: bool,
) -> pa.RecordBatch:
    """Records of `ids` as `EXPORT_SCHEMA`, in that order; see `Reader.fetch`."""
    columns = _Columns()
    wanted = list(dict.fromkeys(ids))
    done, rows = 0, 200 if over_http or vectors else SHARD_ROWS
    while done < len(wanted):
        part = wanted[done : done + rows]
        size = _fetch_part(collection, part, vectors, where, columns)
        done += len(part)
        if over_http:
            rows = max(1, min(SHARD_ROWS, rows * 4, PAGE_BYTES * len(part) // max(size, 1)))
        elif vectors:
            rows = _rows_of(columns)
    place = {id: row for row, id in enumerate(columns.ids)}
    order = [place[id] for id in wanted if id in place]
    return export_batch(
        [columns.ids[row] for row in order],
        [columns.documents[row] for row in order],
        [columns.metadatas[row] for row in order],
        [columns.uris[row] for row in order],
        _embedding_array([columns.embeddings[row] for row in order]) if vectors else None,
    )


def _rows_of(columns: _Columns) -> int:
    """Records whose vectors make PAGE_VALUES, as far as one is known."""
    known = next((len(vector) for vector in columns.embeddings if vector is not None), 1)
    return max(1, min(SHARD_ROWS, PAGE_VALUES // max(1, known)))


def _fetch_part(
    collection: Collection,
    ids: list[str],
    vectors: bool,
    where: Mapping[str, Any] | None,
    columns: _Columns,
) -> int:
    """Append the records of `ids`; returns about how many JSON bytes their answer took.

    A record whose vector is gone makes the whole answer fail; halving finds it, and it is read
    without its vector.
    """
    answer = _get(collection, ids, vectors, where)
    if answer is None and len(ids) == 1:
        return _fetch_part(collection, ids, False, where, columns)
    if answer is None:
        middle = len(ids) // 2
        return sum(
            _fetch_part(collection, half, True, where, columns)
            for half in (ids[:middle], ids[middle:])
        )
    found = answer["ids"]
    nothing: list[Any] = [None] * len(found)
    documents, uris = answer["documents"] or nothing, answer["uris"] or nothing
    columns.ids.extend(found)
    columns.documents.extend(documents)
    texts = [
        _metadata_text(id, metadata)
        for id, metadata in zip(found, answer["metadatas"] or nothing, strict=True)
    ]
    columns.metadatas.extend(texts)
    columns.uris.extend(uris)
    matrix = np.asarray(answer["embeddings"], np.float32) if vectors and found else None
    columns.embeddings.extend([None] * len(found) if matrix is None else matrix)
    size = sum(len(text) for text in (*documents, *texts, *uris) if text)
    return size + 100 * len(found) + (0 if matrix is None else matrix.size * 20)


def _metadata_text(id: str, metadata: Mapping[str, Any] | None) -> str:
    try:
        return metadata_text(metadata)
    except TypeError as error:  # Chroma Cloud keeps sparse vectors in metadata
        raise PreflightError(
            f"record {short(id)}: its metadata holds what JSON cannot: {error}",
            "Leave such records out with source.where; sparse vectors are not copied.",
        ) from error


def _get(
    collection: Collection, ids: list[str], vectors: bool, where: Mapping[str, Any] | None
) -> GetResult | None:
    """The API's answer; None if it failed because the vector of one of the records is lost."""
    include = ["documents", "metadatas", "uris"] + (["embeddings"] if vectors else [])
    with mapped(collection.name):
        try:
            return collection.get(ids=ids, where=cast(Any, where), include=cast(Any, include))
        except InternalError as error:
            if vectors and _LOST_VECTOR in str(error):
                return None
            raise


def _embedding_array(rows: list[Any]) -> pa.Array:
    present = [row for row in rows if row is not None]
    if len(present) == len(rows) and rows:
        return vectors_to_list_array(np.stack(rows))
    lengths = [0 if row is None else len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate(present) if present else np.zeros(0, np.float32)
    mask = pa.array([row is None for row in rows], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.float32()), mask=mask)


@dataclass
class Batch:
    """Rows to write in one call, and the floats to put right afterwards (`chroma_floats`)."""

    ids: list[str] = field(default_factory=list)
    documents: list[str | None] = field(default_factory=list)
    metadatas: list[dict[str, Any] | None] = field(default_factory=list)
    uris: list[str | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    fixes: list[FloatFix] = field(default_factory=list)

    def part(self, rows: slice) -> Batch:
        """Some of the rows, without the fixes."""
        return Batch(
            self.ids[rows],
            self.documents[rows],
            self.metadatas[rows],
            self.uris[rows],
            self.rows[rows],
        )


def batches(
    records: pa.RecordBatch, dimensions: int, *, passes: int, max_rows: int
) -> Iterator[Batch]:
    """Records in batches that Chroma takes, metadata as it must be sent to be stored unchanged.

    Args:
        passes: how often Chroma's JSON reading rounds a float on the way in.
        max_rows: most rows that the server takes in one call.

    Raises:
        PreflightError: a record that Chroma would alter.
    """
    batch, size = Batch(), 0
    columns = (records.column(name).to_pylist() for name in ("id", "document", "metadata", "uri"))
    for row, (id, document, metadata, uri) in enumerate(zip(*columns, strict=True)):
        row_size = len(orjson.dumps([id, document, uri])) + len(metadata) + 6 * dimensions
        full = len(batch.ids) == min(BATCH_ROWS, max_rows) or size + row_size > BATCH_BYTES
        if batch.ids and full:
            yield batch
            batch, size = Batch(), 0
        batch.ids.append(id)
        batch.documents.append(document)
        batch.metadatas.append(_sendable(id, json.loads(metadata), passes, batch.fixes))
        batch.uris.append(uri)
        batch.rows.append(row)
        size += row_size
    if batch.ids:
        yield batch


def _sendable(
    id: str, metadata: dict[str, Any] | None, passes: int, fixes: list[FloatFix]
) -> dict[str, Any] | None:
    """Metadata as Chroma must be handed it to store it unchanged; `{}` becomes None, because
    Chroma returns `{}` for a record without metadata and refuses it on writing."""
    for key, value in (metadata or {}).items():
        if isinstance(value, list):
            metadata[key] = [  # type: ignore[index]
                _sendable_value(id, key, place, item, passes, fixes)
                for place, item in enumerate(value)
            ]
        else:
            metadata[key] = _sendable_value(id, key, None, value, passes, fixes)  # type: ignore[index]
    return metadata or None


def _sendable_value(
    id: str, key: str, place: int | None, value: Any, passes: int, fixes: list[FloatFix]
) -> Any:
    if isinstance(value, float):
        sent = to_send(value, passes)
        if sent is None:
            fixes.append((id, key, place, value))
            return value
        return sent
    if isinstance(value, int) and value not in INT64:  # Chroma would store a float in silence
        raise PreflightError(
            f"record {short(id)}: metadata {key!r} is {value}, beyond 64-bit integers"
        )
    return value


def write(collection: Collection, batch: Batch, vectors: Vectors) -> None:
    """Add a batch; `vectors` are those of all records that the batches were made of.

    Raises:
        PreflightError: a record that Chroma will never take, by its id.
    """
    try:
        collection.add(
            ids=batch.ids,
            embeddings=vectors[batch.rows],
            metadatas=cast(Any, batch.metadatas),
            documents=cast(Any, batch.documents),
            uris=cast(Any, batch.uris),
        )
    except Exception as error:
        # A server may take less than the default limit. Halving finds the record to blame.
        if not is_too_large(error) and not refused(error):
            with mapped(collection.name):
                raise
        if len(batch.ids) > 1:
            middle = len(batch.ids) // 2
            write(collection, batch.part(slice(None, middle)), vectors)
            write(collection, batch.part(slice(middle, None)), vectors)
            return
        raise of_record(f"record {short(batch.ids[0])}: Chroma refused it: {error}", error) from (
            error
        )


def refuse_not_finite(ids: Sequence[str], vectors: Vectors) -> None:
    """Raise PreflightError, naming the record, for NaN and infinity: servers before 1.5 take them,
    and then find nothing any more."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise PreflightError(f"record {short(ids[bad[0]])}: its vector is not finite")


def short(id: str) -> str:
    """An id as messages have it."""
    return repr(id if len(id) <= 200 else f"{id[:200]}...")
