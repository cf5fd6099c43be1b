"""Who belongs to a group: the collections that the manifest names, as they come and go."""

from __future__ import annotations

from collections.abc import Iterable

from reembed.backup.before import begin_run
from reembed.cutover.restart import Standing
from reembed.errors import CollectionNotFoundError, LossError, ReembedError, SourceChangedError
from reembed.migration.group import planning
from reembed.migration.group.alike import some, together
from reembed.migration.group.members import (
    FOLDER,
    Member,
    all_taken,
    new_folders,
    own_collections,
    own_ids,
    pending,
    taken,
)
from reembed.migration.group.moving import noted
from reembed.migration.group.results import GroupPlan, state_of
from reembed.migration.group.session import GroupSession
from reembed.migration.group.stands import stand
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.history import State
from reembed.stores.named import Named, named
from reembed.stores.values import CollectionInfo
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

    def plan(self) -> GroupPlan:
        """The plan of the members that there are, and of those that there would be.

        Raises:
            PreflightError: the manifest names nothing, or what is not there.
        """
        found = self.named()
        refusal = found.refusal()
        if refusal is not None:
            raise refusal
        there, own, gone = dict[str, str](), set[str](), set[str]()
        if self._group.begun:
            there, own = taken(self._group.run), own_ids(self._group.run)
            gone = {member.collection for member in self.gone()}
        new = [
            name
            for name in found.names
            if name not in there.values() and not self._is_own(name, own)
        ]
        return planning.make_plan(self._group, self.members(there | new_folders(new, there)), gone)

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
            left = {name: one for name, one in every.items() if name not in there and one in new}
            for member in self.members(left) if begin else ():  # left out, and made anew since
                if member.run_dir is not None:
                    member.clean()
            own = own_ids(self._group.run)
            folders = {k: v for k, v in folders.items() if self._has_dimension(v, own)}
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
        there, own = set(all_taken(self._group.run).values()), own_ids(self._group.run)
        names = self.named().names
        new = [name for name in names if name not in there and self._has_dimension(name, own)]
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

    def _has_dimension(self, name: str, own: set[str]) -> bool:
        """Whether there is anything about a collection of others that a new model changes."""
        found = self._find(name)
        return found is not None and found.dimensions is not None and found.id not in own

    def _is_own(self, name: str, own: set[str]) -> bool:
        """Whether it is one of the run's own collections, which somebody has renamed."""
        found = self._find(name) if own else None
        return found is not None and found.id in own

    def _find(self, name: str) -> CollectionInfo | None:
        try:
            return self._group.source_store.resolve(name)
        except (CollectionNotFoundError, SourceChangedError):  # deleted, or what it points to
            return None

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

    def gone(self, *, renamed: bool = False) -> list[Member]:
        """Members whose collection the application has deleted since, so that nothing of theirs is
        left to be moved, there or back.

        Args:
            renamed: whether those are meant too whose collection has another name now.
        """
        there = set(self._group.source_store.catalog.collections())
        return [
            member for member in self.members()
            if member.collection not in there and self._find(member.collection) is None
            and _is_gone(member, renamed)
        ]  # fmt: skip

    def leave_out_gone(self, accept_loss: bool, *, renamed: bool = False) -> list[str]:
        """Leave out the members that are gone. Returns what is to be told.

        Raises:
            LossError: all of them are gone, or more than half, and nobody accepted it.
        """
        members, gone = self.members(), self.gone(renamed=renamed)
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

    def begin_again(self, accept_loss: bool) -> list[str]:
        """Give up the runs of members whose collections the application has made anew, so that
        others begin. Returns what is to be told.

        Raises:
            LossError: new collections are the last to hold most records; all of them are named.
        """
        members, errors = self.members(), dict[str, ReembedError]()
        with self._group.looking():
            anew = [member for member in members if member.is_made_anew()]
        for member in anew:
            with noted(errors, member.collection):
                member.clean(accept_loss=accept_loss)
        refusal = together(errors, len(members))
        if refusal is not None:
            raise refusal
        names = _some(member.collection for member in anew)
        return [f"made anew since the run began, and begun again: {names}"] if anew else []

    def told_of_gone(self) -> tuple[set[str], list[str]]:
        """Collections that the next call leaves out, and what is to be told of them."""
        gone = {member.collection for member in self.gone()}
        told = f"deleted since the run began: {_some(gone)}; the next run or swap leaves them out"
        return gone, [told] if gone else []

    def end_cleaned(self) -> None:
        """Journal the end of the group's run, if that of every member has come to its end."""
        run = self._group.run
        if group_state(run) != "cleaned" or run.history.state == "cleaned":
            return
        last = run.history.last(events.TogetherDone)
        what = "given up: the new collections are deleted"
        if last is not None and last.action == "swap":
            what = "the collections that are not live are deleted"
        run.history.record(events.Cleaned(what=what))


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


def _is_gone(member: Member, renamed: bool) -> bool:
    """Of a member whose name serves no collection, whether there is nothing to give the name to."""
    run = member.run_dir
    if run is None or run.history.census is None:
        return True
    history = run.history
    if history.pending_move is not None:
        return False
    with member.session(writes=False) as s:
        if history.last_move == "swap":
            return s.old.describe() is None and s.new.describe() is None
        return renamed or s.old.describe() is None


def where_it_stands(run: RunDir) -> Standing:
    """Of a group's run."""
    last = run.history.last(events.TogetherDone)
    return group_state(run), last.action if last else None


def _some(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    return some(map(repr, sorted(names)))
