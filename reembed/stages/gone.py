"""What helps where a collection of a run is gone or cannot be read: it depends on whose it is."""

from __future__ import annotations

from reembed.errors import (
    CollectionGoneError,
    CollectionNotFoundError,
    DamagedStoreError,
    SourceChangedError,
)
from reembed.run.directory import RunDir

BUILD_ANEW = (
    "This is the new collection of the run. `reembed run --restart` deletes it and builds it "
    "again; what was paid for is kept."
)


def point_on(error: BaseException | None, run: RunDir, kept: tuple[str, ...]) -> None:
    """Give an error that ends a command the hint that leads on for this run.

    Args:
        kept: the names of the source and of the live collection.
    """
    if isinstance(error, DamagedStoreError):
        if error.place and error.place not in kept and run.history.last_move != "swap":
            error.hint = BUILD_ANEW
        return
    if not isinstance(error, CollectionNotFoundError | SourceChangedError):
        return
    if not error.hint or isinstance(error, CollectionGoneError):
        error.hint = (
            "A collection of this run was deleted, or its name serves another one now. "
            f"Restore it, or move the run directory {run.path} away and begin again; "
            "texts paid for are kept in the cache."
        )
