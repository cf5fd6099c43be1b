"""What is the matter with several members, in one error: every kind of it, and every way on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from reembed.errors import ReembedError

TOLD = 5
"""Collections, and kinds of hints, that a message names."""
_OWN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{8}t\d{6}-[0-9a-f]+|\d[\d,]*")
"""Ids of objects and of runs, and numbers: what is told of each with its own."""


def together(errors: Mapping[str, ReembedError], of: int) -> ReembedError | None:
    """The errors of members as one, of the kind of the first; None without any.

    Args:
        of: number of members.
    """
    if not errors:
        return None
    first = next(iter(errors.values()))
    if of == 1:
        return first
    shown = _of_each_kind([(name, error.message) for name, error in errors.items()])[:TOLD]
    told = "; ".join(f"{name}: {message}" for name, message in shown)
    more = f"; and {len(errors) - TOLD} more" if len(errors) > TOLD else ""
    hint = hints_of([(name, error.hint) for name, error in errors.items()])
    found = first.__class__.__new__(first.__class__)
    ReembedError.__init__(found, f"{len(errors)} of {of} collections: {told}{more}", hint)
    return found


def hints_of(hints: Iterable[tuple[str, str]]) -> str:
    """One hint of those of several members: each kind once, with the members that it concerns.

    Args:
        hints: name of a member and what is told of it; "" is of no member alone.
    """
    kinds: dict[str, dict[str, str]] = {}
    for name, hint in hints:
        if hint:
            kinds.setdefault(_kind(name, hint), {}).setdefault(name, hint)
    every = list(kinds.values())
    if len(every) == 1 and len(set(every[0].values())) == 1:
        return next(iter(every[0].values()))
    lines = [_line(each) for each in every[:TOLD]]
    left = {name for each in every[TOLD:] for name in each}
    return "\n  ".join([*lines, *([f"{len(left)} more have other ways on"] if left else [])])


def some(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    found = list(names)
    more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return ", ".join(found[:TOLD]) + more


def _line(each: Mapping[str, str]) -> str:
    """A hint with the members that it concerns; of those that have names of their own in it, the
    hint of the first."""
    (first, hint), *others = each.items()
    if not first:
        return hint
    if len(set(each.values())) == 1:
        return f"{some(each)}: {hint}"
    return f"{first} (likewise {some(name for name, _ in others)}): {hint}"


def _of_each_kind(told: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same, with the first of each kind before all others."""
    seen = set[str]()
    first, others = list[tuple[str, str]](), list[tuple[str, str]]()
    for name, text in told:
        kind = _kind(name, text)
        (others if kind in seen else first).append((name, text))
        seen.add(kind)
    return [*first, *others]


def _kind(name: str, text: str) -> str:
    """A text without what is the member's own: its name, ids and numbers."""
    for before, after in (("'", "'"), ("'", "__"), ("/", "/")):  # the name, longer ones, its folder
        text = text.replace(f"{before}{name}{after}", "")
    return _OWN.sub("", text)
