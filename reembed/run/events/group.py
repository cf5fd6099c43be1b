"""What happens to several collections that move together: the journal of the group."""

from __future__ import annotations

from reembed.run.events.event import Action, Event


class MembersTaken(Event):
    """These collections belong to the group from now on: the name of each one's folder in `members`
    to the name of the collection."""

    event = "members-taken"
    members: dict[str, str]


class MemberGone(Event):
    """The application has deleted the collection of this member: it is left out."""

    event = "member-gone"
    member: str


class TogetherBegun(Event):
    """All members are about to move."""

    event = "together-begun"
    action: Action


class TogetherDone(Event):
    """All members have moved, and what follows is done too."""

    event = "together-done"
    action: Action


class TogetherGivenUp(Event):
    """The move could not be done, and those that had moved were moved back; or a way back that had
    moved none was not wanted any more."""

    event = "together-given-up"
    action: Action
    why: str
