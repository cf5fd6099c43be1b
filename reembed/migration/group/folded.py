"""What a person reads of a thousand collections: those to look at, a few others, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from reembed.migration.group.results import MemberSwap

ALL = 20
"""So many are shown each, and as many of those that need a look."""
FEW = 5
"""Of more than that, so many are shown of those that need none."""
KINDS = 4
"""Kinds that are counted by name."""
EACH = "each name"
"""Stands for a collection's own name in what is told of several."""

M = TypeVar("M")


@dataclass(frozen=True)
class Folded(Generic[M]):
    """The members that are shown.

    Attributes:
        shown: those that need a look first.
        left: the others.
        rest: what is told of the others, e.g. `and 975 more: 975 verified`; empty without any.
    """

    shown: list[M]
    left: list[M]
    rest: str = ""


def folded(
    members: Sequence[M], notable: Callable[[M], bool], kind: Callable[[M], str]
) -> Folded[M]:
    """All of a few members; of many those that need a look, and some of the others.

    Args:
        notable: whether it needs one.
        kind: what it counts as, in a word or two.
    """
    if len(members) <= ALL:
        return Folded(list(members), [])
    wrong = [one for one in members if notable(one)]
    right = [one for one in members if not notable(one)]
    left = wrong[ALL:] + right[FEW:]
    counts = Counter(kind(one) for one in left).most_common()
    told = [f"{count:,} {name}" for name, count in counts[:KINDS]]
    told += [f"{sum(count for _, count in counts[KINDS:]):,} others"] if counts[KINDS:] else []
    return Folded(wrong[:ALL] + right[:FEW], left, f"and {len(left):,} more: {', '.join(told)}")


def common_messages(members: Sequence[MemberSwap]) -> tuple[list[str], dict[str, list[str]]]:
    """What is told of several members alike, once, with their number where it is not all; and what
    is told of each alone, by its name."""
    told = {one.collection: one.result.messages if one.result else [] for one in members}

    def general(name: str, message: str) -> str:
        return message.replace(repr(name), EACH)

    counts = Counter(
        text for name, each in told.items() for text in {general(name, one) for one in each}
    )
    alike = {text: count for text, count in counts.items() if count > 1}
    own = {
        name: [message for message in each if general(name, message) not in alike]
        for name, each in told.items()
    }
    return [
        text if count == len(members) else f"{text} ({count:,} of {len(members):,} collections)"
        for text, count in alike.items()
    ], own


def is_told(number: int, of: int) -> bool:
    """Whether progress is told after this member: after each of a few, after some twenty of many.

    Args:
        number: from 1.
    """
    return of <= ALL or number in (1, of) or number % -(-of // ALL) == 0
