"""The claim on a live name: a small empty collection whose metadata holds the claim's text.

Chroma has no compare-and-set, but it never gives one name to two collections, and it renames by
object id. A claim is the collection of the name `<live>__lease`. Who takes one over first makes
`<live>__lease-next`, which only one can; then reads the old claim again, and only if it has not
been renewed renames that very collection out of the way, and its own to the name. An owner renews
by object id, and then looks that nobody is taking over and that the name still leads there. Of a
takeover and a renewal at the same time at most one succeeds: the takeover is announced before the
claim is read, and the claim is changed before announcements are looked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, TypeVar

from reembed.errors import (
    CollectionNotFoundError,
    PreflightError,
    ReembedError,
    UnreachableError,
)
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.names import MAX_NAME, list_all
from reembed.stores.values import restless

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

VERSION = 1
KEY = "reembed:lease"
_TEXT = "claim"
_ASIDE = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What follows the name while a claim is being removed: the collection's object id."""
_ROOM = MAX_NAME - 37
_NEXT = "-next"
"""What follows the name of a claim that is about to take the other one's place."""
_UNIQUE = "UNIQUE constraint"
"""What Chroma says of a name that is taken."""
_TRIES = 40
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


def take(client: ClientAPI, live: str, text: str, over: str | None) -> str | None:
    """See `Claims.claim`."""
    name = name_of(live)
    for _ in range(_TRIES):
        coming = _coming(client, name, (text, over))
        if coming is not None:  # a takeover that was killed, or stands still
            if _text(coming) not in (text, over):
                return _text(coming)
            _remove(client, coming, name)
            continue
        found = _by_name(client, name)
        if found is None:
            if _make(client, name, text):
                return None
            continue
        standing = _text(found)
        if standing == text:  # made by a call whose answer was lost
            return None
        if standing != over:
            return standing
        if _make(client, name + _NEXT, text) and _take_over(client, found, name, text):
            return None
    raise restless(f"the lease {name}", _TRIES)


def _take_over(client: ClientAPI, old: Collection, name: str, text: str) -> bool:
    """What follows the announcement of a takeover; False if it was withdrawn."""
    mine = _by_name(client, name + _NEXT)
    if mine is None or _text(mine) != text:
        return False
    now = _by_name(client, name)
    if now is not None:
        if now.id != old.id or _text(now) != _text(old):  # it has been renewed meanwhile
            _remove(client, mine, name)
            return False
        _remove(client, now, name)
    try:
        _again(lambda: chroma_names.modify_name(mine, name))
    except (CollectionNotFoundError, PreflightError, UnreachableError) as error:
        if not isinstance(error, CollectionNotFoundError) and not _taken(error):
            raise
        _remove(client, mine, name)  # a third process has claimed the free name
        return False
    return True


def renew(client: ClientAPI, live: str, text: str, renewed: str) -> str | None:
    """See `Claims.renew`."""
    name = name_of(live)
    found = _by_name(client, name)
    if found is None:
        return ""
    standing = _text(found)
    if standing not in (text, renewed):
        return standing
    with contextlib.suppress(CollectionNotFoundError):  # taken over just now
        _again(lambda: _modify(found, _metadata(renewed)))
    coming = _coming(client, name)
    if coming is not None:
        return _text(coming)
    now = _by_name(client, name)
    if now is None:
        return ""
    return None if now.id == found.id else _text(now)


def _coming(client: ClientAPI, name: str, known: Container[str | None] = ()) -> Collection | None:
    """The announcement of a takeover that is not over within a moment; at once a `known` one."""
    found = None
    for _ in range(_TRIES):
        found = _by_name(client, name + _NEXT)
        if found is None or _text(found) in known:
            break
        time.sleep(_PAUSE_SECONDS)
    return found


def unclaim(client: ClientAPI, live: str, text: str) -> None:
    """See `Claims.unclaim`."""
    name = name_of(live)
    for place in (name + _NEXT, name):
        found = _by_name(client, place)
        if found is not None and is_claim(found) and _text(found) == text:
            _remove(client, found, name)


def _make(client: ClientAPI, name: str, text: str) -> bool:
    """Make the collection that holds the claim; False if another process was faster."""

    def make() -> None:
        with mapped(name):
            client.create_collection(name, metadata=_metadata(text), embedding_function=None)

    try:
        _again(make)
    except PreflightError as error:
        if not _taken(error):
            raise
        return False
    return True


def _taken(error: ReembedError) -> bool:
    return "already exists" in error.message or _UNIQUE in error.message


def _metadata(text: str) -> dict[str, str | int]:
    return {KEY: VERSION, _TEXT: text}


def _text(collection: Collection) -> str:
    metadata = collection.metadata or {}
    if KEY not in metadata:
        raise PreflightError(
            f"the name {collection.name} is taken by a collection that is not a lease of reembed",
            "Rename that collection: reembed keeps there who is at work on the live name.",
        )
    return str(metadata.get(_TEXT, ""))


def _remove(client: ClientAPI, found: Collection, name: str) -> None:
    """Remove this very collection. Chroma deletes by name, so it first gets one of its own."""
    aside = f"{name}-{found.id}"
    with contextlib.suppress(CollectionNotFoundError):  # another process has removed it
        _again(lambda: chroma_names.modify_name(found, aside))
        _delete(client, aside)


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
            if not left or _UNIQUE in error.message or "Chroma failed" not in error.message:
                raise
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


class ChromaClaims:
    """See `Claims`.

    Args:
        one_writer: the heart beats in a thread of its own.
    """

    def __init__(self, client: ClientAPI, one_writer: threading.Lock) -> None:
        self._client = client
        self._one_writer = one_writer
        self._asides: list[str] | None = None

    def claim(self, live: str, claim: str, over: str | None = None) -> str | None:
        standing = take(self._client, live, claim, over)
        if standing is None:
            self._remove_asides(name_of(live))
        return standing

    def _remove_asides(self, name: str) -> None:
        """Delete what a process left that was killed while it removed a claim. All collections are
        listed once, not for each of a thousand names; what is left later waits for the next
        command."""
        if self._asides is None:
            every = _again(lambda: list(list_all(self._client)))
            self._asides = [found.name for found in every if is_claim(found)]
        left = [one for one in self._asides
                if one.startswith(name) and _ASIDE.fullmatch(one.removeprefix(name))]  # fmt: skip
        for one in left:
            self._asides.remove(one)
            found = _by_name(self._client, one)
            if found is not None and is_claim(found):
                _delete(self._client, one)

    def renew(self, live: str, claim: str, renewed: str) -> str | None:
        with self._one_writer:
            return renew(self._client, live, claim, renewed)

    def unclaim(self, live: str, claim: str) -> None:
        unclaim(self._client, live, claim)
