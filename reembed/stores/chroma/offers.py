"""What a Chroma server can keep: those before 1.5 lack some of it.

Every server since 1.0 says that it is 1.0.0. So each is asked what it would do with a request that
it cannot carry out: a server reads all that it knows of a request before it looks whether it can.
What it does not know, it passes over in silence, or refuses to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast
from urllib.parse import quote

import httpx
import pyarrow as pa
from chromadb.api import ClientAPI

from reembed.errors import PreflightError
from reembed.stores.chroma.failures import NOT_TAKEN, mapped

_NO_NAME = "x"
"""Shorter than the name of any collection."""
_NOBODY = "00000000-0000-4000-8000-000000000000"
_NO_SCHEMA = 0
_LIST = {"ids": ["x"], "embeddings": [[1.0]], "metadatas": [{"x": ["x"]}]}


class Offers:
    """What the server behind a client keeps. A local path keeps what this library does, and
    Chroma's cloud what the newest server does: neither is asked.

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
