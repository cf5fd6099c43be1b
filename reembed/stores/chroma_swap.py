"""Moving the live name of a Chroma collection: by rename, in one SQLite transaction, by pointer.

Chroma has no aliases. Every kind here is convergent: it looks where both collections' names are now
and does only what is left, so a swap killed anywhere is finished by calling it again. Object ids
are never exchanged (a reader would get torn answers), only names.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.errors import ChromaError

from reembed.errors import PreflightError, ReembedError, SourceChangedError
from reembed.manifest import SwapKind
from reembed.stores import chroma_sqlite
from reembed.stores.base import Exchange, Receipt
from reembed.stores.chroma_client import mapped
from reembed.stores.chroma_names import by_id, by_name, check_name

POINTER_VERSION = 1
POINTER_KEY = "reembed:pointer"
_TRIES = 20

GUARANTEES: dict[SwapKind, str] = {
    "pointer": "every look-up through reembed.live sees old or new, each with the query model "
    "that fits; applications that open the name themselves get an error, not stale answers",
    "transaction": "one SQLite transaction: look-ups by name see old or new, never neither; "
    "handles that an application holds stay on the old collection until it opens the name again",
    "rename": "two renames with a gap of a few milliseconds in which the name does not exist; what "
    "get_or_create makes in the gap is moved aside and merged",
}


def pointer_name(live: str) -> str:
    """The name of the small collection that holds the pointer of `live`."""
    return f"{live}__pointer"


def exchange(
    client: ClientAPI, kind: SwapKind, move: Exchange, folder: Path | None = None
) -> Receipt:
    """Move the live name; see `Store.exchange`.

    Args:
        folder: the folder of chroma.sqlite3, needed for a transaction.

    Raises:
        PreflightError: the kind is impossible here, or a name is illegal or taken.
        SourceChangedError: a collection is gone, or the live name leads to a third one.
    """
    for name in (move.live, move.parked):
        check_name(name)
    if kind == "pointer":
        return _pointer(client, move)
    if read_pointer(client, move.live) is not None:
        raise PreflightError(
            f"{move.live} is a pointer, which readers follow before the plain name",
            "Use swap.kind: pointer (or auto).",
        )
    if kind == "transaction" and folder is not None:
        return _transaction(client, move, folder)
    if kind == "rename":
        return _rename(client, move)
    raise PreflightError(f"swap.kind {kind} is not possible on this Chroma store")


# --- transaction ---------------------------------------------------------------------------------


def _transaction(client: ClientAPI, move: Exchange, folder: Path) -> Receipt:
    with chroma_sqlite.writing(folder) as connection:
        exchange_names(connection, move)
    seen = by_name(client, move.live)
    if seen is None or str(seen.id) != move.incoming_id:
        raise PreflightError(
            f"{folder} was changed, but the server still opens {move.live} elsewhere: this folder "
            "is not the one the server reads (a copy?)",
            "Set source.data_dir to the server's own directory, or leave it out.",
        )
    return Receipt("transaction")


def exchange_names(connection: sqlite3.Connection, move: Exchange) -> None:
    """The three UPDATEs of a swap, inside an open transaction. Public for the test that kills a
    process before its COMMIT."""
    rows = connection.execute(
        "SELECT id, name, database_id FROM collections WHERE id IN (?, ?)",
        (move.incoming_id, move.outgoing_id or ""),
    ).fetchall()
    names = {id: name for id, name, _ in rows}
    databases = {database for _, _, database in rows}
    if len(databases) > 1:
        raise SourceChangedError("the two collections are in different databases")
    database = next(iter(databases), None)

    def holder(name: str) -> str | None:
        row = connection.execute(
            "SELECT id FROM collections WHERE name = ? AND database_id = ?", (name, database)
        ).fetchone()
        return row[0] if row else None

    _check(move, names, holder(move.live), holder(move.parked))
    if _done(move, names):
        return
    rename = "UPDATE collections SET name = ? WHERE id = ?"
    connection.execute(rename, (_temporary(move), move.incoming_id))
    if move.outgoing_id:
        connection.execute(rename, (move.parked, move.outgoing_id))
    connection.execute(rename, (move.live, move.incoming_id))


def _check(
    move: Exchange, names: Mapping[str, str], live_id: str | None, parked_id: str | None
) -> None:
    """Refuse unless the two collections are there and only they have the two names.

    Args:
        names: the present name of each of the two that exists, by id.
        live_id, parked_id: who has the live and the parked name now.
    """
    ours = {move.incoming_id, move.outgoing_id}
    for role, id in (("incoming", move.incoming_id), ("outgoing", move.outgoing_id)):
        if id is not None and id not in names:
            raise SourceChangedError(f"the {role} collection {id} is gone")
    if live_id is not None and live_id not in ours:
        raise SourceChangedError(
            f"{move.live} leads to a third collection now ({live_id})",
            "Somebody made or renamed a collection since the run began; look at it first.",
        )
    if move.outgoing_id is None:
        return
    if parked_id is not None and parked_id not in ours:
        raise PreflightError(f"the name {move.parked} is taken by another collection ({parked_id})")
    if names[move.outgoing_id] not in (move.live, move.parked):
        raise SourceChangedError(
            f"the outgoing collection was renamed to {names[move.outgoing_id]!r}",
            f"It should be {move.live!r}, or {move.parked!r} after a swap.",
        )


def _done(move: Exchange, names: Mapping[str, str]) -> bool:
    return names[move.incoming_id] == move.live and (
        move.outgoing_id is None or names[move.outgoing_id] == move.parked
    )


def _temporary(move: Exchange) -> str:
    return f"{move.live[:400]}__moving-{move.incoming_id[:8]}"


# --- rename --------------------------------------------------------------------------------------


def _names(client: ClientAPI, move: Exchange) -> dict[str, Collection]:
    ids = [id for id in (move.incoming_id, move.outgoing_id) if id]
    return {id: found for id in ids if (found := by_id(client, id)) is not None}


def _rename(client: ClientAPI, move: Exchange) -> Receipt:
    found = _names(client, move)
    names = {id: collection.name for id, collection in found.items()}
    live_id, parked_id = _holder(client, move.live), _holder(client, move.parked)
    parked_already = move.outgoing_id is not None and names.get(move.outgoing_id) == move.parked
    if parked_already and live_id not in (None, move.incoming_id):
        live_id = None  # not a third collection but an intruder of this very gap, dealt with below
    _check(move, names, live_id, parked_id)
    if _done(move, names):
        return Receipt("rename", intruder=_earlier_intruder(client, move))
    incoming = found[move.incoming_id]
    if names[move.incoming_id] == move.parked:
        _modify_name(incoming, _temporary(move))
    began = time.perf_counter()
    if move.outgoing_id and not parked_already:
        _modify_name(found[move.outgoing_id], move.parked)
    intruder = _take_name(client, incoming, move)
    gap = time.perf_counter() - began if move.outgoing_id else None
    return Receipt("rename", gap, intruder or _earlier_intruder(client, move))


def _take_name(client: ClientAPI, incoming: Collection, move: Exchange) -> str | None:
    """Give the incoming collection the live name, moving aside whatever was made under it."""
    intruder = None
    for _ in range(_TRIES):
        try:
            incoming.modify(name=move.live)
            return intruder
        except ChromaError as error:
            if not _taken(error):
                with mapped(move.live):
                    raise
        standing = by_name(client, move.live)
        if standing is not None and str(standing.id) != move.incoming_id:
            intruder = _free_name(client, _intruder_name(move))
            _modify_name(standing, intruder)
    raise SourceChangedError(
        f"{move.live} was made anew {_TRIES} times while it was being moved",
        "Stop the application that creates it, and run again.",
    )


def _taken(error: ChromaError) -> bool:
    return "UNIQUE constraint" in str(error) or "already exists" in str(error)


def _holder(client: ClientAPI, name: str) -> str | None:
    found = by_name(client, name)
    return None if found is None else str(found.id)


def _modify_name(collection: Collection, name: str) -> None:
    with mapped(collection.name):
        collection.modify(name=name)


def _intruder_name(move: Exchange) -> str:
    return f"{move.live[:400]}__intruder-{move.incoming_id[:8]}"


def _free_name(client: ClientAPI, name: str) -> str:
    number, free = 2, name
    while by_name(client, free) is not None:
        free, number = f"{name}-{number}", number + 1
    return free


def _earlier_intruder(client: ClientAPI, move: Exchange) -> str | None:
    """An intruder that a killed call of this same move set aside and could not report."""
    name = _intruder_name(move)
    return name if by_name(client, name) is not None else None


# --- pointer -------------------------------------------------------------------------------------


def read_pointer(client: ClientAPI, live: str) -> Collection | None:
    """The pointer collection of `live`; None where the name is a plain one."""
    if len(pointer_name(live)) > 512:
        return None
    found = by_name(client, pointer_name(live))
    return found if found is not None and POINTER_KEY in (found.metadata or {}) else None


def follow(client: ClientAPI, pointer: Collection) -> Collection:
    """The collection that a pointer leads to. Raises SourceChangedError if it is gone."""
    target = str((pointer.metadata or {}).get("target_id", ""))
    found = by_id(client, target)
    if found is None:
        raise SourceChangedError(
            f"{pointer.name} points to the collection {target}, which is gone",
            "Roll back, or delete the pointer collection if the name is to be a plain one again.",
        )
    return found


def pointer_model(pointer: Collection) -> dict[str, Any] | None:
    """Manifest keys of the model that embeds queries for the pointer's target."""
    text = (pointer.metadata or {}).get("model")
    return json.loads(text) if isinstance(text, str) else None


def _pointer(client: ClientAPI, move: Exchange) -> Receipt:
    found = _names(client, move)
    if move.incoming_id not in found:
        raise SourceChangedError(f"the incoming collection {move.incoming_id} is gone")
    check_name(pointer_name(move.live))
    outgoing = found.get(move.outgoing_id or "")
    taken_by = _holder(client, move.parked)
    if taken_by not in (None, move.incoming_id, move.outgoing_id) and outgoing is not None:
        raise PreflightError(f"the name {move.parked} is taken by another collection ({taken_by})")
    _flip(client, move, found[move.incoming_id].name)
    if outgoing is not None:
        _plain_names(client, move, found[move.incoming_id], outgoing)
    return Receipt("pointer")


def _flip(client: ClientAPI, move: Exchange, target: str) -> None:
    """Point to the incoming collection: one call, which readers see whole or not at all.

    Chroma has no compare-and-swap; the lease of the run keeps a second writer out.
    """
    for _ in range(_TRIES):
        pointer = by_name(client, pointer_name(move.live))
        if pointer is None:
            plain = _holder(client, move.live)
            if plain not in (None, move.incoming_id, move.outgoing_id):
                raise SourceChangedError(f"{move.live} leads to a third collection now ({plain})")
            metadata = _pointer_metadata(move, target, 1, plain)
            try:
                with mapped(move.live):
                    client.create_collection(
                        pointer_name(move.live), metadata=metadata, embedding_function=None
                    )
                return
            except ReembedError as error:
                if "already exists" not in error.message:
                    raise
                continue  # another process made it first: look at what it holds
        old = dict(pointer.metadata or {})
        if POINTER_KEY not in old:
            raise PreflightError(
                f"the name {pointer.name} is taken by a collection that is no pointer of reembed"
            )
        if old.get("target_id") == move.incoming_id:
            return
        if old.get("target_id") != move.outgoing_id:
            raise SourceChangedError(
                f"{pointer.name} points to a third collection ({old.get('target_id')})"
            )
        generation = int(old.get("generation") or 0) + 1
        with mapped(pointer.name):
            pointer.modify(
                metadata=_pointer_metadata(move, target, generation, old.get("plain_id"))
            )
        return
    raise SourceChangedError(f"{pointer_name(move.live)} cannot be made: it comes and goes")


def _pointer_metadata(
    move: Exchange, target: str, generation: int, plain_id: object
) -> dict[str, str | int]:
    """What a pointer holds. `plain_id` is the collection that had the plain name before there was
    a pointer, and gets it back when the pointer leads to it again."""
    metadata: dict[str, str | int] = {
        POINTER_KEY: POINTER_VERSION,
        "live": move.live,
        "target_id": move.incoming_id,
        "target": target,
        "generation": generation,
    }
    if move.model is not None:
        metadata["model"] = json.dumps(move.model, sort_keys=True)
    if plain_id:
        metadata["plain_id"] = str(plain_id)
    return metadata


def _plain_names(
    client: ClientAPI, move: Exchange, incoming: Collection, outgoing: Collection
) -> None:
    """After the flip, take the plain name from the outgoing collection, so that an application
    that ignores the pointer gets an error instead of stale answers; give it back on the way back.
    Readers of the pointer go by object id and notice nothing."""
    if outgoing.name == move.live:
        if incoming.name == move.parked:
            _modify_name(incoming, _free_name(client, f"{move.live[:400]}__{move.incoming_id[:8]}"))
        _modify_name(outgoing, move.parked)
    pointer = read_pointer(client, move.live)
    plain_id = (pointer.metadata or {}).get("plain_id") if pointer is not None else None
    if (
        plain_id == move.incoming_id
        and incoming.name != move.live
        and by_name(client, move.live) is None
    ):
        _modify_name(incoming, move.live)
