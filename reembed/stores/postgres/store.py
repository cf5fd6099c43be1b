"""Postgres with pgvector as a store: `postgresql://user@host/db`.

A collection is a table with a vector column, or mem0's two tables, which move as one. What there is
is in `catalog` and `schema/`, records go through `records`, new tables are made in `shadow`, writes
are captured by `capture`, and `move/` moves a live name.
"""

from __future__ import annotations

from functools import partial

from reembed.stores.postgres.boundary import part_told, told
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.changes import TableChanges
from reembed.stores.postgres.claims import Claims
from reembed.stores.postgres.client import keep_secrets, mapped
from reembed.stores.postgres.cutover import TableCutover
from reembed.stores.postgres.leftovers import CopiedLeftovers
from reembed.stores.postgres.move.mover import Mover
from reembed.stores.postgres.records import Records
from reembed.stores.postgres.search import TableSearch
from reembed.stores.postgres.shadow import ShadowMaker
from reembed.stores.postgres.shapes import TableShapes
from reembed.stores.postgres.survey import survey
from reembed.stores.postgres.writer import TableWriter
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions


def open_store(url: str, options: StoreOptions) -> Store:
    """Open the database behind `url`; see `registry.open_store`.

    Args:
        options: what the manifest says of the source.

    Raises:
        PreflightError: this is no database with vectors.
        UnreachableError: nothing answers.
    """
    url = keep_secrets(url)
    catalog = Catalog(url, options)
    try:
        with mapped(url):
            _ = catalog.database
    except BaseException:
        catalog.close()
        raise
    mover, shadows, claims = Mover(catalog), ShadowMaker(catalog), Claims(url)
    records, changes = Records(catalog, shadows), TableChanges(catalog, mover)
    cutover = TableCutover(catalog, mover, changes)

    def close() -> None:
        mover.release()
        claims.close()
        catalog.close()

    told_changes = part_told(changes, url)
    return Store(
        url, part_told(catalog, url), part_told(records, url),
        search=part_told(TableSearch(catalog), url),
        writer=part_told(TableWriter(catalog, records, shadows, mover), url),
        build_index=told(shadows.build_index, url), snapshot=records.snapshot,
        many=told(records.fetch_page, url),
        survey=told(partial(survey, catalog), url),
        changes=told_changes, capture=told_changes, cutover=part_told(cutover, url),
        claims=part_told(claims, url), leftovers=part_told(CopiedLeftovers(catalog), url),
        shapes=part_told(TableShapes(catalog), url), together=told(cutover.together, url),
        withdraw=told(cutover.withdraw, url), close=close,
    )  # fmt: skip
