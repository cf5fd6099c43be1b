"""A backup directory: a folder of snapshots for each collection."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from reembed.backup.folder import ABOUT, Folder
from reembed.backup.snapshot import Snapshot
from reembed.errors import UsageError
from reembed.manifest import Manifest
from reembed.run.disk import named_errors, read_errors
from reembed.run.files import damaged


def default_directory(state: Path | str) -> Path:
    """Where a manifest's backups go unless `-o` says otherwise."""
    return Path(state) / "backups"


def folder_name(collection: str) -> str:
    """A name for a collection's folder that any file system takes."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", collection).lstrip(".-")[:80] or "collection"
    if safe == collection == safe.lower():
        return safe
    return f"{safe}-{hashlib.sha256(collection.encode()).hexdigest()[:8]}"


def folder_of(directory: Path, collection: str) -> Folder:
    """The folder for a collection's snapshots below a backup directory."""
    return Folder(directory / folder_name(collection))


def refuse_inside(directory: Path) -> None:
    """Refuse a directory for backups inside the folder of one collection's, where no command looks.

    Raises:
        UsageError: it is one, or lies in one.
    """
    for path in (directory.absolute(), *directory.absolute().parents):
        about = Folder(path).about() if (path / ABOUT.name).exists() else None
        if about is not None:
            raise UsageError(
                f"{directory}: lies in the folder of the snapshots of {about.collection!r}",
                f"Name the directory around that one: -o {shlex.quote(str(path.parent))}",
            )


@named_errors()
def folders(directory: Path, collection: str | None = None) -> list[Folder]:
    """The folders of a backup directory, which may be given itself as one.

    Args:
        collection: only this one's.

    Raises:
        UsageError: there is none.
    """
    make = "Give the directory that `reembed backup -o` wrote to, or a manifest."
    if directory.is_file():
        directory = default_directory(Manifest.load(directory).state)
    with read_errors(directory):
        if not directory.is_dir():
            raise UsageError(f"{directory}: there is no such directory", make)
        if (directory / ABOUT.name).exists():
            found = [Folder(directory)]
        else:
            found = [
                Folder(path) for path in sorted(directory.iterdir())
                if (path / ABOUT.name).exists() or (path / "snapshots").is_dir()
            ]  # fmt: skip
    if collection is not None:
        names = [about.collection for one in found if (about := one.about())]
        unsigned = [one for one in found if one.about() is None and one.ids(one.good)]
        found = [one for one in found if (a := one.about()) and a.collection == collection]
        for one in unsigned if not found else []:
            if one.path.name in (folder_name(collection), directory.name):
                raise damaged(one.path / ABOUT.name, ABOUT, "it is not there")
        if not found:
            raise UsageError(
                f"{directory}: holds no snapshots of {collection!r}",
                f"It has those of {', '.join(names)}." if names else make,
            )
    if not found:
        raise UsageError(f"{directory}: holds no snapshots", make)
    return found


def one_folder(directory: Path, collection: str | None) -> Folder:
    """The only folder of a directory, or the chosen one. Raises UsageError, naming them."""
    found = folders(directory, collection)
    if len(found) > 1:
        names = ", ".join(about.collection for one in found if (about := one.about()))
        raise UsageError(
            f"{directory}: holds snapshots of {len(found)} collections",
            f"Choose with --collection: {names}.",
        )
    return found[0]


def harmed(directory: Path | str, collection: str | None = None) -> list[str]:
    """What is wrong with snapshots that `snapshots` does not list, since they are not whole."""
    return [
        f"{folder.path.name} {id}: {problem}"
        for folder in folders(Path(directory), collection)
        for id, problem in folder.harmed().items()
    ]


def snapshots(directory: Path | str, collection: str | None = None) -> list[Snapshot]:
    """All snapshots of a backup directory whose manifests are whole, rejected ones too, each
    collection's in the order in which they were taken.

    Args:
        directory: as given to `reembed backup -o`, or one collection's folder in it.
        collection: only this one's.

    Raises:
        UsageError: it holds none.
    """
    return [one for folder in folders(Path(directory), collection) for one in folder.snapshots()[0]]
