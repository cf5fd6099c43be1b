"""Whether the files of a collection's index are as Chroma wrote them, and what to do if not.

Chroma writes them in place, one after the other. A process that is killed meanwhile, a full disk or
a copy that was cut off leaves less than was written. Chroma itself then fails for some records or
for all, or searches in memory that is not its own. What is read here shows most of it beforehand.
Of a form that is not known nothing is said.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reembed.errors import DamagedStoreError
from reembed.stores.chroma import sqlite as chroma_sqlite
from reembed.stores.chroma.database import Database
from reembed.stores.chroma.failures import damaged_index, mapped
from reembed.stores.chroma.index_files import (
    ELEMENTS,
    HEADER,
    LABELS,
    LENGTHS,
    LINKS,
    SETTLED_SECONDS,
    header_of,
)
from reembed.stores.chroma.records import fetch
from reembed.stores.values import Survey

ASKED = 8
"""Records of each end of a collection whose vectors are asked for."""
TRIES = 3
LOOKED_AT = 64
"""Elements whose label is looked at."""
MOST_LINKS = 2_000_000
"""Elements whose links are counted: about a second."""
_FILES = (HEADER, ELEMENTS, LENGTHS, LABELS, LINKS)
_VERSION = b"\x01\x00\x00\x00"
_TOO_SHORT = "{} has {:,} bytes, and its header tells of {:,}"

States = dict[str, tuple[int, int, int] | None]
"""Inode, bytes and time of change of each file; None for one that is not there."""


def folder_of(database: Path | None, id: str) -> Path | None:
    """The folder of a collection's index; None where it cannot be seen."""
    parts = chroma_sqlite.segments(database, id) if database is not None else None
    return database / parts.vectors if database is not None and parts is not None else None


def damage_of(folder: Path | None) -> str:
    """What shows that the files are not whole, in words; "" where nothing does. An index that was
    never written out has none."""
    if folder is None:
        return ""
    for _ in range(TRIES):
        before = _states(folder)
        if not any(before.values()):
            return ""
        found = _look(folder, before)
        if not found:
            return ""
        time.sleep(SETTLED_SECONDS)
        if _states(folder) == before:
            return found
    return ""  # it is being written


@contextmanager
def explained(database: Path | None, id: str, name: str) -> Iterator[None]:
    """`mapped` for calls of one collection: where its index is damaged, its folder is named."""
    try:
        with mapped(name):
            yield
    except DamagedStoreError as error:
        if error.place != name:
            raise
        raise damaged_index(error.message, name, folder_of(database, id)) from error


def survey(database: Database, id: str) -> Survey:
    """What a plan says of the index of a collection."""
    collection = database.handle(id)
    folder = folder_of(database.file, id)
    if found := damage_of(folder):
        told = f"{collection.name}: its index is damaged: {found}"
        return Survey(refusals=(damaged_index(told, collection.name, folder),))
    with explained(database.folder, id, collection.name):
        count = collection.count()
        ids = [
            one
            for offset in sorted({0, max(0, count - ASKED)})
            for one in collection.get(limit=ASKED, offset=offset, include=[])["ids"]
        ]
        ids = list(dict.fromkeys(ids))
        rows = fetch(collection, ids, vectors=True, where=None, over_http=database.path is None)
    lost = rows.column("embedding").null_count
    if not lost:
        return Survey()
    return Survey(notes=(
        f"Chroma finds no vector of {lost:,} of {len(rows):,} sampled records. Their texts are "
        "embedded all the same; the old search cannot be compared by them.",
    ))  # fmt: skip


def _states(folder: Path) -> States:
    found: States = {}
    for name in _FILES:
        try:
            seen = (folder / name).stat()
        except OSError:
            found[name] = None
        else:
            found[name] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


def _look(folder: Path, states: States) -> str:
    sizes = {name: one[1] for name, one in states.items() if one is not None}
    if HEADER not in sizes:
        return f"{HEADER} is gone"
    if not sizes[HEADER]:
        return f"{HEADER} is empty"
    try:
        header = (folder / HEADER).read_bytes()
        try:
            elements, size, label = header_of(header)
        except struct.error:
            return f"{HEADER} is cut off" if header.startswith(_VERSION) else ""
        except ValueError:
            return ""
        if not elements:  # as Chroma begins one, before it writes ids
            return ""
        gone = [name for name in _FILES if name not in sizes]
        if gone:
            return f"{gone[0]} is gone"
        for name, least in ((ELEMENTS, elements * size), (LENGTHS, elements * 4)):
            if sizes[name] < least:
                return _TOO_SHORT.format(name, sizes[name], least)
        return (
            _labels(folder / ELEMENTS, elements, size, label)
            or _links(folder / LINKS, elements)
            or _pickle(folder / LABELS)
        )
    except OSError:
        return ""


def _labels(path: Path, elements: int, size: int, label: int) -> str:
    """A few labels: of elements that were never written they are all the same."""
    places = sorted({round(n * (elements - 1) / LOOKED_AT) for n in range(LOOKED_AT + 1)})
    labels = []
    with path.open("rb", 0) as file:
        for place in places:
            file.seek(place * size + label)
            labels.append(int.from_bytes(file.read(8), "little", signed=True))
    if len(set(labels)) < len(labels) or any(one < 0 for one in labels):
        return f"{path.name} holds no elements"
    return ""


def _links(path: Path, elements: int) -> str:
    """Of each element, how many bytes of links follow, and these."""
    if elements > MOST_LINKS:
        return ""
    data = path.read_bytes()
    at = 0
    for _ in range(elements):
        if at + 4 > len(data):
            return f"{path.name} is cut off"
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    return "" if at == len(data) else f"{path.name} has {len(data):,} bytes, and tells of {at:,}"


def _pickle(path: Path) -> str:
    if not path.stat().st_size:
        return f"{path.name} is empty"
    with path.open("rb", 0) as file:
        file.seek(-1, 2)
        return "" if file.read(1) == b"." else f"{path.name} is cut off"
