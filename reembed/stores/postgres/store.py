"""Postgres with pgvector as a store: `postgresql://user@host/db`.

A collection is a table with a vector column, or mem0's two tables, which move as one. What there is
is in `pg_catalog` and `pg_layout`, records go through `pg_records`, new tables are made in
`pg_shadow`, writes are captured by `pg_capture`, and `pg_move` moves a live name.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from psycopg import sql

from reembed.errors import PreflightError
from reembed.manifest import Model, SwapKind
from reembed.records import Metric, Vectors
from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.claims import Claims
from reembed.stores.postgres.client import (
    fetch_one,
    mapped,
)
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.postgres.records import Records
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema.dependents import dependents
from reembed.stores.postgres.schema.names import check_identifier, fitted, place_for
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.shadow import ShadowMaker
from reembed.stores.store import (
    Capabilities,
    CollectionInfo,
    Exchange,
    Receipt,
    StoreOptions,
    Survey,
)

Where = Mapping[str, Any] | str | None
GUARANTEE = (
    "one transaction: every statement sees the old table or the new one whole, never neither and "
    "never an empty one; writers wait while their last writes are carried, readers for the instant "
    "of the move, and transactions on an older snapshot are waited for"
)
WORD = re.compile(r"[^A-Za-z0-9_-]+")
MODEL_BYTES = 24
"""Of the 63 that a name can have, those that say the model."""


class PgVectorStore:
    """See `reembed.stores.store.Store`.

    Args:
        options: `layout` and `columns` of the source.
    """

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = url
        self._catalog = Catalog(url, options)
        self._mover = Mover(self._catalog)
        self._shadows = ShadowMaker(self._catalog)
        self._records = Records(self._catalog, self._shadows)
        self._claims = Claims(url)
        self._touched: dict[str, list[tuple[Table, list[int]]]] = {}

    def identify(self) -> None:
        """Raise PreflightError where this is no database with vectors."""
        _ = self._catalog.database

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities({"transaction": GUARANTEE}, notes=self._notes())

    def _notes(self) -> tuple[str, ...]:
        row = fetch_one(self._catalog.main, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
        if row and row[0]:
            return ()
        return (
            f"the role {self._catalog.database.role!r} cannot see other roles' snapshots "
            "(pg_read_all_stats): a REPEATABLE READ transaction of another role that began before "
            "the swap may find the table empty",
        )

    def collections(self) -> list[str]:
        return self._catalog.collections()

    def describe(self, name: str) -> CollectionInfo:
        return self._catalog.describe(name)

    def describe_id(self, id: str) -> CollectionInfo | None:
        with mapped(self.url):
            found = self._catalog.found(id)
            return self._catalog.describe_found(found) if found else None

    def resolve(self, live: str) -> CollectionInfo:
        return self.describe(live)

    def is_pointer(self, live: str) -> bool:
        return False

    def survey(self, id: str) -> Survey:
        notes, blockers = [], []
        for table in self._catalog.tables(id):
            held = dependents(self._catalog.main, table)
            notes.append(_layout_note(table))
            if held.forbidden:
                blockers.append(f"{table.label}: {'; '.join(held.forbidden)}")
            elif held.held_by:
                notes.append(
                    f"{table.label} keeps its place at the swap and exchanges its vector column, "
                    f"since these hold on to it: {', '.join(held.held_by)}. Writers wait while the "
                    "vectors are copied and indexed, which rewrites each row: a REPEATABLE READ "
                    "transaction that is under way and writes to it fails, to be tried again. The "
                    "vector becomes the last column, and a record in quarantine keeps its row, "
                    "without a vector"
                )
            else:
                notes.append(f"{table.label} is exchanged by renaming: nothing else hangs on it")
            if not pg_capture.allowed(self._catalog.main, table):
                notes.append(
                    f"the role {self._catalog.database.role!r} may not make triggers on "
                    f"{table.label}: every round of catch-up compares all of its rows, the last "
                    "one while writers wait"
                )
        return Survey(tuple(notes), tuple(blockers))

    def check_name(self, name: str, beside: str | None = None) -> None:
        with mapped(self.url):
            found = self._catalog.found(beside) if beside else None
            _, table = place_for(self._catalog.main, name, found[1] if found else None)
        check_identifier(table)

    def fit_name(self, name: str) -> str:
        with mapped(self.url):
            _, table = place_for(self._catalog.main, name)
        return name.removesuffix(table) + fitted(table)

    def check_index(self, index: Mapping[str, Any], metric: Metric) -> None:
        pg_indexes.check_index(index)

    def check_shadow(
        self, like: str | None, dimensions: int, index: Mapping[str, Any]
    ) -> list[str]:
        notes = []
        for table in self._catalog.tables(like) if like else []:
            type = table.column(table.vector).type
            made = pg_indexes.column_type(dimensions, type, index)
            if made != type:
                notes.append(
                    f"{table.label}: the new vectors are of type {made}({dimensions}), the old "
                    f"ones of type {type}: "
                    + (
                        "16-bit floats, since an index of 32-bit ones "
                        f"takes {pg_indexes.MOST_DIMENSIONS['vector']:,} dimensions at most"
                        if made == "halfvec"
                        else "32-bit floats"
                    )
                )
        if like is None:
            pg_indexes.column_type(dimensions, "vector", index)
        return notes

    def check_where(self, where: Where) -> None:
        if where is not None and not isinstance(where, str):
            raise PreflightError(
                f"source.where is an SQL condition on Postgres, not {where!r}",
                "For example: where: \"payload->>'user_id' = 'alice'\".",
            )

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        word = WORD.sub("-", model).strip("-") or "model"
        if len(word) > MODEL_BYTES:
            digest = hashlib.sha256(model.encode()).hexdigest()[:6]
            word = f"{word[: MODEL_BYTES - 7]}-{digest}"
        return self.fit_name(f"{collection}__{word}-{dimensions}")

    def count(self, id: str) -> int:
        tables = self._catalog.tables(id)
        with mapped(self.url):
            return sum(self._catalog.count_of(table) for table in tables)

    def drop(self, id: str) -> None:
        with mapped(self.url):
            found = self._catalog.found(id)
            if found is None:
                return
            with self._catalog.main.transaction():
                for table in self._catalog.parts(found):
                    pg_capture.remove(self._catalog.main, table)
                    self._catalog.main.execute(sql.SQL("DROP TABLE {}").format(table.identifier))

    def capture(self, id: str) -> None:
        """Log writes from now on, so that `changed_since` need not compare every record."""
        if self._mover.holding:  # there are none to be logged, and we would wait for ourselves
            return
        for table in self._catalog.tables(id):
            with mapped(table.label):
                pg_capture.install(self._catalog.main, table)

    def release_capture(self, id: str) -> None:
        """Remove what `capture`, or a move that was given up, has left at a collection."""
        with mapped(self.url):
            found = self._catalog.found(id)
            if found is not None:
                for table in self._catalog.parts(found):
                    pg_capture.remove(self._catalog.main, table)
                    pg_columns.drop_columns(self._catalog.main, [table])

    def watermark(self, id: str) -> str | None:
        tables = self._catalog.tables(id)
        with mapped(self.url):
            marks = [pg_capture.mark(self._catalog.main, table) for table in tables]
        return " ".join(map(str, marks)) if all(marks) else None

    def changed_since(self, id: str, mark: str) -> list[str] | None:
        if self.watermark(id) != mark:
            return None
        tables = self._catalog.tables(id)
        with mapped(self.url):
            found = [(table, pg_capture.touched(self._catalog.main, table)) for table in tables]
        self._touched[id] = [(table, touched.entries) for table, touched in found]
        if any(touched.truncated for _, touched in found):  # what else went cannot be told
            return None
        return [one for _, touched in found for one in touched.ids]

    def acknowledge(self, id: str) -> None:
        with mapped(self.url):
            for table, entries in self._touched.pop(id, []):
                pg_capture.forget(self._catalog.main, table, entries)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._records.snapshot():
            yield

    def list_ids(self, id: str, where: Where = None) -> Iterator[pa.Array]:
        return self._records.list_ids(id, self._condition(where))

    def fetch(
        self, id: str, ids: Sequence[str], *, vectors: bool, where: Where = None
    ) -> pa.RecordBatch:
        return self._records.fetch(id, ids, self._condition(where), vectors)

    def query(self, id: str, vectors: Vectors, k: int) -> list[list[str]]:
        return self._records.query(id, vectors, k)

    def add(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        self._records.write(id, records, vectors, replacing=False)

    def replace(self, id: str, records: pa.RecordBatch, vectors: Vectors) -> None:
        self._records.write(id, records, vectors, replacing=True)

    def delete(self, id: str, ids: Sequence[str]) -> None:
        self._records.delete(id, ids)

    def _condition(self, where: Where) -> str | None:
        self.check_where(where)
        assert where is None or isinstance(where, str)
        return where

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
        self.check_name(name)
        self.check_index(index, metric)
        return self.describe(
            self._shadows.create(name, dimensions, metric, index, metadata, model, like)
        )

    def build_index(self, id: str) -> None:
        self._shadows.build_index(id)

    def hold_writes(self, live: str, seconds: float, incoming: str) -> float | None:
        self._mover.hold(live, seconds, incoming)
        return 0.0

    def release_writes(self, live: str) -> None:
        self._mover.release()

    def exchange(self, kind: SwapKind, exchange: Exchange) -> Receipt:
        if kind != "transaction":
            raise PreflightError(f"Postgres swaps by transaction, not by {kind}")
        self._mover.exchange(exchange)
        return Receipt("transaction", mark=self.watermark(exchange.incoming_id))

    # Claims

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        return self._claims.claim(live, claim, over)

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        return self._claims.renew(live, claim, renewed)

    def unclaim(self, live: str, claim: str) -> None:
        self._claims.unclaim(live, claim)

    def close(self) -> None:
        self._mover.release()
        self._claims.close()
        self._catalog.close()


def _layout_note(table: Table) -> str:
    text = table.text_sql or table.text or "none (give the text template)"
    metadata = ", ".join(filter(None, [table.metadata, *(c.name for c in table.others)])) or "none"
    return (
        f"{table.label} is laid out as {table.layout}: id {table.id}, text {text}, metadata "
        f"{metadata}, vector {table.vector} {table.column(table.vector).written}"
    )


def open_store(url: str, options: StoreOptions) -> PgVectorStore:
    """Open the database behind `url`."""
    store = PgVectorStore(url, options)
    try:
        store.identify()
    except BaseException:
        store.close()
        raise
    return store
