"""Where a run stands: every question that a command asks of its journal is answered here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from reembed.run.directory import RunDir, Shard


def pending_move(run: RunDir) -> str | None:
    """`swap` or `rollback` if one was begun and not finished, else None."""
    last = run.last("swap-begun", "swap-done", "rollback-begun", "rollback-done")
    name = last["event"] if last else ""
    return name.removesuffix("-begun") if name.endswith("-begun") else None


def last_move(run: RunDir) -> str | None:
    """`swap` or `rollback`, whichever moved the live name last; None before the first."""
    last = run.last("swap-done", "rollback-done")
    return last["event"].removesuffix("-done") if last else None


def swap_unfinished(run: RunDir) -> bool:
    """Whether the live name has moved and what follows (sweep, hook) is still to be done."""
    last = run.last("swap-begun", "swap-done", "swap-finished", "rollback-begun")
    return last is not None and last["event"] == "swap-done"


def rollback_unfinished(run: RunDir) -> bool:
    """Whether the live name has moved back and what follows (late writes, hook) is to be done."""
    last = run.last("swap-begun", "rollback-begun", "rollback-done", "rollback-finished")
    return last is not None and last["event"] == "rollback-done"


def shadow_was_live(run: RunDir) -> bool:
    """Whether a rollback left the shadow with rows that the run's shards do not know of."""
    last = run.last("swap-done", "rollback-done", "resync-begun")
    return last is not None and last["event"] == "rollback-done"


State = Literal[
    "created", "exported", "embedded", "loaded", "verified", "failed", "swapping", "swapped",
    "rolling back", "rolled back", "cleaning", "cleaned",
]  # fmt: skip


def run_state(run: RunDir) -> State:
    """How far a run came: a fold over its journal."""
    state: State = "created"
    after_stage: dict[str, State] = {"export": "exported", "embed": "embedded", "load": "loaded"}
    after_event: dict[str, State] = {
        "swap-begun": "swapping", "swap-done": "swapped", "rollback-begun": "rolling back",
        "rollback-done": "rolled back", "clean-begun": "cleaning", "cleaned": "cleaned",
    }  # fmt: skip
    for event in run.events():
        if event["event"] == "stage-done":
            if event["stage"] == "load" or state in ("created", "exported", "embedded"):
                state = after_stage[event["stage"]]  # export and embed alone undo no later stage
        elif event["event"] == "verdict":
            if state != "swapped":
                state = "verified" if event["passed"] else "failed"
        else:
            state = after_event.get(event["event"], state)
    return state


def shadow_id(run: RunDir) -> str | None:
    """The object id of the run's shadow, None before it is made."""
    event = run.last("shadow-created")
    return None if event is None else str(event["id"])


def compared_until(run: RunDir) -> str | None:
    """The watermark at which the source and the ledger were last known to agree; None to compare
    everything."""
    event = run.last("census", "caught-up", "recheck")
    return event["watermark"] if event else None


def foreign_stems(run: RunDir) -> set[str]:
    """Shards whose records the source need not hold, such as those of an intruder."""
    return {stem for stem, shard in run.shards("export").items() if shard.foreign}


def not_loaded(run: RunDir, embed_shards: Mapping[str, Shard]) -> list[Shard]:
    """The embed shards that are not journalled as loaded, in order."""
    loaded = {event["stem"]: event["sha256"] for event in run.events("loaded")}
    return [shard for shard in embed_shards.values() if loaded.get(shard.stem) != shard.sha256]


def displaced_back(run: RunDir) -> list[str]:
    """Ids of records that a way back which has not come to its end has displaced."""
    ids: dict[str, None] = {}
    for event in run.events("displaced-back", "carry-done", "resync-begun"):
        if event["event"] == "displaced-back":
            ids |= dict.fromkeys(event["ids"])
        else:
            ids.clear()
    return list(ids)


def written_back(run: RunDir) -> set[str]:
    """Ids of records of the old collection that ways back have written or deleted since the swap.
    One that did not come to its end leaves them otherwise than the application did."""
    ids = set[str]()
    for event in run.events("carrying-back", "displaced-back", "swap-done"):
        if event["event"] == "swap-done":
            ids.clear()
        else:
            ids.update(event["ids"])
    return ids


def dropping(run: RunDir) -> str | None:
    """Object id of the collection that a killed call was deleting, None if there is none."""
    last = run.last("clean-begun", "cleaned")
    return str(last["id"]) if last is not None and last["event"] == "clean-begun" else None


def parked_name(live: str, run_id: str) -> str:
    """The old collection's name after a swap: `<live>__parked-<run id>`."""
    return f"{live}__parked-{run_id}"
