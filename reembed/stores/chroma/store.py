"""Chroma as a store: a local path, a server, or Chroma Cloud.

The public client API does nearly everything; chroma.sqlite3 is read, and for a `transaction` swap
written, only where the file is at hand (`chroma.sqlite`).
"""

from __future__ import annotations

from reembed.stores.chroma.bulk import ChromaBulk
from reembed.stores.chroma.catalog import ChromaCatalog, ListedCatalog
from reembed.stores.chroma.claims import ChromaClaims
from reembed.stores.chroma.client import make_database
from reembed.stores.chroma.cutover import ChromaCutover
from reembed.stores.chroma.damaged_index import survey
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.direct import Direct
from reembed.stores.chroma.opening import opened
from reembed.stores.chroma.orphans import orphans
from reembed.stores.chroma.reader import ChromaChanges, ChromaReader
from reembed.stores.chroma.writer import ChromaWriter
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions


def open_store(url: str, options: StoreOptions) -> Store:
    """Open Chroma behind `url`; see `registry.open_store`.

    Raises:
        CollectionNotFoundError: there is no database in the folder.
        PreflightError: the database is another version's, a key is missing, or `data_dir` is not
            the server's.
        UnreachableError: nothing answers.
    """
    if options.create:
        make_database(url)
    database = Database(url, options.data_dir, options.headers_env)
    catalog, reader = ChromaCatalog(database), ChromaReader(database)
    writer = ChromaWriter(database, catalog)
    cutover = ChromaCutover(database, catalog, reader, writer)
    return Store(
        url, catalog, reader, search=reader, writer=writer,
        bulk=ChromaBulk(database.path) if database.path else None,
        changes=ChromaChanges(database.file) if database.file else None,
        cutover=cutover,
        survey=lambda id, _: survey(database, id),
        orphans=lambda id: orphans(database, id),
        many=Direct(database.path, reader).fetch if database.path else None,
        claims=ChromaClaims(database.client, database.one_writer),
        opening=lambda names: opened(database.address, names),
        together=cutover.together if database.folder else None,
        listed=lambda: ListedCatalog(database),
        rest=database.rest if database.path else None,
        close=database.close,
    )  # fmt: skip
