"""Moving the live name of a Chroma collection: by rename, in one SQLite transaction, by pointer.

Chroma has no aliases. Every kind here is convergent: it looks where both collections' names are now
and does only what is left, so a swap killed anywhere is finished by calling it again. Object ids
are never exchanged (a reader would get torn answers), only names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chromadb.errors import ChromaError

from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import SwapKind
from reembed.stores.chroma import pointer as chroma_pointer
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.failures import mapped
from reembed.stores.chroma.names import (
    all_names,
    by_id,
    by_name,
    check_name,
    free_name,
    holder,
    modify_name,
)
from reembed.stores.chroma.sqlite_calls import is_done, name_between, refuse_others
from reembed.stores.values import Exchange, Receipt

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_TRIES = 20

Merge = Callable[[list[str]], str | None]
"""Names of intruders, oldest first, to the name of the one that holds the records of all."""

GUARANTEES: dict[SwapKind, str] = {
    "pointer": "every look-up through reembed.live sees old or new, each with the query model "
    "that fits; applications that open the name themselves get an error, not stale answers",
    "transaction": "one SQLite transaction: look-ups by name see old or new, never neither; "
    "handles that an application holds stay on the old collection until it opens the name again",
    "rename": "two renames with a gap of a few milliseconds in which the name does not exist; what "
    "get_or_create makes in the gap is moved aside and merged",
}


def exchange(
    client: ClientAPI, kind: SwapKind, move: Exchange, merge: Merge, folder: Path | None = None
) -> Receipt:
    """Move the live name; see `Cutover.exchange`.

    Args:
        merge: makes one collection of the intruders of a rename.
        folder: the folder of chroma.sqlite3, needed for a transaction.

    Raises:
        PreflightError: the kind is impossible here, or a name is illegal or taken.
        SourceChangedError: a collection is gone, or the live name leads to a third one.
    """
    if kind == "transaction" and folder is not None:
        return exchange_all(client, [move], folder)[0]
    for name in (move.live, move.parked):
        check_name(name)
    if kind == "pointer":
        return chroma_pointer.exchange(client, move)
    _refuse_pointer(client, move)
    if kind == "rename":
        return _rename(client, move, merge)
    raise PreflightError(f"swap.kind {kind} is not possible on this Chroma store")


def _refuse_pointer(client: ClientAPI, move: Exchange) -> None:
    if chroma_pointer.read(client, move.live) is not None:
        raise PreflightError(
            f"{move.live} is a pointer, which readers follow before the plain name",
            "Use swap.kind: pointer (or auto).",
        )


# --- transaction ---------------------------------------------------------------------------------


def exchange_all(client: ClientAPI, moves: Sequence[Exchange], folder: Path) -> list[Receipt]:
    """Exchange all names in one transaction, and see that Chroma looks them up."""
    for move in moves:
        for name in (move.live, move.parked):
            check_name(name)
        _refuse_pointer(client, move)
    chroma_sqlite.exchange(folder, moves)
    seen = [(move, by_name(client, move.live)) for move in moves]
    unseen = [m for m, found in seen if found is None or str(found.id) != m.incoming_id]
    if not unseen:
        return [Receipt("transaction") for _ in moves]
    raise PreflightError(
        f"{folder} was changed, but {unseen[0].live} is still opened elsewhere: this folder is not "
        "the one the server reads (a copy?)",
        "Set source.data_dir to the server's own directory, or leave it out.",
    )


# --- rename --------------------------------------------------------------------------------------


def _names(client: ClientAPI, move: Exchange) -> dict[str, Collection]:
    ids = [id for id in (move.incoming_id, move.outgoing_id) if id]
    return {id: found for id in ids if (found := by_id(client, id)) is not None}


def _rename(client: ClientAPI, move: Exchange, merge: Merge) -> Receipt:
    found = _names(client, move)
    names = {id: collection.name for id, collection in found.items()}
    live_id, parked_id = holder(client, move.live), holder(client, move.parked)
    parked_already = move.outgoing_id is not None and names.get(move.outgoing_id) == move.parked
    if parked_already and live_id not in (None, move.incoming_id):
        live_id = None  # not a third collection but an intruder of this very gap, dealt with below
    refuse_others(move, names, live_id, parked_id)
    if is_done(move, names):
        return Receipt("rename", intruder=merge(_intruders(client, move)))
    incoming = found[move.incoming_id]
    if names[move.incoming_id] == move.parked:
        modify_name(incoming, name_between(move))
    began = time.perf_counter()
    if move.outgoing_id and not parked_already:
        modify_name(found[move.outgoing_id], move.parked)
    intruders = _take_name(client, incoming, move)
    gap = time.perf_counter() - began if move.outgoing_id else None
    if (
        parked_already
    ):  # a killed call of this move may have set some aside that it could not report
        intruders = _intruders(client, move)
    return Receipt("rename", gap, merge(intruders))


def _take_name(client: ClientAPI, incoming: Collection, move: Exchange) -> list[str]:
    """Give the incoming collection the live name, moving aside whatever was made under it; returns
    the names that those got, oldest first."""
    intruders = list[str]()
    for _ in range(_TRIES):
        try:
            incoming.modify(name=move.live)
            return intruders
        except ChromaError as error:
            if not _taken(error):
                with mapped(move.live):
                    raise
        standing = by_name(client, move.live)
        if standing is not None and str(standing.id) != move.incoming_id:
            intruders.append(free_name(client, _intruder_name(move)))
            modify_name(standing, intruders[-1])
    raise SourceChangedError(
        f"{move.live} was created again {_TRIES} times while it was being moved",
        "Stop the application that creates it, and run again.",
    )


def _taken(error: ChromaError) -> bool:
    return "UNIQUE constraint" in str(error) or "already exists" in str(error)


def _intruder_name(move: Exchange) -> str:
    return f"{move.live[:400]}__intruder-{move.incoming_id[:8]}"


def _intruders(client: ClientAPI, move: Exchange) -> list[str]:
    """All intruders set aside for this incoming collection, oldest first."""
    pattern = re.compile(re.escape(_intruder_name(move)) + r"(?:-(\d+))?")
    found = [match for name in all_names(client) if (match := pattern.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1] or 1))]
