"""Tables written down and made again: see `reembed.stores.store.Shapes`."""

from __future__ import annotations

from typing import Any

from reembed.errors import PreflightError
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import mapped
from reembed.stores.postgres.schema import definition as pg_definition
from reembed.stores.postgres.schema.names import ENTITIES, find_table


class TableShapes:
    """See `Shapes`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def define(self, id: str) -> dict[str, Any]:
        with mapped(self._catalog.url):
            tables = self._catalog.tables(id)
            return {"tables": [pg_definition.define(self._catalog.main, one) for one in tables]}

    def make(self, definition: dict[str, Any], name: str) -> str:
        catalog = self._catalog
        with mapped(catalog.url):
            for written in definition["tables"]:
                own = f"{name}{ENTITIES}" if written["prefix"] else name
                if find_table(catalog.main, f"{written['schema']}.{own}") is not None:
                    raise PreflightError(
                        f"{catalog.url}: the name {own!r} is taken",
                        "A restore that was killed may have left it: drop that table.",
                    )
            with catalog.main.transaction():
                for written in definition["tables"]:
                    own = f"{name}{ENTITIES}" if written["prefix"] else name
                    pg_definition.make(catalog.main, written, written["schema"], own)
            return catalog.describe(f"{definition['tables'][0]['schema']}.{name}").id

    def missing(self, definition: dict[str, Any]) -> list[list[str]]:
        with mapped(self._catalog.url):
            return pg_definition.without_role(self._catalog.main, definition["tables"])
