"""The move of a live name in a Chroma database: see `move` and `pointer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from reembed.manifest import SwapKind
from reembed.records import list_array_to_vectors
from reembed.stores.chroma import hold as chroma_hold
from reembed.stores.chroma import move as chroma_swap
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import pointer as chroma_pointer
from reembed.stores.chroma.catalog import ChromaCatalog
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.reader import ChromaReader
from reembed.stores.chroma.writer import ChromaWriter
from reembed.stores.values import CollectionInfo, Exchange, Prepared, Receipt


class ChromaCutover:
    """See `Cutover`."""

    def __init__(
        self, database: Database, catalog: ChromaCatalog, reader: ChromaReader, writer: ChromaWriter
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._reader = reader
        self._writer = writer

    @property
    def kinds(self) -> Mapping[SwapKind, str]:
        kinds = dict(chroma_swap.GUARANTEES)
        if self._database.folder is None:
            del kinds["transaction"]
        return kinds

    def follow(self, live: str) -> CollectionInfo | None:
        pointer = chroma_pointer.read(self._database.client, live)
        if pointer is None:
            return None
        return self._catalog.info(chroma_pointer.follow(self._database.client, pointer))

    def fit_name(self, name: str) -> str:
        return name

    def check(self, live: str, parked: str, outgoing_id: str) -> None:
        chroma_names.check_name(live)
        chroma_names.check_name(parked)

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        database = self._database
        with database.one_writer:
            return chroma_swap.exchange(
                database.client, kind, exchange, self._merge_intruders, database.folder
            )

    def together(self, exchanges: Sequence[Exchange]) -> list[Receipt]:
        """See `Store.together`."""
        database = self._database
        assert database.folder is not None, "a transaction needs the file"
        with database.one_writer:
            return chroma_swap.exchange_all(database.client, exchanges, database.folder)

    def prepare(self, live: str, incoming: str) -> Prepared:
        return Prepared()

    def hold_writes(self, incoming: Mapping[str, str], seconds: float) -> float | None:
        held = [chroma_hold.hold(self._database.client, live, seconds) for live in incoming]
        return chroma_hold.GRACE_SECONDS if any(held) else None

    def release_writes(self, live: str) -> None:
        chroma_hold.release(self._database.client, live)

    def _merge_intruders(self, names: list[str]) -> str | None:
        """An application can make the live name more than once in a gap; a receipt names one
        collection. The records of the newer ones are copied into the oldest; nothing is deleted,
        because the application may still be writing to those it holds."""
        found = [one for name in names if (one := self._database.named(name)) is not None]
        for newer in found[1:]:
            id = str(newer.id)
            for page in self._reader.list_ids(id):
                records = self._reader.fetch(id, page.to_pylist(), vectors=True)
                vectors, usable = list_array_to_vectors(records.column("embedding"))
                usable_records = records.filter(pa.array(usable))
                self._writer.write(str(found[0].id), usable_records, vectors, "replace")
        return found[0].name if found else None
