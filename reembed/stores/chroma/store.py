"""Chroma as a store: a local path, a server, or Chroma Cloud.

The public client API does nearly everything; chroma.sqlite3 is read, and for a `transaction` swap
written, only where the file is at hand (`chroma_sqlite`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from chromadb.api.models.Collection import Collection
from chromadb.api.types import validate_where

from reembed.errors import CollectionNotFoundError, PreflightError
from reembed.manifest import Model, SwapKind
from reembed.records import Metric, Vectors, chunked, list_array_to_vectors
from reembed.stores.chroma import claims as chroma_lease
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import floats as chroma_floats
from reembed.stores.chroma import function as chroma_function
from reembed.stores.chroma import hold as chroma_hold
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.chroma import move as chroma_swap
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import pointer as chroma_pointer
from reembed.stores.chroma import reach as chroma_reach
from reembed.stores.chroma import records as chroma_records
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma import stale_lists as chroma_ghosts
from reembed.stores.chroma.client import mapped
from reembed.stores.processes import Holders, holders
from reembed.stores.store import (
    Capabilities,
    CollectionInfo,
    Exchange,
    Receipt,
    SimpleStore,
    StoreOptions,
)

Where = Mapping[str, Any] | str | None
QUERY_ROWS = 100


def open_store(url: str, options: StoreOptions) -> ChromaStore:
    """Open Chroma behind `url`; see `registry.open_store`.

    Raises:
        CollectionNotFoundError: there is no database in the folder.
        PreflightError: the database is another version's, a key is missing, or `data_dir` is not
            the server's.
        UnreachableError: nothing answers.
    """
    return ChromaStore(url, options.data_dir)


class ChromaStore(SimpleStore):
    """See `Store`. Threads may share one."""

    def __init__(self, url: str, data_dir: Path | None = None) -> None:
        self.url = url
        address = chroma_client.parse(url)
        self._path = address.path
        self._cloud = address.cloud
        self._client = chroma_client.connect(address, url)
        self._handles: dict[str, Collection] = {}
        self._metrics: dict[str, Metric] = {}
        self._one_writer = threading.Lock()
        self._folder = address.path
        if address.path is None and data_dir is not None:
            try:
                self._folder = chroma_reach.verified(data_dir, self._client, url)
            except BaseException:
                self.close()
                raise
        # A copy of the server's folder would list old records and say "no change" for ever, so the
        # file is relied on only where a process is seen that has it open. (A transaction needs no
        # such proof: it asks the server afterwards.)
        self._file = self._folder
        if self._path is None and self._folder and not holders(self._folder).processes:
            self._file = None
        with mapped(url):
            self._max_rows = max(1, self._client.get_max_batch_size())

    # --- what is there ---------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        kinds: dict[SwapKind, str] = dict(chroma_swap.GUARANTEES)
        if self._folder is None:
            del kinds["transaction"]
        others = holders(self._path) if self._path else Holders({})
        notes = chroma_reach.notes(self._path, self._folder, others)
        return Capabilities(kinds, self._folder, notes, others.lines())

    def collections(self) -> list[str]:
        every = chroma_names.list_all(self._client)
        return sorted({one.name for one in every if not chroma_lease.is_claim(one)})

    def _named(self, name: str) -> Collection | None:
        return chroma_names.by_name(self._client, name)

    def describe(self, name: str) -> CollectionInfo:
        found = self._named(name)
        if found is None:
            names = self.collections()
            close = get_close_matches(name, names, 1)
            raise CollectionNotFoundError(
                f"{self.url} has no collection {name!r}; it has: {', '.join(names) or 'none'}",
                f"Did you mean {close[0]!r}?" if close else "",
            )
        return self._info(found)

    def describe_id(self, id: str) -> CollectionInfo | None:
        found = chroma_names.by_id(self._client, id)
        return None if found is None else self._info(found)

    def _info(self, collection: Collection) -> CollectionInfo:
        id = str(collection.id)
        legacy = chroma_sqlite.legacy_settings(self._file, id) if self._file else {}
        metric, index, function = chroma_metric.recorded(collection, legacy)
        with mapped(collection.name):
            count = collection.count()
            if id not in self._metrics and count:
                probed = chroma_metric.probe(collection)
                if probed is not None:
                    self._metrics[id] = probed
        return CollectionInfo(
            id=id,
            name=collection.name,
            count=count,
            dimensions=collection.get_model().dimension,
            metric=self._metrics.get(id, metric),
            metadata=dict(collection.metadata) if collection.metadata else None,
            index=index,
            model=chroma_function.model_of(function),
        )

    def check_name(self, name: str, beside: str | None = None) -> None:
        chroma_names.check_name(name)

    def check_index(self, index: Mapping[str, Any], metric: Metric) -> None:
        chroma_metric.configuration(index, metric, self._cloud)

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        return chroma_names.default_target(collection, model, dimensions)

    def check_where(self, where: Where) -> None:
        if where is None:
            return
        if isinstance(where, str):
            raise PreflightError(
                f"source.where: Chroma's filter is a mapping, this is the text {where!r}",
                'For example {"kind": {"$eq": "function"}}.',
            )
        try:
            validate_where(cast(Any, dict(where)))
        except (ValueError, TypeError) as error:
            raise PreflightError(f"source.where: {error}") from error

    # --- records out -----------------------------------------------------------------------------

    def _handle(self, id: str) -> Collection:
        """The collection by object id; its calls go by that id, so a rename does not touch it."""
        if id not in self._handles:
            found = chroma_names.by_id(self._client, id)
            if found is None:
                raise CollectionNotFoundError(f"{self.url}: the collection {id} is gone")
            # Collection.add rebuilds the persisted embedding function from the schema at each call,
            # with a warning where its key is missing. Records here bring their vectors.
            found.get_model()["serialized_schema"] = None
            self._handles[id] = found
        return self._handles[id]

    def _where(self, where: Where) -> Mapping[str, Any] | None:
        self.check_where(where)
        return cast("Mapping[str, Any] | None", where)

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        collection, condition = self._handle(id), self._where(where)
        if self._file is not None and condition is None:
            pages = chroma_sqlite.id_pages(self._file, id)
        else:
            pages = chroma_records.list_ids(collection, condition)
        for page in pages:
            yield pa.array(page, pa.string())

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        collection, condition = self._handle(id), self._where(where)
        return chroma_records.fetch(
            collection, ids, vectors=vectors, where=condition, over_http=self._path is None
        )

    def count(self, id: str) -> int:
        collection = self._handle(id)
        with mapped(collection.name):
            return collection.count()

    def query(self, id: str, vectors: Vectors, k: int) -> list[list[str]]:
        collection = self._handle(id)
        found: list[list[str]] = []
        with mapped(collection.name):
            for start in range(0, len(vectors), QUERY_ROWS):
                part = np.ascontiguousarray(vectors[start : start + QUERY_ROWS], np.float32)
                answer = collection.query(query_embeddings=part, n_results=k, include=[])
                found.extend(answer["ids"])
        return found

    def watermark(self, id: str) -> str | None:
        return None if self._file is None else chroma_sqlite.watermark(self._file, id)

    # --- records in ------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        dimensions: int,
        metric: Metric,
        index: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        model: Model,
        like: str | None = None,
    ) -> CollectionInfo:
        """See `Store.create`. Chroma fixes the dimension at the first record, not here.

        `hnsw:*` keys of `metadata` are kept where they agree with the new index and left out where
        they would contradict it; Chroma reads them no more.
        """
        self.check_name(name)
        configuration = chroma_metric.configuration(index, metric, self._cloud)
        passes = 0 if self._path is not None else 1
        kept = chroma_metric.without_contradictions(metadata, next(iter(configuration.values())))
        if kept is not None:
            kept = {key: _sent(value, passes) for key, value in kept.items()}
        if self._named(name) is not None:
            raise PreflightError(f"{self.url}: there is a collection {name!r} already")
        with mapped(name), chroma_function.recording():
            made = self._client.create_collection(
                name,
                configuration=cast(Any, configuration),
                metadata=kept,
                embedding_function=chroma_function.to_record(model),
            )
        found = self.describe_id(str(made.id))
        if found is None:
            raise CollectionNotFoundError(f"{name}: deleted by somebody while it was being made")
        return found

    def add(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        self._write(id, records, vectors, replace=False)

    def replace(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        # Chroma's upsert merges metadata and keeps an old document, so old records go first.
        self._write(id, records, vectors, replace=True)

    def _write(self, id: str, records: pa.RecordBatch, vectors: Vectors, replace: bool) -> None:
        if not records.num_rows:
            return
        collection = self._handle(id)
        vectors = np.ascontiguousarray(vectors, np.float32)
        if self._file is not None:
            chroma_ghosts.purge(self._file)
        for batch in chroma_records.batches(
            records,
            vectors.shape[1],
            passes=1 if self._path is not None else 2,
            max_rows=self._max_rows,
        ):
            if replace:
                with mapped(collection.name):
                    collection.delete(ids=batch.ids)
            if self._file is not None:
                chroma_records.write(collection, batch, vectors)
                chroma_sqlite.set_floats(self._file, id, batch.fixes)
                continue
            # Floats that cannot be sent stay a few units in the last place off here.
            new = [] if self._cloud else chroma_ghosts.missing(collection, batch.ids)
            chroma_records.write(collection, batch, vectors)
            wanted = dict(zip(batch.ids, batch.metadatas, strict=True))
            chroma_ghosts.remove(collection, new, wanted)

    def delete(self, id: str, ids: Sequence[str]) -> None:
        collection = self._handle(id)
        with mapped(collection.name):
            for part in chunked(list(dict.fromkeys(ids)), chroma_records.BATCH_ROWS):
                collection.delete(ids=list(part))

    # --- names -----------------------------------------------------------------------------------

    def is_pointer(self, live: str) -> bool:
        return chroma_pointer.read(self._client, live) is not None

    def resolve(self, live: str) -> CollectionInfo:
        pointer = chroma_pointer.read(self._client, live)
        if pointer is None:
            return self.describe(live)
        return self._info(chroma_pointer.follow(self._client, pointer))

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        with self._one_writer:
            return chroma_swap.exchange(
                self._client, kind, exchange, self._merge_intruders, self._folder
            )

    def hold_writes(self, live: str, seconds: float, incoming: str) -> float | None:
        held = chroma_hold.hold(self._client, live, seconds)
        return chroma_hold.GRACE_SECONDS if held else None

    def release_writes(self, live: str) -> None:
        chroma_hold.release(self._client, live)

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        return chroma_lease.claim(self._client, live, claim, over)

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        with self._one_writer:  # the heart beats in a thread of its own
            return chroma_lease.renew(self._client, live, claim, renewed)

    def unclaim(self, live: str, claim: str) -> None:
        chroma_lease.unclaim(self._client, live, claim)

    def _merge_intruders(self, names: list[str]) -> str | None:
        """An application can make the live name more than once in a gap; a receipt names one
        collection. The records of the newer ones are copied into the oldest; nothing is deleted,
        because the application may still be writing to those it holds."""
        found = [one for name in names if (one := self._named(name)) is not None]
        for newer in found[1:]:
            id = str(newer.id)
            for page in self.list_ids(id):
                records = self.fetch(id, page.to_pylist(), vectors=True)
                vectors, usable = list_array_to_vectors(records.column("embedding"))
                self.replace(str(found[0].id), records.filter(pa.array(usable)), vectors)
        return found[0].name if found else None

    def drop(self, id: str) -> None:
        """Delete the collection of this object id.

        Chroma deletes by name only. The name is looked up by id, and the id by that name, just
        before the call; what remains is a window of about a millisecond in which another process
        would have to give that very name to another collection.
        """
        for _ in range(5):
            found = chroma_names.by_id(self._client, id)
            if found is None:
                self._handles.pop(id, None)
                if self._file is not None:
                    chroma_ghosts.purge(self._file)
                return
            holder = self._named(found.name)
            if holder is not None and str(holder.id) == id:
                if self._file is None and not self._cloud:
                    chroma_ghosts.delete_lists(found)
                chroma_names.present(
                    lambda name=found.name: self._client.delete_collection(name),  # type: ignore[misc]
                    found.name,
                )
        if chroma_names.by_id(self._client, id) is not None:
            raise PreflightError(f"the collection {id} cannot be deleted: its name keeps moving")

    def close(self) -> None:
        chroma_client.close(self._client)


def _sent(value: Any, passes: int) -> Any:
    if not isinstance(value, float):
        return value
    sent = chroma_floats.to_send(value, passes)
    return value if sent is None else sent
