"""Every event that a run's journal can hold, each with what it tells.

An event is written as `run.history.write(events.Loaded(...))` and read as `run.history.all(...)` or
`last(...)` of its class, or by a question in `history.py`: a search for the class finds who writes
it and who reads it. To add one, add a class: `EVENTS` finds it. Its name and its fields are what
stands in the file, and runs outlive versions: neither is ever renamed, and a field that comes later
has a default.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from reembed.manifest import Layout, SwapKind
from reembed.run.shards import Shard

LARGEST = 2**53
"""JSON readers agree on whole numbers up to here; no figure of a run comes near."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: what comes later has no date."""

Action = Literal["swap", "rollback"]
Hook = Literal["before", "after"]
Stage = Literal["export", "embed", "load"]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Figure = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Moment = Annotated[float, Field(allow_inf_nan=False, ge=0, le=LAST_SECOND)]
Stats = dict[str, Count | Figure]
ShardName = Annotated[str, Field(pattern=r"^[\w-]+/[\w-]+\.parquet$")]
RowHash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Event(BaseModel):
    """One line of the journal.

    Attributes:
        t: when it was written, seconds since the epoch: for people; the order is that of the lines.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    event: ClassVar[str] = ""
    t: Moment = 0.0

    def fields(self) -> dict[str, Any]:
        """What stands in the line, but for the time and the name."""
        return self.model_dump(exclude={"t"})


# Batches of a provider's batch API


class BatchIntended(Event):
    """A batch with this label is about to be made of so many texts."""

    event = "batch-intended"
    label: str
    texts: Count
    tokens: Count


class BatchSubmitted(Event):
    """The provider has it, under this id."""

    event = "batch-submitted"
    label: str
    id: str


class BatchCollected(Event):
    """It has ended, and what it brought is in the cache of vectors: so many texts `kept`; so many
    `failed`, which go out singly."""

    event = "batch-collected"
    label: str
    said: str
    kept: Count
    failed: Count


# Stages


class RunCreated(Event):
    """A run begins. `identity` is what may not change in its manifest."""

    event = "run-created"
    run: str
    identity: dict[str, Any]


class Census(Event):
    """The ids are listed, in a file with this hash. `source` is a `CollectionInfo`; `layout` says
    what is embedded of a record, which before there was a choice was the document."""

    event = "census"
    rows: Count
    watermark: str | None
    source: dict[str, Any]
    sha256: str
    layout: Layout = "plain"


class ShardWritten(Event):
    """A shard is on disk, for the first time or again; see `Shard` for its fields."""

    event = "shard"
    stage: str
    name: ShardName
    rows: Count
    sha256: str
    source: str
    deleted: tuple[str, ...]
    foreign: bool = False
    missing: tuple[tuple[str, RowHash, bool], ...] = ()

    @property
    def shard(self) -> Shard:
        return Shard(
            self.name, self.rows, self.sha256, self.source, self.deleted, self.foreign, self.missing
        )


class StageDone(Event):
    """A stage came to its end, with what this call spent on it."""

    event = "stage-done"
    stage: Stage
    seconds: Figure
    stats: Stats = {}
    usd: Figure | None = None


class FingerprintTaken(Event):
    """What the new model is, as `Fingerprint.to_dict` has it."""

    event = "fingerprint"
    fingerprint: dict[str, Any]


class BudgetReached(Event):
    """A call stopped at a cap: what is spent, and the tokens that the step would have taken."""

    event = "budget-reached"
    tokens: Count
    usd: Figure
    needed: Count


class ShadowIntended(Event):
    """A collection of this name is about to be made."""

    event = "shadow-intent"
    name: str


class ShadowCreated(Event):
    """The shadow is made; from now on it is known by its object id. `function` is the manifest's
    choice of the embedding function that is kept with it; versions that had none leave it empty."""

    event = "shadow-created"
    id: str
    name: str
    function: str = ""


class Loaded(Event):
    """The embed shard with this hash is in the shadow."""

    event = "loaded"
    stem: str
    sha256: str


class Displaced(Event):
    """These records are about to be deleted from the shadow, to make room for what the shard says
    (`stem`, empty where it is none)."""

    event = "displaced"
    stem: str
    ids: tuple[str, ...]


class CaughtUp(Event):
    """Source and ledger agreed at this watermark."""

    event = "caught-up"
    watermark: str | None
    carried: Count = 0


class Recheck(Event):
    """Nothing is known of when source and ledger agreed: everything is to be compared."""

    event = "recheck"
    watermark: None = None


class ResyncDone(Event):
    """It is that now: what is written to it from here on is somebody else's."""

    event = "resync-done"


class LossAccepted(Event):
    """Somebody said that a mass of records may go: so many of so many, and what is left."""

    event = "loss-accepted"
    collection: str
    had: Count
    lost: Count
    left: Count


class ShadowMended(Event):
    """Before the move the shadow was not what the shards say, and was made so; in words."""

    event = "shadow-mended"
    what: tuple[str, ...]


class ShadowOverwritten(Event):
    """Somebody accepted that what others wrote to the shadow goes: so many records."""

    event = "shadow-overwritten"
    records: Count


class ResyncBegun(Event):
    """The shadow, which a rollback left, is about to be made what the shards say again."""

    event = "resync-begun"


class VerdictGiven(Event):
    """Every gate was checked, and the verdict written to a file with this hash; `swap` tells what a
    swap may claim, or why none can be made."""

    event = "verdict"
    passed: bool
    swap: dict[str, Any] = {}
    sha256: str = ""
    seconds: Figure | None = None
    stats: Stats = {}
    usd: Figure | None = None


class SliceVerdict(Event):
    """The integrity of one slice, `n/t`, was checked."""

    event = "slice-verdict"
    slice: str
    passed: bool


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
    exchange: dict[str, Any] = {}


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


def _classes(base: type[Event]) -> dict[str, type[Event]]:
    found = {base.event: base} if base.event else {}
    for kind in base.__subclasses__():
        found |= _classes(kind)
    return found


EVENTS = _classes(Event)
"""Every event by its name in the journal."""
BEGUN: dict[Action, type[MoveBegun]] = {"swap": SwapBegun, "rollback": RollbackBegun}
DONE: dict[Action, type[MoveDone]] = {"swap": SwapDone, "rollback": RollbackDone}
