"""Rows that hold what others need, written together with them, so that none is ever missing.

Rows are written in groups, each in one write. Where values that must be unique have moved between
rows of two groups, the first group grows until it holds all of them: by the rows that are in its
way and as many more, so that a long chain of rows takes few writes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice

from reembed.errors import PreflightError, TakenError

Chosen = Callable[[Collection[str]], set[str]]


def write_together(
    write: Callable[[set[str]], None],
    ids: Collection[str],
    waiting: dict[str, None],
    joinable: Chosen,
    movable: Chosen = lambda _: set(),
    displace: Callable[[set[str]], None] = lambda _: None,
) -> tuple[set[str], dict[str, str]]:
    """Write a group of rows, with what has to be written together with it.

    Args:
        write: writes the rows of these ids at once, or none of them with TakenError.
        ids: of the group.
        waiting: ids of rows that have not had their turn, in order; those that are written now are
            taken out.
        joinable: of ids that are waiting, those that may be written now.
        movable: of other ids that are in the way, those that may be displaced.
        displace: makes them go.

    Returns:
        the ids of the rows that were written, and of each row that was left out the one that is in
        its way and stays, with the constraint's name, in words.
    """
    together, stuck = set(ids), dict[str, str]()
    while together:
        try:
            write(together)
            break
        except TakenError as error:
            others = set(error.holders).difference(together)
            joined = joinable(others.intersection(waiting))
            moved = movable(others.difference(joined, stuck))
            blocked = {
                id: f"{other!r} ({error.constraints[id]})"
                for id, holders in error.taken.items()
                for other in holders
                if other not in joined and other not in moved
            }
            stuck |= blocked
            together -= blocked.keys()
            if blocked:  # they keep what they have, so who can move is another question now
                continue
            if moved:
                displace(moved)
            if joined:
                rest = (id for id in waiting if id not in joined)
                joined |= joinable(list(islice(rest, len(together))))
            together |= joined
            for id in joined:
                del waiting[id]
    return together, stuck


def taken_refusal(taken: dict[str, str]) -> PreflightError:
    """What is said of rows that cannot go back, with who holds what each of them needs."""
    id, by = next(iter(taken.items()))
    return PreflightError(
        f"{len(taken):,} rows written since the swap cannot go back, e.g. {id!r}: a value that "
        f"must be unique is held by {by} of the old collection, which cannot give it up",
        "Give one of the two another value, or accept losing these rows with --accept-loss.",
    )
