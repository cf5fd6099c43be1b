"""The members of a group: each a migration of its own, with the group's connections and models."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from reembed.migration.group.session import GroupSession, MemberSession
from reembed.migration.group.stands import Stand, remembered, stand
from reembed.migration.migration import Migration
from reembed.progress import Counter, Forwarded, Progress
from reembed.report.results import SwapResult
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import named_errors
from reembed.run.events import Action
from reembed.stages.session import Session
from reembed.sync.live_name import made_anew

FOLDER = "members"
"""Of a group's run directory: holds `<member>/<run id>/`, each a run directory like every other."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 60


class Member(Migration):
    """One collection of a group.

    Args:
        name: of its folder.
        shared: the group's session.
    """

    def __init__(self, name: str, collection: str, shared: GroupSession) -> None:
        state = shared.run.path / FOLDER if shared.begun else shared.manifest.state_dir / FOLDER
        manifest = shared.manifest.member(collection, name, state)
        super().__init__(manifest, MemberProgress(shared.progress, collection))
        self.collection = collection
        self.shared = shared

    def clean(
        self, *, dry_run: bool = False, accept_loss: bool = False, backup: bool = False
    ) -> SwapResult:
        """See `Migration.clean`. Of one that was left out the new collection holds the last records
        because the application has deleted its own."""
        gone = self.manifest.name not in taken(self.shared.run)
        return super().clean(dry_run=dry_run, accept_loss=accept_loss or gone, backup=backup)

    def is_made_anew(self) -> bool:
        """Whether the application has deleted its collection and made it anew before the name
        moved, so that the run has to begin again."""
        run = self.run_dir
        if run is None or run.history.pending_move or run.history.state == "cleaned":
            return False
        with self.session(writes=False) as s:
            return made_anew(s)

    @property
    def run_dir(self) -> RunDir | None:
        """Its newest run."""
        return self._latest()

    def _latest(self) -> RunDir | None:
        run = super()._latest()
        remembered(run)
        return run

    @contextlib.contextmanager
    def _lease(self) -> Iterator[None]:
        with named_errors():  # the group has the lock
            yield

    def _refuse_blocked(self, s: Session) -> None:
        """The group has planned it."""

    def session(self, *, writes: bool = True, accept_loss: bool = False) -> MemberSession:
        """What one step of a common move has open."""
        return self._session(self._require_run(cleaning=True), writes=writes,
                             accept_loss=accept_loss)  # fmt: skip

    def _session(
        self, run: RunDir | None, *, writes: bool = True, accept_loss: bool = False
    ) -> MemberSession:
        self.shared.begin_member()
        return MemberSession(
            self.manifest, run, self.progress, writes=writes, accept_loss=accept_loss,
            shared=self.shared,
        )  # fmt: skip


class MemberProgress(Forwarded):
    """Stages and notes with the collection's name."""

    def __init__(self, progress: Progress, collection: str) -> None:
        super().__init__(progress)
        self._collection = collection

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator[Counter]:
        with self._progress.stage(f"{self._collection}: {name}", total, done) as counter:
            yield counter

    def note(self, message: str) -> None:
        self._progress.note(f"{self._collection}: {message}")


def taken(run: RunDir) -> dict[str, str]:
    """Name of its folder to collection, of every member that is not gone."""
    found: dict[str, str] = {}
    for event in run.history.all(events.MembersTaken, events.MemberGone):
        if isinstance(event, events.MembersTaken):
            found |= event.members
        else:
            found.pop(event.member, None)
    return found


def all_taken(run: RunDir) -> dict[str, str]:
    """Name of its folder to collection, of every member there ever was."""
    return {
        k: v for event in run.history.all(events.MembersTaken) for k, v in event.members.items()
    }


def new_folders(collections: Iterable[str], used: Iterable[str]) -> dict[str, str]:
    """A folder's name for each collection, unlike those in use on every file system."""
    folders = {name.lower() for name in used}
    found: dict[str, str] = {}
    for collection in collections:
        clean = _UNSAFE.sub("-", collection)[:_LONGEST].strip("-.") or "collection"
        name, number = clean, 1
        while name.lower() in folders:
            number += 1
            name = f"{clean}-{number}"
        folders.add(name.lower())
        found[name] = collection
    return found


def pending(run: RunDir) -> Action | None:
    """The common move that was begun and has not come to its end."""
    last = run.history.last(events.TogetherBegun, events.TogetherDone, events.TogetherGivenUp)
    return last.action if isinstance(last, events.TogetherBegun) else None


def own_collections(run: RunDir) -> set[str]:
    """Names that collections of this group's runs were made with."""
    return {name for member in _stands(run) for name in member.made}


def own_ids(run: RunDir) -> set[str]:
    """Object ids of collections of this group's runs, whatever they are named by now."""
    return {id for member in _stands(run) for id in member.own}


def _stands(run: RunDir) -> list[Stand]:
    found = [stand(run.path / FOLDER / name) for name in all_taken(run)]
    return [one for one in found if one is not None]
