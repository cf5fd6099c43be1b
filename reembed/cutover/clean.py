"""`clean`: delete the collection that is not live, by object id, after a check.

A store may delete a collection record by record, and go on with it when this process is gone. So
the intent is journalled first: from then on what the collection lacks is nobody's deletion, nothing
is compared with it any more, and only `clean` goes on with the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from reembed.errors import PreflightError, SourceChangedError
from reembed.run.directory import RunDir
from reembed.run.ledger import Ledger
from reembed.stages.refusals import leads_to
from reembed.stores.store import Store
from reembed.sync.difference import find_late, without_conflicts


def dropping(run: RunDir) -> str | None:
    """Object id of the collection that a killed call was deleting, None if there is none."""
    last = run.last("clean-begun", "cleaned")
    return str(last["id"]) if last is not None and last["event"] == "clean-begun" else None


def drop_old(
    store: Store, run: RunDir, parked_id: str, live_id: str, live: str, ledger: Ledger,
    where: Mapping[str, Any] | str | None, keep_seconds: int,
) -> str:  # fmt: skip
    """Delete the parked collection of a swap. Returns what was done, in words.

    Raises:
        PreflightError: it is kept for longer, or holds late writes.
        SourceChangedError: the live name leads somewhere else.
    """
    begun = dropping(run) == parked_id
    due = run.events("swap-done")[-1]["t"] + keep_seconds
    if time.time() < due and not begun:
        raise PreflightError(
            f"the old collection is kept until {time.strftime('%F %T', time.localtime(due))} "
            "(swap.keep_old)",
            "Run clean after that, or set swap.keep_old lower; 0d gives up the way back now.",
        )
    if store.resolve(live).id != live_id:
        raise SourceChangedError(
            f"{live!r} no longer leads to the collection that this run swapped in",
            "Another swap has happened since; nothing was deleted.",
        )
    if not begun and store.describe_id(parked_id) is not None:
        found = find_late(store, parked_id, where, run, ledger)
        late, _ = without_conflicts(store, live_id, found, ledger)
        if late:
            raise PreflightError(
                f"the old collection holds {len(late):,} late writes that the live one lacks",
                "Carry them over with `reembed sweep` first.",
            )
    _drop(store, run, parked_id)
    return "the old collection is deleted"


def drop_shadow(store: Store, run: RunDir, shadow_id: str, live: str | None) -> str:
    """Delete the shadow of a run that is not swapped. Returns what was done, in words.

    Args:
        live: the live name, None where it is in another store.

    Raises:
        SourceChangedError: the live name leads to it.
    """
    if live is not None and leads_to(store, live, shadow_id):
        raise SourceChangedError(
            f"{live!r} leads to the shadow, though this run did not swap it",
            "Nothing was deleted; look at the store.",
        )
    _drop(store, run, shadow_id)
    return "the shadow is deleted; the live collection is untouched"


def _drop(store: Store, run: RunDir, id: str) -> None:
    if dropping(run) != id:
        run.journal.append("clean-begun", id=id)
    store.drop(id)
