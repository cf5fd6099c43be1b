"""The claim on a live name: a small empty collection whose metadata holds the claim's text.

Chroma has no compare-and-set, but it never gives one name to two collections, and it renames by
object id. So a claim begins with a collection that is made under the name, and ends with just that
collection being renamed out of the way; its text is then read again, and if its owner has renewed
it meanwhile it gets the name back. An owner renews by object id and then looks whether the name
still leads there. Of a renewal and a takeover at the same time, at most one succeeds: for both, the
takeover would have to read the text before it was renewed and the owner find the name before it was
taken, and each does the one thing first that the other looks for last.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from typing import TypeVar

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from reembed.errors import (
    CollectionNotFoundError,
    PreflightError,
    UnreachableError,
)
from reembed.stores import chroma_names
from reembed.stores.chroma_client import mapped
from reembed.stores.chroma_names import MAX_NAME, list_all

VERSION = 1
KEY = "reembed:lease"
_TEXT = "claim"
_ASIDE = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What follows the name while a claim is being removed: the collection's object id."""
_ROOM = MAX_NAME - 37
_TRIES = 20
_PAUSE_SECONDS = 0.02

Result = TypeVar("Result")


def name_of(live: str) -> str:
    """The name of the small collection that holds the claim on `live`."""
    name = f"{live}__lease"
    if len(name) <= _ROOM:
        return name
    return f"{live[:400]}-{hashlib.sha256(live.encode()).hexdigest()[:16]}__lease"


def is_claim(collection: Collection) -> bool:
    """Whether a collection only holds a claim."""
    return KEY in (collection.metadata or {})


def claim(client: ClientAPI, live: str, text: str, over: str | None) -> str | None:
    """See `Store.claim`."""
    name = name_of(live)
    for _ in range(_TRIES):
        found = _by_name(client, name)
        if found is None:
            if _make(client, name, text):
                _remove_asides(client, name)
                return None
            continue
        standing = _text(found)
        if standing == text:  # made by a call whose answer was lost
            return None
        if standing != over:
            return standing
        _remove(client, found, name, over)
    raise UnreachableError(f"{name} comes and goes", "Run again to resume.")


def renew(client: ClientAPI, live: str, text: str, renewed: str) -> str | None:
    """See `Store.renew`."""
    found = _by_name(client, name_of(live))
    if found is None:
        return ""
    standing = _text(found)
    if standing not in (text, renewed):
        return standing
    with contextlib.suppress(CollectionNotFoundError):  # taken over just now
        _again(lambda: _modify(found, _metadata(renewed)))
    now = _by_name(client, name_of(live))
    if now is None:
        return ""
    return None if now.id == found.id else _text(now)


def unclaim(client: ClientAPI, live: str, text: str) -> None:
    """See `Store.unclaim`."""
    found = _by_name(client, name_of(live))
    if found is not None and is_claim(found) and _text(found) == text:
        _remove(client, found, name_of(live), text)


def _make(client: ClientAPI, name: str, text: str) -> bool:
    """Make the collection that holds the claim; False if another process was faster."""

    def make() -> None:
        with mapped(name):
            client.create_collection(name, metadata=_metadata(text), embedding_function=None)

    try:
        _again(make)
    except PreflightError as error:
        if "already exists" not in error.message:
            raise
        return False
    return True


def _metadata(text: str) -> dict[str, str | int]:
    return {KEY: VERSION, _TEXT: text}


def _text(collection: Collection) -> str:
    metadata = collection.metadata or {}
    if KEY not in metadata:
        raise PreflightError(
            f"the name {collection.name} is taken by a collection that is no lease of reembed",
            "Rename that collection: reembed keeps there who is at work on the live name.",
        )
    return str(metadata.get(_TEXT, ""))


def _remove(client: ClientAPI, found: Collection, name: str, text: str) -> None:
    """Remove this very collection, unless its claim has been renewed since it was read."""
    id = str(found.id)
    aside = f"{name}-{id}"
    try:
        _again(lambda: chroma_names.modify_name(found, aside))
    except CollectionNotFoundError:  # another process has removed it
        return
    now = _again(lambda: chroma_names.by_id(client, id))
    if now is None:
        return
    if _text(now) == text:
        _delete(client, aside)
        return
    try:
        _again(lambda: chroma_names.modify_name(now, name))
    except (CollectionNotFoundError, PreflightError):  # a third process has claimed the name
        _delete(client, aside)  # the owner will find out


def _remove_asides(client: ClientAPI, name: str) -> None:
    """Delete what a process left that was killed while it removed a claim."""
    for found in _again(lambda: list(list_all(client))):
        rest = found.name.removeprefix(name)
        if found.name.startswith(name) and _ASIDE.fullmatch(rest) and is_claim(found):
            _delete(client, found.name)


def _by_name(client: ClientAPI, name: str) -> Collection | None:
    return _again(lambda: chroma_names.by_name(client, name))


def _modify(collection: Collection, metadata: dict[str, str | int]) -> None:
    with mapped(collection.name):
        collection.modify(metadata=metadata)


def _delete(client: ClientAPI, name: str) -> None:
    _again(lambda: chroma_names.present(lambda: client.delete_collection(name), name))


def _again(call: Callable[[], Result]) -> Result:
    """The result of one call, made again where Chroma stumbles over another process that deletes
    the same collection, or over a lock of its database."""
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except UnreachableError as error:
            if not left or "Chroma failed" not in error.message:
                raise
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")
