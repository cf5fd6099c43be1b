"""The pointer of a live name: a small empty collection whose metadata says where readers go.

`reembed.live` follows it at every call. One `modify(metadata=)` flips it, and Chroma replaces
metadata whole: a reader sees the old or the new target with the model that fits, never a mixture.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reembed.errors import PreflightError, ReembedError, SourceChangedError
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.names import (
    MAX_NAME,
    by_id,
    by_name,
    check_name,
    free_name,
    holder,
    modify_name,
)
from reembed.stores.values import Exchange, Receipt

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

VERSION = 1
KEY = "reembed:pointer"
_TRIES = 20


def name_of(live: str) -> str:
    """The name of the small collection that holds the pointer of `live`."""
    return f"{live}__pointer"


def read(client: ClientAPI, live: str) -> Collection | None:
    """The pointer collection of `live`; None where the name is a plain one."""
    if len(name_of(live)) > MAX_NAME:
        return None
    found = by_name(client, name_of(live))
    return found if found is not None and KEY in (found.metadata or {}) else None


def follow(client: ClientAPI, pointer: Collection) -> Collection:
    """The collection that a pointer leads to. Raises SourceChangedError if it is gone."""
    target = str((pointer.metadata or {}).get("target_id", ""))
    found = by_id(client, target)
    if found is None:
        raise SourceChangedError(
            f"{pointer.name} points to the collection {target}, which is gone",
            f"Roll back; or, for a plain name again, delete the collection {pointer.name} and "
            "rename the one that is to have the name (its modify(name=...)).",
        )
    return found


def model_of(pointer: Collection) -> dict[str, Any] | None:
    """Manifest keys of the model that embeds queries for the pointer's target, as it says; see
    `embedders.recorded`."""
    text = (pointer.metadata or {}).get("model")
    if not isinstance(text, str):
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {"provider": None}


def exchange(client: ClientAPI, move: Exchange) -> Receipt:
    """Flip the pointer, making it at the first move, then let the plain names follow.

    Raises:
        as `chroma_swap.exchange`.
    """
    incoming = by_id(client, move.incoming_id)
    if incoming is None:
        raise SourceChangedError(f"the incoming collection {move.incoming_id} is gone")
    check_name(name_of(move.live))
    outgoing = by_id(client, move.outgoing_id) if move.outgoing_id else None
    taken_by = holder(client, move.parked)
    if taken_by not in (None, move.incoming_id, move.outgoing_id) and outgoing is not None:
        raise PreflightError(f"the name {move.parked} is taken by another collection ({taken_by})")
    flip(client, move, incoming.name)
    _plain_names(client, move, incoming, outgoing)
    return Receipt("pointer")


def flip(client: ClientAPI, move: Exchange, target: str) -> None:
    """Point to the incoming collection: one call, which readers see whole or not at all.

    Chroma has no compare-and-swap; the lease of the run keeps a second writer out.
    """
    for _ in range(_TRIES):
        pointer = by_name(client, name_of(move.live))
        if pointer is None:
            plain = holder(client, move.live)
            if plain not in (None, move.incoming_id, move.outgoing_id):
                raise SourceChangedError(f"{move.live} serves a third collection now ({plain})")
            if target.startswith(f"{move.live}__parked-"):  # a way back without its pointer
                plain = move.incoming_id
            metadata = _metadata(move, target, 1, plain)
            try:
                with mapped(move.live):
                    client.create_collection(
                        name_of(move.live), metadata=metadata, embedding_function=None
                    )
                return
            except ReembedError as error:
                if "already exists" not in error.message:
                    raise
                continue  # another process made it first: look at what it holds
        old = dict(pointer.metadata or {})
        if KEY not in old:
            raise PreflightError(
                f"the name {pointer.name} is taken by a collection that is not a pointer of reembed"
            )
        if old.get("target_id") == move.incoming_id:
            return
        led = str(old.get("target_id", ""))
        if led != move.outgoing_id and by_id(client, led) is not None:
            raise SourceChangedError(
                f"{pointer.name} points to a third collection ({old.get('target_id')})"
            )
        counted = old.get("generation")
        generation = counted + 1 if isinstance(counted, int) else 1
        with mapped(pointer.name):
            pointer.modify(metadata=_metadata(move, target, generation, old.get("plain_id")))
        return
    raise SourceChangedError(
        f"the pointer {name_of(move.live)} was made and deleted by others at every look",
        "Find what makes it, and run the same command again.",
    )


def _metadata(
    move: Exchange, target: str, generation: int, plain_id: object
) -> dict[str, str | int]:
    """What a pointer holds. `plain_id` is the collection that had the plain name before there was
    a pointer, and gets it back when the pointer leads to it again."""
    metadata: dict[str, str | int] = {
        KEY: VERSION,
        "live": move.live,
        "target_id": move.incoming_id,
        "target": target,
        "generation": generation,
        "moved": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if move.model is not None:
        metadata["model"] = json.dumps(move.model, sort_keys=True)
    if plain_id:
        metadata["plain_id"] = str(plain_id)
    return metadata


def _plain_names(
    client: ClientAPI, move: Exchange, incoming: Collection, outgoing: Collection | None
) -> None:
    """After the flip, take the plain name from the outgoing collection, so that an application
    that ignores the pointer gets an error instead of stale answers; give it back on the way back.
    Readers of the pointer go by object id and notice nothing."""
    if outgoing is not None and outgoing.name == move.live:
        if incoming.name == move.parked:
            modify_name(incoming, free_name(client, f"{move.live[:400]}__{move.incoming_id[:8]}"))
        modify_name(outgoing, move.parked)
    pointer = read(client, move.live)
    plain_id = (pointer.metadata or {}).get("plain_id") if pointer is not None else None
    if (
        plain_id == move.incoming_id
        and incoming.name != move.live
        and by_name(client, move.live) is None
    ):
        modify_name(incoming, move.live)
