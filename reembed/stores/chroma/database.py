"""What the parts of a Chroma store share: the client, where its files are, handles by object id."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from chromadb.api.models.Collection import Collection

from reembed.errors import CollectionGoneError
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import reach as chroma_reach
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.offers import Offers
from reembed.stores.processes import holders


class Database:
    """An open database. Threads may share one.

    Attributes:
        path: the folder of a local database, None over HTTP.
        folder: the folder, if this machine can reach it, whoever serves it.
        file: the folder whose file may be relied on to be the one that is served; None without one.
        max_rows: of one call.
        offers: what the server can keep.
        one_writer: held by what must not overlap with another thread's call.
    """

    def __init__(
        self,
        url: str,
        data_dir: Path | None = None,
        headers_env: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.address = address = chroma_client.parse(url, headers_env)
        self.path = address.path
        self.cloud = address.cloud
        self.client = chroma_client.connect(address, url)
        self.offers = Offers(self.client, url, asked=self.path is None and not self.cloud)
        self._handles: dict[str, Collection] = {}
        self.one_writer = threading.Lock()
        self.folder = address.path
        if address.path is None and data_dir is not None:
            try:
                self.folder = chroma_reach.verified(data_dir, self.client, url)
            except BaseException:
                self.close()
                raise
        # A copy of the server's folder would list old records and say "no change" for ever, so the
        # file is relied on only where a process is seen that has it open. (A transaction needs no
        # such proof: it asks the server afterwards.)
        self.file = self.folder
        if self.path is None and self.folder and not holders(self.folder).processes:
            self.file = None
        with mapped(url):
            self.max_rows = max(1, self.client.get_max_batch_size())

    def named(self, name: str) -> Collection | None:
        return chroma_names.by_name(self.client, name)

    def handle(self, id: str) -> Collection:
        """The collection by object id; its calls go by that id, so a rename does not touch it."""
        if id not in self._handles:
            found = chroma_names.by_id(self.client, id)
            if found is None:
                raise CollectionGoneError(f"{self.url}: the collection {id} is gone")
            # Collection.add rebuilds the persisted embedding function from the schema at each call,
            # with a warning where its key is missing. Records here bring their vectors.
            found.get_model()["serialized_schema"] = None
            self._handles[id] = found
        return self._handles[id]

    def forget(self, id: str) -> None:
        """Let go of the handle of a collection that is gone."""
        self._handles.pop(id, None)

    def rest(self) -> None:
        """Close the indexes that are open, and let go of all handles; see `client.rest`."""
        if self.path is not None:
            with self.one_writer, mapped(self.url):
                chroma_client.rest(self.client, self.path)
                self._handles.clear()

    def close(self) -> None:
        chroma_client.close(self.client)
