"""Which collections `source.collections` and `source.except` name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from reembed.errors import PreflightError
from reembed.manifest import Source
from reembed.stores.store import Store

_OURS = re.compile(
    r".+__(?:hold|pointer|(?:restored|shape)-\d{6,}|parked-\d{8}t\d{6}-[0-9a-f]{4,}|(?:moving|intruder)-[0-9a-f]{8}(?:-\d+)?)"
)
"""What runs leave beside live names. A pattern never means it; a whole name may."""
_POINTER = "__pointer"


@dataclass(frozen=True)
class Named:
    """What a manifest names in a store.

    Attributes:
        names: live names, sorted.
        unmatched: what matches nothing.
    """

    names: list[str]
    unmatched: list[str]

    def refusal(self) -> PreflightError | None:
        """Why there is nothing to move, or less than was asked for; None where there is not."""
        if self.unmatched:
            told = ", ".join(map(repr, self.unmatched))
            return PreflightError(
                f"source.collections: no collection matches {told}",
                "`reembed init URL` lists the collections; leave out what is not there.",
            )
        if not self.names:
            return PreflightError(
                "source.collections: source.except leaves nothing to move", "Leave out less."
            )
        return None


def named(store: Store, source: Source, own: Iterable[str] = ()) -> Named:
    """The collections that a manifest names.

    Args:
        own: collections that this group's runs have made.
    """
    there = set(store.catalog.collections())
    plain = {name for name in there if not left_by_run(name)} - set(own)
    plain = _through_pointers(store, there, plain)
    wanted: set[str] = set()
    unmatched = []
    for pattern in source.patterns:
        found = {pattern} if pattern in there | plain else matching(plain, [pattern])
        if not found:
            unmatched.append(pattern)
        wanted |= found
    return Named(sorted(wanted - matching(wanted, source.exceptions)), unmatched)


def looking(store: Store) -> Store:
    """The store for a look at many of its collections, which are as they are now. Nothing may be
    moved by it."""
    if store.listed is None:
        return store
    listed = store.listed()
    pointers = any(name.endswith(_POINTER) for name in listed.collections())
    return replace(store, catalog=listed, cutover=store.cutover if pointers else None)


def left_by_run(name: str) -> bool:
    """Whether this is what a run leaves beside a live name, such as a parked collection."""
    return _OURS.fullmatch(name) is not None


def matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that are one of these, or match one as a shell's patterns do (case matters)."""
    return {
        name
        for name in names
        if any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
    }


def _through_pointers(store: Store, there: set[str], plain: set[str]) -> set[str]:
    """The live names, where some are pointers: the name that an application opens, and not the
    collection that it leads to."""
    if store.cutover is None:
        return plain
    found = set(plain)
    for name in sorted(there):
        live = name.removesuffix(_POINTER)
        followed = store.cutover.follow(live) if live != name else None
        if followed is not None:
            found.discard(followed.name)
            found.add(live)
    return found
