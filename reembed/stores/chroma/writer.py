"""Collections and records into a Chroma database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.errors import CollectionGoneError, PreflightError
from reembed.records import Vectors, chunked
from reembed.stores.chroma import floats as chroma_floats
from reembed.stores.chroma import keeping
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import records as chroma_records
from reembed.stores.chroma import schema as chroma_schema
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma import stale_lists as chroma_ghosts
from reembed.stores.chroma.bulk import take_back
from reembed.stores.chroma.catalog import ChromaCatalog
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.failures import mapped
from reembed.stores.values import (
    CollectionInfo,
    CollectionSpec,
    SpecCheck,
    WriteMode,
    refusals,
)


class ChromaWriter:
    """See `Writer`."""

    def __init__(self, database: Database, catalog: ChromaCatalog) -> None:
        self._database = database
        self._catalog = catalog

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        return chroma_names.default_target(collection, model, dimensions)

    def check(self, spec: CollectionSpec) -> SpecCheck:
        return SpecCheck(
            notes=(
                *(
                    [keeping.told(spec.function, spec.function_before, spec.model)]
                    if spec.model
                    else []
                ),
                *([chroma_schema.told(spec.key_indexes)] if spec.key_indexes else []),
            ),
            refusals=refusals(
                lambda: chroma_names.check_name(spec.name),
                lambda: chroma_schema.refuse_sparse(spec.key_indexes),
                lambda: self._database.offers.refuse_indexes(spec.key_indexes),
                lambda: chroma_metric.configuration(spec.index, spec.metric, self._database.cloud),
            ),
            records=None if self._database.offers.lists else self._database.offers.refuse_lists,
        )

    def create(self, spec: CollectionSpec) -> CollectionInfo:
        """See `Writer.create`. Chroma fixes the dimension at the first record, not here.

        `hnsw:*` keys of `metadata` are kept where they agree with the new index and left out where
        they would contradict it; Chroma reads them no more.
        """
        from reembed.stores.chroma import recording

        self.check(spec).refuse()
        name, database = spec.name, self._database
        configuration = chroma_metric.configuration(spec.index, spec.metric, database.cloud)
        passes = 0 if database.path is not None else 1
        index = next(iter(configuration.values()))
        kept = chroma_metric.without_contradictions(spec.metadata, index)
        if kept is not None:
            kept = {key: _sent(value, passes) for key, value in kept.items()}
        if database.named(name) is not None:
            raise PreflightError(f"{database.url}: there is a collection {name!r} already")
        function = None
        if spec.model is None:  # nothing is known, so nothing is recorded
            pass
        elif keeping.keeps(spec.function, spec.function_before, spec.model):
            function = recording.to_record(spec.model)
        elif spec.function == "auto":  # `none` leaves no trace at all
            kept = (kept or {}) | {keeping.MODEL_KEY: keeping.noted(spec.model)}
        settings: dict[str, Any] = {
            "configuration": configuration, "embedding_function": function,
        }  # fmt: skip
        if spec.key_indexes:
            schema = chroma_schema.with_indexes(configuration, spec.key_indexes, function)
            settings = {"schema": schema, "embedding_function": None}
        with mapped(name), recording.recording():
            made = database.client.create_collection(name, metadata=kept, **settings)
        found = self._catalog.describe_id(str(made.id))
        if found is None:
            raise CollectionGoneError(f"{name}: deleted by somebody while it was being made")
        if found.key_indexes != spec.key_indexes:
            self.drop(found.id)
            raise database.offers.without(spec.key_indexes)
        return found

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        if not records.num_rows:
            return
        collection = self._database.handle(id)
        file, vectors = self._database.file, np.ascontiguousarray(vectors, np.float32)
        chroma_records.refuse_not_finite(records.column("id").to_pylist(), vectors)
        self._database.offers.refuse_lists(records)
        if file is not None:
            chroma_sqlite.purge_lists(file)
        for batch in chroma_records.batches(
            records,
            vectors.shape[1],
            passes=1 if self._database.path is not None else 2,
            max_rows=self._database.max_rows,
        ):
            if mode == "replace":
                # Chroma's upsert merges metadata and keeps an old document, so these go first.
                with mapped(collection.name):
                    collection.delete(ids=batch.ids)
            if file is not None:
                chroma_records.write(collection, batch, vectors)
                chroma_sqlite.set_floats(file, id, batch.fixes)
                continue
            # Floats that cannot be sent stay a few units in the last place off here.
            new = [] if self._database.cloud else chroma_ghosts.missing(collection, batch.ids)
            chroma_records.write(collection, batch, vectors)
            wanted = dict(zip(batch.ids, batch.metadatas, strict=True))
            chroma_ghosts.remove(collection, new, wanted)

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        collection = self._database.handle(id)
        vectors = np.ascontiguousarray(vectors, np.float32)
        chroma_records.refuse_not_finite(ids, vectors)
        most = min(chroma_records.BATCH_ROWS, self._database.max_rows)
        for start in range(0, len(ids), most):
            rows = slice(start, start + most)
            with mapped(collection.name):
                collection.update(ids=list(ids[rows]), embeddings=vectors[rows])

    def delete(self, id: str, ids: Sequence[str]) -> None:
        collection = self._database.handle(id)
        with mapped(collection.name):
            for part in chunked(list(dict.fromkeys(ids)), chroma_records.BATCH_ROWS):
                collection.delete(ids=list(part))

    def drop(self, id: str) -> None:
        """Delete the collection of this object id.

        Chroma deletes by name only. The name is looked up by id, and the id by that name, just
        before the call; what remains is a window of about a millisecond in which another process
        would have to give that very name to another collection.
        """
        database = self._database
        for _ in range(5):
            found = chroma_names.by_id(database.client, id)
            if found is None:
                database.forget(id)
                if database.file is not None:
                    chroma_sqlite.purge_lists(database.file)
                return
            if database.path is not None and found.get_model().dimension is None:
                take_back(database.path, id)  # of a filling that was given up Chroma leaves files
            holder = database.named(found.name)
            if holder is not None and str(holder.id) == id:
                if database.file is None and not database.cloud:
                    chroma_ghosts.delete_lists(found)
                chroma_names.present(
                    lambda name=found.name: database.client.delete_collection(name),  # type: ignore[misc]
                    found.name,
                )
        if chroma_names.by_id(database.client, id) is not None:
            raise PreflightError(f"the collection {id} cannot be deleted: its name keeps moving")


def _sent(value: Any, passes: int) -> Any:
    if not isinstance(value, float):
        return value
    sent = chroma_floats.to_send(value, passes)
    return value if sent is None else sent
