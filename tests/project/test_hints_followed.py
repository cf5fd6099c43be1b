"""Every hint that the code can print has a test that does what it says, and goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.following import followers
from tests.support.hint_sites import Code, Hint

UNFOLLOWED = Path(__file__).with_name("hints_unfollowed.txt")
"""Those that no test follows yet. It may only become shorter."""
SEPARATOR = "\t"
REPORTED = ("This is a bug in reembed. Please report it",)
"""How hints begin that nobody can follow and get on: what they ask for is done by those who mend
reembed. A test of each raises an error that no part of reembed expects."""


@pytest.fixture(scope="module")
def hints() -> set[Hint]:
    return Code().hints()


def without_follower(hints: set[Hint]) -> set[Hint]:
    files = Counter(hint.text for hint in hints)
    marks = followers()
    return {
        hint for hint in hints
        if not hint.text.startswith(REPORTED)
        and not any(one.is_of(hint, files[hint.text]) for one in marks)
    }  # fmt: skip


def excused() -> set[Hint]:
    lines = UNFOLLOWED.read_text().splitlines()
    return {
        Hint(text, where) for where, text in (line.split(SEPARATOR, 1) for line in lines if line)
    }


def test_the_hints_are_found(hints: set[Hint]) -> None:
    assert len(hints) > 400
    assert Hint("Begin one with `reembed run`.", "report/results.py") in hints


def test_every_hint_has_a_follower(hints: set[Hint]) -> None:
    alone = without_follower(hints) - excused()
    told = "mark a test that does what it says: @follows_hint (support/following.py)"
    assert not alone, f"{told}: {sorted(alone)}"


def test_none_is_excused_that_has_a_follower(hints: set[Hint]) -> None:
    done = (excused() & hints) - without_follower(hints)
    assert not done, f"take these out of {UNFOLLOWED.name}"


def test_every_mark_is_of_a_hint(hints: set[Hint]) -> None:
    lost = [
        one for one in followers()
        if not any(one.words in h.text and one.where in ("", h.where) for h in hints)
    ]  # fmt: skip
    assert not lost, "no hint has these words"


def test_what_is_only_reported_is_told_of_bugs_alone(hints: set[Hint]) -> None:
    told = {hint.where for hint in hints if hint.text.startswith(REPORTED)}
    assert told == {"cli/entry.py", "commands/watch/findings.py"}
