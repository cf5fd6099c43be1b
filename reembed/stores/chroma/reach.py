"""What is within reach of this machine: the server's own directory, other processes, cautions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reembed.errors import PreflightError
from reembed.stores.chroma import names as chroma_names
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.claims import is_claim
from reembed.stores.processes import Holders

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


def verified(folder: Path, client: ClientAPI, url: str) -> Path:
    """`folder`, if it holds just the collections that the server lists.

    Raises:
        PreflightError: it is not the server's directory. (A fresh copy passes: `Database` relies
        on the file only where a process has it open, and asks the server after a transaction.)
    """
    if not (folder / chroma_sqlite.FILE).is_file():
        raise PreflightError(f"source.data_dir: {folder} has no {chroma_sqlite.FILE}")
    named: Any = client
    there = chroma_sqlite.collection_names(folder, named.tenant, named.database)
    # Claims come and go between the two looks.
    seen = {str(one.id): one.name for one in chroma_names.list_all(client) if not is_claim(one)}
    there = {id: name for id, name in there.items() if id in seen or "__lease" not in name}
    same = sorted(there.values()) == sorted(seen.values())
    id, name = next(iter(there.items()), ("", ""))
    if not same or not there or chroma_names.holder(client, name) != id:
        raise PreflightError(
            f"source.data_dir: {folder} is not the directory of the server at {url}: it holds "
            "other collections",
            "Set it to what the server was started with (--path), or leave it out.",
        )
    return folder.resolve()


def notes(path: Path | None, folder: Path | None, others: Holders) -> tuple[str, ...]:
    """What `plan` should tell of this store.

    Args:
        path: of a local database, None for a server.
        folder: where chroma.sqlite3 is at hand, None where it is not.
        others: processes that have the database open.
    """
    found = ["Chroma 1.x has no access control of its own: whoever reaches it may write."]
    if path is not None:
        found.append(_one_writer(others))
    elif folder is None:
        found.append(
            "With source.data_dir (the server's own directory) the swap could be one transaction."
        )
    return tuple(found)


def _one_writer(others: Holders) -> str:
    rule = (
        "Only one process at a time may write to a local Chroma collection: two lose vectors "
        "without an error."
    )
    if others.processes:
        rule += (
            f" Open in other processes now: {others}. Searching is fine; they must not write while "
            "a run loads, swaps or sweeps: stop them, or serve the folder with `chroma run`."
        )
    else:
        rule += " No other process is seen to have it open now."
    if others.unseen:
        rule += f" ({others.unseen[0].upper()}{others.unseen[1:]}.)"
    return rule
