"""Names of Chroma collections: which are legal, and who has which now."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from chromadb.errors import NotFoundError

from reembed.errors import PreflightError, ReembedError
from reembed.stores.chroma.failures import mapped, unknown_call

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

MAX_NAME = 512
_LEGAL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*[a-zA-Z0-9]")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
Result = TypeVar("Result")


def check_name(name: str) -> None:
    """Raise PreflightError for a name that Chroma 1.5 refuses (found by experiment: like its
    message says, and a dotted IPv4 address without leading zeros)."""
    reason = ""
    if not 3 <= len(name) <= MAX_NAME:
        reason = f"it has {len(name)} characters, not 3 to {MAX_NAME}"
    elif not _LEGAL.fullmatch(name):
        reason = (
            "only a-z, A-Z, 0-9, '.', '_' and '-' are legal, with a letter or digit at each end"
        )
    elif ".." in name:
        reason = "it has two dots in a row"
    elif _IPV4.fullmatch(name):
        reason = "it is an IP address"
    if reason:
        raise PreflightError(
            f"Chroma refuses the collection name {name!r}: {reason}",
            "Choose another name; target.collection and swap.live may both be left out.",
        )


def default_target(collection: str, model: str, dimensions: int) -> str:
    """`<collection>__<model>-<dimensions>` of the model's last path part, in legal characters."""
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    slug = re.sub(r"[^a-zA-Z0-9._-]+|\.{2,}", "-", last).strip(string.punctuation) or "model"
    room = MAX_NAME - len(f"{collection}__-{dimensions}")
    return f"{collection}__{slug[: max(room, 1)]}-{dimensions}"


def present(call: Callable[[], Result], where: str) -> Result | None:
    """The result of a look-up, None if Chroma says there is no such collection."""
    with mapped(where):
        try:
            return call()
        except NotFoundError:
            return None


def by_name(client: ClientAPI, name: str) -> Collection | None:
    """The collection of this name; None without one. Builds no embedding function."""
    return present(lambda: client.get_collection(name, embedding_function=None), name)


def by_id(client: ClientAPI, id: str) -> Collection | None:
    """The collection of this object id, whatever its name; None if it is gone.

    Servers before 1.5.8 have no such call: there the collections are listed and looked through.
    """
    if client in _LISTED:
        return _listed(client, id)
    try:
        return present(lambda: _by_id(client, id), id)
    except _UnknownCallError:
        _LISTED[client] = {}
        return _listed(client, id)


class _UnknownCallError(ReembedError):
    """The server has no look-up by object id."""


_LISTED: WeakKeyDictionary[ClientAPI, dict[str, str]] = WeakKeyDictionary()
"""Clients of servers that have no look-up by object id, with the name that each id was last seen
to have."""


def _by_id(client: ClientAPI, id: str) -> Collection:
    try:
        return client.get_collection_by_id(UUID(id), embedding_function=None)
    except Exception as error:
        if unknown_call(error):
            raise _UnknownCallError(id) from error
        raise


def _listed(client: ClientAPI, id: str) -> Collection | None:
    """As `by_id`, through names. A rename between two pages of a list may hide a collection, so it
    is gone only if two lists agree."""
    known = _LISTED[client]
    found = by_name(client, known[id]) if id in known else None
    if found is not None and str(found.id) == id:
        return found
    for _ in range(2):
        every = list(list_all(client))
        known.clear()
        known.update((str(one.id), one.name) for one in every)
        found = next((one for one in every if str(one.id) == id), None)
        if found is not None:
            return found
    return None


def holder(client: ClientAPI, name: str) -> str | None:
    """The object id of the collection of this name."""
    found = by_name(client, name)
    return None if found is None else str(found.id)


def modify_name(collection: Collection, name: str) -> None:
    """Rename a collection."""
    with mapped(collection.name):
        collection.modify(name=name)


def free_name(client: ClientAPI, name: str) -> str:
    """`name`, or with a number after it if that is taken."""
    number, free = 2, name
    while by_name(client, free) is not None:
        free, number = f"{name}-{number}", number + 1
    return free


def list_all(client: ClientAPI) -> Iterator[Collection]:
    """All collections, page by page."""
    page, size = 0, 300
    while True:
        with mapped("collections"):
            found = client.list_collections(limit=size, offset=page * size)
        yield from found
        if len(found) < size:
            return
        page += 1


def all_names(client: ClientAPI) -> list[str]:
    """Names of all collections, sorted."""
    return sorted({collection.name for collection in list_all(client)})
