"""Snapshots around a migration: one before it begins and moves, one of what `clean` deletes."""

from __future__ import annotations

from reembed.backup.commands import model_of
from reembed.backup.directory import default_directory, folder_of
from reembed.backup.take import Subject, Taken, Wanted, take
from reembed.redaction import without_secrets
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.named import named


def begin_run(s: Session) -> None:
    """Begin a run, after a snapshot where the manifest says `backup: before`."""
    back_up(s)
    s.create_run()


def back_up(s: Session) -> None:
    """Take a snapshot of every collection that the manifest moves, where it says `backup: before`.

    Raises:
        GateError: one is empty or collapsed since its last good snapshot, so nothing begins.
        as `take`.
    """
    if s.manifest.backup != "before" or (s.begun and s.run.history.last_move == "swap"):
        return
    source = s.manifest.source
    names = named(s.open_source, source).names if s.manifest.is_group else [source.collection]
    url = without_secrets(source.url)[0]
    for name in names:
        _keep(s, Subject(s.open_source, url, name, **model_of(s.manifest, name)))


def back_up_doomed(s: Session) -> list[str]:
    """Take a snapshot of the collection that `clean` is about to delete. Returns what was done.

    Raises:
        as `take`.
    """
    history = s.run.history
    if history.shadow_id is None or history.dropping is not None:
        return []
    doomed: Collection = s.old.whole if history.last_move == "swap" else s.new
    info = doomed.describe()
    if info is None or not info.count:
        return []
    url = s.manifest.source.url if doomed.store.url == s.open_source.url else s.manifest.target_url
    kept = _keep(s, Subject(doomed.store, without_secrets(url)[0], info.name))
    return [f"what it held is kept in {kept.folder}"]


def _keep(s: Session, subject: Subject) -> Taken:
    folder = folder_of(default_directory(s.manifest.state), subject.collection)
    taken = take(subject, folder, Wanted(), s.progress)
    refused = taken.refused()
    if refused is not None:
        raise refused
    if taken.snapshot is not None:
        s.progress.note(f"backed up {subject.collection}: {taken.snapshot.path}")
    return taken
