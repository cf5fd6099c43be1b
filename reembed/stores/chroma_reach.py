"""What is within reach of this machine: the server's own directory, other processes, cautions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chromadb.api import ClientAPI

from reembed.errors import PreflightError
from reembed.stores import chroma_names, chroma_sqlite


def verified(folder: Path, client: ClientAPI, url: str) -> Path:
    """`folder`, if it holds just the collections that the server lists.

    Raises:
        PreflightError: it is not the server's directory. (A fresh copy passes: `ChromaStore` relies
        on the file only where a process has it open, and asks the server after a transaction.)
    """
    if not (folder / chroma_sqlite.FILE).is_file():
        raise PreflightError(f"source.data_dir: {folder} has no {chroma_sqlite.FILE}")
    named: Any = client
    there = chroma_sqlite.collection_names(folder, named.tenant, named.database)
    same = sorted(there.values()) == chroma_names.all_names(client)
    id, name = next(iter(there.items()), ("", ""))
    if not same or not there or chroma_names.holder(client, name) != id:
        raise PreflightError(
            f"source.data_dir: {folder} is not the directory of the server at {url}: it holds "
            "other collections",
            "Set it to what the server was started with (--path), or leave it out.",
        )
    return folder.resolve()


def notes(path: Path | None, folder: Path | None) -> tuple[str, ...]:
    """What `plan` should tell of this store.

    Args:
        path: of a local database, None for a server.
        folder: where chroma.sqlite3 is at hand, None where it is not.
    """
    found = ["Chroma 1.x has no access control of its own: whoever reaches it may write."]
    if path is not None:
        found.append(
            "Only one process at a time may write to a local Chroma collection: two lose vectors "
            "without an error."
        )
        others = chroma_sqlite.holders(path)
        if others:
            found.append(
                f"Open in other processes now: {', '.join(map(str, others))}. Searching is fine; "
                "they must not write while a run loads or sweeps."
            )
    elif folder is None:
        found.append(
            "With source.data_dir (the server's own directory) the swap could be one transaction."
        )
    return tuple(found)
