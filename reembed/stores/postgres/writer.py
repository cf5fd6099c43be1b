"""Tables and rows into a Postgres database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from psycopg import sql

from reembed.records import Vectors
from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import mapped
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.postgres.records import Records
from reembed.stores.postgres.rehearsal import rehearse
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema.access import (
    check_rights,
    check_session,
    opened_by_default,
)
from reembed.stores.postgres.schema.names import ENTITIES, check_free, check_identifier, find_table
from reembed.stores.postgres.schema.replication import check_unpublished
from reembed.stores.postgres.shadow import ShadowMaker
from reembed.stores.values import (
    CollectionInfo,
    CollectionSpec,
    SpecCheck,
    WriteMode,
    refusals,
)

WORD = re.compile(r"[^A-Za-z0-9_-]+")
MODEL_BYTES = 24
"""Of the 63 that a name can have, those that say the model."""


class TableWriter:
    """See `reembed.stores.store.Writer`."""

    def __init__(
        self, catalog: Catalog, records: Records, shadows: ShadowMaker, mover: Mover
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._records = records
        self._shadows = shadows
        self._mover = mover

    def default_target(self, collection: str, model: str, dimensions: int) -> str:
        word = WORD.sub("-", model).strip("-") or "model"
        if len(word) > MODEL_BYTES:
            digest = hashlib.sha256(model.encode()).hexdigest()[:6]
            word = f"{word[: MODEL_BYTES - 7]}-{digest}"
        schema = self._catalog.schema
        if schema is not None:
            with mapped(self._catalog.url):
                found = find_table(self._catalog.main, collection)
            collection = f"{schema}.{found[2] if found else collection}"
        return self._catalog.fit_name(f"{collection}__{word}-{dimensions}")

    def check(self, spec: CollectionSpec) -> SpecCheck:
        looked = self._look(spec)
        if looked.refusals:
            return looked
        tried = refusals(lambda: rehearse(self._catalog, self._shadows, spec))
        return replace(looked, tried=tried)

    def _look(self, spec: CollectionSpec) -> SpecCheck:
        """What can be told without making anything."""
        notes = [self._access(spec)]
        name = refusals(lambda: self._check_name(spec))
        index = refusals(lambda: pg_indexes.check_index(spec.index)) or refusals(
            lambda: notes.extend(self._types(spec))
        )
        rights = refusals(lambda: self._check_rights(spec))
        return SpecCheck(tuple(notes), name + index + rights)

    def _check_name(self, spec: CollectionSpec) -> None:
        with mapped(self._catalog.url):
            tables = self._catalog.tables(spec.like) if spec.like else []
            schema, name = self._catalog.place(spec.name, tables)
            for ending in dict.fromkeys(["", *(ENTITIES for one in tables if one.prefix)]):
                check_identifier(f"{name}{ending}")
                check_free(self._catalog.main, schema, f"{name}{ending}")

    def _check_rights(self, spec: CollectionSpec) -> None:
        """Raise PreflightError where the role, or the owner that a new table is to have, may not
        make one."""
        with mapped(self._catalog.url):
            tables = self._catalog.tables(spec.like) if spec.like else []
            check_session(self._catalog.main, self._catalog.url)
            schema, _ = self._catalog.place(spec.name, tables)
            check_unpublished(self._catalog.main, schema)
            check_rights(self._catalog.main, schema, [table.oid for table in tables])

    def _access(self, spec: CollectionSpec) -> str:
        """Who may read what is made."""
        main = self._catalog.main
        tables = self._catalog.tables(spec.like) if spec.like else []
        if tables:
            what = ", ".join(table.label for table in tables)
            text = (
                f"what is made beside {what} is closed to all but its owner until it takes the "
                "live name, and has the live table's rights from then on"
            )
        else:
            text = "the new table is closed to all but its owner: grant what the application needs"
        with mapped(self._catalog.url):
            schemas = {table.schema for table in tables}
            opened = sorted({role for one in schemas for role in opened_by_default(main, one)})
        if opened:
            text += f"; what default privileges would give to {', '.join(opened)} is taken back"
        return text

    def _types(self, spec: CollectionSpec) -> list[str]:
        """What is to be said of the type of the new vectors. Raises PreflightError if there is none
        for so many dimensions."""
        notes = []
        for table in self._catalog.tables(spec.like) if spec.like else []:
            type = table.column(table.vector).type
            made = pg_indexes.column_type(spec.dimensions, type, spec.index)
            if made != type:
                notes.append(
                    f"{table.label}: the new vectors are of type {made}({spec.dimensions}), the "
                    f"old ones of type {type}: "
                    + (
                        "16-bit floats, since an index of 32-bit ones "
                        f"takes {pg_indexes.MOST_DIMENSIONS['vector']:,} dimensions at most"
                        if made == "halfvec"
                        else "32-bit floats"
                    )
                )
        if spec.like is None:
            pg_indexes.column_type(spec.dimensions, "vector", spec.index)
        return notes

    def create(self, spec: CollectionSpec) -> CollectionInfo:
        self._look(spec).refuse()
        return self._catalog.describe(self._shadows.create(spec))

    def write(self, id: str, records: pa.RecordBatch, vectors: Vectors, mode: WriteMode) -> None:
        if self._mover.ahead.copies:
            self._tell(id, records.column("id").to_pylist())
        self._records.write(id, records, vectors, mode)

    def set_vectors(self, id: str, ids: Sequence[str], vectors: Vectors) -> None:
        self._tell(id, ids)
        self._records.set_vectors(id, ids, vectors)

    def delete(self, id: str, ids: Sequence[str]) -> None:
        self._tell(id, ids)
        self._records.delete(id, ids)

    def _tell(self, id: str, ids: Sequence[str]) -> None:
        """Their vectors are to be copied again, if they were on their way to another table."""
        if self._mover.ahead.copies:
            for table in self._catalog.tables(id):
                self._mover.ahead.saw(table, ids)

    def drop(self, id: str) -> None:
        with mapped(self._catalog.url):
            found = self._catalog.found(id)
            if found is None:
                return
            with self._catalog.main.transaction():
                for table in self._catalog.parts(found):
                    pg_capture.remove(self._catalog.main, table)
                    self._catalog.main.execute(sql.SQL("DROP TABLE {}").format(table.identifier))
