"""Where a run stands: every question that a command asks of its journal is answered here.

The journal is parsed once, line by line into the classes of `events/`; what this process writes,
and what another one wrote before it gave up the state lock, is taken in when next asked.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError

from reembed.errors import DamagedError, PreflightError
from reembed.run import events
from reembed.run.events import Action, Event
from reembed.run.journal import Journal
from reembed.run.shards import Shard

A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)
Value = TypeVar("Value")

State = Literal[
    "created", "exported", "embedded", "loaded", "verified", "failed", "swapping", "swapped",
    "rolling back", "rolled back", "cleaning", "cleaned",
    "name lost",  # told by `status` alone: the live name leads to neither collection
]  # fmt: skip

_AFTER_STAGE: dict[str, State] = {"export": "exported", "embed": "embedded", "load": "loaded"}
_AFTER: dict[type[Event], State] = {
    events.SwapBegun: "swapping", events.SwapDone: "swapped",
    events.RollbackBegun: "rolling back", events.RollbackDone: "rolled back",
    events.RollbackWithdrawn: "swapped",
    events.CleanBegun: "cleaning", events.Cleaned: "cleaned",
}  # fmt: skip


class History:
    """The events of one run, and what follows from them.

    Every question raises DamagedError where a line of the journal is damaged, and PreflightError
    where a newer version of reembed wrote one.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._lock = threading.Lock()
        self._read: list[Event] = []

    def record(self, event: Event) -> None:
        """Append an event to the journal and wait until it is on disk."""
        self.journal.append(event.event, **event.fields())

    def read(self) -> list[Event]:
        """All events, oldest first."""
        with self._lock:
            lines = self.journal.read()
            if len(lines) < len(self._read):  # another file by now
                self._read = []
            for line in lines[len(self._read) :]:
                self._read.append(self._event(len(self._read) + 1, line))
            return list(self._read)

    def _event(self, number: int, line: dict[str, Any]) -> Event:
        kind = events.EVENTS.get(line["event"])
        if kind is None:
            raise PreflightError(
                f"{self.journal.path}: line {number} holds {line['event']!r}, which this version "
                "of reembed does not know",
                "If a newer version has worked on this run, go on with that one. If none has, the "
                "file is damaged: put it back from a backup.",
            )
        try:
            return kind.model_validate(line)
        except ValidationError as error:
            raise self.journal.damaged(number, _first(error)) from None

    @overload
    def all(self, kind: type[A], /) -> list[A]: ...
    @overload
    def all(self, kind: type[A], other: type[B], /) -> list[A | B]: ...
    @overload
    def all(self, kind: type[A], other: type[B], third: type[C], /) -> list[A | B | C]: ...

    def all(self, *kinds: type[Event]) -> Sequence[Event]:
        """The events of these kinds, oldest first."""
        return [event for event in self.read() if isinstance(event, kinds)]

    @overload
    def last(self, kind: type[A], /) -> A | None: ...
    @overload
    def last(self, kind: type[A], other: type[B], /) -> A | B | None: ...
    @overload
    def last(self, kind: type[A], other: type[B], third: type[C], /) -> A | B | C | None: ...
    @overload
    def last(self, *kinds: type[Event]) -> Event | None: ...

    def last(self, *kinds: type[Event]) -> Event | None:
        """The newest event of these kinds."""
        return next((event for event in reversed(self.read()) if isinstance(event, kinds)), None)

    def require(self, kind: type[A]) -> A:
        """The newest event of a kind that the journal must hold by now."""
        found = self.last(kind)
        if found is None:
            raise DamagedError(
                f"{self.journal.path}: there is no {kind.event!r} in it, and there must be one",
                "Lines of it are gone: put it back from a backup.",
            )
        return found

    def value(self, kind: type[Value], data: Mapping[str, Any], what: str) -> Value:
        """What an event holds as a mapping, as the dataclass that it was made from.

        Args:
            what: names it in the error.
        """
        try:
            found: Value = _adapter(cast("Any", kind)).validate_python({**data})
        except ValidationError as error:
            raise DamagedError(
                f"{self.journal.path}: {what} is damaged: {_first(error)}",
                "The disk or another program changed it: put it back from a backup.",
            ) from None
        return found

    # How far it came

    @property
    def created(self) -> events.RunCreated:
        """How the run began."""
        return self.require(events.RunCreated)

    @property
    def state(self) -> State:
        """How far the run came."""
        state: State = "created"
        back = False
        for event in self.read():
            if isinstance(event, events.MoveDone | events.ResyncBegun):
                back = isinstance(event, events.RollbackDone)
            if isinstance(event, events.StageDone):
                if event.stage == "load" or state in ("created", "exported", "embedded"):
                    state = _AFTER_STAGE[event.stage]  # export and embed alone undo no later stage
            elif isinstance(event, events.VerdictGiven):
                if state != "swapped":
                    state = "verified" if event.passed else "failed"
            elif isinstance(event, events.SwapWithdrawn):
                state = "rolled back" if back else "verified"
            else:
                state = _AFTER.get(type(event), state)
        return state

    @property
    def census(self) -> events.Census | None:
        """The newest list of the source's ids."""
        return self.last(events.Census)

    def shards(self, stage: str) -> dict[str, Shard]:
        """The journalled shards of a stage by stem, in the order of their first writing."""
        written = (event for event in self.all(events.ShardWritten) if event.stage == stage)
        return {event.shard.stem: event.shard for event in written}

    @property
    def foreign_stems(self) -> set[str]:
        """Shards whose records the source need not hold, such as those of an intruder."""
        return {stem for stem, shard in self.shards("export").items() if shard.foreign}

    @property
    def loaded_stems(self) -> set[str]:
        """Shards that were loaded at least once."""
        return {event.stem for event in self.all(events.Loaded)}

    def not_loaded(self, embed_shards: Mapping[str, Shard]) -> list[Shard]:
        """The embed shards that are not journalled as loaded, in order."""
        loaded = {event.stem: event.sha256 for event in self.all(events.Loaded)}
        return [shard for shard in embed_shards.values() if loaded.get(shard.stem) != shard.sha256]

    @property
    def shadow_id(self) -> str | None:
        """The object id of the shadow, None before it is made."""
        made = self.last(events.ShadowCreated)
        return made.id if made else None

    @property
    def shadow_name(self) -> str:
        """The name that the shadow was made with."""
        return self.require(events.ShadowCreated).name

    @property
    def compared_until(self) -> str | None:
        """The watermark at which the source and the ledger were last known to agree; None to
        compare everything."""
        last = self.last(events.Census, events.CaughtUp, events.Recheck)
        return last.watermark if last else None

    @property
    def most_records(self) -> int:
        """The most records that the source had since the run began, or since somebody accepted a
        loss. What goes a little at a time is held against this."""
        most = 0
        for event in self.all(events.Census, events.LossAccepted):
            most = max(most, event.rows) if isinstance(event, events.Census) else event.left
        return most

    # Moves of the live name

    @property
    def pending_move(self) -> Action | None:
        """`swap` or `rollback` if one was begun and not finished, else None."""
        last = self.last(
            events.MoveBegun, events.MoveDone, events.SwapWithdrawn, events.RollbackWithdrawn
        )
        return last.action if isinstance(last, events.MoveBegun) else None

    @property
    def last_move(self) -> Action | None:
        """`swap` or `rollback`, whichever moved the live name last; None before the first."""
        last = self.last(events.MoveDone)
        return last.action if last else None

    @property
    def moved_live(self) -> str | None:
        """The live name that a swap moves or has moved; None before it and after the way back."""
        begun = self.last(events.SwapBegun, events.RollbackDone, events.SwapWithdrawn)
        return begun.exchange.get("live") if isinstance(begun, events.SwapBegun) else None

    @property
    def is_done(self) -> bool:
        """Whether the run has nothing left to do."""
        moving = self.pending_move or self.swap_unfinished
        return not moving and self.state in ("swapped", "cleaned")

    @property
    def swap_unfinished(self) -> bool:
        """Whether the live name has moved and what follows (sweep, hook) is still to be done."""
        last = self.last(
            events.SwapBegun, events.SwapDone, events.SwapFinished, events.RollbackDone
        )
        return isinstance(last, events.SwapDone) and self.pending_move != "rollback"

    @property
    def swap_tried(self) -> bool:
        """Whether a swap was tried that has not moved the live name, and what it prepared, or its
        hook has stopped, is still to be undone."""
        last = self.last(
            events.HookBegun, events.WritesHeld, events.SwapFinished, events.RollbackFinished
        )
        tried = isinstance(last, events.HookBegun | events.WritesHeld)
        moved = self.last_move == "swap" or self.rollback_unfinished
        return tried and not moved and self.state != "cleaned"

    @property
    def rollback_unfinished(self) -> bool:
        """Whether the live name has moved back and what follows (late writes, hook) is to be
        done."""
        last = self.last(
            events.SwapBegun, events.RollbackBegun, events.RollbackDone, events.RollbackFinished
        )
        return isinstance(last, events.RollbackDone)

    @property
    def writes_held(self) -> bool:
        """Whether writers to the live name may still be made to wait."""
        return isinstance(self.last(events.WritesHeld, events.WritesReleased), events.WritesHeld)

    @property
    def shadow_was_live(self) -> bool:
        """Whether a rollback left the shadow with rows that the run's shards do not know of."""
        last = self.last(events.SwapDone, events.RollbackDone, events.ResyncBegun)
        return isinstance(last, events.RollbackDone)

    @property
    def resync_due(self) -> bool:
        """Whether the shadow, which was live before a rollback, is still to be made what the shards
        say. Once that is done, what is written to it is somebody's, and not to be undone unseen."""
        last = self.last(
            events.SwapDone, events.RollbackDone, events.ResyncBegun, events.ResyncDone
        )
        return isinstance(last, events.RollbackDone | events.ResyncBegun)

    @property
    def carry_interrupted(self) -> bool:
        """Whether a way back was begun and did not come to its end."""
        return isinstance(self.last(events.CarryBegun, events.CarryDone), events.CarryBegun)

    @property
    def displaced_back(self) -> list[str]:
        """Ids of records that a way back which has not come to its end has displaced."""
        ids: dict[str, None] = {}
        for event in self.all(events.DisplacedBack, events.CarryDone, events.ResyncBegun):
            if isinstance(event, events.DisplacedBack):
                ids |= dict.fromkeys(event.ids)
            else:
                ids.clear()
        return list(ids)

    @property
    def written_back(self) -> set[str]:
        """Ids of records of the old collection that ways back have written or deleted since the
        swap. One that did not come to its end leaves them otherwise than the application did."""
        ids = set[str]()
        for event in self.all(events.CarryingBack, events.DisplacedBack, events.SwapDone):
            if isinstance(event, events.SwapDone):
                ids.clear()
            else:
                ids.update(event.ids)
        return ids

    @property
    def records_before_clean(self) -> int:
        """The most records that the collection had which `clean` is about to delete, when it
        looked; 0 if it has not."""
        most = 0
        for event in self.all(events.CleanChecked, events.MoveDone):
            most = max(most, event.records) if isinstance(event, events.CleanChecked) else 0
        return most

    @property
    def dropping(self) -> str | None:
        """Object id of the collection that a killed call was deleting, None if there is none."""
        last = self.last(events.CleanBegun, events.Cleaned)
        return last.id if isinstance(last, events.CleanBegun) else None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first(error: ValidationError) -> str:
    """Which value is wrong, and how."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
