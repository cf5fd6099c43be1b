"""What happens from the move of the live name on: there, back, and the end."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from reembed.manifest import SwapKind
from reembed.run.events.event import Action, Count, Event, Hook

# The move, and back


class WritesHeld(Event):
    """Writers to the live name are about to be made to wait."""

    event = "writes-held"


class WritesReleased(Event):
    """They go on."""

    event = "writes-released"


class MoveBegun(Event):
    """The live name is about to move; `exchange` is an `Exchange`."""

    action: ClassVar[Action]
    kind: SwapKind
    exchange: dict[str, Any]


class MoveDone(Event):
    """It has moved; `receipt` is a `Receipt`."""

    action: ClassVar[Action]
    receipt: dict[str, Any]
    exchange: dict[str, Any] = Field(default_factory=dict)


class SwapBegun(MoveBegun):
    """A swap, see `MoveBegun`."""

    event = "swap-begun"
    action = "swap"


class SwapDone(MoveDone):
    """A swap, see `MoveDone`."""

    event = "swap-done"
    action = "swap"


class SwapFinished(Event):
    """What follows the move (sweep, hook) is done too."""

    event = "swap-finished"
    swept: Count = 0


class SwapWithdrawn(Event):
    """A swap that was begun moved nothing, and is not to be finished."""

    event = "swap-withdrawn"


class RollbackWithdrawn(Event):
    """A rollback that was begun moved nothing, and is not to be finished."""

    event = "rollback-withdrawn"


class HookBegun(Event):
    """A hook of a move is about to start. What it did is not known until it has ended."""

    event = "hook-begun"
    hook: Hook
    action: Action


class HookDone(Event):
    """A hook has ended.

    Attributes:
        ok: whether it ended with 0; None where the call that began it was killed.
    """

    event = "hook-done"
    hook: Hook
    action: Action
    ok: bool | None = None


class RollbackBegun(MoveBegun):
    """A rollback, see `MoveBegun`."""

    event = "rollback-begun"
    action = "rollback"


class RollbackDone(MoveDone):
    """A rollback, see `MoveDone`."""

    event = "rollback-done"
    action = "rollback"


class RollbackFinished(Event):
    """What follows the move back (late writes, hook) is done too."""

    event = "rollback-finished"
    carried: Count = 0


class CarryBegun(Event):
    """So many records are about to be written to and deleted from the old collection."""

    event = "carry-begun"
    changed: Count
    deleted: Count


class CarryingBack(Event):
    """Those records, by id."""

    event = "carrying-back"
    ids: tuple[str, ...]


class DisplacedBack(Event):
    """These records of the old collection are about to make room, and to be written again."""

    event = "displaced-back"
    ids: tuple[str, ...]


class CarryDone(Event):
    """A way back came to its end."""

    event = "carry-done"
    carried: Count


# A job that follows a corpus


class FollowBegun(Event):
    """So many records of the corpus differ from what the live collection was given, and are about
    to be carried into it."""

    event = "follow-begun"
    added: Count
    changed: Count
    deleted: Count


class ReplacedKept(Event):
    """What the live collection holds of the records of a delta that is about to be loaded is in a
    file with this hash; `absent` are those that it does not have."""

    event = "replaced-kept"
    stem: str
    sha256: str
    absent: tuple[str, ...] = ()


class Followed(Event):
    """The live collection has what the corpus has: these deltas were loaded and checked. `undone`
    says that they took an earlier call back."""

    event = "followed"
    stems: tuple[str, ...] = ()
    added: Count = 0
    changed: Count = 0
    deleted: Count = 0
    foreign: Count = 0
    undone: bool = False


# The end


class CleanChecked(Event):
    """The live collection was looked at before the other one is deleted: of its records so many are
    gone or changed in the live one, and so many were never there."""

    event = "clean-checked"
    id: str
    live: str
    records: Count
    gone: Count
    changed: Count
    only_here: Count


class CleanBegun(Event):
    """The collection with this object id is about to be deleted."""

    event = "clean-begun"
    id: str


class Cleaned(Event):
    """It is gone; `what` tells which, in words."""

    event = "cleaned"
    what: str


BEGUN: dict[Action, type[MoveBegun]] = {"swap": SwapBegun, "rollback": RollbackBegun}
DONE: dict[Action, type[MoveDone]] = {"swap": SwapDone, "rollback": RollbackDone}
