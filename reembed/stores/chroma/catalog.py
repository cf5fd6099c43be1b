"""Which collections a Chroma database has, and what is known of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reembed.errors import CollectionNotFoundError
from reembed.records import Metric
from reembed.stores.chroma import claims as chroma_lease
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import reach as chroma_reach
from reembed.stores.chroma import schema as chroma_schema
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.damaged_index import damage_of, explained, folder_of
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.keeping import without_note
from reembed.stores.chroma.recorded import model_of
from reembed.stores.processes import Holders, holders
from reembed.stores.values import Capabilities, CollectionInfo, some_of

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

LOOK_SECONDS = 5.0
"""How long it is believed who has a folder open."""


class ChromaCatalog:
    """See `Catalog`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._metrics: dict[str, Metric] = {}
        self._looked: tuple[float, Holders] | None = None

    @property
    def capabilities(self) -> Capabilities:
        path, folder = self._database.path, self._database.folder
        others = self._holders(path) if path else Holders({})
        notes = (*chroma_reach.notes(path, folder, others), *self._database.offers.notes)
        return Capabilities(folder, notes, others.lines())

    def _holders(self, path: Path) -> Holders:
        """Who has it open, looked at again after `LOOK_SECONDS`: a plan of a thousand collections
        asks for each, and a look goes through all files that any process has open."""
        now = time.monotonic()
        if self._looked is None or now - self._looked[0] > LOOK_SECONDS:
            self._looked = (now, holders(path))
        return self._looked[1]

    def collections(self) -> list[str]:
        every = chroma_names.list_all(self._database.client)
        return sorted({one.name for one in every if not chroma_lease.is_claim(one)})

    def find(self, name: str) -> CollectionInfo | None:
        found = self._database.named(name)
        return None if found is None else self.info(found)

    def describe(self, name: str) -> CollectionInfo:
        found = self.find(name)
        if found is None:
            url, names = self._database.url, self.collections()
            close = get_close_matches(name, names, 1)
            raise CollectionNotFoundError(
                f"{url} has no collection {name!r}; it has: {some_of(names)}",
                f"Did you mean {close[0]!r}?" if close else "",
            )
        return found

    def describe_id(self, id: str) -> CollectionInfo | None:
        found = chroma_names.by_id(self._database.client, id)
        return None if found is None else self.info(found)

    def info(self, collection: Collection) -> CollectionInfo:
        id, file = str(collection.id), self._database.file
        legacy = chroma_sqlite.legacy_settings(file, id) if file else {}
        metric, index, function = chroma_metric.recorded(collection, legacy)
        with explained(self._database.folder, id, collection.name):
            count = collection.count()
            # A search in an index that is not whole may end this process.
            if id not in self._metrics and count and not damage_of(folder_of(file, id)):
                probed = chroma_metric.probe(collection)
                if probed is not None:
                    self._metrics[id] = probed
        return _info(collection, count, (self._metrics.get(id, metric), index, function))


class ListedCatalog(ChromaCatalog):
    """The collections as one list had them, for a look at many of them. Metric and index are as
    recorded: to measure them, Chroma opens the index of each. At the first count it goes through
    the log of all."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        every = list(chroma_names.list_all(database.client))
        self._named = {one.name: one for one in every}
        self._ids = {str(one.id): one for one in every}
        self._counts = chroma_sqlite.counts(database.file) if database.file else {}

    def collections(self) -> list[str]:
        return sorted(name for name, one in self._named.items() if not chroma_lease.is_claim(one))

    def find(self, name: str) -> CollectionInfo | None:
        found = self._named.get(name)
        return None if found is None else self.info(found)

    def describe_id(self, id: str) -> CollectionInfo | None:
        found = self._ids.get(id)
        return None if found is None else self.info(found)

    def info(self, collection: Collection) -> CollectionInfo:
        id = str(collection.id)
        if id not in self._counts:
            with mapped(collection.name):
                self._counts[id] = collection.count()
        return _info(collection, self._counts[id], chroma_metric.recorded(collection, {}))


Recorded = tuple[Metric, dict[str, Any], dict[str, Any] | None]


def _info(collection: Collection, count: int, recorded: Recorded) -> CollectionInfo:
    metric, index, function = recorded
    return CollectionInfo(
        id=str(collection.id),
        name=collection.name,
        count=count,
        dimensions=collection.get_model().dimension,
        metric=metric,
        metadata=without_note(collection.metadata),
        index=index,
        model=model_of(chroma_metric.recorded_function(collection)),
        function=_name_of(function),
        key_indexes=chroma_schema.key_indexes(collection),
    )


def _name_of(function: Mapping[str, Any] | None) -> str:
    known = function is not None and function.get("type") == "known"
    return str(function.get("name") or "") if known and function else ""
