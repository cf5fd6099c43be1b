"""What the parts of a Chroma store share: the client, where its files are, handles by object id."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pyarrow as pa

from reembed.errors import CollectionGoneError, PreflightError
from reembed.stores.chroma import client as chroma_client
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import reach as chroma_reach
from reembed.stores.chroma.failures import NOT_TAKEN, mapped
from reembed.stores.processes import holders

if TYPE_CHECKING:
    import httpx
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection


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


_NO_NAME = "x"
"""Shorter than the name of any collection."""
_NOBODY = "00000000-0000-4000-8000-000000000000"
_NO_SCHEMA = 0
_LIST = {"ids": ["x"], "embeddings": [[1.0]], "metadatas": [{"x": ["x"]}]}


class Offers:
    """What the server behind a client keeps; those before 1.5 lack some of it. A local path keeps
    what this library does, and Chroma's cloud what the newest server does: neither is asked.

    Every server since 1.0 says that it is 1.0.0. So each is asked what it would do with a request
    that it cannot carry out: a server reads all that it knows of a request before it looks whether
    it can. What it does not know, it passes over in silence, or refuses to read.

    Args:
        url: of the server, for messages.
    """

    def __init__(self, client: ClientAPI, url: str, *, asked: bool) -> None:
        self._client = client
        self._url = url
        self._asked = asked

    @cached_property
    def key_indexes(self) -> bool:
        """Whether collections have a schema (1.3): one before takes no notice of it."""
        if not self._asked:
            return True
        answer = self._post("", {"name": _NO_NAME, "schema": _NO_SCHEMA})
        return answer.status_code != 400

    @cached_property
    def lists(self) -> bool:
        """Whether metadata may hold lists (1.5): one before cannot read them."""
        if not self._asked:
            return True
        answer = self._post(f"/{_NOBODY}/upsert", _LIST)
        return not (answer.status_code == 422 and NOT_TAKEN in answer.text)

    def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """The answer to a request below the collections of the client's database."""
        client = cast(Any, self._client)
        place = quote(f"/tenants/{client.tenant}/databases/{client.database}/collections{path}")
        with mapped(self._url):
            session, base = client._server._session, client._server.get_api_url()
            answer: httpx.Response = session.post(base + place, json=body)
        return answer

    @property
    def notes(self) -> tuple[str, ...]:
        """What `plan` tells of a server that keeps less."""
        if self.lists:
            return ()
        lacks, version = "no lists in metadata", "1.3 or 1.4"
        if not self.key_indexes:
            lacks, version = f"{lacks} and no indexes of keys", "1.0 to 1.2"
        return (f"{self._url}: the server is Chroma {version}, which keeps {lacks}",)

    def refuse_indexes(self, indexes: Mapping[str, bool]) -> None:
        """Raise PreflightError for indexes of keys that it does not keep."""
        if indexes and not self.key_indexes:
            raise self.without(indexes)

    def without(self, indexes: Mapping[str, bool]) -> PreflightError:
        """The error of a server that does not keep these indexes of keys."""
        return PreflightError(
            f"{self._url}: the server is older than Chroma 1.3 and does not keep the indexes of "
            f"keys that the source has ({', '.join(sorted(indexes))})",
            "Choose a newer server (target.url), of Chroma 1.3 or later.",
        )

    def refuse_lists(self, records: pa.RecordBatch) -> None:
        """Raise PreflightError for the first record with a list in its metadata, where the server
        keeps none."""
        if self.lists:
            return
        for id, text in zip(*(records.column(name).to_pylist() for name in ("id", "metadata")),
                            strict=True):  # fmt: skip
            if "[" not in text:
                continue
            for key, value in (json.loads(text) or {}).items():
                if isinstance(value, list):
                    raise PreflightError(
                        f"{self._url}: the server is older than Chroma 1.5 and keeps no lists in "
                        f"metadata, as record {id[:200]!r} has under {key!r}",
                        "Choose a newer server (target.url), of Chroma 1.5 or later, or take the "
                        "lists out of the source's metadata.",
                    )
