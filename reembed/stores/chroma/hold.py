"""Asking writers to wait while a live name moves.

A small empty collection `<live>__hold` says until when. `reembed.live` looks for it before every
write, so that no write falls between the last comparison and the move, where a later one to the
same record would go to the other collection and never meet it. Writers that hold a Chroma handle
know nothing of it; the sweep carries theirs. A hold ends by itself, so a killed swap blocks nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reembed.errors import ReembedError
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.names import MAX_NAME, by_name, present

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

KEY = "reembed:hold"
GRACE_SECONDS = 0.3
"""In which a writer that looked before the hold was on finishes its call."""
LONGEST_SECONDS = 120.0
"""No writer waits longer, whatever its clock says."""
_PAUSE_SECONDS = 0.02


def name_of(live: str) -> str:
    """The name of the small collection that holds the writers of `live`."""
    return f"{live}__hold"


def hold(client: ClientAPI, live: str, seconds: float) -> bool:
    """Ask writers to wait for so long from now. False if the name leaves no room for it."""
    name = name_of(live)
    if len(name) > MAX_NAME:
        return False
    metadata = {KEY: 1, "until": time.time() + seconds}
    found = by_name(client, name)
    with mapped(name):
        if found is None:
            client.create_collection(name, metadata=metadata, embedding_function=None)
        elif KEY in (found.metadata or {}):
            found.modify(metadata=metadata)
        else:
            return False  # somebody's own collection
    return True


def release(client: ClientAPI, live: str) -> None:
    """Let writers go on."""
    name = name_of(live)
    found = by_name(client, name) if len(name) <= MAX_NAME else None
    if found is not None and KEY in (found.metadata or {}):
        present(lambda: client.delete_collection(name), name)


def wait(client: ClientAPI, live: str) -> None:
    """Return once no hold is on."""
    if len(name_of(live)) > MAX_NAME:
        return
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        try:
            found = by_name(client, name_of(live))
        except ReembedError:  # looked at while it was being deleted; the write will tell
            return
        until = (found.metadata or {}).get("until") if found is not None else None
        if not isinstance(until, float) or time.time() >= until:
            return
        time.sleep(_PAUSE_SECONDS)
