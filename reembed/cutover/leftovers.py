"""`clean URL`: remove what a restored or copied database has brought along, without any run.

A dump of a database in which a run was under way brings the run's triggers, logs, notes and leases
with it, and no run directory knows of them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reembed.errors import UsageError
from reembed.stores.registry import open_store
from reembed.stores.values import Leftover


@dataclass(frozen=True)
class Cleaned:
    """What was left in a database.

    Attributes:
        done: False for a dry run, which tells what would be removed.
        leftovers: what was found, in the order in which it is removed.
    """

    url: str
    done: bool
    leftovers: Sequence[Leftover]
    action: str = "clean"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def clean_database(url: str, *, dry_run: bool = True) -> Cleaned:
    """Remove what was copied into a database from one in which a run was under way.

    Raises:
        UsageError: this kind of store keeps nothing that is copied.
        LockedError: others use the tables for too long; call it again.
    """
    store = open_store(url)
    try:
        if store.leftovers is None:
            raise UsageError(
                f"{url}: a copy of a store of this kind holds nothing that runs have left in it",
                "To clean up after a run of your own, name its manifest: `reembed clean MANIFEST`.",
            )
        found = store.leftovers.find() if dry_run else store.leftovers.remove()
        return Cleaned(url, not dry_run, found)
    finally:
        store.close()
