"""Refusals that a plan tells early and a stage enforces: empty sources, taken names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reembed.errors import PreflightError
from reembed.stores.base import CollectionInfo


def refuse_empty(
    source: CollectionInfo, where: Mapping[str, Any] | str | None, matching: int
) -> None:
    """Raise PreflightError if there is nothing to move."""
    if matching:
        return
    if source.count:
        raise PreflightError(
            f"source.where matches none of the {source.count:,} records of {source.name!r}: "
            f"{where!r}",
            "Check the filter against the records' metadata; nothing was changed.",
        )
    raise PreflightError(
        f"the source {source.name!r} is empty, and an empty source is never migrated",
        "If it should hold records, the application may be writing elsewhere, or the store may "
        "have been re-created: check the URL, the credentials and the backups.",
    )


def name_taken(name: str) -> PreflightError:
    """The refusal of a target that exists and is not this run's."""
    return PreflightError(
        f"the target collection {name!r} exists and was not made by this run",
        "Choose another target.collection, or delete that collection yourself if it is of no use.",
    )
