"""What happens until a verdict: batches, stages, the shadow, gates."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from reembed.manifest import Layout
from reembed.run.events.event import Count, Event, Figure, RowHash, ShardName, Stage, Stats
from reembed.run.shards import Shard

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


class Foretold(Event):
    """What the plan of the run says that it will take: seconds by stage, tokens, bytes; and how
    large its folder and the store's were then."""

    event = "foretold"
    seconds: dict[str, Figure]
    tokens: Count
    usd: Figure | None = None
    memory_bytes: Count
    state_bytes: Count
    store_bytes: Count = 0
    state_before: Count = 0
    store_before: Count = 0


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
    stats: Stats = Field(default_factory=dict)
    usd: Figure | None = None
    peak_bytes: Count = 0


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


class FillBegun(Event):
    """The shadow of this object id is filled as a whole from now on: nothing of it counts before
    its shards are journalled as loaded."""

    event = "fill-begun"
    id: str


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


class ParkedMended(Event):
    """On a person's word, so many records of the old collection got their exported vectors back."""

    event = "parked-mended"
    records: Count


class ResyncBegun(Event):
    """The shadow, which a rollback left, is about to be made what the shards say again."""

    event = "resync-begun"


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


class VerdictGiven(Event):
    """Every gate was checked, and the verdict written to a file with this hash; `swap` tells what a
    swap may claim, or why none can be made. The run's folder and the store's are so large now."""

    event = "verdict"
    passed: bool
    swap: dict[str, Any] = Field(default_factory=dict)
    sha256: str = ""
    seconds: Figure | None = None
    stats: Stats = Field(default_factory=dict)
    usd: Figure | None = None
    peak_bytes: Count = 0
    state_bytes: Count = 0
    store_bytes: Count = 0


class SliceVerdict(Event):
    """The integrity of one slice, `n/t`, was checked."""

    event = "slice-verdict"
    slice: str
    passed: bool
