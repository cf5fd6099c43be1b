"""Making the tables of a new collection, and their indexes when they are full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reembed.errors import PreflightError
from reembed.stores.postgres import shadow_tables as pg_tables
from reembed.stores.postgres import unique as pg_unique
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import mapped
from reembed.stores.postgres.move import columns as pg_columns
from reembed.stores.postgres.schema import counterparts as pg_pairs
from reembed.stores.postgres.schema import indexes as pg_indexes
from reembed.stores.postgres.schema import notes as pg_notes
from reembed.stores.postgres.schema.kept_indexes import note_kept
from reembed.stores.postgres.schema.layout import read_parts, table_by_oid
from reembed.stores.postgres.schema.names import ENTITIES, check_identifier, find_table
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import CollectionSpec


class ShadowMaker:
    """Makes tables in one database."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def create(self, spec: CollectionSpec) -> str:
        """Make the tables of a collection. Returns its name with its schema."""
        catalog, name = self._catalog, spec.name
        tables = catalog.tables(spec.like) if spec.like else []
        with mapped(catalog.url):
            schema, bare = catalog.place(name, tables)
            if find_table(catalog.main, f"{schema}.{bare}") is not None:
                raise PreflightError(f"{catalog.url}: the name {name!r} is taken")
            with catalog.main.transaction():
                self._create(schema, bare, spec, tables)
        return f"{schema}.{bare}"

    def _create(
        self, schema: str, name: str, spec: CollectionSpec, tables: Sequence[Table]
    ) -> None:
        note: dict[str, Any] = {
            "model": spec.model.to_dict() if spec.model else None, "metric": spec.metric,
            "index": dict(spec.index) or {"type": "hnsw"}, "metadata": spec.metadata,
        }  # fmt: skip
        if spec.function == "record":
            note[pg_notes.RECORD] = True
        if not tables:
            type = pg_indexes.column_type(spec.dimensions, "vector", spec.index)
            pg_tables.create_plain(self._catalog.main, schema, name, type, spec.dimensions)
            found = find_table(self._catalog.main, f"{schema}.{name}")
            assert found is not None, "it has just been made"
            pg_notes.write_note(
                self._catalog.main, read_parts(self._catalog.main, found, "auto")[0], note
            )
            return
        for table in tables:
            self._create_part(
                table, (schema, name), spec.dimensions, spec.index,
                self._own_index(tables[0], table, note),
            )  # fmt: skip

    def _own_index(self, main: Table, table: Table, note: Mapping[str, Any]) -> Mapping[str, Any]:
        """A unit's second table keeps an index of its own kind, or none, unless the manifest asks
        for another one than the first table has."""
        first, own = (pg_indexes.vector_index(self._catalog.main, one) for one in (main, table))
        asked = (first.metric, first.to_dict()) if first else (note["metric"], {"type": "none"})
        if (note["metric"], note["index"]) != asked:
            return note
        if own is None:
            return {**note, "index": {"type": "none"}}
        return {**note, "metric": own.metric, "index": own.to_dict()}

    def _create_part(
        self, table: Table, place: tuple[str, str], dimensions: int, index: Mapping[str, Any],
        note: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """A shadow of one table of a unit, with what is needed to index it later."""
        schema, name = place
        own = f"{name}{ENTITIES}" if table.prefix else name
        check_identifier(own)
        type = pg_indexes.column_type(dimensions, table.column(table.vector).type, index)
        pg_tables.create_like(self._catalog.main, table, (schema, own), type, dimensions)
        found = find_table(self._catalog.main, f"{schema}.{own}")
        assert found is not None, "it has just been made"
        shadow = replace(table, oid=found[0], schema=schema, name=own)
        comment = pg_notes.read_note(self._catalog.main, table).get("comment")
        kept = {"comment": comment} if comment else {}
        pg_notes.write_note(self._catalog.main, shadow, {**note, **kept, "like": table.oid})

    def build_index(self, id: str) -> None:
        """Make the indexes that are better made when the records are there."""
        for table in self._catalog.tables(id):
            note = pg_notes.read_note(self._catalog.main, table)
            if pg_notes.NOTED in note and pg_columns.is_ours(self._catalog.main, table):
                continue  # they are on their way to the live table, where these are made
            found = table_by_oid(self._catalog.main, int(note["like"])) if "like" in note else None
            like = self._catalog.parts(found)[0] if found else None
            metric, index = note.get("metric", "cosine"), note.get("index", {})
            try:
                with mapped(table.label):
                    pg_indexes.make_indexes(self._catalog.main, table, like, metric, index)
                    if like is not None:
                        pg_pairs.copy_comments(self._catalog.main, like, table)
                        pg_pairs.copy_settings(self._catalog.main, like, table)
                        note_kept(self._catalog.main, like, table)
            except PreflightError as error:
                if like is None or not pg_unique.is_collision(error):
                    raise
                pairs = pg_unique.duplicates(self._catalog.main, table, like)
                if not pairs:
                    raise
                raise pg_unique.taken_error(table, pairs) from error

    def with_entities(self, main: Table) -> list[Table]:
        """A unit whose second table the application has made since."""
        note = pg_notes.read_note(self._catalog.main, main)
        source = table_by_oid(self._catalog.main, int(note.get("like", 0)))
        parts = self._catalog.parts(source) if source else []
        if len(parts) < 2:
            return [main]
        with mapped(main.label), self._catalog.main.transaction():
            dimensions = main.dimensions or 0
            like = {key: value for key, value in note.items() if key != "like"}
            like = dict(self._own_index(parts[0], parts[1], like))
            self._create_part(
                parts[1], (main.schema, main.name), dimensions, note.get("index", {}), like
            )
        return self._catalog.parts((main.oid, main.schema, main.name))
