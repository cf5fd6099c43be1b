"""Who belongs to a group: the collections that the manifest names, as they come and go."""

from __future__ import annotations

from collections.abc import Iterable

from reembed.backup.before import begin_run
from reembed.cutover.restart import Standing
from reembed.errors import CollectionNotFoundError, LossError, ReembedError
from reembed.migration.group import planning
from reembed.migration.group.members import (
    FOLDER,
    Member,
    all_taken,
    new_folders,
    own_collections,
    pending,
    taken,
)
from reembed.migration.group.results import TOLD, state_of, together
from reembed.migration.group.session import GroupSession
from reembed.migration.group.stands import stand
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.history import State
from reembed.stages.refusals import existing
from reembed.stores.named import Named, named
from reembed.sync.live_name import astray


class Roster:
    """The members of a group, those that there are and those that there might be.

    Args:
        group: its session.
    """

    def __init__(self, group: GroupSession) -> None:
        self._group = group

    def named(self) -> Named:
        own = own_collections(self._group.run) if self._group.begun else set[str]()
        return named(self._group.source_store, self._group.manifest.source, own)

    def members(self, folders: dict[str, str] | None = None) -> list[Member]:
        found = taken(self._group.run) if folders is None else folders
        made = [Member(name, collection, self._group) for name, collection in found.items()]
        return sorted(made, key=lambda member: member.collection)

    def would_be(self, names: list[str]) -> list[Member]:
        """Members that there are, and those that there would be."""
        there = taken(self._group.run) if self._group.begun else {}
        new = [name for name in names if name not in there.values()]
        return self.members(there | new_folders(new, there))

    def take_in(self, *, begin: bool = True) -> list[str]:
        """Make members of the collections that are named and are none yet. Returns what is to be
        told.

        Args:
            begin: False only looks whether they may.

        Raises:
            PreflightError: some are blocked; they are named. Where there is a run already, that is
                told, and they stay out.
        """
        found = self.named()
        refusal = found.refusal()
        if refusal is not None and not self._group.begun:
            raise refusal
        every = all_taken(self._group.run) if self._group.begun else {}
        there = taken(self._group.run) if self._group.begun else {}
        new = [name for name in found.names if name not in there.values()]
        if not new:
            return []
        folders = new_folders(new, every)
        if self._group.begun:
            folders = {k: v for k, v in folders.items() if self._has_dimension(v)}
            if not folders:
                return []
        plan = planning.make_plan(self._group, self.members(folders))
        messages = []
        if not plan.ok:
            if not self._group.begun:
                raise plan.refusal()
            blocked = {member.collection for member in plan.members if member.blockers}
            messages.append(f"appeared since the run began, and left out: {plan.refusal().message}")
            folders = {k: v for k, v in folders.items() if v not in blocked and not plan.blockers}
        asides = {member.collection for member in plan.members if member.aside}
        folders = {k: v for k, v in folders.items() if v not in asides}
        if not begin:
            return messages
        if self._group.begun and folders:
            messages.append(f"appeared since the run began, and added: {_some(folders.values())}")
        if not self._group.begun:
            begin_run(self._group)
            self._group.check_model()  # one for all of them
        if folders:
            self._group.run.history.record(events.MembersTaken(members=folders))
        return messages

    def told_of_new(self) -> list[str]:
        """Collections that the manifest names and that are no members."""
        there = set(all_taken(self._group.run).values())
        new = [
            name for name in self.named().names if name not in there and self._has_dimension(name)
        ]
        if not new:
            return []
        swapped = group_state(self._group.run) in ("swapped", "cleaned")
        way = (
            "if they hold vectors of the old model, move them with a manifest of another `name`"
            if swapped
            else "`reembed run` adds them"
        )
        return [
            f"{len(new)} collections appeared that are not part of this run ({_some(new)}): {way}"
        ]

    def _has_dimension(self, name: str) -> bool:
        """Whether there is anything about a collection that a new model changes."""
        store = self._group.source_store
        try:
            return store.resolve(name).dimensions is not None
        except CollectionNotFoundError:  # deleted just now
            return False

    def refuse_astray(self) -> None:
        """Raise what is to be told of names that lead to none of the run's collections by now."""
        members, errors = self.members(), dict[str, ReembedError]()
        for member in members:
            with member.session(writes=False) as s:
                lost = astray(s)
            if lost is not None:
                errors[member.collection] = lost
        refusal = together(errors, len(members))
        if refusal is not None:
            raise refusal

    def leave_out_gone(self, accept_loss: bool) -> list[str]:
        """Leave out members whose collection the application has deleted since.

        Raises:
            LossError: all of them are gone, or more than half, and nobody accepted it.
        """
        members, there = self.members(), set(self._group.source_store.catalog.collections())
        gone = [
            member for member in members
            if member.collection not in there
            and (run := member.run_dir) is not None and run.history.last_move is None
            and existing(self._group.source_store, member.collection) is None
        ]  # fmt: skip
        if not gone:
            return []
        names = _some(member.collection for member in gone)
        if len(gone) * 2 > len(members) and not accept_loss:
            raise LossError(
                f"{len(gone)} of {len(members)} collections are gone ({names})",
                "If the application deleted them, say so with --accept-loss; if not, restore them: "
                f"the export shards in {self._group.run.path} hold every record.",
            )
        for member in gone:
            self._group.run.history.record(events.MemberGone(member=member.manifest.name))
        return [f"deleted since the run began, and left out: {names}"]


def group_state(run: RunDir) -> State:
    """How far all members of a group's run came."""
    if run.history.state == "cleaned":
        return "cleaned"
    action = pending(run)
    if action is not None:
        return "swapping" if action == "swap" else "rolling back"
    found: list[State] = []
    for name in taken(run):
        member = stand(run.path / FOLDER / name)
        found.append(member.state if member else "created")
    return state_of(found)


def where_it_stands(run: RunDir) -> Standing:
    """Of a group's run."""
    last = run.history.last(events.TogetherDone)
    return group_state(run), last.action if last else None


def _some(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    found = sorted(names)
    more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return ", ".join(map(repr, found[:TOLD])) + more
