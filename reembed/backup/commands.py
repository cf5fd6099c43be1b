"""`reembed backup` and its like with what a person names: a manifest, a database, a directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reembed.backup.directory import default_directory, folder_of, folders, refuse_inside
from reembed.backup.take import Subject, Taken, Wanted, take
from reembed.errors import GateError, PreflightError, ReembedError, UsageError
from reembed.manifest import Manifest, Source
from reembed.manifest.urls import is_url, resolve_url
from reembed.progress import Progress
from reembed.redaction import remember_url, without_secrets
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.stores.named import named
from reembed.stores.registry import open_store, open_store_of_live
from reembed.stores.store import Store


@dataclass(frozen=True)
class Failed:
    """A collection that was not backed up."""

    collection: str
    error: ReembedError

    def to_dict(self) -> dict[str, Any]:
        return {"collection": self.collection, "good": False, "error": self.error.to_dict()}


@dataclass(frozen=True)
class Backups:
    """What came of a backup of one collection or several.

    Attributes:
        directory: where they are kept.
        collections: one for each.
    """

    directory: str
    collections: list[Taken | Failed]

    @property
    def errors(self) -> list[ReembedError]:
        """Of those that were refused or failed."""
        found = [one.error if isinstance(one, Failed) else one.refused()
                 for one in self.collections]  # fmt: skip
        return [error for error in found if error is not None]

    @property
    def exit_code(self) -> int:
        """0, 4 where a backup was refused, else that of the first error."""
        codes = [error.exit_code for error in self.errors]
        return GateError.exit_code if GateError.exit_code in codes else next(iter(codes), 0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "collections": [one.to_dict() for one in self.collections],
        } | ({"error": self.errors[0].to_dict()} if self.errors else {})


@dataclass(frozen=True)
class Place:
    """What `reembed backup` is asked to look at.

    Attributes:
        url: of the store, without secrets.
        names: of the collections; None for those that there are, and those that there were.
        directory: where the snapshots go.
        manifest: that named them, where one did.
    """

    url: str
    names: tuple[str, ...] | None
    directory: Path
    manifest: Manifest | None = None


@contextlib.contextmanager
def opened(
    target: str, collection: str | None = None, *, every: bool = False,
    directory: Path | None = None,
) -> Iterator[tuple[Store, Place]]:  # fmt: skip
    """The store of a manifest or URL, and which of its collections are meant.

    Raises:
        UsageError: several collections and none is chosen, or no directory is given.
    """
    if collection is not None and every:
        raise UsageError("--collection and --all cannot be used together", "Choose one.")
    if not is_url(target):
        manifest = Manifest.load(Path(target))
        with contextlib.closing(open_store_of_live(manifest)) as store:
            names = (collection,) if collection else None if every else _names_of(manifest, store)
            where = directory or default_directory(manifest.state)
            yield store, Place(_shown(manifest.live_url), names, where, manifest)
        return
    if directory is None:
        raise UsageError("where should the snapshots go?", "Say so with -o DIR.")
    remember_url(target)
    url = resolve_url(target, Path.cwd())
    with contextlib.closing(open_store(url)) as store:
        names = (collection,) if collection else None if every else _only(store, target)
        yield store, Place(_shown(url), names, directory)


def _shown(url: str) -> str:
    return without_secrets(url)[0]


def _names_of(manifest: Manifest, store: Store) -> tuple[str, ...]:
    """The live names of a manifest."""
    if not manifest.is_group:
        return (manifest.live,)
    found = named(store, manifest.source)
    refusal = found.refusal()
    if refusal is not None:
        raise refusal
    return tuple(found.names)


def _only(store: Store, target: str) -> tuple[str, ...]:
    names = named(store, Source(url=store.url, collections="*")).names
    if len(names) != 1:
        raise UsageError(
            f"{_shown(target)}: holds {len(names)} collections",
            f"Choose with --collection, or take --all: {', '.join(names)}."
            if names
            else "If it should hold some, somebody deleted them or it is another database. Name "
            "the one that you mean with --collection.",
        )
    return (names[0],)


def backup(
    target: str,
    collection: str | None = None,
    *,
    every: bool = False,
    directory: Path | None = None,
    wanted: Wanted,
    progress: Progress,
) -> Backups:
    """Take a snapshot of a collection, of several, or of a whole database.

    Args:
        target: a store URL, or a manifest's path.
        every: all collections of the database, and those of which the directory has snapshots.
        directory: where they go; default for a manifest: `<state>/backups`.

    Raises:
        ReembedError: with one collection, what `take` raises; with several, each one's error is in
            the result.
    """
    if directory is not None:
        refuse_inside(directory)
    with opened(target, collection, every=every, directory=directory) as (store, place):
        names = place.names if place.names is not None else _all(store, place)
        done: list[Taken | Failed] = []
        for name in names:
            subject = Subject(store, place.url, name, **model_of(place.manifest, name))
            try:
                done.append(take(subject, folder_of(place.directory, name), wanted, progress))
            except ReembedError as error:
                if len(names) == 1:
                    raise
                done.append(Failed(name, error))
        return Backups(str(place.directory), done)


def _all(store: Store, place: Place) -> tuple[str, ...]:
    """The database's collections, and those that it had when they were backed up last."""
    names = named(store, Source(url=store.url, collections="*")).names
    if place.directory.is_dir():
        with contextlib.suppress(UsageError):
            for one in folders(place.directory):
                about = one.about()
                if about and about.url == place.url and about.collection not in names:
                    names.append(about.collection)
    if not names:
        raise PreflightError(
            f"{place.url}: holds no collection, so there is nothing to back up",
            "If it should hold some, somebody deleted them or it is another database.",
        )
    return tuple(names)


def model_of(manifest: Manifest | None, name: str) -> dict[str, Any]:
    """What the newest run of a manifest knows of the live collection's model, as `Subject` takes
    it."""
    if manifest is None or manifest.is_group or name != manifest.live:
        return {}
    run, model = RunDir.latest(manifest.state_dir), manifest.new_model
    if model is None or run is None or run.history.last_move != "swap":
        source = manifest.source.model
        return {"model": source.to_dict()} if source else {}
    taken = run.history.last(events.FingerprintTaken)
    known = {"fingerprint": taken.fingerprint} if taken else {}
    return {"model": model.to_dict()} | known


def with_reason(wanted: Wanted, reason: str | None) -> Wanted:
    """The same, with a person's word. Raises UsageError for an empty one."""
    if reason is not None and not reason.strip():
        raise UsageError("--accept-drop needs a reason", 'For example --accept-drop "old user".')
    return replace(wanted, accept_drop=reason)
